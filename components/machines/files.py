"""The files of a machine, and the tar in which they travel.

`cluster.env`, the mesh configuration and the root certificate equal what `istioctl x workload
entry configure --autoregister` writes (istio/istio: istioctl/pkg/workload/workload.go); tests
compare them. All other configuration is in `overrides.env`, which the unit reads after
`cluster.env`, and in the units themselves. docs/machines.md has the reasons.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from ..config.mesh import MeshSettings
from ..config.workload import WorkloadSettings
from ..istio.charts import default_proxy_config
from ..istio.manifests import probe
from ..manifest import Manifest
from ..names import AGENT_PORT, ISTIOD, METRICS_PORT, STATUS_PORT, TRUST_DOMAIN, XDS_PORT
from ..shell import read_script

CLUSTER_ENV = "/var/lib/istio/envoy/cluster.env"
OVERRIDES_ENV = "/var/lib/istio/envoy/overrides.env"
MESH_CONFIG = "/var/lib/istio/config/mesh"  # the package links /etc/istio to /var/lib/istio
ROOT_CERTIFICATE = "/etc/certs/root-cert.pem"
REDIRECT = "/var/lib/istio/envoy/redirect.sh"
WITHDRAW = "/var/lib/istio/envoy/withdraw.sh"
UNITS = "/etc/systemd/system"

_UNITS = Path(__file__).with_name("units")


@dataclass(frozen=True, kw_only=True)
class MachineFile:
    """A file on a machine.

    path: absolute.
    text: the whole content.
    mode: permission bits.
    owner: the user and the group.
    """

    path: str
    text: str
    mode: int = 0o644
    owner: Literal["root", "istio-proxy"] = "root"


def canonical(labels: Mapping[str, str], workload_group: str) -> tuple[str, str]:
    """Return the canonical service and revision of a workload.

    labels: the workload's labels.
    workload_group: the name of the WorkloadGroup, the service where no label names one.

    Source: istio/istio, pkg/model/labels, CanonicalService.
    """
    services = ("service.istio.io/canonical-name", "app.kubernetes.io/name", "app")
    revisions = ("service.istio.io/canonical-revision", "app.kubernetes.io/version", "version")
    return (
        next((labels[key] for key in services if key in labels), workload_group),
        next((labels[key] for key in revisions if key in labels), "latest"),
    )


def proxy_config(
    mesh: MeshSettings,
    workload: WorkloadSettings,
    network: str,
) -> Manifest:
    """Return a machine's ProxyConfig: the mesh's default with the workload's probe and metadata.

    mesh: the mesh's settings.
    workload: the workload's settings.
    network: the machine's network.

    Source: istioctl, as above.
    """
    default = default_proxy_config(mesh)
    service, revision = canonical(workload.labels, workload.name)
    labels = {
        **workload.labels,
        "service.istio.io/canonical-name": service,
        "service.istio.io/canonical-revision": revision,
    }
    labels = dict(sorted(labels.items()))
    metadata = {
        **{key: str(value) for key, value in default.get("proxyMetadata", {}).items()},
        "CANONICAL_SERVICE": service,
        "CANONICAL_REVISION": revision,
        "POD_NAMESPACE": workload.namespace,
        "SERVICE_ACCOUNT": workload.service_account_name,
        "TRUST_DOMAIN": TRUST_DOMAIN,
        "ISTIO_META_CLUSTER_ID": mesh.cluster_id,
        "ISTIO_META_MESH_ID": mesh.id,
        "ISTIO_META_NETWORK": network,
        "ISTIO_META_WORKLOAD_NAME": workload.name,
        "ISTIO_METAJSON_LABELS": _compact_json(labels),
        "ISTIO_META_DNS_CAPTURE": "true",
        "ISTIO_META_AUTO_REGISTER_GROUP": workload.name,
    }
    if workload.ports:
        ports = sorted(workload.ports.items())
        metadata["ISTIO_META_POD_PORTS"] = _compact_json([_container_port(*port) for port in ports])
    return {**default, "proxyMetadata": metadata, "readinessProbe": probe(workload.probe)}


def _container_port(name: str, number: int) -> dict[str, str | int]:
    return {"name": name, "containerPort": number, "protocol": ""}


def _compact_json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def cluster_env(workload: WorkloadSettings, config: Manifest) -> str:
    """Return the text of `cluster.env`.

    workload: the workload's settings.
    config: the machine's ProxyConfig.
    """
    ports = ",".join(str(port) for port in sorted(workload.ports.values()))
    return _environment(
        {
            **config["proxyMetadata"],
            "ISTIO_INBOUND_PORTS": ports or "*",
            "ISTIO_NAMESPACE": workload.namespace,
            "ISTIO_SERVICE": f"{workload.name}.{workload.namespace}",
            "ISTIO_SERVICE_CIDR": "*",
            "ISTIO_LOCAL_EXCLUDE_PORTS": _excluded_ports(config.get("statusPort", 0)),
            "SERVICE_ACCOUNT": workload.service_account_name,
        }
    )


def _excluded_ports(status_port: int) -> str:
    ports = ["22", str(METRICS_PORT), str(STATUS_PORT)]
    if status_port not in (METRICS_PORT, STATUS_PORT):
        ports.append(str(status_port or AGENT_PORT))
    return ",".join(ports)


def overrides_env(
    machine: str,
    address: str,
    gateway: str,
    workload: WorkloadSettings,
    network: str,
) -> str:
    """Return the text of `overrides.env`; docs/machines.md has the reason of each key.

    machine: the machine's name.
    address: the address by which pods reach the machine.
    gateway: the east-west gateway's address or DNS name.
    workload: the workload's settings; a network's gateway sends nothing to other gateways.
    network: the machine's network.
    """
    variables = {
        "CLOUD_PLATFORM": "none",
        "INSTANCE_IP": address,
        "POD_NAME": machine,
        "PROV_CERT": "/etc/certs",
        "OUTPUT_CERTS": "/etc/certs",
        "ISTIOD_SAN": ISTIOD,
        "PROXY_CONFIG": json.dumps({"discoveryAddress": f"{gateway}:{XDS_PORT}"}),
        "PROXY_ROLE": workload.role,
        "ISTIO_INBOUND_PORTS": "*",
    }
    if workload.role == "router":
        variables["ISTIO_META_REQUESTED_NETWORK_VIEW"] = network
    return _environment(variables)


def _environment(variables: Mapping[str, str]) -> str:
    """Quote as istioctl does: always, so that shells and systemd read the same."""
    escaped = {key: value.replace("'", "'\"'\"'") for key, value in variables.items()}
    return "".join(sorted(f"{key}='{value}'\n" for key, value in escaped.items()))


def mesh_config(config: Manifest) -> str:
    """Return the text of `mesh.yaml`, which the agent reads at /etc/istio/config/mesh.

    config: the machine's ProxyConfig.
    """
    document = {"defaultConfig": dict(config)}
    return yaml.safe_dump(document, sort_keys=True, allow_unicode=True, width=10**6)


def agent_files(role: str) -> list[MachineFile]:
    """Return the agent's unit and the scripts that it runs.

    role: "sidecar" or "router"; a router redirects no traffic and does not withdraw, because a
    router's endpoints are not those of its entry.
    """
    drop_ins = ["istio.service.d/sidecar.conf"] if role == "sidecar" else []
    return [
        MachineFile(path=REDIRECT, text=read_script("machines/redirect")),
        MachineFile(path=WITHDRAW, text=read_script("machines/withdraw")),
        *(unit(name) for name in ["istio.service", *drop_ins]),
    ]


def unit(name: str) -> MachineFile:
    """Return one of this package's systemd files.

    name: its path below `units/`, the same as below /etc/systemd/system.
    """
    return MachineFile(path=f"{UNITS}/{name}", text=(_UNITS / name).read_text())


def archive(files: Sequence[MachineFile]) -> bytes:
    """Return the files as a tar.

    The bytes depend on the files alone: no times, no order, no compression, which differs between
    versions of zlib. Owners are names, which the machine resolves.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for file in sorted(files, key=lambda file: file.path):
            content = file.text.encode()
            entry = tarfile.TarInfo(file.path.removeprefix("/"))
            entry.size, entry.mode = len(content), file.mode
            entry.uname = entry.gname = file.owner
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
