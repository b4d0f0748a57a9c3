"""Installs the Gateway API's CRDs where the cluster has none, and upgrades those that it installed.

Those of others are left as they are: the program needs only the kind Gateway of them. An istiod
that runs is not restarted. It watches for the CRDs and begins to use them when they appear
(istio/istio: pkg/kube/kclient, `NewDelayedInformer`, which reads Gateways in
pilot/pkg/serviceregistry/kube/controller/network.go and pilot/pkg/config/kube/gateway).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...local import scripting
from ...local.cluster_access import FROM_STDIN, ClusterAccess, Kubectl, kubectl
from ...manifest import Manifest
from ...names import MANAGED_BY_LABEL, PROJECT
from ...ownership import labels_of, served_kinds
from ...versions import numbers

GROUP, VERSION = "gateway.networking.k8s.io", "v1"
_CRD = "CustomResourceDefinition"
_BUNDLE = f"{GROUP}/bundle-version"
"""The annotation in which each CRD names its release."""


@dataclass(frozen=True)
class Payload:
    """A source of CRDs.

    access: the cluster.
    source: a file, a directory or a URL.
    """

    access: ClusterAccess = field(metadata={"record": ClusterAccess})
    source: str


def run(payload: Payload) -> None:
    """Install or upgrade the CRDs, or leave them.

    Raises scripting.Failed where kubectl does, and where others' CRDs have no usable Gateway.
    """
    with kubectl(payload.access) as program:
        kinds = served_kinds(program, f"--api-group={GROUP}", groups={GROUP})
        installed = _installed(program, kinds)
        if not all(labels_of(crd).get(MANAGED_BY_LABEL) == PROJECT for crd in installed):
            _check_usable(kinds)
            return
        crds = _labelled(program, payload.source)
        if _is_newer(crds, installed):
            _apply(program, crds)


def _installed(program: Kubectl, kinds: Mapping[tuple[str, str], str]) -> list[Manifest]:
    """Return the CRDs of the Gateway API that the cluster has."""
    if not kinds:
        return []
    names = [f"{word.partition('.')[0]}.{GROUP}" for word in kinds.values()]
    words = ["--request-timeout=20s", "get", "crd", *sorted(names), "--ignore-not-found"]
    purpose = "the Gateway API's CRDs cannot be read"
    done = program.check(*words, "--output", "json", purpose=purpose, timeout_s=60)
    return list(_documents(done.text))


def _check_usable(kinds: Mapping[tuple[str, str], str]) -> None:
    word = kinds.get((GROUP, "Gateway"), "")
    if word != f"gateways.{VERSION}.{GROUP}":
        state = "lack the kind Gateway" if not word else f"serve the kind Gateway without {VERSION}"
        raise scripting.Failed(
            f"the Gateway API's CRDs in the cluster {state}, and this program did not install them. Upgrade them to release v1.0.0 or later"
        )


def _labelled(program: Kubectl, source: str) -> list[Manifest]:
    """Return the CRDs of a source, each with the label of this program."""
    words, stdin = ["label", "--local", "--filename"], b""
    directory = Path(source)
    if directory.is_dir():
        files = sorted(directory.glob("*.yaml"))
        stdin = b"".join(b"---\n" + file.read_bytes() + b"\n" for file in files)
        source = "-"
    done = program.check(
        *(*words, source, "--output", "json", f"{MANAGED_BY_LABEL}={PROJECT}"),
        purpose="the Gateway API's CRDs cannot be read: check mesh.gatewayApi",
        stdin=stdin,
        timeout_s=120,
    )
    return list(_documents(done.text))


def _documents(text: str) -> Sequence[Manifest]:
    """Return the objects of JSON texts that follow one another; of lists, their items."""
    decoder = json.JSONDecoder()
    documents: list[Manifest] = []
    rest = text.lstrip()
    while rest:
        document, end = decoder.raw_decode(rest)
        documents += document["items"] if document["kind"] == "List" else [document]
        rest = rest[end:].lstrip()
    return documents


def _is_newer(crds: Sequence[Manifest], installed: Sequence[Manifest]) -> bool:
    """Return whether a CRD is missing (an update may have been killed), or of an earlier release."""
    here = {crd["metadata"]["name"]: _release(crd) for crd in installed}
    return any(_release(crd) > here.get(crd["metadata"]["name"], ()) for crd in crds if crd["kind"] == _CRD)


def _release(crd: Manifest) -> tuple[int, ...]:
    return numbers((crd["metadata"].get("annotations") or {}).get(_BUNDLE, ""))


def _apply(program: Kubectl, crds: Sequence[Manifest]) -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(crds)})
    program.check(
        *("apply", "--server-side", *FROM_STDIN),
        purpose="the Gateway API's CRDs cannot be installed",
        stdin=text.encode(),
        timeout_s=300,
    )
    names = [f"crd/{crd['metadata']['name']}" for crd in crds if crd["kind"] == _CRD]
    program.check(
        *("wait", "--for=condition=Established", "--timeout=60s", *names),
        purpose="the Gateway API's CRDs are not served",
        timeout_s=90,
    )
