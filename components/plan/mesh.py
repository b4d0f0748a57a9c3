"""Istio's control plane, the east-west gateway, and what they mean for proxies: chart values, manifests, and the proxies' default configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import yaml

from components.settings import ChartValues, ExistingGateway, Mesh, Settings, is_address

NAMESPACE = "istio-system"
GATEWAY = "istio-eastwestgateway"
ISTIOD = f"istiod.{NAMESPACE}.svc"
XDS_PORT = 15012  # discovery and certificates, passed through by the gateway
STATUS_PORT = 15021
CROSS_NETWORK_PORT = 15443
ROOT_CERTIFICATE = f"{NAMESPACE}/istio-ca-root-cert"  # a ConfigMap that istiod writes into every namespace
TRUST_DOMAIN = "cluster.local"
DISCONNECT_GRACE = 10  # seconds from an agent's last connection until istiod removes its WorkloadEntry

# What the east-west gateway's pods are selected by: the chart derives the label from the release's name.
GATEWAY_SELECTOR = {"istio": GATEWAY.removeprefix("istio-")}


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `over` on top, maps merged key by key, as Helm merges values."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return result


def base_values(mesh: Mesh) -> dict[str, Any]:
    """Values of the chart `base`.

    failurePolicy is Fail from the start, as istiod sets it later; else every upgrade would meet a conflict over the field (istio/istio#59367).
    """
    return merge({"base": {"validationFailurePolicy": "Fail"}}, mesh.values.base)


def istiod_values(mesh: Mesh, network: str) -> dict[str, Any]:
    """Values of the chart `istiod` for a cluster whose pods are in `network`."""
    own = {
        "global": {
            "hub": mesh.hub,
            "tag": mesh.version,
            "meshID": mesh.id,
            "network": network,
            "multiCluster": {"clusterName": mesh.cluster_id},
        },
        "base": {"validationFailurePolicy": "Fail"},
        # Both are Istio's defaults; the program relies on them, so they are said.
        "env": {
            "PILOT_ENABLE_WORKLOAD_ENTRY_AUTOREGISTRATION": "true",
            "PILOT_ENABLE_WORKLOAD_ENTRY_HEALTHCHECKS": "true",
            "PILOT_WORKLOAD_ENTRY_GRACE_PERIOD": f"{DISCONNECT_GRACE}s",
        },
    }
    return merge(own, mesh.values.istiod)


def gateway_values(mesh: Mesh, network: str, service: Mapping[str, Any], cross_network: bool) -> dict[str, Any]:
    """Values of the chart `gateway` for the east-west gateway of `network`.

    `service` says how the platform exposes it (type, addresses, annotations). Only with `cross_network` does the gateway carry calls to
    pods; without, it listens for control-plane traffic alone.
    """
    ports = [_port("status-port", STATUS_PORT), _port("tls-istiod", XDS_PORT)]
    own: dict[str, Any] = {
        "service": {"ports": ports, **service},
        "autoscaling": {"enabled": False},
        "imagePullPolicy": "IfNotPresent",
    }
    if cross_network:
        own["networkGateway"] = network
    return merge(own, mesh.values.gateway)


def _port(name: str, port: int) -> dict[str, Any]:
    return {"name": name, "port": port, "targetPort": port, "protocol": "TCP"}


def strict_mtls(namespace: str = NAMESPACE) -> dict[str, Any]:
    """A PeerAuthentication by which plaintext is refused: in a namespace, or in Istio's own for the whole mesh."""
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "default", "namespace": namespace},
        "spec": {"mtls": {"mode": "STRICT"}},
    }


