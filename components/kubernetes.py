"""The cluster as the rest of the program sees it, its provider, and custom resources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi
from pulumi_kubernetes import Provider
from pulumi_kubernetes.apiextensions import CustomResource

from .config.existing import ExistingCluster
from .config.stack import Settings


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


def custom_resource(name: str, manifest: dict[str, Any], opts: pulumi.ResourceOptions) -> CustomResource:
    """A custom resource from its manifest."""
    return CustomResource(
        name, api_version=manifest["apiVersion"], kind=manifest["kind"], metadata=manifest["metadata"], spec=manifest["spec"], opts=opts
    )


def provider(settings: Settings, cluster: Cluster) -> Provider:
    """The provider for all that is in the cluster. ConfigMaps and Secrets change in place: by default it deletes them first.

    In a cluster of ours, an object that is there already was made by an `up` that was killed, and the next one goes on from there. In somebody
    else's it is theirs, and the provider refuses to touch it.
    """
    ours = not isinstance(settings.cluster, ExistingCluster)
    return Provider(
        "kubernetes",
        kubeconfig=cluster.kubeconfig,
        cluster_identifier=cluster.identifier,
        enable_config_map_mutable=True,
        enable_secret_mutable=True,
        upsert_existing_objects=ours,
        enable_patch_force=ours,
        # It looks once whether the API server answers, and gives up for the whole run if not; a node that joins a network does not.
        opts=pulumi.ResourceOptions(depends_on=cluster.ready),
    )
