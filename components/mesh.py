"""Istio in the cluster: its control plane, the east-west gateway that machines reach it through, and strict mutual TLS."""

from __future__ import annotations

from typing import Any

import pulumi
from pulumi_kubernetes import Provider
from pulumi_kubernetes.apiextensions import CustomResource
from pulumi_kubernetes.core.v1 import ConfigMap, Namespace
from pulumi_kubernetes.helm.v3 import Release, RepositoryOptsArgs

from components.clusters import Cluster
from components.plan import mesh as plan
from components.settings import Settings


def custom_resource(name: str, manifest: dict[str, Any], opts: pulumi.ResourceOptions) -> CustomResource:
    """A custom resource from its manifest."""
    return CustomResource(
        name, api_version=manifest["apiVersion"], kind=manifest["kind"], metadata=manifest["metadata"], spec=manifest["spec"], opts=opts
    )


def provider(cluster: Cluster) -> Provider:
    """The provider for all that is in the cluster. ConfigMaps and Secrets change in place: by default it deletes them first."""
    return Provider(
        "kubernetes",
        kubeconfig=cluster.kubeconfig,
        cluster_identifier=cluster.identifier,
        enable_config_map_mutable=True,
        enable_secret_mutable=True,
    )


class Mesh(pulumi.ComponentResource):
    """Istio by its own charts.

    `ready` is what everything in the mesh depends on: the gateway runs, hence injection and validation work. `gateway` is the address that
    machines dial; `root_certificate` is the mesh's trust anchor as the cluster has it now.
    """

    ready: list[pulumi.Resource]
    gateway: pulumi.Output[str]
    root_certificate: pulumi.Output[str]

    def __init__(self, settings: Settings, cluster: Cluster, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("istio-vm-mesh:mesh:Mesh", "mesh", {}, opts)
        mesh, network = settings.mesh, settings.cluster.network
        cross_network = any(machine.network != network for machine in settings.machines.values())
        labels = {"topology.istio.io/network": network}
        namespace = Namespace(
            "istio-system",
            metadata={"name": plan.NAMESPACE, "labels": labels},
            opts=pulumi.ResourceOptions(parent=self, depends_on=cluster.ready),
        )

        def release(name: str, chart: str, values: dict[str, Any], after: pulumi.Resource) -> Release:
            source = plan.chart(mesh, chart)
            return Release(
                name,
                name=name,
                namespace=plan.NAMESPACE,
                chart=source.chart,
                version=source.version,
                repository_opts=RepositoryOptsArgs(repo=source.repository) if source.repository else None,
                values=values,
                timeout=300,
                opts=pulumi.ResourceOptions(parent=self, depends_on=[after]),
            )

        base = release("istio-base", "base", plan.base_values(mesh), namespace)
        istiod = release("istiod", "istiod", plan.istiod_values(mesh, network), base)
        gateway_values = plan.gateway_values(mesh, network, cluster.gateway_service, cross_network)
        gateway = release(plan.GATEWAY, "gateway", gateway_values, istiod)
        # istiod's webhook validates these.
        after_istiod = pulumi.ResourceOptions(parent=self, depends_on=[istiod])
        manifests = [plan.strict_mtls(), *plan.istiod_exposure(), *([plan.services_exposure()] if cross_network else [])]
        objects = [
            custom_resource(f"mesh-{manifest['kind'].lower()}-{manifest['metadata']['name']}", manifest, after_istiod)
            for manifest in manifests
        ]
        # Every pod of Istio's mounts this ConfigMap, so it exists when the gateway runs; read anew at each run, which is how a rotated root is noticed.
        root = ConfigMap.get(
            "root-certificate",
            gateway.id.apply(lambda _: plan.ROOT_CERTIFICATE),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.ready = [gateway, *objects]
        self.gateway = cluster.gateway_address
        self.root_certificate = root.data.apply(lambda data: data["root-cert.pem"])
        self.register_outputs({"gateway": self.gateway})
