"""The whole program: from the settings of a stack to resources, in one direction."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pulumi
from pulumi.runtime.config import get_config, get_config_env

from .config.existing import SshMachine
from .config.gateway_machines import networks_with_gateway
from .config.problems import SettingsError
from .config.reader import secret_problems
from .config.stack import Settings
from .istio import manifests, network_gateways
from .istio.control_plane import Mesh, MeshArgs
from .istio.workload import Workload, WorkloadArgs, namespaces
from .kubernetes import Cluster, KubernetesObject, check_cluster, cluster_options
from .local import scripting
from .machines.host import HostFactory
from .machines.machine import Machine, MachineArgs
from .mesh_facts import MeshFacts
from .names import gateway_addresses_resource_name
from .platforms import dispatch
from .platforms.gateway import Gateway
from .verification.component import VerificationArgs, VerifiedGroup, VerifiedWorkload, verify_workloads
from .versions import unsupported_kubernetes


def configuration() -> dict[str, Any]:
    """Return the stack's configuration as plain data, keys without the project's name.

    Raises SettingsError for values that are secret.
    """
    project = f"{pulumi.get_project()}:"
    keys = sorted({key for key in {**get_config_env(), **pulumi.runtime.config.CONFIG.get()} if key.startswith(project)})
    is_secret = {key.removeprefix(project): pulumi.runtime.is_config_secret(key) for key in keys}
    if problems := list(secret_problems(is_secret)):
        raise SettingsError(problems)
    return {name: _plain(get_config(project + name)) for name in is_secret}


def _plain(text: str) -> Any:
    """Pulumi hands maps over as JSON and everything else as text."""
    return json.loads(text) if text[:1] in "{[" else text


def build(settings: Settings, stack: str) -> dict[str, object]:
    """Declare all resources of a stack and return its outputs by name."""
    for note in network_gateways.connectivity_notes(settings):
        pulumi.log.info(note)
    networks = dispatch.networks(stack, settings)
    any_kubernetes = settings.mesh.adopt or settings.rules.disabled.kubernetes_version
    istio = "" if any_kubernetes else settings.mesh.version
    cluster = check_cluster("cluster-check", dispatch.cluster(stack, settings, networks), istio)
    in_cluster = cluster_options("kubernetes", cluster)
    mesh = _mesh(settings, cluster, in_cluster)
    workloads = _workloads(settings, mesh, in_cluster)
    hosts = dispatch.host_factories(stack, settings, networks, cluster)
    machines = {name: _machine(name, settings, workloads, host) for name, host in hosts.items()}
    groups = dispatch.instance_groups(settings, networks, workloads, in_cluster)
    joined = dispatch.Joined(machines=machines, groups=groups)
    gateways = {network: dispatch.network_gateway(network, settings, networks, joined) for network in networks_with_gateway(settings)}
    published = {network: _publish_addresses(network, gateway, mesh, in_cluster) for network, gateway in gateways.items()}
    outputs: dict[str, object] = {
        "gateway": mesh.gateway,
        "gatewayPort": mesh.gateway_port,
        "machines": {name: {"address": machine.address, "entry": machine.entry} for name, machine in machines.items()},
    }
    if verified := _verified(settings, workloads, joined):
        verification_args = VerificationArgs(mesh=mesh, workloads=verified, gateways=gateways, published=published)
        outputs["verification"] = pulumi.Output.all(**verify_workloads(verification_args)).apply(scripting.encode)
    return outputs


def _mesh(settings: Settings, cluster: Cluster, in_cluster: pulumi.ResourceOptions) -> Mesh:
    """Declare the mesh, and warn where its cluster has an unsupported version of Kubernetes."""
    created = settings.created_namespaces
    args = MeshArgs(
        settings=settings.mesh,
        cluster=cluster,
        networks_with_gateway=networks_with_gateway(settings),
        networks_without_gateway=network_gateways.networks_without_gateway(settings),
        created_namespaces=created,
        other_namespaces=sorted(settings.workload_namespaces - created.keys()),
        pods=settings.pods_with_sidecars,
        unrestricted_pods=settings.unrestricted_pods,
    )
    mesh = Mesh("mesh", args, in_cluster)
    if not settings.rules.disabled.kubernetes_version:
        pulumi.Output.all(mesh.facts, cluster.kubernetes).apply(lambda pair: _warn_of_kubernetes(*pair))
    return mesh


def _workloads(settings: Settings, mesh: Mesh, in_cluster: pulumi.ResourceOptions) -> dict[str, Workload]:
    """Declare the namespaces that are created, and the workloads by name."""
    created = settings.created_namespaces
    in_namespace = namespaces(settings.workload_namespaces & created.keys(), mesh, in_cluster, created)
    workloads = {}
    for name, workload in settings.workloads.items():
        args = WorkloadArgs(
            settings=workload,
            mesh=mesh,
            machines=_machines_of(settings, name),
            namespace_resources=in_namespace.get(workload.namespace, ()),
            failover=network_gateways.needs_failover(settings, name),
            clients_see_several_gateways=network_gateways.clients_see_several_gateways(settings, name),
        )
        workloads[name] = Workload(name, args, in_cluster)
    return workloads


def _machine(name: str, settings: Settings, workloads: Mapping[str, Workload], host: HostFactory) -> Machine:
    """Declare a single machine."""
    declared = settings.machines[name]
    args = MachineArgs(
        workload=workloads[declared.workload],
        host=host,
        network=declared.network,
        rotation=declared.rotation,
        workloads=list(settings.workloads),
        take_over=declared.take_over if isinstance(declared, SshMachine) else None,
        forget=_is_forgotten(declared),
        locality=settings.locality_of(name),
        capture=declared.capture,
        firewall=declared.firewall,
    )
    return Machine(name, args)


def _verified(settings: Settings, workloads: Mapping[str, Workload], joined: dispatch.Joined) -> list[VerifiedWorkload]:
    """Return what is verified of each workload, without those that the settings leave out."""
    return [
        VerifiedWorkload(
            workload=workload,
            machines=[joined.machines[machine] for machine in _machines_of(settings, name)],
            reachable_from_pods=settings.is_reachable_from_pods(name),
            strict=manifests.enforces_strict_mtls(settings, workload.settings),
            mode=mode,
            groups={
                group: VerifiedGroup(
                    network=declared.network,
                    size=declared.min_replicas,
                    revision=joined.groups[group].revision,
                    changes=joined.groups[group].changes,
                )
                for group, declared in settings.instance_groups.items()
                if declared.workload == name
            },
        )
        for name, workload in workloads.items()
        if (mode := settings.verification_mode(name)) != "none"
    ]


def _machines_of(settings: Settings, workload: str) -> list[str]:
    """Return the single machines of a workload, without those that are given up."""
    return [name for name, machine in settings.single_machines_of(workload).items() if not _is_forgotten(machine)]


def _is_forgotten(machine: object) -> bool:
    return isinstance(machine, SshMachine) and machine.forget


def _warn_of_kubernetes(facts: MeshFacts, kubernetes: str) -> None:
    """Warn of a mesh that runs on a version of Kubernetes that its Istio does not support."""
    if supported := unsupported_kubernetes(facts.image_tag, kubernetes):
        pulumi.log.warn(f"the cluster has Kubernetes {kubernetes}; {supported}: upgrade Istio (docs/how-to/upgrades.md)")


def _publish_addresses(network: str, gateway: Gateway, mesh: Mesh, opts: pulumi.ResourceOptions) -> pulumi.Resource:
    """Publish to istiod where calls into `network` go, once its gateway can take them."""
    spec = pulumi.Output.all(*gateway.addresses.values()).apply(
        lambda addresses: network_gateways.remote_gateway(network, mesh.settings.namespace, addresses)["spec"]
    )
    manifest = {**network_gateways.remote_gateway(network, mesh.settings.namespace, []), "spec": spec}
    ready = pulumi.ResourceOptions(depends_on=list(gateway.ready))
    return KubernetesObject(gateway_addresses_resource_name(network), manifest, pulumi.ResourceOptions.merge(opts, ready))
