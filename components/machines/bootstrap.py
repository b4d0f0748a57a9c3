"""The join of a machine: its inputs, the script that runs on it, and what it is compared by."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..config.mesh import MeshSettings
from ..config.workload import WorkloadSettings
from ..istio.manifests import workload_group
from ..names import DISCONNECT_GRACE
from ..shell import remote_script
from .files import (
    CLUSTER_ENV,
    MESH_CONFIG,
    OVERRIDES_ENV,
    ROOT_CERTIFICATE,
    MachineFile,
    agent_files,
    archive,
    cluster_env,
    mesh_config,
    overrides_env,
    proxy_config,
)


@dataclass(frozen=True, kw_only=True)
class JoinInputs:
    """All that a machine's join depends on.

    machine: the machine's name.
    network: the machine's network.
    address: the address by which pods reach the machine.
    gateway: the east-west gateway's address or DNS name.
    root_certificate: the mesh's trust anchor, in PEM.
    workload: the workload's settings.
    mesh: the mesh's settings.
    token: the token of the workload's service account, a secret; "" where the machine mints it.
    """

    machine: str
    network: str
    address: str
    gateway: str
    root_certificate: str
    workload: WorkloadSettings
    mesh: MeshSettings
    token: str = field(default="", repr=False)

    @property
    def package_url(self) -> str:
        """Where the machine gets Istio's package; `{package}` is open until the machine joins."""
        return self.mesh.package.url.replace("{version}", self.mesh.version)


def registration(workload: WorkloadSettings, network: str) -> str:
    """Return what istiod copies into a machine's entry when it registers, and never again.

    A change needs a new registration.
    workload: the workload's settings.
    network: the machine's network.
    """
    spec = workload_group(workload, network)["spec"]
    return json.dumps({"group": workload.name, "namespace": workload.namespace, **spec}, sort_keys=True)


def machine_files(inputs: JoinInputs) -> list[MachineFile]:
    """Return every file of a machine but its token."""
    workload, network = inputs.workload, inputs.network
    config = proxy_config(inputs.mesh, workload, network)
    overrides = overrides_env(inputs.machine, inputs.address, inputs.gateway, workload, network)
    return [
        MachineFile(path=CLUSTER_ENV, text=cluster_env(workload, config)),
        MachineFile(path=OVERRIDES_ENV, text=overrides),
        MachineFile(path=MESH_CONFIG, text=mesh_config(config)),
        MachineFile(path=ROOT_CERTIFICATE, text=inputs.root_certificate, owner="istio-proxy"),
        *agent_files(workload.role),
    ]


def join_variables(inputs: JoinInputs, more_files: Sequence[MachineFile] = ()) -> dict[str, str]:
    """Return the variables of `join.sh` but MACHINE and TOKEN.

    more_files: files that the machine gets beside its own.

    DIGEST is what a machine is compared by: all that its agent must be restarted for. The token is
    not in it, since the agent reads a new token when it needs one.
    """
    files = archive([*machine_files(inputs), *more_files])
    described = registration(inputs.workload, inputs.network)
    package = [inputs.package_url, inputs.mesh.package.sha256 or ""]
    compared = json.dumps([hashlib.sha256(files).hexdigest(), *package, described])
    return {
        "GATEWAY": inputs.gateway,
        "FILES": base64.b64encode(files).decode(),
        "PACKAGE_URL": package[0],
        "PACKAGE_SHA256": package[1],
        "GRACE_S": str(DISCONNECT_GRACE),
        "REGISTRATION": _short_digest(described),
        "DIGEST": _short_digest(compared),
    }


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def join_digest(inputs: JoinInputs) -> str:
    """Return the last line of a successful join's output; an output that ends otherwise failed."""
    return join_variables(inputs)["DIGEST"]


def join_script(inputs: JoinInputs) -> str:
    """Return the script that joins a machine, as root on standard input; it holds the token.

    The decisions are in docs/machines.md.
    """
    variables = {"MACHINE": inputs.machine, "TOKEN": inputs.token, **join_variables(inputs)}
    return remote_script("machines/join", variables)


def leave_script(machine: str) -> str:
    """Return the script by which a machine leaves the mesh, as root on standard input.

    machine: the machine's name.
    """
    return remote_script("machines/leave", {"MACHINE": machine})
