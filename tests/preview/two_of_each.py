"""A program with two of each component that a stack has once."""

from __future__ import annotations

from ipaddress import IPv4Network

import pulumi

from components import config
from components.config.docker import DockerMachine, KindCluster
from components.config.google import GceMachine, GkeCluster
from components.config.mesh import MeshSettings
from components.config.stack import Settings
from components.istio.control_plane import Mesh, MeshArgs
from components.istio.workload import Workload, WorkloadArgs, namespaces
from components.kubernetes import Cluster, check_cluster, cluster_options
from components.machines.host import HostFactory
from components.machines.machine import Machine, MachineArgs
from components.machines.ssh_key import ssh_key
from components.platforms.docker.cluster import DockerCluster, DockerClusterArgs
from components.platforms.docker.machine import DockerHostArgs, docker_host
from components.platforms.docker.network import DockerNetworkArgs, docker_network
from components.platforms.google.cluster import GoogleCluster, GoogleClusterArgs
from components.platforms.google.firewall import firewall_rules, peerings
from components.platforms.google.instance_group import InstanceGroup, InstanceGroupArgs, connect_role, token_rights
from components.platforms.google.machine import GoogleHostArgs, google_host
from components.platforms.google.network import GoogleNetwork, GoogleNetworkArgs, GoogleNetworks
from components.platforms.google.topology import vpcs, workloads_with_machines
from components.verification.component import VerificationArgs, VerifiedWorkload, verify_workloads

ADOPTED = MeshSettings(adopt=True, version="1.31.0")


def on_docker(name: str, cidr: str, settings: Settings) -> None:
    """Declare a mesh on Docker, with a machine for each one of the lab."""
    kind = settings.cluster
    assert isinstance(kind, KindCluster)
    key = ssh_key(f"{name}-key")
    network = docker_network(f"{name}-network", DockerNetworkArgs(stack=name, network=kind.network, cidr=IPv4Network(cidr)))
    cluster = DockerCluster(name, DockerClusterArgs(stack=name, settings=kind, network=network)).cluster
    hosts: dict[str, HostFactory] = {}
    for machine in settings.machines_of_type(DockerMachine).values():
        routes = cluster.gateway_address.apply(lambda address: f"{kind.pod_cidr} via {address}")
        args = DockerHostArgs(stack=name, settings=machine, key=key, network=network, routes=routes)
        hosts[machine.name] = docker_host(args)
    declare(name, settings, cluster, hosts)


def on_google(name: str, settings: Settings) -> None:
    """Declare a mesh on Google Cloud, with the machines and the instance groups of a stack."""
    key = ssh_key(f"{name}-key")
    gke = settings.cluster
    assert settings.google and isinstance(gke, GkeCluster)
    network_args = GoogleNetworkArgs(
        stack=pulumi.get_stack(),
        settings=settings.google,
        vpcs=vpcs(settings),
        workloads=workloads_with_machines(settings),
        firewall_rules=firewall_rules(settings),
        peerings=peerings(settings),
        cluster=gke,
    )
    networks = GoogleNetwork(f"{name}-network", network_args).networks
    cluster_args = GoogleClusterArgs(settings=gke, networks=networks, gateway_clients=["10.0.0.0/8"])
    cluster = GoogleCluster(f"{name}-cluster", cluster_args).cluster
    hosts: dict[str, HostFactory] = {}
    for machine in settings.machines_of_type(GceMachine).values():
        subnet = settings.subnet_of(machine)
        hosts[machine.name] = google_host(GoogleHostArgs(settings=machine, networks=networks, subnet=subnet, key=key))
    declare(name, settings, cluster, hosts, networks)


def declare(name: str, settings: Settings, cluster: Cluster, hosts: dict[str, HostFactory], networks: GoogleNetworks | None = None) -> None:
    """Declare two meshes, one installed and one adopted, with workloads, machines and verification."""
    cluster = check_cluster(f"{name}-check", cluster)
    in_cluster = cluster_options(f"{name}-kubernetes", cluster)
    role = connect_role(networks) if networks else None
    for mesh_name, mesh_settings in ((f"{name}-installed", settings.mesh), (f"{name}-adopted", ADOPTED)):
        mesh = Mesh(mesh_name, MeshArgs(settings=mesh_settings, cluster=cluster, networks_without_gateway=["far"]), in_cluster)
        ready = namespaces({workload.namespace for workload in settings.workloads.values()}, mesh, in_cluster)
        verified = []
        for workload_settings in settings.workloads.values():
            names = settings.single_machines_of(workload_settings.name)
            workload_args = WorkloadArgs(
                settings=workload_settings,
                mesh=mesh,
                machines=[f"{mesh_name}-{each}" for each in names],
                namespace_resources=ready[workload_settings.namespace],
                failover=True,
            )
            workload = Workload(f"{mesh_name}-{workload_settings.name}", workload_args, in_cluster)
            machines = [Machine(f"{mesh_name}-{each}", MachineArgs(workload=workload, host=hosts[each])) for each in names]
            verified.append(VerifiedWorkload(workload=workload, machines=machines))
            if networks and role:
                rights = token_rights(workload, role, networks, in_cluster)
                for each, group in settings.instance_groups.items():
                    subnet = settings.subnet_of(group)
                    group_args = InstanceGroupArgs(settings=group, workload=workload, networks=networks, subnet=subnet, rights=rights)
                    InstanceGroup(f"{mesh_name}-{each}", group_args)
        pulumi.export(mesh_name, verify_workloads(VerificationArgs(mesh=mesh, workloads=verified)))


lab, google, fleet = config.load_file("lab"), config.load_file("single-network"), config.load_file("fleet")
mixed = google.model_copy(update={"machines": {**google.machines, **fleet.instance_groups}})
on_docker("east", "172.30.0.0/24", lab)
on_docker("west", "172.30.1.0/24", lab)
on_google("north", mixed)
on_google("south", mixed)
