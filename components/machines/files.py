"""The texts of a machine's configuration, from what the settings decide of it.

`cluster.env`, the mesh configuration and the root certificate equal what `istioctl x workload
entry configure --autoregister` writes (istio/istio: istioctl/pkg/workload/workload.go); tests
compare them. All other configuration is in `overrides.env`, which the unit reads after
`cluster.env`, and in the units themselves. docs/machines.md has the reasons.

The join beside Pulumi imports this module: a state holds what the texts follow from, which is
shorter and states everything once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from ..grammar import is_variable
from ..manifest import Manifest
from ..names import (
    AGENT_PORT,
    DISCONNECT_GRACE,
    ENVOY_ADMIN_PORT,
    LOCALITY_LABEL,
    MACHINE_LABEL,
    METRICS_PORT,
    REGISTRATION_LABEL,
    SSH_PORT,
    STATUS_PORT,
    XDS_PORT,
)
from .bundle import CERTIFICATES, PROGRAMS, STATE, Bundle, Exclusions, MachineFile
from .proxy_metadata import DRAIN_S, MAX_DRAIN_S, MAX_GROUP_DRAIN_S, POD_PORTS, compact_json, drain_s

CLUSTER_ENV = f"{STATE}/cluster.env"
OVERRIDES_ENV = f"{STATE}/overrides.env"
MESH_CONFIG = f"{STATE}/etc/istio/config/mesh"
ENVOY = f"{PROGRAMS}/current/usr/local/bin/envoy"
BOOTSTRAP = f"{PROGRAMS}/current/var/lib/istio/envoy/envoy_bootstrap_tmpl.json"

FIRST_PROBE_S = 1
"""Seconds from the agent's start to its first probe.

Istio's agent probes at once, before its Envoy is ready, and then a period later. So a machine would
be Healthy after a period of its probe, two seconds by default.
"""
EXIT_ON_ZERO = "EXIT_ON_ZERO_ACTIVE_CONNECTIONS"
"""The variable by which an agent ends once it has no connection, in place of its drain duration."""
LINK_LOCAL = ("169.254.0.0/16", "fe80::/10")
"""Addresses of one link, among them the metadata servers of clouds. No proxy can pass on to them."""


def configuration_files(bundle: Bundle) -> tuple[MachineFile, ...]:
    """Return the files that follow from a bundle's settings, without the root certificate."""
    return (
        MachineFile(CLUSTER_ENV, cluster_env(bundle.proxy)),
        MachineFile(OVERRIDES_ENV, overrides_env(bundle)),
        MachineFile(MESH_CONFIG, mesh_config(bundle.proxy)),
    )


def cluster_env(proxy: Manifest) -> str:
    """Return the text of `cluster.env`.

    proxy: the machine's ProxyConfig (`bootstrap.proxy_config`).
    """
    metadata = proxy["proxyMetadata"]
    named = json.loads(metadata.get(POD_PORTS, "[]"))
    ports = ",".join(str(port) for port in sorted(each["containerPort"] for each in named))
    namespace = metadata["POD_NAMESPACE"]
    # Shells and systemd take no other names. The agent reads them in its mesh configuration.
    variables = {key: value for key, value in metadata.items() if is_variable(key)}
    return _environment(
        {
            **variables,
            "ISTIO_INBOUND_PORTS": ports or "*",
            "ISTIO_NAMESPACE": namespace,
            "ISTIO_SERVICE": f"{metadata['ISTIO_META_WORKLOAD_NAME']}.{namespace}",
            "ISTIO_SERVICE_CIDR": "*",
            "ISTIO_LOCAL_EXCLUDE_PORTS": ",".join(_open_ports(proxy.get("statusPort", 0))),
        }
    )


def _open_ports(status_port: int) -> list[str]:
    ports = [str(port) for port in (SSH_PORT, METRICS_PORT, STATUS_PORT)]
    if status_port not in (METRICS_PORT, STATUS_PORT):
        ports.append(str(status_port or AGENT_PORT))
    return ports


