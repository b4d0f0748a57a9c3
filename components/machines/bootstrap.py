"""The join of one machine: script, digest, and registration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from .. import names, shell
from ..config.mesh import Package
from ..config.workload import WorkloadSettings
from ..istio import manifests
from .files import TOKEN, MachineFile


def registration(name: str, workload: WorkloadSettings, network: str) -> str:
    """All that istiod copies into the entry when the machine registers and never again: a change needs a new registration."""
    spec = manifests.workload_group(name, workload, network)["spec"]
    return json.dumps({"group": name, "namespace": workload.namespace, **spec}, sort_keys=True)


def bootstrap_digest(files: Sequence[MachineFile], *more: str) -> str:
    """What a machine is compared by: a digest of all that its agent must be restarted for."""
    return hashlib.sha256(json.dumps([[*file] for file in files] + list(more)).encode()).hexdigest()[:16]


def join_script(
    machine: str, files: Sequence[MachineFile], *, token: str | None, gateway: str, package: Package, version: str, registration: str
) -> str:
    """The join of one machine (decisions in docs/machines.md). Holds the token: a secret as a whole.

    Without a token this is for a machine that mints its own and fills in what only it knows: `boot.sh` comes before, with `filled` and `token`.
    """
    url = package.url.replace("{version}", version)
    owners = {True: "istio-proxy:istio-proxy", False: "root:root"}
    text = '"$(filled {})"' if token is None else "{}"
    writes = "".join(
        f"  put {file.path} {file.mode} {owners[file.proxy_owned]} {text.format(shell.b64encode(file.text))}\n" for file in files
    )
    functions = f"files() {{\n{writes}  chown istio-proxy:istio-proxy /etc/certs /var/lib/istio/envoy /var/lib/istio/config /var/lib/istio/proxy\n}}\n"
    if token is not None:
        functions += f"token() {{\n  put {TOKEN} 0600 {owners[True]} {shell.b64encode(token)}\n}}\n"
    variables: dict[str, str | int] = {
        "MACHINE": machine,
        "GATEWAY": gateway,
        "TOKEN": TOKEN,
        "PACKAGE_URL": url,
        "PACKAGE_SHA256": package.sha256 or "",
        "GRACE": names.DISCONNECT_GRACE,
        "DIGEST": bootstrap_digest(files, url, package.sha256 or "", registration),
        "REGISTRATION": hashlib.sha256(registration.encode()).hexdigest()[:16],
    }
    return shell.assignments(variables) + functions + shell.read_script("machines/join")
