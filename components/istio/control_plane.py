"""Istio in a cluster: control plane, east-west gateway, and strict mutual TLS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.core.v1 import ConfigMap
from pulumi_kubernetes.helm.v3 import Release, RepositoryOptsArgs

from .. import commands, names
from ..config.mesh import MeshSettings
from ..config.stack import NamespaceSettings
from ..kubernetes import Cluster, custom_resource
from ..manifest import Manifest
from . import adoption, charts, network_gateways
from .manifests import istiod_exposure, namespace, services_exposure, strict_mtls
from .namespace import owned_namespace
from .scripts import gateway_api


@dataclass(frozen=True, kw_only=True)
class MeshArgs:
    """What a mesh is made from.

    settings: the mesh, installed or adopted.
    cluster: the cluster that it is in.
    networks_with_gateway: networks of machines whose gateway is machines.
    networks_without_gateway: networks of machines that have no gateway.
    namespace: what the stack states of Istio's namespace, where this program creates it.
    """

    settings: MeshSettings
    cluster: Cluster
    networks_with_gateway: Sequence[str] = ()
    networks_without_gateway: Sequence[str] = ()
    namespace: NamespaceSettings | None = None

    @property
    def other_networks(self) -> list[str]:
        """The networks of machines that reach pods through the east-west gateway alone."""
        return [*self.networks_with_gateway, *self.networks_without_gateway]


class Mesh(pulumi.ComponentResource):
    """Istio by its own charts, or the Istio that a cluster has.

    settings, cluster: as in the arguments. network: the network of the cluster's pods.
    ready: the resources that everything in the mesh depends on. Then the gateway runs, hence
        injection and validation work.
    namespace_resources: Istio's namespace, where this component creates it.
    gateway: the address that machines dial. gateway_ip: the IP address that it resolves to.
    root_certificate: the mesh's trust anchor, as the cluster has it now.
    effective_config: the settings, with what the cluster says where the mesh is adopted.
    """

    settings: MeshSettings
    cluster: Cluster
    network: str
    ready: Sequence[pulumi.Resource]
    namespace_resources: Sequence[pulumi.Resource]
    gateway: pulumi.Output[str]
    gateway_ip: pulumi.Output[str]
    root_certificate: pulumi.Output[str]
    effective_config: pulumi.Output[MeshSettings]

    def __init__(self, name: str, args: MeshArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("istio-vm-mesh:mesh:Mesh", name, {}, opts)
        self._args = args
        cluster, settings = args.cluster, args.settings
        self.settings, self.cluster, self.network = settings, cluster, cluster.network
        self.gateway = cluster.gateway_address
        self.gateway_ip = cluster.gateway_ip or cluster.gateway_address
        self.namespace_resources = [] if settings.adopt else self._namespace()
        self.effective_config = self._adopted() if settings.adopt else pulumi.Output.from_input(settings)
        istiod: Sequence[pulumi.Resource] = [self._gateway_api()] if args.other_networks else self.namespace_resources
        if not settings.adopt:
            istiod = [self._control_plane(istiod)]
        gateway = self._gateway(cluster.gateway_service, istiod) if cluster.gateway_service is not None else None
        objects = [self._object(manifest, istiod) for manifest in self._manifests(gateway is not None)]
        self.ready = [*([gateway] if gateway else []), *objects]
        # Every Istio pod mounts this ConfigMap, so it exists when the gateway runs. It is read at
        # each run, so a rotated root certificate is noticed.
        config_map = names.ROOT_CERTIFICATE_CONFIG_MAP
        root = ConfigMap.get(
            self.child_name("root-certificate"),
            gateway.id.apply(lambda _: config_map) if gateway else config_map,
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.root_certificate = root.data.apply(lambda data: data["root-cert.pem"])
        self.register_outputs({"gateway": self.gateway})

    def child_name(self, child: str) -> str:
        """Return the resource name of something that belongs to this mesh."""
        return names.child_name(self._name, "mesh", child)

    def _manifests(self, with_gateway: bool) -> list[Manifest]:
        args = self._args
        return [
            *([] if args.settings.adopt else [strict_mtls()]),
            *(istiod_exposure() if with_gateway else []),
            *map(network_gateways.passthrough_gateway, args.networks_with_gateway),
            *map(network_gateways.blackhole_gateway, args.networks_without_gateway),
            *([services_exposure()] if with_gateway and args.other_networks else []),
        ]

    def _object(self, manifest: Manifest, istiod: Sequence[pulumi.Resource]) -> pulumi.Resource:
        """Declare one object. Istio's webhook validates it, so istiod must run before."""
        name = f"{self._name}-{manifest['kind'].lower()}-{manifest['metadata']['name']}"
        return custom_resource(name, manifest, pulumi.ResourceOptions(parent=self, depends_on=istiod))

    def _gateway_api(self) -> pulumi.Resource:
        """Install the Gateway API's CRDs where there are none.

        They stay when the stack is destroyed, as the CRDs of Istio's charts do.
        """
        source = self._args.settings.gateway_api
        payload = self.cluster.access.apply(lambda access: gateway_api.Payload(access, source))
        return commands.local_command(
            self.child_name("gateway-api"),
            commands.Script(gateway_api, payload),
            pulumi.ResourceOptions(parent=self, depends_on=self.cluster.ready),
            options=commands.CommandOptions(converges=True),
        )

    def _namespace(self) -> list[pulumi.Resource]:
        labels = {names.NETWORK_LABEL: self.network}
        metadata = namespace(names.ISTIO_NAMESPACE, labels, self._args.namespace)["metadata"]
        opts = pulumi.ResourceOptions(parent=self, depends_on=self.cluster.ready)
        return owned_namespace(self.child_name(names.ISTIO_NAMESPACE), metadata, self.cluster, opts)

    def _control_plane(self, depends_on: Sequence[pulumi.Resource]) -> Release:
        settings = self._args.settings
        base = self._release("istio-base", "base", charts.base_values(settings), self.namespace_resources)
        return self._release(names.ISTIOD_DEPLOYMENT, "istiod", charts.istiod_values(settings, self.network), [base, *depends_on])

    def _gateway(self, service: Manifest, depends_on: Sequence[pulumi.Resource]) -> Release:
        args = self._args
        values = charts.gateway_values(args.settings, self.network, service, bool(args.other_networks))
        return self._release(names.EASTWEST_GATEWAY, "gateway", values, depends_on)

    def _release(self, release: str, chart: str, values: Manifest, depends_on: Sequence[pulumi.Resource]) -> Release:
        settings = self._args.settings
        source = charts.chart(settings, chart)
        return Release(
            self.child_name(release),
            name=release,
            namespace=names.ISTIO_NAMESPACE,
            chart=source.chart,
            version=source.version,
            repository_opts=RepositoryOptsArgs(repo=source.repository) if source.repository else None,
            values=values,
            timeout=300,
            # The provider does not notice that a chart from a directory changed.
            description=f"Istio {settings.version}",
            opts=pulumi.ResourceOptions(parent=self, depends_on=list(depends_on)),
        )

    def _adopted(self) -> pulumi.Output[MeshSettings]:
        """Read what istioctl reads of a mesh: its configuration, and the cluster's name in it."""
        settings = self._args.settings

        def read(config_map: str) -> pulumi.Output[Mapping[str, str]]:
            resource_id = f"{names.ISTIO_NAMESPACE}/{config_map}"
            opts = pulumi.ResourceOptions(parent=self)
            return ConfigMap.get(self.child_name(f"adopted-{config_map}"), resource_id, opts=opts).data

        def effective(data: Mapping[str, Mapping[str, str]]) -> MeshSettings:
            try:
                return adoption.adopt_mesh(settings, self.network, data["mesh"]["mesh"], data["injector"]["values"])
            except ValueError as error:
                raise pulumi.RunError(f"this mesh cannot be adopted: {error}") from None

        return pulumi.Output.all(mesh=read("istio"), injector=read("istio-sidecar-injector")).apply(effective)
