"""Istio in a cluster: control plane, east-west gateway, and strict mutual TLS."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import pulumi

from .. import commands, mesh_facts, names
from ..config.mesh import MeshSettings
from ..config.stack import NamespaceSettings
from ..kubernetes import Cluster, ExternalObject, KubernetesObject, Release
from ..manifest import Manifest
from ..mesh_facts import MeshFacts
from . import charts, manifests, network_gateways
from .adoption import Adoption
from .mesh_reading import MeshReading, MeshReadingArgs
from .namespace import owned_namespace
from .scripts import gateway_api

TIMEOUT_S = 600
"""Seconds until a chart's pods run. GKE's Autopilot and autoscaler take minutes to add a node."""


@dataclass(frozen=True, kw_only=True)
class MeshArgs:
    """What a mesh is made from.

    settings: the mesh, installed or adopted.
    cluster: the cluster that it is in.
    networks_with_gateway: networks of machines whose gateway is machines.
    networks_without_gateway: networks of machines that have no gateway.
    created_namespaces: what the stack states of the namespaces that the program creates, by name.
    other_namespaces: namespaces of workloads that exist.
    pods: the workloads of which the program runs pods with sidecars, by namespace.
    unrestricted_pods: those of them that the level `restricted` refuses, by namespace.
    """

    settings: MeshSettings
    cluster: Cluster
    networks_with_gateway: Sequence[str] = ()
    networks_without_gateway: Sequence[str] = ()
    created_namespaces: Mapping[str, NamespaceSettings] = field(default_factory=dict)
    other_namespaces: Sequence[str] = ()
    pods: Mapping[str, Sequence[str]] = field(default_factory=dict)
    unrestricted_pods: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def other_networks(self) -> list[str]:
        """The networks of machines that reach pods through the east-west gateway alone."""
        return [*self.networks_with_gateway, *self.networks_without_gateway]


class Mesh(pulumi.ComponentResource):
    """Istio by its own charts, or the Istio that a cluster has.

    settings, cluster: as in the arguments. network: the network of the cluster's pods.
    ready: the resources that everything in the mesh depends on. Then the gateway runs, hence
        injection and validation work.
    namespace_resources: Istio's namespaces, where this component creates them.
    gateway, gateway_port: where machines reach the control plane. gateway_ip: the IP address that `gateway` resolves
        to.
    istiod_values, gateway_values: of the releases; empty where they exist already.
    root_certificate: the mesh's trust anchor, as the cluster has it now.
    root_config_map: where that is: namespace and name of a ConfigMap, by a slash.
    facts: of the mesh, by its values, or by its cluster where it is adopted.
    """

    settings: MeshSettings
    cluster: Cluster
    network: str
    ready: Sequence[pulumi.Resource]
    namespace_resources: Sequence[pulumi.Resource]
    gateway: pulumi.Output[str]
    gateway_port: int
    gateway_ip: pulumi.Output[str]
    istiod_values: Manifest
    gateway_values: pulumi.Output[Manifest]
    root_certificate: pulumi.Output[str]
    root_config_map: pulumi.Output[str]
    facts: pulumi.Output[MeshFacts]

    def __init__(self, name: str, args: MeshArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(names.MESH_TYPE, name, {}, opts)
        self._args = args
        cluster, settings = args.cluster, args.settings
        self.settings, self.cluster, self.network = settings, cluster, cluster.network
        self.gateway, self.gateway_port = cluster.gateway_address, cluster.gateway_port
        self.gateway_ip = cluster.gateway_ip or cluster.gateway_address
        if settings.adopt:
            # Names and namespaces of objects follow from the settings alone. Their specs do not.
            self._stated = mesh_facts.from_values({}, settings.namespace)
            self.facts = self._read()
        else:
            self._stated = charts.facts(settings, cluster.network)
            self.facts = pulumi.Output.from_input(self._stated)
        self.namespace_resources = [] if settings.adopt else self._namespaces()
        istiod: Sequence[pulumi.Resource] = [self._gateway_api()] if args.other_networks else self.namespace_resources
        self.istiod_values = {} if settings.adopt else charts.istiod_values(settings, cluster.network, cluster.replicas)
        if not settings.adopt:
            istiod = [self._control_plane(istiod)]
        values = None if cluster.gateway_service is None else self._gateway_values(cluster.gateway_service)
        self.gateway_values = pulumi.Output.from_input({} if values is None else values)
        gateway = self._release(names.EASTWEST_GATEWAY, "gateway", values, istiod) if values is not None else None
        objects = [self._object(manifest, istiod) for manifest in self._manifests(gateway is not None)]
        if args.other_networks and cluster.gateway_behind_nat:
            objects.append(self._published_gateway(istiod))
        self.ready = [*([gateway] if gateway else []), *objects]
        # Every Istio pod mounts this ConfigMap, so it exists when the gateway runs. It is read at
        # each run, so a changed root certificate reaches the machines.
        self.root_config_map = self.facts.apply(lambda facts: f"{facts.namespace}/{facts.root_config_map}")
        after_gateway = pulumi.Output.all(self.root_config_map, gateway.id if gateway else "")
        root = ExternalObject(
            self.child_name("root-certificate"),
            "ConfigMap",
            after_gateway.apply(lambda values: str(values[0])),
            pulumi.ResourceOptions(parent=self),
        )
        self.root_certificate = root.data.apply(lambda data: data["root-cert.pem"])
        self.register_outputs({"gateway": self.gateway})

    def network_name(self, network: str) -> pulumi.Output[str]:
        """Return a network's name in the mesh; "" for pods of a network without a name."""
        return self.facts.apply(lambda facts: facts.network if network == self.network else network)

    def namespace_metadata(self, stated: NamespaceSettings) -> Manifest:
        """Return the metadata of a namespace whose pods get a sidecar of the mesh."""

        def build(facts: MeshFacts) -> Manifest:
            return manifests.namespace_metadata(stated, facts.injection_labels)

        labels = self.facts.apply(lambda facts: build(facts)["labels"])
        return {**build(self._stated), "labels": labels}

    def custom_resource(self, name: str, build: Callable[[MeshFacts], Manifest], opts: pulumi.ResourceOptions) -> pulumi.Resource:
        """Declare an object whose spec follows from the mesh's facts; its name and namespace do
        not.
        """
        spec = self.facts.apply(lambda facts: build(facts)["spec"])
        return KubernetesObject(name, {**build(self._stated), "spec": spec}, opts)

    def child_name(self, child: str) -> str:
        """Return the resource name of something that belongs to this mesh."""
        return names.child_name(self._name, "mesh", child)

    def _manifests(self, with_gateway: bool) -> list[Callable[[MeshFacts], Manifest]]:
        args = self._args
        exposures = [manifests.istiod_gateway, manifests.istiod_route] if with_gateway else []
        if with_gateway and args.other_networks:
            exposures.append(lambda facts: manifests.services_exposure(facts.namespace, facts.cluster_domain))
        return [
            *([] if args.settings.adopt else [lambda facts: manifests.strict_mtls(facts.root_namespace)]),
            *exposures,
            *(partial(_passthrough_gateway, network) for network in args.networks_with_gateway),
            *(partial(_blackhole_gateway, network) for network in args.networks_without_gateway),
        ]

    def _object(self, build: Callable[[MeshFacts], Manifest], istiod: Sequence[pulumi.Resource]) -> pulumi.Resource:
        """Declare one object, after istiod: Istio's webhook validates it."""
        manifest = build(self._stated)
        name = f"{self._name}-{manifest['kind'].lower()}-{manifest['metadata']['name']}"
        return self.custom_resource(name, build, pulumi.ResourceOptions(parent=self, depends_on=istiod))

    def _published_gateway(self, istiod: Sequence[pulumi.Resource]) -> pulumi.Resource:
        """Have istiod give the translated address to other networks, in place of the Service's."""
        namespace = self.settings.namespace
        manifest = network_gateways.remote_gateway(self.network, namespace, [])
        spec = self.gateway.apply(lambda address: network_gateways.remote_gateway(self.network, namespace, [address])["spec"])
        name = self.child_name(names.gateway_addresses_resource_name(self.network))
        return KubernetesObject(name, {**manifest, "spec": spec}, pulumi.ResourceOptions(parent=self, depends_on=istiod))

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

    def _namespaces(self) -> list[pulumi.Resource]:
        opts = pulumi.ResourceOptions(parent=self, depends_on=self.cluster.ready)
        facts, resources = self._stated, []
        for name in dict.fromkeys([facts.namespace, facts.root_namespace]):
            labels = {names.NETWORK_LABEL: self.network} if name == facts.namespace else {}
            stated = self._args.created_namespaces.get(name, NamespaceSettings(name=name))
            metadata = manifests.namespace_metadata(stated, labels)
            resources += owned_namespace(self.child_name(name), metadata, self.cluster, opts, of_istio=True)
        return resources

    def _control_plane(self, depends_on: Sequence[pulumi.Resource]) -> Release:
        settings = self._args.settings
        base = self._release("istio-base", "base", charts.base_values(settings), self.namespace_resources)
        return self._release(names.ISTIOD_DEPLOYMENT, "istiod", self.istiod_values, [base, *depends_on])

    def _gateway_values(self, service: Manifest) -> pulumi.Input[Manifest]:
        args, cluster = self._args, self.cluster

        def values_of(facts: MeshFacts, exposed: Manifest) -> Manifest:
            entrance = charts.Entrance(
                service=exposed,
                port=cluster.gateway_port,
                behind_nat=cluster.gateway_behind_nat,
                cross_network=bool(args.other_networks),
                replicas=cluster.replicas,
            )
            return charts.gateway_values(args.settings, facts, entrance)

        if args.settings.adopt:
            return pulumi.Output.all(self.facts, service).apply(lambda read: values_of(read[0], read[1]))
        return values_of(self._stated, service)

    def _release(self, release: str, chart: str, values: pulumi.Input[Manifest], depends_on: Sequence[pulumi.Resource]) -> Release:
        settings = self._args.settings
        source = charts.chart(settings, chart)
        inputs = {
            "name": release,
            "namespace": settings.namespace,
            "chart": source.chart,
            "version": source.version,
            "repositoryOpts": {"repo": source.repository} if source.repository else None,
            "values": values,
            "timeout": TIMEOUT_S,
            # The provider does not notice that a chart from a directory changed.
            "description": f"Istio {settings.version}",
        }
        return Release(self.child_name(release), inputs, pulumi.ResourceOptions(parent=self, depends_on=list(depends_on)))

    def _read(self) -> pulumi.Output[MeshFacts]:
        """Return the facts of a mesh that exists."""
        args, settings = self._args, self._args.settings
        adoption = Adoption(
            namespace=settings.namespace,
            revision=settings.revision,
            version=settings.version,
            hub=settings.hub if "hub" in settings.model_fields_set else "",
            network=self.network,
            other_networks=tuple(args.other_networks),
            created_namespaces={name: dict(stated.labels) for name, stated in args.created_namespaces.items()},
            other_namespaces=tuple(args.other_namespaces),
            pods=args.pods,
            unrestricted_pods=args.unrestricted_pods,
            stack=names.stack_label(pulumi.get_project(), pulumi.get_stack()),
        )
        gateway = self.gateway if self.cluster.gateway_service is None else None
        reading_args = MeshReadingArgs(access=self.cluster.access, wanted=adoption, gateway_address=gateway)
        opts = pulumi.ResourceOptions(parent=self, provider=self.cluster.dynamic, depends_on=self.cluster.ready)
        reading = MeshReading(self.child_name("mesh-facts"), reading_args, opts)
        return reading.facts.apply(mesh_facts.decode)


def _passthrough_gateway(network: str, facts: MeshFacts) -> Manifest:
    return network_gateways.passthrough_gateway(network, facts.namespace, facts.cluster_domain)


def _blackhole_gateway(network: str, facts: MeshFacts) -> Manifest:
    return network_gateways.blackhole_gateway(network, facts.namespace)
