"""The cluster as the rest of the program sees it, its provider, and custom resources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pulumi
from pulumi_kubernetes import Provider
from pulumi_kubernetes.apiextensions import CustomResource

from .cluster_check import ClusterCheck
from .local.cluster_access import ClusterAccess
from .manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What a platform provides for a cluster.

    network: the network of its pods, as Istio calls it.
    pod_cidr: the IPv4 CIDR of its pods.
    access: how commands reach it; without a credential.
    kubeconfig: the text of a kubeconfig for Pulumi's provider, secret where it holds a credential;
        None where `check_cluster` makes one from `access`.
    created_by: changes when this program creates another cluster; "" for a cluster that exists.
    gateway_service: the gateway chart's `service` values, by which a gateway is exposed to machines;
        None where a gateway exists.
    gateway_address: the IP address or DNS name at which machines reach the east-west gateway.
    uid: the UID of its namespace kube-system, once `check_cluster` has read it.
    ready: the resources that must exist before anything is created in the cluster.
    node_addresses: the node's address in each additional Docker network that it is attached to.
    gateway_ip: the IP address of `gateway_address`, where that is a DNS name.
    api_server: the API server's URL, where machines reach it.
    deleted_with: the resource whose deletion removes everything in the cluster, if there is one.
        Objects in the cluster then skip their own deletion.
    """

    network: str
    pod_cidr: str
    access: pulumi.Output[ClusterAccess]
    gateway_service: Manifest | None
    gateway_address: pulumi.Output[str]
    kubeconfig: pulumi.Output[str] | None = None
    created_by: pulumi.Input[str] = ""
    uid: pulumi.Output[str] | None = None
    ready: Sequence[pulumi.Resource] = ()
    node_addresses: Mapping[str, pulumi.Output[str]] = field(default_factory=dict)
    gateway_ip: pulumi.Output[str] | None = None
    api_server: pulumi.Output[str] | None = None
    deleted_with: pulumi.Resource | None = None


def custom_resource(name: str, manifest: Manifest, opts: pulumi.ResourceOptions) -> CustomResource:
    """Declare a custom resource from its manifest."""
    return CustomResource(
        name,
        api_version=manifest["apiVersion"],
        kind=manifest["kind"],
        metadata=manifest["metadata"],
        spec=manifest["spec"],
        opts=opts,
    )


def check_cluster(name: str, cluster: Cluster) -> Cluster:
    """Declare the look at a cluster that comes before every change in it, and return the cluster.

    name: the resource's name. What comes from the returned cluster waits for the look.
    """
    check = ClusterCheck(name, cluster.access, cluster.created_by, pulumi.ResourceOptions(depends_on=cluster.ready))
    return replace(
        cluster,
        access=check.recorded.apply(lambda access: ClusterAccess(**access)),
        kubeconfig=cluster.kubeconfig if cluster.kubeconfig is not None else check.kubeconfig,
        uid=check.uid,
        ready=[*cluster.ready, check],
    )


def cluster_options(name: str, cluster: Cluster, *, take_over: bool = False) -> pulumi.ResourceOptions:
    """Create the provider `name` and return the options of everything in the cluster.

    take_over: whether an object that exists is updated instead of refused. In a cluster that this
        program creates, such an object is left from an update that was killed. In another cluster,
        the object may belong to other users.
    Raises ValueError for a cluster that `check_cluster` has not seen.
    ConfigMaps and Secrets are updated in place; the provider would replace them by default.
    """
    if cluster.uid is None:
        raise ValueError("the cluster is unknown: give cluster_options what check_cluster returns")
    provider = Provider(
        name,
        kubeconfig=cluster.kubeconfig,
        cluster_identifier=cluster.uid,
        enable_config_map_mutable=True,
        enable_secret_mutable=True,
        upsert_existing_objects=take_over,
        enable_patch_force=take_over,
        # The provider contacts the API server once. If that fails, every operation of the run
        # fails, and a node that joins a Docker network is out of reach for a moment.
        opts=pulumi.ResourceOptions(depends_on=cluster.ready),
    )
    return pulumi.ResourceOptions(provider=provider, deleted_with=cluster.deleted_with)
