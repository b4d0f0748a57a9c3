"""The cluster as the rest of the program sees it, its provider, and the objects in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pulumi
from pulumi_kubernetes import Provider

from .cluster_check import ClusterCheck, ClusterCheckArgs, DeclaredObject
from .existing_objects import SERVICE, SERVICE_ACCOUNT, ExistingObject
from .local.cluster_access import ClusterAccess
from .manifest import Manifest
from .names import DYNAMIC, MANAGED_BY_LABEL, PROJECT, STACK_LABEL, XDS_PORT, part_name, stack_label
from .ownership import RELEASE, ObjectName


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What a platform provides for a cluster.

    network: the network of its pods, as Istio calls it.
    pod_cidr, additional_pod_cidrs: the IPv4 CIDRs of its pods.
    access: how commands reach it; without a credential.
    gateway_port: the port at which it leads them to the control plane.
    gateway_behind_nat: whether that address is translated, hence not the one of the gateway's Service.
    kubeconfig: the text of a kubeconfig for Pulumi's provider, secret where it holds a credential;
        None where `check_cluster` makes one from `access`.
    created_by: changes when this program creates another cluster; "" for a cluster that exists.
    gateway_service: the gateway chart's `service` values, by which a gateway is exposed to machines;
        None where a gateway exists.
    gateway_address: the IP address or DNS name at which machines reach the east-west gateway.
    uid: from `check_cluster`: the UID of its namespace kube-system.
    kubernetes: from `check_cluster`: its minor version of Kubernetes.
    objects: from `check_cluster`: what is declared in it, or used in it (`use_existing`), so far.
    dynamic: from `check_cluster`: the provider of the resources that this program implements.
    ready: the resources that must exist before anything is created in the cluster.
    node_addresses: the node's address in each additional Docker network that it is attached to.
    gateway_ip: the IP address of `gateway_address`, where that is a DNS name.
    api_server: the API server's URL, where machines reach it.
    replicas: how many pods the east-west gateway has, and istiod at least. More than one where the
        cluster has several nodes: then a drained node takes no machine out of the mesh.
    deleted_with: the resource whose deletion removes everything in the cluster, if there is one.
        Objects in the cluster then skip their own deletion.
    """

    network: str
    pod_cidr: str
    access: pulumi.Output[ClusterAccess]
    gateway_service: Manifest | None
    gateway_address: pulumi.Output[str]
    gateway_port: int = XDS_PORT
    gateway_behind_nat: bool = False
    kubeconfig: pulumi.Output[str] | None = None
    created_by: pulumi.Input[str] = ""
    uid: pulumi.Output[str] | None = None
    kubernetes: pulumi.Output[str] | None = None
    objects: list[DeclaredObject] | None = None
    dynamic: pulumi.ProviderResource | None = None
    ready: Sequence[pulumi.Resource] = ()
    node_addresses: Mapping[str, pulumi.Output[str]] = field(default_factory=dict)
    gateway_ip: pulumi.Output[str] | None = None
    api_server: pulumi.Output[str] | None = None
    replicas: int = 2
    deleted_with: pulumi.Resource | None = None
    additional_pod_cidrs: Sequence[str] = ()

    @property
    def pod_cidrs(self) -> tuple[str, ...]:
        """All CIDRs of its pods."""
        return (self.pod_cidr, *self.additional_pod_cidrs)


class KubernetesObject(pulumi.CustomResource):
    """An object in the cluster, of any kind, by its manifest.

    The classes that pulumi-kubernetes has for each kind do the same. To import those of core/v1
    takes two fifths of a program's start.

    manifest: as Kubernetes has it. Values may be outputs, but for `apiVersion`, `kind` and a name.
    """

    def __init__(self, name: str, manifest: Manifest, opts: pulumi.ResourceOptions) -> None:
        super().__init__(_type(manifest["apiVersion"], manifest["kind"]), name, manifest, opts)


class ExternalObject(pulumi.CustomResource):
    """An object of others, which is read at each run.

    kind: of the API v1, such as "Service". place: its namespace and its name, by a slash.

    spec, data: those of the object, if it has them.
    """

    spec: pulumi.Output[Manifest]
    data: pulumi.Output[dict[str, str]]

    def __init__(self, name: str, kind: str, place: pulumi.Input[str], opts: pulumi.ResourceOptions) -> None:
        read = pulumi.ResourceOptions(id=place)
        super().__init__(_type("v1", kind), name, {"spec": None, "data": None}, pulumi.ResourceOptions.merge(opts, read))


class Release(pulumi.CustomResource):
    """A release of Helm. What goes in is what `pulumi_kubernetes.helm.v3.Release` takes, in Pulumi's own spelling."""

    def __init__(self, name: str, inputs: Mapping[str, pulumi.Input[Any]], opts: pulumi.ResourceOptions) -> None:
        super().__init__(f"kubernetes:{_RELEASE}", name, {**inputs, "compat": "true"}, opts)


def _type(api_version: str, kind: str) -> str:
    group_version = api_version if "/" in api_version else f"core/{api_version}"
    return f"kubernetes:{group_version}:{kind}"


