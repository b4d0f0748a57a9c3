"""The whole program: from the settings of a stack to resources, in one direction."""

from __future__ import annotations

import json
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
from .kubernetes import check_cluster, cluster_options, custom_resource
from .local import scripting
from .machines.machine import Machine, MachineArgs
from .mesh_facts import MeshFacts
from .names import gateway_addresses_resource_name
from .platforms import dispatch
from .platforms.gateway import Gateway
from .verification.component import VerificationArgs, VerifiedWorkload, verify_workloads
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
    created = settings.created_namespaces
    networks = dispatch.networks(stack, settings)
    any_kubernetes = settings.mesh.adopt or settings.rules.disabled.kubernetes_version
    istio = "" if any_kubernetes else settings.mesh.version
    cluster = check_cluster("cluster-check", dispatch.cluster(stack, settings, networks), istio)
    in_cluster = cluster_options("kubernetes", cluster)
    mesh_args = MeshArgs(
        settings=settings.mesh,
        cluster=cluster,
        networks_with_gateway=networks_with_gateway(settings),
        networks_without_gateway=network_gateways.networks_without_gateway(settings),
        created_namespaces=created,
        other_namespaces=sorted(settings.workload_namespaces - created.keys()),
        pods=settings.pods_with_sidecars,
        unrestricted_pods=settings.unrestricted_pods,
    )
    mesh = Mesh("mesh", mesh_args, in_cluster)
    if not settings.rules.disabled.kubernetes_version:
        pulumi.Output.all(mesh.facts, cluster.kubernetes).apply(lambda pair: _warn_of_kubernetes(*pair))
    in_namespace = namespaces(settings.workload_namespaces & created.keys(), mesh, in_cluster, created)
    forgotten = {name for name, machine in settings.machines_of_type(SshMachine).items() if machine.forget}
    workloads: dict[str, Workload] = {}
    for name, workload in settings.workloads.items():
        workload_args = WorkloadArgs(
            settings=workload,
            mesh=mesh,
            machines=[machine for machine in settings.single_machines_of(name) if machine not in forgotten],
            namespace_resources=in_namespace.get(workload.namespace, ()),
            failover=network_gateways.needs_failover(settings, name),
            clients_see_several_gateways=network_gateways.clients_see_several_gateways(settings, name),
        )
        workloads[name] = Workload(name, workload_args, in_cluster)
    machines: dict[str, Machine] = {}
    for name, host in dispatch.host_factories(stack, settings, networks, cluster).items():
        declared = settings.machines[name]
        machine_args = MachineArgs(
            workload=workloads[declared.workload],
            host=host,
            network=declared.network,
            rotation=declared.rotation,
            workloads=list(settings.workloads),
            take_over=declared.take_over if isinstance(declared, SshMachine) else None,
            forget=name in forgotten,
            locality=settings.locality_of(name),
            capture=declared.capture,
            firewall=declared.firewall,
        )
        machines[name] = Machine(name, machine_args)
    groups = dispatch.instance_groups(settings, networks, workloads, in_cluster)
    joined = dispatch.Joined(machines=machines, groups=groups)
    gateways = {network: dispatch.network_gateway(network, settings, networks, joined) for network in networks_with_gateway(settings)}
    published = {network: _publish_addresses(network, gateway, mesh, in_cluster) for network, gateway in gateways.items()}
    outputs: dict[str, object] = {
        "gateway": mesh.gateway,
        "gatewayPort": mesh.gateway_port,
        "machines": {name: {"address": machine.address, "entry": machine.entry} for name, machine in machines.items()},
    }
    verified = [
        VerifiedWorkload(
            workload=workload,
            machines=[machines[machine] for machine in settings.single_machines_of(name) if machine not in forgotten],
            reachable_from_pods=settings.is_reachable_from_pods(name),
            strict=manifests.enforces_strict_mtls(settings, workload.settings),
            mode=mode,
            min_group_size=settings.min_group_size(name),
            group_networks=settings.group_networks(name),
        )
        for name, workload in workloads.items()
        if (mode := settings.verification_mode(name)) != "none"
    ]
    if verified:
        verification_args = VerificationArgs(
            mesh=mesh,
            workloads=verified,
            gateways=gateways,
            published=published,
            depends_on=[resource for group in groups.values() for resource in group.ready],
        )
        outputs["verification"] = pulumi.Output.all(**verify_workloads(verification_args)).apply(scripting.encode)
    return outputs


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
    return custom_resource(gateway_addresses_resource_name(network), manifest, pulumi.ResourceOptions.merge(opts, ready))
