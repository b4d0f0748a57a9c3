"""A machine's bundle from the settings of its workload and of the mesh."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from pathlib import Path

from ..config.capture import Capture, Firewall
from ..config.mesh import MeshSettings, Package, is_sha256
from ..config.problems import Problem, SettingsError
from ..config.workload import WorkloadSettings
from ..istio.manifests import probe, workload_group
from ..manifest import Manifest
from ..mesh_facts import MeshFacts
from ..names import XDS_PORT
from ..versions import without_variant
from .bundle import Bundle, Exclusions, Owner, with_root_certificate
from .files import configuration_files
from .proxy_metadata import POD_PORTS, canonical, compact_json, pod_ports, with_canonical


@dataclass(frozen=True, kw_only=True)
class JoinInputs:
    """All that a machine's bundle is made from.

    owner: who joins the machine.
    network: the machine's network, as the mesh calls it.
    address: the address by which pods reach the machine.
    gateway: the east-west gateway's address or DNS name.
    root_certificate: the mesh's trust anchor, in PEM.
    workload: the workload's settings.
    mesh: the mesh's settings.
    facts: what the mesh is.
    gateway_port: the gateway's port for machines.
    locality: where the machine is, as `region/zone`; "" where none is stated.
    capture: what the machine has bypass its proxy, besides what its workload has.
    firewall: the machine's setting; None: its workload's.
    """

    owner: Owner
    network: str
    address: str
    gateway: str
    root_certificate: str
    workload: WorkloadSettings
    mesh: MeshSettings
    facts: MeshFacts
    gateway_port: int = XDS_PORT
    locality: str = ""
    capture: Capture = field(default_factory=Capture)
    firewall: Firewall | None = None


def proxy_config(
    facts: MeshFacts,
    workload: WorkloadSettings,
    network: str,
) -> Manifest:
    """Return a machine's ProxyConfig: the mesh's default with the workload's probe and metadata.

    facts: what the mesh is.
    workload: the workload's settings.
    network: the machine's network, as the mesh calls it.

    Source: istio/istio, istioctl/pkg/workload/workload.go.
    """
    default = facts.default_config
    service, revision = canonical(workload.labels, workload.name)
    metadata = {
        **{key: str(value) for key, value in default.get("proxyMetadata", {}).items()},
        "CANONICAL_SERVICE": service,
        "CANONICAL_REVISION": revision,
        "POD_NAMESPACE": workload.namespace,
        "SERVICE_ACCOUNT": workload.service_account_name,
        "TRUST_DOMAIN": facts.trust_domain,
        "ISTIO_META_CLUSTER_ID": facts.cluster_id,
        "ISTIO_META_MESH_ID": facts.mesh_id,
        "ISTIO_META_NETWORK": network,
        "ISTIO_META_WORKLOAD_NAME": workload.name,
        "ISTIO_METAJSON_LABELS": compact_json(with_canonical(workload.labels, workload.name)),
        "ISTIO_META_DNS_CAPTURE": "true",
        "ISTIO_META_AUTO_REGISTER_GROUP": workload.name,
    }
    if workload.ports:
        metadata[POD_PORTS] = pod_ports(workload.ports)
    return {**default, "proxyMetadata": metadata, "readinessProbe": probe(workload.probe)}


def registered(workload: WorkloadSettings, network: str) -> str:
    """Return what istiod copies into a machine's entry when it registers, and never again.

    A change needs a new registration.
    workload: the workload's settings.
    network: the machine's network.
    """
    spec = workload_group(workload, network)["spec"]
    return json.dumps({"group": workload.name, "namespace": workload.namespace, **spec}, sort_keys=True)


def package_url(mesh: MeshSettings) -> str:
    """Return where machines get the package; `{package}` stays until one joins."""
    return mesh.package.url.replace("{version}", without_variant(mesh.version))


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


def exclusions(*settings: Capture) -> Exclusions | None:
    """Return what several settings exclude, each once and sorted; None where they exclude nothing."""
    if not any(each != Capture() for each in settings):
        return None
    cidrs = {str(ip_network(cidr)) for each in settings for cidr in each.exclude_outbound_cidrs}
    return Exclusions(
        inbound_ports=tuple(sorted({port for each in settings for port in each.exclude_inbound_ports})),
        outbound_ports=tuple(sorted({port for each in settings for port in each.exclude_outbound_ports})),
        outbound_cidrs=tuple(sorted(cidrs)),
        interfaces=tuple(sorted({name for each in settings for name in each.exclude_interfaces})),
    )


def bundle(inputs: JoinInputs) -> Bundle:
    """Return what a machine is joined with."""
    workload, package = inputs.workload, inputs.mesh.package
    settings = Bundle(
        owner=inputs.owner,
        proxy=proxy_config(inputs.facts, workload, inputs.network),
        address=inputs.address,
        gateway=inputs.gateway,
        package_url=package_url(inputs.mesh),
        registered=registered(workload, inputs.network),
        role=workload.role,
        package_sha256=package_digest(package),
        fail_closed=workload.fail_closed,
        exclusions=exclusions(workload.capture, inputs.capture),
        firewall=inputs.firewall or workload.firewall,
        grace_s=inputs.facts.grace_s,
        gateway_port=inputs.gateway_port,
        locality=inputs.locality,
        confirm_s=workload.confirm_within,
    )
    files = configuration_files(settings)
    return with_root_certificate(replace(settings, files=files), inputs.root_certificate)