def check_cluster(name: str, cluster: Cluster, istio: str = "") -> Cluster:
    """Declare the look at a cluster that comes before every change in it, and return the cluster.

    It identifies the cluster. It fails where the cluster has objects that this program would create
    (with the options of `cluster_options`), and that are not of this stack. It also fails where
    objects of others cannot be used as they are (`use_existing`). The same holds where `istio` does
    not support the cluster's version of Kubernetes and the mesh is not there yet.

    name: the resource's name. What comes from the returned cluster waits for the look.
        Its provider is named after it.
    istio: the version that is installed; "" for none, or for any Kubernetes.
    """
    objects: list[DeclaredObject] = []

    async def declared() -> list[DeclaredObject]:
        # It runs after the program's last line, when all objects are declared.
        return sorted(objects, key=lambda each: each.name)

    args = ClusterCheckArgs(
        access=cluster.access,
        created_by=cluster.created_by,
        stack=stack_label(pulumi.get_project(), pulumi.get_stack()),
        objects=declared(),
        istio=istio,
    )
    # The engine would give the default provider the configuration of the stack, which the state then
    # has twice more. A change of the configuration is a change of that provider. The engine ends the
    # connection to the former one while it deletes a resource (pulumi/pulumi: registry.go, Update).
    dynamic = pulumi.ProviderResource("pulumi-python", part_name(name, DYNAMIC), {})
    check = ClusterCheck(name, args, pulumi.ResourceOptions(provider=dynamic, depends_on=cluster.ready))
    return replace(
        cluster,
        dynamic=dynamic,
        access=check.recorded.apply(lambda access: ClusterAccess(**access)),
        kubeconfig=cluster.kubeconfig if cluster.kubeconfig is not None else check.kubeconfig,
        uid=check.uid,
        kubernetes=check.kubernetes,
        objects=objects,
        ready=[*cluster.ready, check],
    )


def use_existing(cluster: Cluster, used: ExistingObject) -> None:
    """Have the look at the cluster refuse an object of others that is missing or does not fit.

    Raises ValueError for a cluster that `check_cluster` has not seen.
    """
    if cluster.objects is None:
        raise ValueError("the cluster is unknown: give use_existing what check_cluster returns")
    name = ObjectName("", used.kind, used.namespace, used.name)
    cluster.objects.append(DeclaredObject(name, used.declared_by, used))


_RELEASE = "helm.sh/v3:Release"
_OF_ANY_WORKLOAD = (SERVICE, SERVICE_ACCOUNT)
"""Kinds whose objects may go to another workload, because the stack file names them."""


def cluster_options(name: str, cluster: Cluster) -> pulumi.ResourceOptions:
    """Create the provider `name` and return the options of everything in the cluster.

    Every object gets the labels of this stack. One that exists is taken over: it is left from an
    update that was killed, because `check_cluster` refuses objects of others.
    ConfigMaps and Secrets are updated in place; the provider would replace them by default.
    Raises ValueError for a cluster that `check_cluster` has not seen.
    """
    objects = cluster.objects
    if cluster.uid is None or objects is None:
        raise ValueError("the cluster is unknown: give cluster_options what check_cluster returns")
    provider = Provider(
        name,
        kubeconfig=cluster.kubeconfig,
        cluster_identifier=cluster.uid,
        enable_config_map_mutable=True,
        enable_secret_mutable=True,
        upsert_existing_objects=True,
        enable_patch_force=True,
        # The provider contacts the API server once. If that fails, every operation of the run
        # fails, and a node that joins a Docker network is out of reach for a moment.
        opts=pulumi.ResourceOptions(depends_on=cluster.ready),
    )
    labels = {MANAGED_BY_LABEL: PROJECT, STACK_LABEL: stack_label(pulumi.get_project(), pulumi.get_stack())}

    def label(args: pulumi.ResourceTransformationArgs) -> pulumi.ResourceTransformationResult | None:
        """Label one object, and note its name; note that of a release of Helm."""
        package, _, kind = args.type_.partition(":")
        metadata = args.props.get("metadata")
        if package != "kubernetes" or args.opts.id is not None:
            return None  # an object that is only read
        if kind == _RELEASE:
            props: Mapping[str, Any] = args.props
            objects.append(DeclaredObject(ObjectName(*RELEASE, props["namespace"], props["name"])))
        if metadata is None:
            return None
        if not isinstance(metadata, Mapping) or "name" not in metadata:
            raise ValueError(f"{args.name}: give its metadata as a map with a name, so that its owner can be looked for")
        api_version, _, kind = kind.rpartition(":")
        group = api_version.rpartition("/")[0]
        declared_name = ObjectName("" if group == "core" else group, kind, metadata.get("namespace", ""), metadata["name"])
        objects.append(DeclaredObject(declared_name, args.name if kind in _OF_ANY_WORKLOAD else ""))
        others = metadata.get("labels", {})
        if isinstance(others, pulumi.Output):
            all_labels: pulumi.Input[Mapping[str, str]] = others.apply(lambda values: {**values, **labels})
        else:
            all_labels = {**others, **labels}
        labelled = {**metadata, "labels": all_labels}
        return pulumi.ResourceTransformationResult({**args.props, "metadata": labelled}, args.opts)

    return pulumi.ResourceOptions(provider=provider, deleted_with=cluster.deleted_with, transformations=[label])
