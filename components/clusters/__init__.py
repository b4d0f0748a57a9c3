"""Kubernetes clusters, one module a platform. Each gives a `Cluster`; none knows Istio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi

from components.networks import Networks
from components.settings import ExistingCluster, GkeCluster, KindCluster, Settings


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What the rest of the program needs of a cluster.

    `kubeconfig` is secret. `identifier` stays the same for as long as the cluster is the same one. `gateway_service` is how a gateway is
    exposed to machines here (the chart's `service` values), None where there is one already; `gateway_address` is where they find it.
    `ready` is what pods wait for. `nodes`: the node's address by further network, where it has a leg there. `gateway_ip` says
    what `gateway_address` resolves to, where that is a name; `api_server` is the API server's URL where machines reach it.
    `whole` is a resource with which all that is in the cluster goes, if there is one: nothing of it need be deleted before.
    """

    kubeconfig: pulumi.Output[str]
    identifier: pulumi.Input[str]
    gateway_service: Mapping[str, Any] | None
    gateway_address: pulumi.Output[str]
    ready: Sequence[pulumi.Resource]
    nodes: Mapping[str, pulumi.Output[str]] = field(default_factory=dict)
    gateway_ip: pulumi.Output[str] | None = None
    api_server: pulumi.Output[str] | None = None
    whole: pulumi.Resource | None = None


def make(stack: str, settings: Settings, networks: Networks) -> Cluster:
    """Make or adopt the cluster of a stack."""
    match settings.cluster:
        case KindCluster() as cluster:
            from components.clusters.kind import Kind

            return Kind(stack, settings, cluster, networks).cluster
        case GkeCluster() as cluster:
            from components.clusters.gke import Gke

            assert settings.google and networks.google, "the settings' checks see to both"
            return Gke(stack, settings, cluster, settings.google, networks.google).cluster
        case ExistingCluster() as cluster:
            from components.clusters.existing import existing

            return existing(settings, cluster)
