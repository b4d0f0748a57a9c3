"""Choose the platform: networks, cluster, machines and gateways of a stack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pulumi

from .. import names
from ..config.docker import DockerMachine, KindCluster, docker_networks
from ..config.existing import ExistingCluster, SshMachine
from ..config.google import GceMachine, GkeCluster, machines_of_type
from ..config.stack import Settings
from ..istio import network_gateways
from ..kubernetes import Cluster
from ..machines.host import HostFactory
from ..machines.machine import Machine
from .gateway import Gateway

if TYPE_CHECKING:
    from .google.network import GoogleNetworks


@dataclass(frozen=True, kw_only=True)
class Networks:
    """What was made for clusters and machines to be in. `docker`: the Docker network's name, by the stack's; `google`: VPCs."""

    docker: Mapping[str, pulumi.Output[str]] = field(default_factory=dict)
    google: GoogleNetworks | None = None


def cluster(stack: str, settings: Settings, networks: Networks) -> Cluster:
    """Make or adopt the cluster of a stack."""
    match settings.cluster:
        case KindCluster() as cluster:
            from .docker.cluster import Kind

            return Kind(stack, settings, cluster, networks.docker).cluster
        case GkeCluster() as cluster:
            from .google.cluster import Gke

            assert settings.google and networks.google, "the settings' checks see to both"
            return Gke(stack, settings, cluster, settings.google, networks.google).cluster
        case ExistingCluster() as cluster:
            from .existing.cluster import existing_cluster

            return existing_cluster(settings, cluster)


def network_gateway(network: str, settings: Settings, networks: Networks, machines: Mapping[str, Machine]) -> Gateway:
    """The gateway of `network`: its machines, or the balancer before them where the platform has one."""
    if network_gateways.has_load_balancer(settings, network) and settings.google and networks.google:
        from .google.load_balancer import LoadBalancer

        balancer = LoadBalancer(network, settings, settings.google, networks.google, list(machines.values()))
        return Gateway(addresses={names.gateway_workload_name(network): balancer.address}, ready=balancer.ready)
    return Gateway(
        addresses={name: machine.address for name, machine in machines.items()}, ready=[machine.join for machine in machines.values()]
    )


def host_factories(stack: str, settings: Settings, networks: Networks, cluster: Cluster) -> Mapping[str, HostFactory]:
    """How each machine of a stack is made or adopted, by its name."""
    made: dict[str, HostFactory] = {}
    of_docker = {name: machine for name, machine in settings.machines.items() if isinstance(machine, DockerMachine)}
    if of_docker:
        from .docker.machine import docker_host_factories

        made.update(docker_host_factories(stack, of_docker, settings, networks.docker, cluster))
    of_ssh = {name: machine for name, machine in settings.machines.items() if isinstance(machine, SshMachine)}
    if of_ssh:
        from .existing.machine import ssh_host_factories

        made.update(ssh_host_factories(of_ssh))
    of_gce = machines_of_type(settings, GceMachine)
    if of_gce and settings.google and networks.google:
        from .google.machine import gce_host_factories

        made.update(gce_host_factories(stack, of_gce, settings, settings.google, networks.google))
    return made


def networks(stack: str, settings: Settings) -> Networks:
    """Make the networks of a stack; what exists already (platforms `existing` and `ssh`) needs none."""
    in_docker, in_google = docker_networks(settings), None
    if settings.google:
        from .google.network import Vpcs

        in_google = Vpcs(stack, settings, settings.google).networks
    if not in_docker:
        return Networks(google=in_google)
    from .docker.network import docker_network

    return Networks(docker={name: docker_network(stack, name, settings) for name in sorted(in_docker)}, google=in_google)
