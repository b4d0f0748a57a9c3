"""Choose the platform: from the settings of a stack to networks, cluster, machines and gateways.

A platform's SDK is imported only where a stack uses the platform.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pulumi

from .. import names
from ..config.docker import DockerMachine, KindCluster
from ..config.existing import ExistingCluster, SshMachine
from ..config.gateway_machines import gateway_machine_names
from ..config.google import GceInstanceGroup, GceMachine, GkeCluster
from ..config.stack import Settings
from ..istio import network_gateways
from ..istio.workload import Workload
from ..kubernetes import Cluster
from ..machines.host import HostFactory
from ..machines.machine import Machine
from ..machines.ssh_key import SshKey, ssh_key
from .gateway import Gateway

if TYPE_CHECKING:
    from .docker.network import DockerNetwork
    from .google.instance_group import InstanceGroup
    from .google.network import GoogleNetworks


@dataclass(frozen=True, kw_only=True)
class Networks:
    """What was created for clusters and machines to be in.

    docker: Docker networks, by the stack's names. google: VPCs.
    """

    docker: Mapping[str, DockerNetwork] = field(default_factory=dict)
    google: GoogleNetworks | None = None


@dataclass(frozen=True, kw_only=True)
class Joined:
    """What is in the mesh. machines: single ones, groups: instance groups, both by name."""

    machines: Mapping[str, Machine]
    groups: Mapping[str, InstanceGroup]


def networks(stack: str, settings: Settings) -> Networks:
    """Create the networks of a stack. The platforms `existing` and `ssh` need none."""
    docker: dict[str, DockerNetwork] = {}
    if in_docker := settings.docker_networks:
        from .docker.configuration import docker_cidr
        from .docker.names import network_resource_name
        from .docker.network import DockerNetworkArgs, docker_network

        for name in sorted(in_docker):
            args = DockerNetworkArgs(stack=stack, network=name, cidr=docker_cidr(settings, name))
            docker[name] = docker_network(network_resource_name(name), args)
    return Networks(docker=docker, google=_google_networks(stack, settings))


def _google_networks(stack: str, settings: Settings) -> GoogleNetworks | None:
    if settings.google is None:
        return None
    from .google.firewall import firewall_rules, peerings, unmanaged_notes
    from .google.names import NETWORKS
    from .google.network import GoogleNetwork, GoogleNetworkArgs
    from .google.topology import vpcs, workloads_with_machines

    for note in unmanaged_notes(stack, settings):
        pulumi.log.info(note)
    args = GoogleNetworkArgs(
        stack=stack,
        settings=settings.google,
        vpcs=vpcs(settings),
        workloads=workloads_with_machines(settings),
        firewall_rules=firewall_rules(settings),
        peerings=peerings(settings),
        cluster=settings.cluster if isinstance(settings.cluster, GkeCluster) else None,
    )
    return GoogleNetwork(NETWORKS, args).networks


def cluster(stack: str, settings: Settings, networks: Networks) -> Cluster:
    """Create or adopt the cluster of a stack."""
    match settings.cluster:
        case KindCluster() as kind:
            from .docker.cluster import DockerCluster, DockerClusterArgs

            others = [network for name, network in networks.docker.items() if name != kind.network]
            docker_args = DockerClusterArgs(stack=stack, settings=kind, network=networks.docker[kind.network], other_networks=others)
            return DockerCluster("cluster", docker_args).cluster
        case GkeCluster() as gke:
            from .google.cluster import GoogleCluster, GoogleClusterArgs
            from .google.firewall import machine_cidrs

            assert networks.google, "the checks of the settings ask for `google`"
            clients = _gateway_clients(settings, machine_cidrs(settings))
            google_args = GoogleClusterArgs(settings=gke, networks=networks.google, gateway_clients=clients)
            return GoogleCluster("cluster", google_args).cluster
        case ExistingCluster() as existing:
            from .existing.cluster import ExistingClusterArgs, existing_cluster

            of_machines = {cidr for machine in settings.machines.values() for cidr in settings.cidrs(machine.network)}
            existing_args = ExistingClusterArgs(
                network=existing.network,
                pod_cidr=existing.pod_cidr,
                additional_pod_cidrs=existing.additional_pod_cidrs,
                context=existing.context,
                path=existing.kubeconfig,
                gateway=existing.gateway,
                gateway_clients=_gateway_clients(settings, of_machines),
            )
            return existing_cluster(existing_args)


def _gateway_clients(settings: Settings, of_machines: Collection[str]) -> list[str]:
    """Return the CIDRs that the load balancer of the east-west gateway admits.

    of_machines: the CIDRs that machines are in. Without any, those of all networks: a load balancer
        without CIDRs admits every address.
    """
    return sorted(of_machines or {cidr for name in settings.networks for cidr in settings.cidrs(name)})


def host_factories(stack: str, settings: Settings, networks: Networks, cluster: Cluster) -> Mapping[str, HostFactory]:
    """Return what creates or adopts each machine of a stack, by the machine's name."""
    docker = {name: machine for name, machine in settings.machines.items() if isinstance(machine, DockerMachine)}
    google = settings.machines_of_type(GceMachine)
    key_type = settings.google.ssh.key_type if settings.google else "ed25519"
    key = ssh_key(names.SSH_KEY, key_type) if docker or google else None
    factories: dict[str, HostFactory] = {}
    if existing := settings.machines_of_type(SshMachine):
        from .existing.machine import check_keys

        check_keys(existing)
    if docker and key:
        factories.update(_docker_hosts(stack, settings, networks.docker, cluster, key))
    for name, machine in settings.machines.items():
        if isinstance(machine, SshMachine):
            from .existing.machine import SshHostArgs, ssh_host

            factories[name] = ssh_host(
                SshHostArgs(
                    host=machine.host,
                    port=machine.port,
                    user=machine.user,
                    private_key=machine.private_key,
                    host_key=machine.host_key,
                    accept_any_host_key=machine.accept_any_host_key,
                    address=machine.address,
                    bastion=machine.bastion,
                ),
                patience_s=machine.connect_within,
            )
    if google and key and networks.google:
        factories.update(_google_hosts(settings, networks.google, key))
    return factories


