"""Installs the Gateway API's CRDs where the cluster has none; those of others are left alone.

istiod reads them when it starts, so an istiod that runs is restarted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ...local import scripting
from ...local.cluster_access import ClusterAccess, Kubectl, kubectl
from ...names import ISTIO_NAMESPACE, ISTIOD_DEPLOYMENT

_KINDS = ("gatewayclasses", "gateways", "grpcroutes", "httproutes", "referencegrants", "tlsroutes")
_CRDS = [f"crd/{kind}.gateway.networking.k8s.io" for kind in _KINDS]


@dataclass(frozen=True)
class Payload:
    """A source of CRDs.

    access: the cluster.
    source: a file, a directory or a URL.
    """

    access: ClusterAccess = field(metadata={"record": ClusterAccess})
    source: str


def run(payload: Payload) -> None:
    """Install the CRDs. Raises scripting.Failed with kubectl's last words."""
    with kubectl(payload.access) as program:
        if program.call("get", *_CRDS).status == 0:
            return
        _apply(program, payload.source)
        established = ["wait", "--for=condition=Established", "--timeout=60s", *_CRDS]
        _check(program.call(*established), "the Gateway API's CRDs are not served")
        istiod = [f"deployment/{ISTIOD_DEPLOYMENT}", "--namespace", ISTIO_NAMESPACE]
        if program.call("get", *istiod).status == 0:
            restart = program.call("rollout", "restart", *istiod)
            _check(restart, "istiod, which reads the Gateway API's CRDs when it starts, stays")
            status = program.call("rollout", "status", *istiod, "--timeout=180s")
            _check(status, "istiod did not restart with the Gateway API's CRDs")


def _apply(program: Kubectl, source: str) -> None:
    words, stdin = ["apply", "--server-side", "--filename"], b""
    directory = Path(source)
    if directory.is_dir():
        files = sorted(directory.glob("*.yaml"))
        stdin = b"".join(b"---\n" + file.read_bytes() + b"\n" for file in files)
        source = "-"
    done = program.call(*words, source, stdin=stdin)
    _check(done, "the Gateway API's CRDs cannot be installed: check mesh.gatewayApi")


def _check(done: scripting.Done, problem: str) -> None:
    if done.status:
        raise scripting.Failed(f"{problem}: {scripting.last_words(done.error)}")
