"""The texts of a machine's configuration.

`cluster.env`, the mesh configuration and the root certificate equal what `istioctl x workload
entry configure --autoregister` writes (istio/istio: istioctl/pkg/workload/workload.go); tests
compare them. All other configuration is in `overrides.env`, which the unit reads after
`cluster.env`, and in the units themselves. docs/machines.md has the reasons.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import yaml

from ..config.mesh import MeshSettings
from ..config.workload import WorkloadSettings
from ..istio.charts import default_proxy_config
from ..istio.manifests import probe
from ..manifest import Manifest
from ..names import (
    AGENT_PORT,
    ISTIOD,
    MACHINE_LABEL,
    METRICS_PORT,
    REGISTRATION_LABEL,
    STATUS_PORT,
    TRUST_DOMAIN,
    XDS_PORT,
)
from .bundle import PROGRAMS, STATE, Owner

CLUSTER_ENV = f"{STATE}/cluster.env"
OVERRIDES_ENV = f"{STATE}/overrides.env"
MESH_CONFIG = f"{STATE}/etc/istio/config/mesh"
CERTIFICATES = f"{STATE}/etc/certs"
ROOT_CERTIFICATE = f"{CERTIFICATES}/root-cert.pem"
ENVOY = f"{PROGRAMS}/current/usr/local/bin/envoy"
BOOTSTRAP = f"{PROGRAMS}/current/var/lib/istio/envoy/envoy_bootstrap_tmpl.json"

_CANONICAL = "service.istio.io/canonical"


def canonical(labels: Mapping[str, str], workload_group: str) -> tuple[str, str]:
    """Return the canonical service and revision of a workload.

    labels: the workload's labels.
    workload_group: the name of the WorkloadGroup, the service where no label names one.

    Source: istio/istio, pkg/model/labels, CanonicalService.
    """
    services = (f"{_CANONICAL}-name", "app.kubernetes.io/name", "app")
    revisions = (f"{_CANONICAL}-revision", "app.kubernetes.io/version", "version")
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
    labels = _labels(workload)
    metadata = {
        **{key: str(value) for key, value in default.get("proxyMetadata", {}).items()},
        "CANONICAL_SERVICE": labels[f"{_CANONICAL}-name"],
        "CANONICAL_REVISION": labels[f"{_CANONICAL}-revision"],
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


def _labels(workload: WorkloadSettings) -> dict[str, str]:
    service, revision = canonical(workload.labels, workload.name)
    labels = {
        **workload.labels,
        f"{_CANONICAL}-name": service,
        f"{_CANONICAL}-revision": revision,
    }
    return dict(sorted(labels.items()))


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
    owner: Owner,
    address: str,
    gateway: str,
    workload: WorkloadSettings,
    network: str,
) -> str:
    """Return the text of `overrides.env`; docs/machines.md has the reason of each key.

    owner: who joins the machine. Its entry is labelled with the registration, where there is one.
    address: the address by which pods reach the machine.
    gateway: the east-west gateway's address or DNS name.
    workload: the workload's settings; a network's gateway sends nothing to other gateways.
    network: the machine's network.
    """
    proxy = {
        "discoveryAddress": f"{gateway}:{XDS_PORT}",
        "binaryPath": ENVOY,
        "configPath": "./etc/istio/proxy",
    }
    variables = {
        "CLOUD_PLATFORM": "none",
        "INSTANCE_IP": address,
        "POD_NAME": owner.machine,
        "PROV_CERT": CERTIFICATES,
        "OUTPUT_CERTS": CERTIFICATES,
        "ISTIO_BOOTSTRAP": BOOTSTRAP,
        "ISTIOD_SAN": ISTIOD,
        "PROXY_CONFIG": json.dumps(proxy),
        "PROXY_ROLE": workload.role,
        "ISTIO_INBOUND_PORTS": "*",
    }
    if owner.registration:
        labels = {
            **_labels(workload),
            REGISTRATION_LABEL: owner.registration,
            MACHINE_LABEL: owner.machine,
        }
        variables["ISTIO_METAJSON_LABELS"] = _compact_json(dict(sorted(labels.items())))
    if workload.fail_closed:
        variables["FAIL_CLOSED"] = "1"
    if workload.role == "router":
        variables["ISTIO_META_REQUESTED_NETWORK_VIEW"] = network
    return _environment(variables)


def _environment(variables: Mapping[str, str]) -> str:
    """Quote as istioctl does: always, so that shells and systemd read the same."""
    escaped = {key: value.replace("'", "'\"'\"'") for key, value in variables.items()}
    return "".join(sorted(f"{key}='{value}'\n" for key, value in escaped.items()))


def mesh_config(config: Manifest) -> str:
    """Return the text of `mesh.yaml`, which the agent reads at `etc/istio/config/mesh`.

    config: the machine's ProxyConfig.
    """
    document = {"defaultConfig": dict(config)}
    return yaml.safe_dump(document, sort_keys=True, allow_unicode=True, width=10**6)
