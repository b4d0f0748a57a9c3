"""What follows from the settings on Google Cloud: names, the firewall's rules from the declared flows, and metadata of machines."""

from __future__ import annotations

import re
from typing import NamedTuple
from zlib import crc32

from components.plan import mesh as mesh_plan
from components.plan import script
from components.settings import (
    ExistingCluster,
    GceMachine,
    GkeCluster,
    GoogleMachine,
    GroupMachine,
    Settings,
    google_machines,
    local_port,
    machine_subnets,
    of_platform,
    subnet_of,
)

SSH_USER = "mesh"
NODES = "nodes"  # the firewall's target for the cluster's nodes; others are workloads
IAP = "35.235.240.0/20"  # where connections through Identity-Aware Proxy come from
HEALTH_CHECKS = ("35.191.0.0/16", "130.211.0.0/22")  # where Google's health checks come from


class Flow(NamedTuple):
    """Connections that the firewall of a VPC lets in: from address ranges to the machines of a workload, or to the cluster's nodes."""

    name: str
    vpc: str
    sources: tuple[str, ...]
    target: str
    ports: tuple[int, ...]
    why: str


def slug(text: str) -> str:
    """A stack's name as Google takes names: lower-case letters, digits and '-', a letter first. Pulumi takes '.' and '_' too."""
    found = re.sub("[^a-z0-9-]", "-", text.lower())
    return found if found[:1].isalpha() else f"s{found}"


def resource_name(stack: str, name: str) -> str:
    """The name on Google Cloud of something whose name must be known beforehand: at most 63 characters, and unique in a project."""
    whole = slug(f"{stack}-{name}")
    return whole if len(whole) <= 63 else f"{whole[:54].rstrip('-')}-{crc32(whole.encode()):08x}"


def cluster_name(stack: str) -> str:
    """The cluster's name; GKE takes 40 characters."""
    return resource_name(stack, "mesh")[:40].rstrip("-")


def account_id(stack: str, name: str) -> str:
    """The ID of a service account: 6 to 30 characters."""
    whole = slug(f"{stack}-{name}")
    return whole if 6 <= len(whole) <= 30 else f"{whole[:21].rstrip('-')}-{crc32(whole.encode()):08x}"


def vpcs(settings: Settings) -> list[str]:
    """The VPCs of a stack, the cluster's first: it is the one that others are peered with."""
    subnets = settings.google.subnets if settings.google else {}
    first = subnets[settings.cluster.subnet].vpc if isinstance(settings.cluster, GkeCluster) else ""
    return sorted({subnet.vpc for subnet in subnets.values()}, key=lambda vpc: (vpc != first, vpc))


def workloads(settings: Settings) -> list[str]:
    """The workloads with machines on Google Cloud, sorted. Each has a service account of its own."""
    return sorted({machine.workload for machine in google_machines(settings).values()})


def _vpc(settings: Settings, machine: GoogleMachine) -> str:
    assert settings.google is not None
    return settings.google.subnets[subnet_of(settings, machine)].vpc


def _callers(settings: Settings, network: str) -> list[str]:
    """The ranges of a network that call: its machines, and pods if they are there."""
    machines = {subnet_of(settings, machine) for machine in google_machines(settings).values() if machine.network == network}
    ranges = [subnet.range for name, subnet in machine_subnets(settings, network).items() if name in machines]
    return [*ranges, *([settings.cluster.pod_range] if settings.cluster.network == network else [])]


def machine_ranges(settings: Settings) -> list[str]:
    """The ranges that machines are in, of all networks: they come to the east-west gateway."""
    names = {subnet_of(settings, machine) for machine in google_machines(settings).values()}
    subnets = settings.google.subnets if settings.google else {}
    return sorted(subnets[name].range for name in names)


def flows(settings: Settings) -> list[Flow]:
    """Every connection that the firewall must let in, and no other.

    What comes to the gateway's balancer is let in by GKE, from the Service's source ranges. Ranges are named rather than service accounts, which the
    firewall knows only within a VPC; pods keep their addresses on the way to private ranges.
    """
    found: list[Flow] = []
    machines = google_machines(settings)
    for workload in workloads(settings):
        spec = settings.workloads[workload]
        own = {name: machine for name, machine in machines.items() if machine.workload == workload}
        for vpc in sorted({_vpc(settings, machine) for machine in own.values()}):
            here = [machine for machine in own.values() if _vpc(settings, machine) == vpc]
            networks = {machine.network for machine in here}
            # The gateway of a network takes calls from every other one; all else is called within its network.
            callers = set(settings.networks) - networks if spec.role == "router" else networks
            sources = sorted({text for network in callers for text in _callers(settings, network)})
            ports = tuple(sorted(set(spec.ports.values())))
            if sources and ports:
                found.append(Flow(f"{vpc}-{workload}", vpc, tuple(sources), workload, ports, f"calls to the workload {workload}"))
            if any(isinstance(machine, GceMachine) for machine in here):
                found.append(Flow(f"{vpc}-{workload}-ssh", vpc, ssh_sources(settings), workload, (22,), "SSH of whoever runs Pulumi"))
            if spec.role == "router" or any(isinstance(machine, GroupMachine) for machine in here):
                health = (mesh_plan.STATUS_PORT,)
                found.append(Flow(f"{vpc}-{workload}-health", vpc, HEALTH_CHECKS, workload, health, "Google's health checks"))
    return [*found, *_to_pods(settings)]


def ssh_sources(settings: Settings) -> tuple[str, ...]:
    """Where SSH connections to machines come from."""
    assert settings.google is not None
    return (IAP,) if settings.google.ssh.by == "iap" else settings.google.ssh.ranges


def _to_pods(settings: Settings) -> list[Flow]:
    """Machines in the pods' network call pods; into a cluster that exists, its owners let them."""
    cluster = settings.cluster
    if isinstance(cluster, ExistingCluster) or not isinstance(cluster, GkeCluster):
        return []
    ports = {port for workload in settings.workloads.values() if workload.pods for port in workload.ports.values()} | {*cluster.pod_ports}
    sources = sorted(set(_callers(settings, cluster.network)) - {cluster.pod_range})
    vpc = vpcs(settings)[0]
    return [Flow(f"{vpc}-pods", vpc, tuple(sources), NODES, tuple(sorted(ports)), "calls of machines to pods")] if sources and ports else []


def metadata(machine: GoogleMachine, public_key: str) -> dict[str, str]:
    """Metadata of a machine that is reached by SSH: our key alone opens it, and it publishes its host keys as guest attributes."""
    setup = {"startup-script": machine.setup} if machine.setup else {}
    return {
        "ssh-keys": f"{SSH_USER}:{public_key}",
        "block-project-ssh-keys": "TRUE",
        "enable-oslogin": "FALSE",
        "enable-guest-attributes": "TRUE",
        "serial-port-enable": "FALSE",
        **setup,
    }


def tunnels(settings: Settings, stack: str) -> dict[int, tuple[str, str]]:
    """The machines that are reached through Identity-Aware Proxy, as (name, zone) on Google Cloud, by the local port of their tunnel."""
    if settings.google is None or settings.google.ssh.by != "iap":
        return {}
    machines = of_platform(settings, GceMachine)
    return {local_port(name, machine): (resource_name(stack, name), machine.zone) for name, machine in machines.items()}


def host_key(project: str, zone: str, name: str) -> str:
    """The script that waits for a machine's host key and prints it."""
    return script.local("host-key", {"PROJECT": project, "ZONE": zone, "INSTANCE": name})
