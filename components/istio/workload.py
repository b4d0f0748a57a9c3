"""A workload in the cluster: what it is called, who it is, and its pods if the stack has them run here."""

from __future__ import annotations

import pulumi
from pulumi_kubernetes.apps.v1 import Deployment
from pulumi_kubernetes.core.v1 import Namespace, Service, ServiceAccount

from .. import names
from ..config.existing import ExistingCluster
from ..config.stack import Settings
from ..kubernetes import custom_resource
from . import manifests, network_gateways
from .control_plane import Mesh


def namespaces(settings: Settings, mesh: Mesh, opts: pulumi.ResourceOptions) -> dict[str, list[pulumi.Resource]]:
    """What must exist before anything is put into the namespaces of the stack's workloads, by namespace.

    In a mesh that this program installs, plaintext is refused everywhere; in an adopted one, in the namespaces that it makes.
    """
    made: dict[str, list[pulumi.Resource]] = {names.ISTIO_NAMESPACE: mesh.namespace}
    after = mesh.ready
    options = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=after))
    for name in sorted({workload.namespace for workload in settings.workloads.values()} - {names.ISTIO_NAMESPACE}):
        if isinstance(settings.cluster, ExistingCluster) and name in settings.cluster.namespaces:
            made[name] = []
            continue
        namespace = Namespace(f"namespace-{name}", metadata=manifests.injected_namespace(name)["metadata"], opts=options)
        made[name] = [namespace]
        if settings.mesh.adopt:
            strict = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[namespace]))
            made[name].append(custom_resource(f"namespace-{name}-mtls", manifests.strict_mtls(name), strict))
    return made


class Workload(pulumi.ComponentResource):
    """ServiceAccount, WorkloadGroup, Services and Deployment of a workload.

    `registered` must exist before the first machine joins; `ready` adds the pods, and is what can be called.
    """

    registered: list[pulumi.Resource]
    ready: list[pulumi.Resource]

    def __init__(
        self, name: str, settings: Settings, namespace: list[pulumi.Resource], after: list[pulumi.Resource], opts: pulumi.ResourceOptions
    ) -> None:
        super().__init__("istio-vm-mesh:workloads:Workload", name, {}, opts)
        workload = settings.workloads[name]
        child = pulumi.ResourceOptions(parent=self, depends_on=namespace)
        in_mesh = pulumi.ResourceOptions(parent=self, depends_on=[*namespace, *after])
        account = ServiceAccount(f"{name}-account", metadata=manifests.service_account(name, workload)["metadata"], opts=child)
        group = custom_resource(f"{name}-group", manifests.workload_group(name, workload, settings.cluster.network), in_mesh)
        services = [
            Service(f"{name}-service-{service}", metadata=manifest["metadata"], spec=manifest["spec"], opts=child)
            for service, manifest in manifests.services(workload).items()
        ]
        self.registered = [account, group, *services]
        if network_gateways.needs_failover(settings, name):
            choose = network_gateways.clients_see_several_gateways(settings, name)
            self.registered += [
                custom_resource(f"{name}-service-{service}-failover", network_gateways.failover_rule(service, workload, choose), in_mesh)
                for service in workload.services
            ]
        self.ready = list(self.registered)
        deployment = manifests.deployment(name, workload)
        if deployment:
            options = pulumi.ResourceOptions(parent=self, depends_on=[*namespace, account, *after])
            self.ready.append(Deployment(f"{name}-pods", metadata=deployment["metadata"], spec=deployment["spec"], opts=options))
        self.register_outputs({})
