"""One machine of the mesh: its entry's name and the files that its agent reads.

`cluster.env`, the mesh configuration, the root certificate and the token equal what `istioctl x workload entry configure
--autoregister` writes (istio/istio: istioctl/pkg/workload/workload.go); tests hold them against it. Whatever this program does
otherwise is in one more file, `istio-vm-mesh.env`, which the unit reads on top, and in the unit itself; docs/machines.md has the reasons.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml

from .. import shell
from ..config.mesh import MeshSettings
from ..config.workload import WorkloadSettings
from ..istio import charts, manifests
from ..names import DISCONNECT_GRACE, ISTIOD, TRUST_DOMAIN, XDS_PORT


class MachineFile(NamedTuple):
    """A file on a machine: an absolute path, its text, its mode (octal text) and whether it belongs to istio-proxy (else to root)."""

    path: str
    text: str
    mode: str
    proxy_owned: bool = False


CLUSTER_ENV = "/var/lib/istio/envoy/cluster.env"
OVERRIDES_ENV = "/var/lib/istio/envoy/istio-vm-mesh.env"
MESH_CONFIG = "/var/lib/istio/config/mesh"  # the package links /etc/istio to /var/lib/istio
ROOT_CERTIFICATE = "/etc/certs/root-cert.pem"
TOKEN = "/var/lib/istio/envoy/istio-token"
UNIT = "/etc/systemd/system/istio.service"
WITHDRAW = "/var/lib/istio/envoy/istio-vm-mesh-step-back.sh"
REDIRECT = "/var/lib/istio/envoy/istio-vm-mesh-capture.sh"


def canonical(labels: Mapping[str, str], group: str) -> tuple[str, str]:
    """Canonical service and revision of a workload, from its labels (istio/istio: pkg/model/labels, CanonicalService)."""
    service = next((labels[key] for key in ("service.istio.io/canonical-name", "app.kubernetes.io/name", "app") if key in labels), group)
    revision = next(
        (labels[key] for key in ("service.istio.io/canonical-revision", "app.kubernetes.io/version", "version") if key in labels), "latest"
    )
    return service, revision


def proxy_config(mesh: MeshSettings, name: str, workload: WorkloadSettings, network: str) -> dict[str, Any]:
    """The machine's ProxyConfig: the mesh's default with the workload's probe and metadata, as istioctl computes it."""
    default = charts.default_proxy_config(mesh)
    service, revision = canonical(workload.labels, name)
    labels = {**workload.labels, "service.istio.io/canonical-name": service, "service.istio.io/canonical-revision": revision}
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
        "ISTIO_META_WORKLOAD_NAME": name,
        "ISTIO_METAJSON_LABELS": _json(labels),
        "ISTIO_META_DNS_CAPTURE": "true",
        "ISTIO_META_AUTO_REGISTER_GROUP": name,
    }
    if workload.ports:
        ports = [{"name": key, "containerPort": workload.ports[key], "protocol": ""} for key in sorted(workload.ports)]
        metadata["ISTIO_META_POD_PORTS"] = json.dumps(ports, separators=(",", ":"))
    return {**default, "proxyMetadata": metadata, "readinessProbe": manifests.probe(workload.probe)}