def _docker_hosts(
    stack: str, settings: Settings, networks: Mapping[str, DockerNetwork], cluster: Cluster, key: SshKey
) -> Mapping[str, HostFactory]:
    """Return what creates each container.

    Machines in the cluster's network reach the pods through its node. Other machines reach the
    cluster's gateway address alone. A network's gateway is attached to both networks.
    """
    from .docker.machine import DockerHostArgs, docker_host

    pods_network, gateway = settings.cluster.network, cluster.gateway_address
    route_to_pods = gateway.apply(lambda node: f"{settings.cluster.pod_cidr} via {node}")
    factories: dict[str, HostFactory] = {}
    for name, machine in settings.machines.items():
        if not isinstance(machine, DockerMachine):
            continue
        network, second, routes = networks[machine.network], None, route_to_pods
        if settings.workloads[machine.workload].role == "router":
            network, second = networks[pods_network], network
        elif machine.network != pods_network:
            routes = pulumi.Output.format("{0}/32 via {1}", gateway, cluster.node_addresses[machine.network])
        args = DockerHostArgs(stack=stack, settings=machine, key=key, network=network, second_network=second, routes=routes)
        factories[name] = docker_host(args)
    return factories


def _google_hosts(settings: Settings, networks: GoogleNetworks, key: SshKey) -> Mapping[str, HostFactory]:
    from .google.machine import GATEWAY_SETUP, GoogleHostArgs, google_host

    factories: dict[str, HostFactory] = {}
    for name, machine in settings.machines_of_type(GceMachine).items():
        is_gateway = settings.workloads[machine.workload].role == "router"
        args = GoogleHostArgs(
            settings=machine.model_copy(update={"startup_script": GATEWAY_SETUP}) if is_gateway else machine,
            networks=networks,
            subnet=settings.subnet_of(machine),
            key=key,
        )
        factories[name] = google_host(args)
    return factories


def network_gateway(network: str, settings: Settings, networks: Networks, joined: Joined) -> Gateway:
    """Return the gateway of `network`: its machines, or the load balancer in front of them."""
    of_gateway = gateway_machine_names(settings, network)
    machines = {name: joined.machines[name] for name in of_gateway if name in joined.machines}
    group = joined.groups.get(of_gateway[0])
    revisions = [*(machine.revision for machine in machines.values()), *([group.revision] if group else ())]
    revision = pulumi.Output.all(*revisions).apply(" ".join)
    if network_gateways.has_load_balancer(settings, network) and networks.google:
        from pulumi_gcp import compute

        from .google.load_balancer import GatewayMember, LoadBalancer, LoadBalancerArgs
        from .google.names import balancer_name

        workload = names.gateway_workload_name(network)
        members: list[GatewayMember] = []
        subnets: list[str] = []
        for name, machine in machines.items():
            declared, instance = settings.machines[name], machine.host.resource
            assert isinstance(declared, GceMachine) and isinstance(instance, compute.Instance)
            members.append(GatewayMember(name=name, instance=instance, zone=declared.zone, joined=machine.join))
            subnets.append(settings.subnet_of(declared))
        if group:
            subnets.append(settings.subnet_of(settings.instance_groups[of_gateway[0]]))
        args = LoadBalancerArgs(
            networks=networks.google,
            subnet=subnets[0],
            members=members,
            group=group,
            # Clients are in this region, unless the cluster is one that this stack did not create.
            global_access=isinstance(settings.cluster, ExistingCluster),
        )
        balancer = LoadBalancer(balancer_name(workload), args)
        return Gateway(addresses={workload: balancer.address}, ready=balancer.ready, revision=revision)
    return Gateway(
        addresses={name: machine.address for name, machine in machines.items()},
        ready=[machine.join for machine in machines.values()],
        revision=revision,
    )


def instance_groups(
    settings: Settings, networks: Networks, workloads: Mapping[str, Workload], opts: pulumi.ResourceOptions
) -> Mapping[str, InstanceGroup]:
    """Create the instance groups of a stack and return them by name.

    opts: the options of what is in the cluster.
    """
    groups = settings.machines_of_type(GceInstanceGroup)
    if not groups or networks.google is None:
        return {}
    from .google.instance_group import InstanceGroup, InstanceGroupArgs, connect_role, token_rights
    from .google.machine import GATEWAY_SETUP

    role = connect_role(networks.google)
    rights = {
        name: token_rights(workloads[name], role, networks.google, opts) for name in sorted({group.workload for group in groups.values()})
    }
    created: dict[str, InstanceGroup] = {}
    for name, group in groups.items():
        is_gateway = settings.workloads[group.workload].role == "router"
        args = InstanceGroupArgs(
            settings=group.model_copy(update={"startup_script": GATEWAY_SETUP}) if is_gateway else group,
            workload=workloads[group.workload],
            networks=networks.google,
            subnet=settings.subnet_of(group),
            rights=rights[group.workload],
        )
        created[name] = InstanceGroup(name, args)
    return created
