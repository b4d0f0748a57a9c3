"""Istio in the cluster: its control plane, the east-west gateway that machines reach it through, and strict mutual TLS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi
from pulumi_command import local
from pulumi_kubernetes.core.v1 import ConfigMap, Namespace
from pulumi_kubernetes.helm.v3 import Release, RepositoryOptsArgs

from .. import kubernetes, names, shell
from ..config import gateway_machines
from ..config.mesh import MeshSettings
from ..config.stack import Settings
from ..kubernetes import Cluster
from . import adoption, charts, network_gateways
from .manifests import istiod_exposure, services_exposure, strict_mtls


def _gateway_api(settings: Settings, cluster: Cluster, parent: pulumi.Resource) -> pulumi.Resource:
    """The Gateway API's CRDs, which istiod must find when it starts. They stay when the stack goes, as CRDs of Istio's charts do."""
    return local.Command(
        "gateway-api",
        create=shell.LOCAL,
        stdin=cluster.kubeconfig.apply(
            lambda kubeconfig: shell.with_kubeconfig("istio/gateway-api", kubeconfig, {"SOURCE": settings.mesh.gateway_api})
        ),
        logging=local.Logging.STDERR,
        add_previous_output_in_env=False,
        opts=pulumi.ResourceOptions(parent=parent, depends_on=cluster.ready),
    )


class Mesh(pulumi.ComponentResource):
    """Istio by its own charts, or the Istio that a cluster has.

    `ready` is what everything in the mesh depends on: the gateway runs, hence injection and validation work. `gateway` is the address that
    machines dial, `gateway_ip` what it resolves to where it is a name; `root_certificate` is the mesh's trust anchor as the cluster has it now.
    `described` are the settings of the mesh, with what was read in the cluster where the mesh is adopted.
    """

    namespace: list[pulumi.Resource]
    ready: list[pulumi.Resource]
    gateway: pulumi.Output[str]
    gateway_ip: pulumi.Output[str]
    root_certificate: pulumi.Output[str]
    described: pulumi.Output[MeshSettings]

    def __init__(self, settings: Settings, cluster: Cluster, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("istio-vm-mesh:mesh:Mesh", "mesh", {}, opts)
        mesh, network = settings.mesh, settings.cluster.network
        cross_network = any(machine.network != network for machine in settings.machines.values())
        if mesh.adopt:
            self.namespace, self.described = [], self._adopted(settings)
        else:
            self.namespace, self.described = [self._namespace(network, cluster)], pulumi.Output.from_input(mesh)
        after = (
            [_gateway_api(settings, cluster, self)]
            if gateway_machines.networks_with_gateway(settings) or network_gateways.networks_without_gateway(settings)
            else self.namespace
        )
        if not mesh.adopt:
            after = [self._control_plane(mesh, network, after)]
        gateway: Release | None = None
        if cluster.gateway_service is not None:
            values = charts.gateway_values(mesh, network, cluster.gateway_service, cross_network)
            gateway = self._release(mesh, names.EASTWEST_GATEWAY, "gateway", values, after)
        # istiod's webhook validates these.
        after_istiod = pulumi.ResourceOptions(parent=self, depends_on=after)
        manifests = [
            *([] if mesh.adopt else [strict_mtls()]),
            *(istiod_exposure() if gateway else []),
            *map(network_gateways.passthrough_gateway, gateway_machines.networks_with_gateway(settings)),
            *map(network_gateways.blackhole_gateway, network_gateways.networks_without_gateway(settings)),
            *([services_exposure()] if gateway and cross_network else []),
        ]
        objects = [
            kubernetes.custom_resource(f"mesh-{manifest['kind'].lower()}-{manifest['metadata']['name']}", manifest, after_istiod)
            for manifest in manifests
        ]
        # Every pod of Istio's mounts this ConfigMap, so it exists when the gateway runs; read anew at each run, which is how a rotated root is noticed.
        root = ConfigMap.get(
            "root-certificate",
            gateway.id.apply(lambda _: names.ROOT_CERTIFICATE_CONFIG_MAP) if gateway else names.ROOT_CERTIFICATE_CONFIG_MAP,
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.ready = [*([gateway] if gateway else []), *objects]
        self.gateway, self.gateway_ip = cluster.gateway_address, cluster.gateway_ip or cluster.gateway_address
        self.root_certificate = root.data.apply(lambda data: data["root-cert.pem"])
        self.register_outputs({"gateway": self.gateway})

    def _namespace(self, network: str, cluster: Cluster) -> Namespace:
        return Namespace(
            "istio-system",
            metadata={"name": names.ISTIO_NAMESPACE, "labels": {"topology.istio.io/network": network}},
            opts=pulumi.ResourceOptions(parent=self, depends_on=cluster.ready),
        )

    def _control_plane(self, mesh: MeshSettings, network: str, after: list[pulumi.Resource]) -> Release:
        base = self._release(mesh, "istio-base", "base", charts.base_values(mesh), self.namespace)
        return self._release(mesh, "istiod", "istiod", charts.istiod_values(mesh, network), [base, *after])

    def _release(self, mesh: MeshSettings, name: str, chart: str, values: dict[str, Any], after: list[pulumi.Resource]) -> Release:
        source = charts.chart(mesh, chart)
        return Release(
            name,
            name=name,
            namespace=names.ISTIO_NAMESPACE,
            chart=source.chart,
            version=source.version,
            repository_opts=RepositoryOptsArgs(repo=source.repository) if source.repository else None,
            values=values,
            timeout=300,
            description=f"Istio {mesh.version}",  # the provider does not notice that a chart from a directory changed
            opts=pulumi.ResourceOptions(parent=self, depends_on=after),
        )

    def _adopted(self, settings: Settings) -> pulumi.Output[MeshSettings]:
        """Read what istioctl reads of a mesh: its configuration, and the cluster's name in it."""

        def read(name: str) -> pulumi.Output[Mapping[str, str]]:
            return ConfigMap.get(f"adopted-{name}", f"{names.ISTIO_NAMESPACE}/{name}", opts=pulumi.ResourceOptions(parent=self)).data

        def described(found: dict[str, Mapping[str, str]]) -> MeshSettings:
            try:
                return adoption.adopt_mesh(settings.mesh, settings.cluster.network, found["mesh"]["mesh"], found["injector"]["values"])
            except ValueError as error:
                raise pulumi.RunError(f"this mesh cannot be adopted: {error}") from None

        return pulumi.Output.all(mesh=read("istio"), injector=read("istio-sidecar-injector")).apply(described)