def _json(value: Mapping[str, str]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def cluster_env(name: str, workload: WorkloadSettings, config: Mapping[str, Any]) -> str:
    """`cluster.env`, for the machine's ProxyConfig."""
    variables = {
        **config["proxyMetadata"],
        "ISTIO_INBOUND_PORTS": ",".join(str(port) for port in sorted(workload.ports.values())) or "*",
        "ISTIO_NAMESPACE": workload.namespace,
        "ISTIO_SERVICE": f"{name}.{workload.namespace}",
        "ISTIO_SERVICE_CIDR": "*",
        "ISTIO_LOCAL_EXCLUDE_PORTS": _excluded_ports(config.get("statusPort", 0)),
        "SERVICE_ACCOUNT": workload.service_account_name,
    }
    return "".join(sorted(f"{key}={_quoted(value)}\n" for key, value in variables.items()))


def _excluded_ports(status_port: int) -> str:
    ports = ["22", "15090", "15021"]
    if status_port not in (15090, 15021):
        ports.append(str(status_port or 15020))
    return ",".join(ports)


def _quoted(value: str) -> str:
    """A value as istioctl quotes it: always, so that shells and systemd read the same."""
    return "'" + value.replace("'", "'\"'\"'") + "'"


def overrides_env(machine: str, address: str, gateway: str, router_of: str | None = None) -> str:
    """`istio-vm-mesh.env`: all that differs from Istio's documented files. docs/machines.md gives the reasons, key by key.

    `router_of` is the network whose gateway the machine is, if it is one: it must send nothing on to other networks' gateways.
    """
    variables = {
        "CLOUD_PLATFORM": "none",
        "INSTANCE_IP": address,
        "POD_NAME": machine,
        "PROV_CERT": "/etc/certs",
        "OUTPUT_CERTS": "/etc/certs",
        "ISTIOD_SAN": ISTIOD,
        "PROXY_CONFIG": json.dumps({"discoveryAddress": f"{gateway}:{XDS_PORT}"}),
        "ISTIO_INBOUND_PORTS": "*",
    }
    if router_of:
        variables["ISTIO_META_REQUESTED_NETWORK_VIEW"] = router_of
    return "".join(f"{key}={_quoted(value)}\n" for key, value in sorted(variables.items()))


def mesh_config(config: Mapping[str, Any]) -> str:
    """`mesh.yaml`, which the agent reads from /etc/istio/config/mesh."""
    return yaml.safe_dump({"defaultConfig": dict(config)}, sort_keys=True, allow_unicode=True, width=10**6)


def agent_unit(role: str) -> str:
    """The systemd unit that runs the agent, in place of the package's of the same name. A router captures no traffic.

    The agent keeps its token in a directory that a reboot empties; the link restores it. Stopping the unit takes the redirection
    rules away, so that the machine stays reachable and resolves names without the agent; names are redirected only when the agent can
    answer them. Before it stops, a sidecar waits until nobody calls it any more; nobody's endpoints change with a router's entry. Output
    goes through a pipe: the journal's own end is a socket, which Envoy cannot open as /dev/stdout for access logs.
    """
    names = step_back = step_again = ""
    if role == "sidecar":
        names = f"ExecStartPost=+/bin/bash {REDIRECT} names\n"
        step_back = f"ExecStop=-+/bin/bash {WITHDRAW}\n"
        step_again = f"ExecStopPost=-+/bin/bash {WITHDRAW} again\n"
    return f"""\
# Written by istio-vm-mesh; the next update overwrites changes made here.
[Unit]
Description=Istio {role}
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
User=istio-proxy
WorkingDirectory=/
EnvironmentFile={CLUSTER_ENV}
EnvironmentFile={OVERRIDES_ENV}
ExecStartPre=+/usr/bin/install -d -o istio-proxy -m 0755 /run/secrets /run/secrets/tokens
ExecStartPre=+/usr/bin/ln -sfn {TOKEN} /run/secrets/tokens/istio-token
ExecStartPre=+/bin/bash {REDIRECT} {"traffic" if role == "sidecar" else "nothing"}
ExecStart=/bin/bash -c 'exec /usr/local/bin/pilot-agent proxy {role} > >(exec cat) 2>&1'
{names}{step_back}{step_again}ExecStopPost=+/bin/bash {REDIRECT} nothing
Restart=always
RestartSec=2
KillMode=mixed
TimeoutStopSec=30

[Install]
WantedBy=multi-user.target
"""


def withdraw_script() -> str:
    """The script by which the unit takes a machine out of everybody's endpoints before it stops the agent."""
    return shell.local_script("machines/step-back", {"GRACE": DISCONNECT_GRACE})


def machine_files(
    mesh: MeshSettings,
    name: str,
    workload: WorkloadSettings,
    *,
    machine: str,
    network: str,
    address: str,
    gateway: str,
    root_certificate: str,
) -> list[MachineFile]:
    """Every file of a machine but the token, in the order in which they are written.

    `name` is the workload's, `machine` the machine's; `address` is what pods reach it by, `gateway` an address or a DNS name.
    """
    config = proxy_config(mesh, name, workload, network)
    return [
        MachineFile(CLUSTER_ENV, cluster_env(name, workload, config), "0644"),
        MachineFile(OVERRIDES_ENV, overrides_env(machine, address, gateway, network if workload.role == "router" else None), "0644"),
        MachineFile(MESH_CONFIG, mesh_config(config), "0644"),
        MachineFile(ROOT_CERTIFICATE, root_certificate, "0644", proxy_owned=True),
        MachineFile(REDIRECT, shell.read_script("machines/capture"), "0644"),
        MachineFile(WITHDRAW, withdraw_script(), "0644"),
        MachineFile(UNIT, agent_unit(workload.role), "0644"),
    ]
