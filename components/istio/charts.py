"""Istio's charts: their source, and their values. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ..config.mesh import MeshSettings
from ..manifest import Manifest
from ..mesh_facts import MeshFacts, from_values, merge
from ..names import (
    CROSS_NETWORK_PORT,
    DISCONNECT_GRACE,
    GATEWAY_SELECTOR,
    ISTIO_NAMESPACE,
    NETWORK_LABEL,
    REVISION_LABEL,
    STATUS_PORT,
    XDS_PORT,
)
from ..versions import image_tag, without_variant


def base_values(mesh: MeshSettings) -> Manifest:
    """Return the values of the chart `base`.

    failurePolicy is Fail from the start, as istiod sets it later. Otherwise every upgrade fails by
    a conflict over the field (istio/istio#59367).
    """
    values: Manifest = {"base": {"validationFailurePolicy": "Fail"}, **_istio_namespace(mesh)}
    if mesh.revision is not None:
        # The istiod of this revision validates objects without a revision.
        values["defaultRevision"] = mesh.revision
    return merge(values, mesh.values.base)


def _istio_namespace(mesh: MeshSettings) -> Manifest:
    return {} if mesh.namespace == ISTIO_NAMESPACE else {"global": {"istioNamespace": mesh.namespace}}


def istiod_values(mesh: MeshSettings, network: str, replicas: int = 1) -> Manifest:
    """Return the values of the chart `istiod` for a cluster whose pods are in `network`.

    replicas: how many pods it has at least.
    """
    values: Manifest = {
        "global": {
            "hub": mesh.hub,
            "tag": image_tag(mesh.version),
            "meshID": mesh.id,
            "network": network,
            "multiCluster": {"clusterName": mesh.cluster_id},
        },
        "base": {"validationFailurePolicy": "Fail"},
        # Istio's defaults, which the program relies on.
        "env": {
            "PILOT_ENABLE_WORKLOAD_ENTRY_AUTOREGISTRATION": "true",
            "PILOT_ENABLE_WORKLOAD_ENTRY_HEALTHCHECKS": "true",
            "PILOT_WORKLOAD_ENTRY_GRACE_PERIOD": f"{DISCONNECT_GRACE}s",
        },
    }
    labels = {"app": "istiod"}
    if mesh.revision is not None:
        values["revision"] = labels[REVISION_LABEL] = mesh.revision
    if replicas > 1:
        # The chart adds a disruption budget. Its autoscaler is on unless a stack states otherwise.
        values |= {"autoscaleMin": replicas, "replicaCount": replicas, "topologySpreadConstraints": _spread(labels)}
    return merge(merge(values, _istio_namespace(mesh)), mesh.values.istiod)


def _spread(labels: Mapping[str, str]) -> list[Manifest]:
    """Return the constraints that spread pods with `labels` over nodes and zones if possible."""
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": dict(labels)},
        }
        for key in ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
    ]


def facts(mesh: MeshSettings, network: str) -> MeshFacts:
    """Return the facts of a mesh that this program installs, for a cluster whose pods are in
    `network`.
    """
    return from_values(istiod_values(mesh, network), mesh.namespace)


@dataclass(frozen=True, kw_only=True)
class Entrance:
    """How the east-west gateway is entered.

    service: how the platform exposes it: values of the chart's Service (type, addresses,
        annotations).
    port: the port by which machines reach the control plane.
    behind_nat: whether they use a translated address.
    cross_network: whether the gateway carries calls to pods; without, control-plane traffic alone.
    replicas: how many pods it has. The connection of every machine to istiod goes through them.
    """

    service: Manifest
    port: int = XDS_PORT
    behind_nat: bool = False
    cross_network: bool = False
    replicas: int = 1


def gateway_values(mesh: MeshSettings, facts: MeshFacts, entrance: Entrance) -> Manifest:
    """Values of the chart `gateway` for the east-west gateway of the pods' network."""
    ports = [_port("status-port", STATUS_PORT), _istiod_port(entrance)]
    values: Manifest = {"autoscaling": {"enabled": False}, "imagePullPolicy": "IfNotPresent"}
    if entrance.replicas > 1:
        values |= {
            "autoscaling": {"enabled": False, "minReplicas": entrance.replicas},
            "replicaCount": entrance.replicas,
            "podDisruptionBudget": {"minAvailable": 1},
            "topologySpreadConstraints": _spread(GATEWAY_SELECTOR),
        }
    if entrance.cross_network:
        if entrance.port == XDS_PORT and not entrance.behind_nat:
            values["networkGateway"] = facts.network
        else:
            # What that value does, but for fixed ports and the label by which istiod gives out the
            # Service's address.
            ports.append(_port("tls", CROSS_NETWORK_PORT))
            values["env"] = {"ISTIO_META_REQUESTED_NETWORK_VIEW": facts.network}
            if not entrance.behind_nat:
                values["labels"] = {NETWORK_LABEL: facts.network}
    values["service"] = {"ports": ports, **entrance.service}
    if REVISION_LABEL in facts.injection_labels:
        values["revision"] = facts.injection_labels[REVISION_LABEL]
    if facts.pull_secrets:
        values["imagePullSecrets"] = [{"name": secret} for secret in facts.pull_secrets]
    return merge(values, mesh.values.gateway)


def _istiod_port(entrance: Entrance) -> Manifest:
    """Return the Service's port that leads to istiod: a node's where the Service is one of
    nodes.
    """
    port = _port("tls-istiod", XDS_PORT)
    if entrance.service.get("type") != "NodePort":
        return {**port, "port": entrance.port}
    return port if entrance.port == XDS_PORT or entrance.behind_nat else {**port, "nodePort": entrance.port}


def _port(name: str, port: int) -> Manifest:
    return {"name": name, "port": port, "targetPort": port, "protocol": "TCP"}


class Chart(NamedTuple):
    """The source of a chart. Without a repository, `chart` is a directory or an OCI address."""

    chart: str
    repository: str | None
    version: str | None


def chart(mesh: MeshSettings, name: str) -> Chart:
    """Return Istio's chart `name` (base, istiod, gateway), from where the stack names it."""
    version = without_variant(mesh.version)
    if mesh.charts.startswith("https://"):
        return Chart(name, mesh.charts, version)
    if mesh.charts.startswith("oci://"):
        return Chart(f"{mesh.charts}/{name}", None, version)
    return Chart(f"{mesh.charts}/{name}", None, None)
