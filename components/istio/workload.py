"""A workload in the cluster: identity, WorkloadGroup, Services, and pods if the stack runs them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pulumi

from .. import names
from ..config.stack import NamespaceSettings
from ..config.workload import WorkloadSettings
from ..existing_objects import SERVICE, SERVICE_ACCOUNT, ExistingObject, ports_by_name
from ..kubernetes import ExternalObject, KubernetesObject, use_existing
from ..manifest import Manifest
from ..mesh_facts import MeshFacts
from . import manifests, network_gateways
from .control_plane import Mesh
from .namespace import owned_namespace


def namespaces(
    wanted: Iterable[str],
    mesh: Mesh,
    opts: pulumi.ResourceOptions,
    stated: Mapping[str, NamespaceSettings] | None = None,
) -> Mapping[str, Sequence[pulumi.Resource]]:
    """Declare namespaces and return, by name, what must exist before anything is put into each.

    wanted: the namespaces to create; Istio's own comes from `mesh`.
    opts: the options of everything in the cluster.
    stated: what the stack states of namespaces, by name.

    In a mesh that is adopted, each refuses plaintext by a PeerAuthentication of its own. A mesh
    that this program installs refuses plaintext everywhere.
    """
    resources: dict[str, Sequence[pulumi.Resource]] = {mesh.settings.namespace: mesh.namespace_resources}
    in_mesh = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=list(mesh.ready)))
    for name in sorted(wanted):
        metadata = mesh.namespace_metadata((stated or {}).get(name, NamespaceSettings(name=name)))
        owned = owned_namespace(mesh.child_name(names.namespace_resource_name(name)), metadata, mesh.cluster, in_mesh)
        resources[name] = owned
        if mesh.settings.adopt:
            after_namespace = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=owned))
            resource_name = mesh.child_name(names.strict_mtls_resource_name(name))
            peer_authentication = KubernetesObject(resource_name, manifests.strict_mtls(name), after_namespace)
            resources[name] = [*owned, peer_authentication]
    return resources


@dataclass(frozen=True, kw_only=True)
class WorkloadArgs:
    """What a workload is made from.

    settings: the workload.
    mesh: the mesh that it belongs to.
    machines: the names of the machines that are joined one by one and run it.
    namespace_resources: what must exist before anything is put into its namespace.
    failover: whether clients reach its machines through several gateways, one of which may fail.
    clients_see_several_gateways: whether clients choose between these gateways themselves.
    """

    settings: WorkloadSettings
    mesh: Mesh
    machines: Sequence[str]
    namespace_resources: Sequence[pulumi.Resource] = ()
    failover: bool = False
    clients_see_several_gateways: bool = False


class Workload(pulumi.ComponentResource):
    """ServiceAccount, WorkloadGroup, Services, Deployment and Lease (its slots) of a workload.

    A ServiceAccount and Services of others are read where the settings say that they exist.

    existing_services: the specs of Services that exist, by name.
    effective_settings: the settings, with the ports of Services that exist.
    identity_resources: what must exist before the first machine joins.
    ready: resources that exist once all of these do. Each machine names them in its state.
    all_resources: these and the pods: what can be called.
    """

    settings: WorkloadSettings
    mesh: Mesh
    existing_services: pulumi.Output[dict[str, Manifest]]
    effective_settings: pulumi.Output[WorkloadSettings]
    identity_resources: list[pulumi.Resource]
    ready: list[pulumi.Resource]
    all_resources: list[pulumi.Resource]

    def __init__(self, name: str, args: WorkloadArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(names.WORKLOAD_TYPE, name, {}, opts)
        settings = args.settings
        self.settings, self.mesh, self._args = settings, args.mesh, args
        in_namespace = pulumi.ResourceOptions(parent=self, depends_on=list(args.namespace_resources))
        in_mesh = pulumi.ResourceOptions(parent=self, depends_on=[*args.namespace_resources, *args.mesh.ready])
        account = self._account(in_namespace)
        workload_group = args.mesh.custom_resource(
            names.part_name(name, names.WORKLOAD_GROUP),
            lambda facts: manifests.workload_group(settings, facts.network),
            in_mesh,
        )
        services = [
            KubernetesObject(names.service_resource_name(name, service), manifest, in_namespace)
            for service, manifest in manifests.services(settings).items()
        ]
        existing = {service: self._existing_service(service, in_namespace) for service in settings.existing_services}
        specs: dict[str, Any] = {service: read.spec.apply(_manifest) for service, read in existing.items()}
        self.existing_services = pulumi.Output.from_input(specs)
        self.effective_settings = self.existing_services.apply(partial(with_existing_ports, settings))
        self.identity_resources = [account, workload_group, *services, *existing.values()]
        for service in self._with_failover:
            build = partial(self._failover_rule, service)
            rule = args.mesh.custom_resource(names.failover_resource_name(name, service), build, in_mesh)
            self.identity_resources.append(rule)
        self.ready = list(self.identity_resources)
        if args.machines:
            slots = manifests.slots_lease(settings, args.machines)
            last = pulumi.ResourceOptions(parent=self, depends_on=list(self.identity_resources))
            self.ready = [KubernetesObject(names.part_name(name, names.SLOTS), slots, last)]
            self.identity_resources += self.ready
        self.all_resources = list(self.identity_resources)
        if settings.pods:
            depends_on = [*args.namespace_resources, account, *args.mesh.ready]
            deployment = {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": manifests.deployment_metadata(settings),
                "spec": args.mesh.facts.apply(lambda facts: _pods(settings, facts)),
            }
            in_order = pulumi.ResourceOptions(parent=self, depends_on=depends_on)
            self.all_resources.append(KubernetesObject(names.part_name(name, names.PODS), deployment, in_order))
        self.register_outputs({})

    @property
    def _with_failover(self) -> list[str]:
        """The Services whose clients abandon a gateway that does not answer."""
        created = manifests.services(self.settings) if self._args.failover else ()
        return [service for service in created if not self.settings.services[service].headless]

    def _failover_rule(self, service: str, facts: MeshFacts) -> Manifest:
        several_gateways = self._args.clients_see_several_gateways
        return network_gateways.failover_rule(service, self.settings, facts.cluster_domain, several_gateways)

    def callees(self, facts: MeshFacts) -> list[Manifest | None]:
        """Return the objects of this program that decide what answers a call of the workload."""
        settings = self.settings
        return [
            manifests.deployment(settings, facts),
            manifests.services(settings),
            manifests.workload_group(settings, ""),
            *(self._failover_rule(service, facts) for service in self._with_failover),
        ]

    def _account(self, opts: pulumi.ResourceOptions) -> pulumi.Resource:
        """Create the ServiceAccount, or read the one that exists.

        The resource name is the same, so Pulumi gives up an account that it created.
        """
        settings, resource_name = self.settings, names.part_name(self._name, names.ACCOUNT)
        if settings.service_account.create:
            return KubernetesObject(resource_name, manifests.service_account(settings), opts)
        return ExternalObject(
            resource_name, SERVICE_ACCOUNT, self._use(SERVICE_ACCOUNT, settings.service_account_name, resource_name), opts
        )

    def _existing_service(self, service: str, opts: pulumi.ResourceOptions) -> ExternalObject:
        resource_name = names.service_resource_name(self._name, service)
        return ExternalObject(resource_name, SERVICE, self._use(SERVICE, service, resource_name), opts)

    def _use(self, kind: str, name: str, resource_name: str) -> str:
        """Have an object of others checked before any change, and return the id by which it is
        read.
        """
        settings = self.settings
        used = ExistingObject(
            workload=settings.name,
            kind=kind,
            namespace=settings.namespace,
            name=name,
            labels=dict(settings.labels),
            pod_labels=manifests.pod_labels(settings) if settings.pods else dict(settings.labels),
            ports=dict(settings.ports),
            declared_by=resource_name,
        )
        use_existing(self.mesh.cluster, used)
        return f"{settings.namespace}/{name}"


def _pods(workload: WorkloadSettings, facts: MeshFacts) -> Manifest:
    """Return the spec of the workload's Deployment."""
    deployment = manifests.deployment(workload, facts)
    assert deployment is not None
    spec: Manifest = deployment["spec"]
    return spec