def istiod_exposure() -> list[dict[str, Any]]:
    """A Gateway and a VirtualService that pass control-plane connections through to istiod without ending their TLS.

    Only istiod's own name is routed (Istio's sample `expose-istiod` takes any), so nothing else in the cluster can be reached this way.
    """
    port = {"name": "tls-istiod", "number": XDS_PORT, "protocol": "TLS"}
    return [
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "Gateway",
            "metadata": {"name": "istiod-gateway", "namespace": NAMESPACE},
            "spec": {
                "selector": GATEWAY_SELECTOR,
                "servers": [{"port": port, "tls": {"mode": "PASSTHROUGH"}, "hosts": [ISTIOD]}],
            },
        },
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": "istiod-vs", "namespace": NAMESPACE},
            "spec": {
                "hosts": [ISTIOD],
                "gateways": ["istiod-gateway"],
                "tls": [
                    {
                        "match": [{"port": XDS_PORT, "sniHosts": [ISTIOD]}],
                        "route": [{"destination": {"host": f"{ISTIOD}.cluster.local", "port": {"number": XDS_PORT}}}],
                    }
                ],
            },
        },
    ]


def services_exposure() -> dict[str, Any]:
    """A Gateway that passes calls from other networks through to the Services of the mesh (Istio's sample `expose-services`)."""
    port = {"name": "tls", "number": CROSS_NETWORK_PORT, "protocol": "TLS"}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "cross-network-gateway", "namespace": NAMESPACE},
        "spec": {
            "selector": GATEWAY_SELECTOR,
            "servers": [{"port": port, "tls": {"mode": "AUTO_PASSTHROUGH"}, "hosts": ["*.local"]}],
        },
    }


def default_proxy_config(mesh: Mesh) -> dict[str, Any]:
    """`defaultConfig` of the mesh's configuration as the chart `istiod` renders it from our values (its template `configmap.yaml`)."""
    own = {**({"meshId": mesh.id} if mesh.id else {}), "discoveryAddress": f"{ISTIOD}:{XDS_PORT}"}
    return merge(own, istiod_values(mesh, "").get("meshConfig", {}).get("defaultConfig", {}))


def adopted(mesh: Mesh, network: str, mesh_config: str, injector_values: str) -> Mesh:
    """A mesh that exists, as machines must be configured for it: `mesh` with what the cluster says.

    `mesh_config` is the text under `mesh` in the ConfigMap `istio`, `injector_values` that under `values` in `istio-sidecar-injector`; both are
    what istioctl reads. `network` is the pods', as the stack calls it. Raises ValueError for a mesh that machines cannot join this way.
    """
    config, values = yaml.safe_load(mesh_config) or {}, json.loads(injector_values).get("global", {})
    if config.get("trustDomain", TRUST_DOMAIN) not in ("", TRUST_DOMAIN):
        raise ValueError(f"the mesh's trust domain is {config['trustDomain']!r}; only {TRUST_DOMAIN} is supported")
    found = values.get("network", "")
    if found != network:
        said = (
            f"is called {found!r}: give it this name in the stack's networks"
            if found
            else "has no name: set global.network in istiod's values"
        )
        raise ValueError(f"the network of the mesh's pods {said} (the stack calls it {network!r})")
    default = config.get("defaultConfig", {})
    return replace(
        mesh,
        id=default.get("meshId", ""),
        cluster_id=values.get("multiCluster", {}).get("clusterName") or mesh.cluster_id,
        values=ChartValues(istiod={"meshConfig": {"defaultConfig": default}}),
    )


def existing_gateway_service(settings: Settings, gateway: ExistingGateway) -> dict[str, Any]:
    """How the gateway is exposed in a cluster that exists: as the stack says, else by a balancer that lets machines' networks in alone."""
    if gateway.service:
        return dict(gateway.service)
    sources = sorted({text for machine in settings.machines.values() for text in settings.networks[machine.network].ranges})
    address = {"loadBalancerIP": gateway.address} if is_address(gateway.address) else {}
    return {"type": "LoadBalancer", **address, "loadBalancerSourceRanges": sources}


class Chart(NamedTuple):
    """Where a chart comes from; without a repository `chart` is a directory or an OCI address."""

    chart: str
    repository: str | None
    version: str | None


def chart(mesh: Mesh, name: str) -> Chart:
    """Istio's chart `name` (base, istiod, gateway) from the place that the stack names."""
    if mesh.charts.startswith("https://"):
        return Chart(name, mesh.charts, mesh.version)
    if mesh.charts.startswith("oci://"):
        return Chart(f"{mesh.charts}/{name}", None, mesh.version)
    return Chart(f"{mesh.charts}/{name}", None, None)
