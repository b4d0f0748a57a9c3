"""A machine's bundle from the settings of its workload and of the mesh."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ..config.mesh import MeshSettings, Package, is_sha256
from ..config.problems import Problem, SettingsError
from ..config.workload import WorkloadSettings
from ..istio.manifests import workload_group
from .bundle import Bundle, MachineFile, Owner
from .files import (
    CLUSTER_ENV,
    MESH_CONFIG,
    OVERRIDES_ENV,
    ROOT_CERTIFICATE,
    cluster_env,
    mesh_config,
    overrides_env,
    proxy_config,
)


@dataclass(frozen=True, kw_only=True)
class JoinInputs:
    """All that a machine's bundle is made from.

    owner: who joins the machine.
    network: the machine's network.
    address: the address by which pods reach the machine.
    gateway: the east-west gateway's address or DNS name.
    root_certificate: the mesh's trust anchor, in PEM.
    workload: the workload's settings.
    mesh: the mesh's settings.
    """

    owner: Owner
    network: str
    address: str
    gateway: str
    root_certificate: str
    workload: WorkloadSettings
    mesh: MeshSettings


def registered(workload: WorkloadSettings, network: str) -> str:
    """Return what istiod copies into a machine's entry when it registers, and never again.

    A change needs a new registration.
    workload: the workload's settings.
    network: the machine's network.
    """
    spec = workload_group(workload, network)["spec"]
    return json.dumps({"group": workload.name, "namespace": workload.namespace, **spec}, sort_keys=True)


def package_digest(package: Package) -> str:
    """Return the SHA-256 that the settings give for a package; "" where they give none.

    Raises SettingsError for a file that has none.
    """
    if package.sha256 is None or is_sha256(package.sha256):
        return package.sha256 or ""
    try:
        text = Path(package.sha256).expanduser().read_text()[:64]
    except OSError as error:
        text = f"({error.strerror})"
    if not is_sha256(text):
        problem = f"the file {package.sha256} does not begin with a SHA-256 {text}"
        raise SettingsError([Problem("mesh.package.sha256", problem)])
    return text


def bundle(inputs: JoinInputs) -> Bundle:
    """Return what a machine is joined with."""
    workload, network, package = inputs.workload, inputs.network, inputs.mesh.package
    config = proxy_config(inputs.mesh, workload, network)
    overrides = overrides_env(inputs.owner, inputs.address, inputs.gateway, workload, network)
    files = (
        MachineFile(CLUSTER_ENV, cluster_env(workload, config)),
        MachineFile(OVERRIDES_ENV, overrides),
        MachineFile(MESH_CONFIG, mesh_config(config)),
        MachineFile(ROOT_CERTIFICATE, inputs.root_certificate, owner="istio-proxy"),
    )
    return Bundle(
        owner=inputs.owner,
        role=workload.role,
        files=files,
        gateway=inputs.gateway,
        package_url=package.url.replace("{version}", inputs.mesh.version),
        package_sha256=package_digest(package),
        registered=registered(workload, network),
        fail_closed=workload.fail_closed,
    )