def _manifest(spec: Manifest) -> Manifest:
    """Return the selector and the ports of a Service that was read, as its manifest has them."""
    return {
        "selector": spec.get("selector") or {},
        "ports": [
            {
                "name": port.get("name") or "",
                "port": port["port"],
                "targetPort": port.get("targetPort"),
                "protocol": port.get("protocol") or "TCP",
                **({"appProtocol": port["appProtocol"]} if port.get("appProtocol") else {}),
            }
            for port in spec.get("ports") or ()
        ],
    }


def with_existing_ports(workload: WorkloadSettings, specs: Mapping[str, Manifest]) -> WorkloadSettings:
    """Return a workload whose existing Services have the ports and the protocols that the cluster has.

    specs: the existing Services' specs by name.
    """
    ports = {name: ports_by_name(spec, workload.ports) for name, spec in specs.items()}
    services = {
        name: service.model_copy(update=_ports_and_protocols(ports[name])) if name in ports else service
        for name, service in workload.services.items()
    }
    return workload.model_copy(update={"services": services})


def _ports_and_protocols(ports: Mapping[str, Manifest]) -> dict[str, object]:
    """Return the ports of a Service and what states the protocol of each, by the names of the workload's ports."""
    return {
        "ports": {name: int(port["port"]) for name, port in ports.items()},
        "app_protocols": {name: port.get("appProtocol") or port.get("name") or "" for name, port in ports.items()},
    }
