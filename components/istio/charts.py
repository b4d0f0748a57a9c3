"""Istio's charts: where they come from, and their values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..config.mesh import MeshSettings
from ..manifest import Manifest
from ..names import DISCONNECT_GRACE, ISTIOD, STATUS_PORT, XDS_PORT


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Manifest:
    """`base` with `over` on top, maps merged key by key, as Helm merges values."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return result


def base_values(mesh: MeshSettings) -> Manifest:
    """Values of the chart `base`.

    failurePolicy is Fail from the start, as istiod sets it later; else every upgrade would meet a conflict over the field (istio/istio#59367).
    """
    return merge({"base": {"validationFailurePolicy": "Fail"}}, mesh.values.base)


def istiod_values(mesh: MeshSettings, network: str) -> Manifest:
    """Values of the chart `istiod` for a cluster whose pods are in `network`."""
    values = {
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
    return merge(values, mesh.values.istiod)


def gateway_values(mesh: MeshSettings, network: str, service: Manifest, cross_network: bool) -> Manifest:
    """Values of the chart `gateway` for the east-west gateway of `network`.

    `service` says how the platform exposes it (type, addresses, annotations). Only with `cross_network` does the gateway carry calls to
    pods; without, it listens for control-plane traffic alone.
    """
    ports = [_port("status-port", STATUS_PORT), _port("tls-istiod", XDS_PORT)]
    values: Manifest = {
        "service": {"ports": ports, **service},
        "autoscaling": {"enabled": False},
        "imagePullPolicy": "IfNotPresent",
    }
    if cross_network:
        values["networkGateway"] = network
    return merge(values, mesh.values.gateway)


def _port(name: str, port: int) -> Manifest:
    return {"name": name, "port": port, "targetPort": port, "protocol": "TCP"}


def default_proxy_config(mesh: MeshSettings) -> Manifest:
    """`defaultConfig` of the mesh's configuration as the chart `istiod` renders it from our values (its template `configmap.yaml`)."""
    values = {**({"meshId": mesh.id} if mesh.id else {}), "discoveryAddress": f"{ISTIOD}:{XDS_PORT}"}
    return merge(values, istiod_values(mesh, "").get("meshConfig", {}).get("defaultConfig", {}))


class Chart(NamedTuple):
    """Where a chart comes from; without a repository `chart` is a directory or an OCI address."""

    chart: str
    repository: str | None
    version: str | None


def chart(mesh: MeshSettings, name: str) -> Chart:
    """Istio's chart `name` (base, istiod, gateway) from the place that the stack names."""
    if mesh.charts.startswith("https://"):
        return Chart(name, mesh.charts, mesh.version)
    if mesh.charts.startswith("oci://"):
        return Chart(f"{mesh.charts}/{name}", None, mesh.version)
    return Chart(f"{mesh.charts}/{name}", None, None)