def overrides_env(bundle: Bundle) -> str:
    """Return the text of `overrides.env`; docs/machines.md has the reason of each key.

    The machine's entry is labelled with the registration, where there is one. A network's gateway
    sends nothing to other gateways.
    """
    owner, metadata = bundle.owner, bundle.proxy["proxyMetadata"]
    host = f"[{bundle.gateway}]" if ":" in bundle.gateway else bundle.gateway
    proxy = {
        "discoveryAddress": f"{host}:{bundle.gateway_port}",
        "binaryPath": ENVOY,
        "configPath": "./etc/istio/proxy",
    }
    # The scripts on machines rely on these ports, whatever those of pods are.
    fixed = {"statusPort": AGENT_PORT, "proxyAdminPort": ENVOY_ADMIN_PORT}
    others = {key: port for key, port in fixed.items() if bundle.proxy.get(key, port) != port}
    longest = MAX_DRAIN_S if owner.registration else MAX_GROUP_DRAIN_S
    drain = min(drain_s(bundle.proxy), longest)
    shorter = {"terminationDrainDuration": f"{drain}s"} if drain == longest else {}
    # The agent takes a probe as a whole.
    probe = {**bundle.proxy["readinessProbe"], "initialDelaySeconds": FIRST_PROBE_S}
    variables = {
        "CLOUD_PLATFORM": "none",
        "INSTANCE_IP": bundle.address,
        "POD_NAME": owner.machine,
        "PROV_CERT": CERTIFICATES,
        "OUTPUT_CERTS": CERTIFICATES,
        "ISTIO_BOOTSTRAP": BOOTSTRAP,
        # istiod by the name that pods call: its certificate has it.
        "ISTIOD_SAN": bundle.proxy["discoveryAddress"].rpartition(":")[0],
        "PROXY_CONFIG": json.dumps({**proxy, "readinessProbe": probe, **others, **shorter}, sort_keys=True),
        "PROXY_ROLE": bundle.role,
        "ISTIO_INBOUND_PORTS": "*",
    }
    if bundle.role == "sidecar":
        variables |= _capture(bundle.exclusions or Exclusions(), metadata, bool(others))
    if ports := metadata.get(POD_PORTS):
        # istiod finds a port by its name only where the protocol is the Service's.
        variables[POD_PORTS] = compact_json([{**port, "protocol": "TCP"} for port in json.loads(ports)])
    registered = {REGISTRATION_LABEL: owner.registration, MACHINE_LABEL: owner.machine}
    more = {
        **(registered if owner.registration else {}),
        **({LOCALITY_LABEL: bundle.locality} if bundle.locality else {}),
    }
    if more:
        labels = {**json.loads(metadata["ISTIO_METAJSON_LABELS"]), **more}
        variables["ISTIO_METAJSON_LABELS"] = compact_json(dict(sorted(labels.items())))
    if bundle.grace_s != DISCONNECT_GRACE:
        variables["DISCONNECT_GRACE_S"] = str(bundle.grace_s)
    if drain != DRAIN_S:
        variables["DRAIN_S"] = str(drain)
    if metadata.get(EXIT_ON_ZERO, "").lower() in ("true", "t", "1"):
        # The application runs on, and keeps its connections: such an agent would never end.
        variables[EXIT_ON_ZERO] = "false"
    if bundle.gateway_port != XDS_PORT:
        variables |= {"GATEWAY_HOST": bundle.gateway, "GATEWAY_PORT": str(bundle.gateway_port)}
    if bundle.fail_closed:
        variables["FAIL_CLOSED"] = "1"
    if bundle.firewall != "report":
        variables["FIREWALL"] = bundle.firewall
    if bundle.role == "sidecar" and not owner.registration:
        variables["HEALTH_CHECKED"] = "1"  # by the instance group
    if bundle.role == "router":
        variables["ISTIO_META_REQUESTED_NETWORK_VIEW"] = metadata["ISTIO_META_NETWORK"]
    return _environment(variables)


def _capture(exclusions: Exclusions, metadata: Mapping[str, str], has_ports: bool) -> dict[str, str]:
    """Return the variables of `istio-iptables` for what is not captured.

    metadata: the mesh's default, whose exclusions stay.
    has_ports: whether the proxy's ports differ from the mesh's.
    """

    def joined(key: str, *values: object) -> dict[str, str]:
        words = [*filter(None, metadata.get(key, "").split(",")), *map(str, values)]
        return {key: ",".join(dict.fromkeys(words))} if values else {}

    ports = exclusions.inbound_ports
    return {
        **joined("ISTIO_LOCAL_EXCLUDE_PORTS", *(_open_ports(AGENT_PORT) if has_ports or ports else ()), *ports),
        **joined("ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE", *exclusions.outbound_ports),
        **joined("ISTIO_SERVICE_EXCLUDE_CIDR", *LINK_LOCAL, *exclusions.outbound_cidrs),
        **joined("ISTIO_EXCLUDE_INTERFACES", *exclusions.interfaces),
    }


def _environment(variables: Mapping[str, str]) -> str:
    """Quote as istioctl does: always, so that shells and systemd read the same."""
    escaped = {key: value.replace("'", "'\"'\"'") for key, value in variables.items()}
    return "".join(sorted(f"{key}='{value}'\n" for key, value in escaped.items()))


def mesh_config(proxy: Manifest) -> str:
    """Return the text of `mesh.yaml`, which the agent reads at `etc/istio/config/mesh`.

    It is JSON, hence YAML too, which the standard library does not write.
    proxy: the machine's ProxyConfig.
    """
    document = {"defaultConfig": proxy}
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
