"""One machine of the mesh: its entry's name and the files that its agent reads.

`cluster.env`, the mesh configuration, the root certificate and the token equal what `istioctl x workload entry configure
--autoregister` writes (istio/istio: istioctl/pkg/workload/workload.go); tests hold them against it. Whatever this program does
otherwise is in one more file, `istio-vm-mesh.env`, which the unit reads on top, and in the unit itself; docs/machines.md has the reasons.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from components.plan import mesh as mesh_plan
from components.plan import script
from components.plan import workload as workload_plan
from components.settings import Mesh, Package, Workload


class File(NamedTuple):
    """A file on a machine: an absolute path, its text, its mode (octal text) and whether it belongs to istio-proxy (else to root)."""

    path: str
    text: str
    mode: str
    proxy_owned: bool = False


CLUSTER_ENV = "/var/lib/istio/envoy/cluster.env"
OWN_ENV = "/var/lib/istio/envoy/istio-vm-mesh.env"
MESH_CONFIG = "/var/lib/istio/config/mesh"  # the package links /etc/istio to /var/lib/istio
ROOT_CERTIFICATE = "/etc/certs/root-cert.pem"
TOKEN = "/var/lib/istio/envoy/istio-token"
UNIT = "/etc/systemd/system/istio.service"
STEP_BACK = "/var/lib/istio/envoy/istio-vm-mesh-step-back.sh"
CAPTURE = "/var/lib/istio/envoy/istio-vm-mesh-capture.sh"


def entry_name(group: str, address: str, network: str) -> str:
    """The name of the WorkloadEntry that istiod makes for a machine (istio/istio: pilot/pkg/autoregistration/controller.go)."""
    return f"{group}-{address}-{network}".replace(":", "-")[-253:]


def canonical(labels: Mapping[str, str], group: str) -> tuple[str, str]:
    """Canonical service and revision of a workload, from its labels (istio/istio: pkg/model/labels, CanonicalService)."""
    service = next((labels[key] for key in ("service.istio.io/canonical-name", "app.kubernetes.io/name", "app") if key in labels), group)
    revision = next(
        (labels[key] for key in ("service.istio.io/canonical-revision", "app.kubernetes.io/version", "version") if key in labels), "latest"
    )
    return service, revision


def proxy_config(mesh: Mesh, name: str, workload: Workload, network: str) -> dict[str, Any]:
    """The machine's ProxyConfig: the mesh's default with the workload's probe and metadata, as istioctl computes it."""
    default = mesh_plan.default_proxy_config(mesh)
    service, revision = canonical(workload.labels, name)
    labels = {**workload.labels, "service.istio.io/canonical-name": service, "service.istio.io/canonical-revision": revision}
    metadata = {
        **{key: str(value) for key, value in default.get("proxyMetadata", {}).items()},
        "CANONICAL_SERVICE": service,
        "CANONICAL_REVISION": revision,
        "POD_NAMESPACE": workload.namespace,
        "SERVICE_ACCOUNT": workload_plan.service_account(name, workload),
        "TRUST_DOMAIN": mesh_plan.TRUST_DOMAIN,
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
    return {**default, "proxyMetadata": metadata, "readinessProbe": workload_plan.probe(workload.probe)}


def _json(value: Mapping[str, str]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def cluster_env(name: str, workload: Workload, config: Mapping[str, Any]) -> str:
    """`cluster.env`, for the machine's ProxyConfig."""
    variables = {
        **config["proxyMetadata"],
        "ISTIO_INBOUND_PORTS": ",".join(str(port) for port in sorted(workload.ports.values())) or "*",
        "ISTIO_NAMESPACE": workload.namespace,
        "ISTIO_SERVICE": f"{name}.{workload.namespace}",
        "ISTIO_SERVICE_CIDR": "*",
        "ISTIO_LOCAL_EXCLUDE_PORTS": _excluded_ports(config.get("statusPort", 0)),
        "SERVICE_ACCOUNT": workload_plan.service_account(name, workload),
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


def own_env(machine: str, address: str, gateway: str, router_of: str | None = None) -> str:
    """`istio-vm-mesh.env`: all that differs from Istio's documented files. docs/machines.md gives the reasons, key by key.

    `router_of` is the network whose gateway the machine is, if it is one: it must send nothing on to other networks' gateways.
    """
    variables = {
        "CLOUD_PLATFORM": "none",
        "INSTANCE_IP": address,
        "POD_NAME": machine,
        "PROV_CERT": "/etc/certs",
        "OUTPUT_CERTS": "/etc/certs",
        "ISTIOD_SAN": mesh_plan.ISTIOD,
        "PROXY_CONFIG": json.dumps({"discoveryAddress": f"{gateway}:{mesh_plan.XDS_PORT}"}),
        "ISTIO_INBOUND_PORTS": "*",
    }
    if router_of:
        variables["ISTIO_META_REQUESTED_NETWORK_VIEW"] = router_of
    return "".join(f"{key}={_quoted(value)}\n" for key, value in sorted(variables.items()))


def mesh_config(config: Mapping[str, Any]) -> str:
    """`mesh.yaml`, which the agent reads from /etc/istio/config/mesh."""
    return yaml.safe_dump({"defaultConfig": dict(config)}, sort_keys=True, allow_unicode=True, width=10**6)


def unit(role: str) -> str:
    """The systemd unit that runs the agent, in place of the package's of the same name. A router captures no traffic.

    The agent keeps its token in a directory that a reboot empties; the link restores it. Stopping the unit takes the redirection
    rules away, so that the machine stays reachable and resolves names without the agent; names are redirected only when the agent can
    answer them. Before it stops, a sidecar waits until nobody calls it any more; nobody's endpoints change with a router's entry. Output
    goes through a pipe: the journal's own end is a socket, which Envoy cannot open as /dev/stdout for access logs.
    """
    names = step_back = step_again = ""
    if role == "sidecar":
        names = f"ExecStartPost=+/bin/bash {CAPTURE} names\n"
        step_back = f"ExecStop=-+/bin/bash {STEP_BACK}\n"
        step_again = f"ExecStopPost=-+/bin/bash {STEP_BACK} again\n"
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
EnvironmentFile={OWN_ENV}
ExecStartPre=+/usr/bin/install -d -o istio-proxy -m 0755 /run/secrets /run/secrets/tokens
ExecStartPre=+/usr/bin/ln -sfn {TOKEN} /run/secrets/tokens/istio-token
ExecStartPre=+/bin/bash {CAPTURE} {"traffic" if role == "sidecar" else "nothing"}
ExecStart=/bin/bash -c 'exec /usr/local/bin/pilot-agent proxy {role} > >(exec cat) 2>&1'
{names}{step_back}{step_again}ExecStopPost=+/bin/bash {CAPTURE} nothing
Restart=always
RestartSec=2
KillMode=mixed
TimeoutStopSec=30

[Install]
WantedBy=multi-user.target
"""


def step_back() -> str:
    """The script by which the unit takes a machine out of everybody's endpoints before it stops the agent."""
    return script.local("step-back", {"GRACE": mesh_plan.DISCONNECT_GRACE})


def files(
    mesh: Mesh, name: str, workload: Workload, *, machine: str, network: str, address: str, gateway: str, root_certificate: str
) -> list[File]:
    """Every file of a machine but the token, in the order in which they are written.

    `name` is the workload's, `machine` the machine's; `address` is what pods reach it by, `gateway` an address or a DNS name.
    """
    config = proxy_config(mesh, name, workload, network)
    return [
        File(CLUSTER_ENV, cluster_env(name, workload, config), "0644"),
        File(OWN_ENV, own_env(machine, address, gateway, network if workload.role == "router" else None), "0644"),
        File(MESH_CONFIG, mesh_config(config), "0644"),
        File(ROOT_CERTIFICATE, root_certificate, "0644", proxy_owned=True),
        File(CAPTURE, script.body("capture"), "0644"),
        File(STEP_BACK, step_back(), "0644"),
        File(UNIT, unit(workload.role), "0644"),
    ]


def registration(name: str, workload: Workload, network: str) -> str:
    """All that istiod copies into the entry when the machine registers and never again: a change needs a new registration."""
    spec = workload_plan.workload_group(name, workload, network)["spec"]
    return json.dumps({"group": name, "namespace": workload.namespace, **spec}, sort_keys=True)


def digest(files: Sequence[File], *more: str) -> str:
    """What a machine is compared by: a digest of all that its agent must be restarted for."""
    return hashlib.sha256(json.dumps([[*file] for file in files] + list(more)).encode()).hexdigest()[:16]


def join(machine: str, files: Sequence[File], *, token: str | None, gateway: str, package: Package, version: str, registration: str) -> str:
    """The join of one machine (decisions in docs/machines.md). Holds the token: a secret as a whole.

    Without a token this is for a machine that mints its own and fills in what only it knows: `boot.sh` comes before, with `filled` and `token`.
    """
    url = package.url.replace("{version}", version)
    owners = {True: "istio-proxy:istio-proxy", False: "root:root"}
    text = '"$(filled {})"' if token is None else "{}"
    writes = "".join(
        f"  put {file.path} {file.mode} {owners[file.proxy_owned]} {text.format(script.encoded(file.text))}\n" for file in files
    )
    functions = f"files() {{\n{writes}  chown istio-proxy:istio-proxy /etc/certs /var/lib/istio/envoy /var/lib/istio/config /var/lib/istio/proxy\n}}\n"
    if token is not None:
        functions += f"token() {{\n  put {TOKEN} 0600 {owners[True]} {script.encoded(token)}\n}}\n"
    variables: dict[str, str | int] = {
        "MACHINE": machine,
        "GATEWAY": gateway,
        "TOKEN": TOKEN,
        "PACKAGE_URL": url,
        "PACKAGE_SHA256": package.sha256 or "",
        "GRACE": mesh_plan.DISCONNECT_GRACE,
        "DIGEST": digest(files, url, package.sha256 or "", registration),
        "REGISTRATION": hashlib.sha256(registration.encode()).hexdigest()[:16],
    }
    return script.assignments(variables) + functions + script.body("join")
