"""Firewall rules on Google Cloud, derived from the stack's declared traffic."""

from __future__ import annotations

from typing import NamedTuple

from ...config.existing import ExistingCluster, SshMachine
from ...config.google import GceInstanceGroup, GceMachine, GkeCluster, GoogleMachine
from ...config.stack import Settings
from ...names import SSH_PORT, STATUS_PORT
from .names import NODES, account_email, project_of, resource_name, rule_name
from .topology import cluster_vpc, vpcs, workloads_with_machines

IAP = "35.235.240.0/20"  # where connections through Identity-Aware Proxy come from
HEALTH_CHECKS = ("35.191.0.0/16", "130.211.0.0/22")  # where Google's health checks come from


class FirewallRule(NamedTuple):
    """Connections that a VPC's firewall permits, to a workload's machines or the cluster's nodes.

    name: the rule's name. vpc: the VPC's name in the stack.
    sources: CIDRs. target: the workload, or NODES; a rule targets its service account.
    ports: TCP ports. description: the rule's description on Google Cloud.
    """

    name: str
    vpc: str
    sources: tuple[str, ...]
    target: str
    ports: tuple[int, ...]
    description: str


def _vpc(settings: Settings, machine: GoogleMachine) -> str:
    assert settings.google is not None
    return settings.google.subnets[settings.subnet_of(machine)].vpc


def _client_cidrs(settings: Settings, network: str) -> list[str]:
    """Return the CIDRs of the clients in a network: its machines, and pods if they are in it."""
    machines = {settings.subnet_of(machine) for machine in settings.google_machines.values() if machine.network == network}
    cidrs = [subnet.cidr for name, subnet in settings.machine_subnets(network).items() if name in machines]
    return [*cidrs, *(settings.pod_cidrs if settings.cluster.network == network else ())]


def machine_cidrs(settings: Settings) -> list[str]:
    """Return the CIDRs of all networks' machines, which connect to the east-west gateway."""
    names = {settings.subnet_of(machine) for machine in settings.google_machines.values()}
    subnets = settings.google.subnets if settings.google else {}
    others = [machine for machine in settings.machines.values() if isinstance(machine, SshMachine)]
    elsewhere = {cidr for machine in others for cidr in settings.cidrs(machine.network)}
    return sorted({*elsewhere, *(subnets[name].cidr for name in names)})


def firewall_rules(settings: Settings) -> list[FirewallRule]:
    """Return a rule for every connection that the firewall must permit, and no other.

    GKE itself permits connections to the gateway's load balancer, from the Service's source CIDRs.
    Sources are CIDRs, because the firewall matches service accounts only within a VPC. Packets of
    pods to private addresses keep their source address.
    """
    rules: list[FirewallRule] = []
    machines = settings.google_machines
    for workload in workloads_with_machines(settings):
        spec = settings.workloads[workload]
        members = {name: machine for name, machine in machines.items() if machine.workload == workload}
        for vpc in sorted({_vpc(settings, machine) for machine in members.values()}):
            in_vpc = [machine for machine in members.values() if _vpc(settings, machine) == vpc]
            networks = {machine.network for machine in in_vpc}
            # A network's gateway gets requests from other networks, other workloads from their own.
            callers = set(settings.networks) - networks if spec.role == "router" else networks
            sources = sorted({text for network in callers for text in _client_cidrs(settings, network)})
            ports = tuple(sorted(set(spec.ports.values())))
            if sources and ports:
                rules.append(
                    FirewallRule(rule_name(vpc, workload), vpc, tuple(sources), workload, ports, f"calls to the workload {workload}")
                )
            if any(isinstance(machine, GceMachine) for machine in in_vpc):
                description = "SSH from the computer that runs Pulumi"
                rules.append(FirewallRule(rule_name(vpc, workload, "ssh"), vpc, ssh_sources(settings), workload, (SSH_PORT,), description))
            if spec.role == "router" or any(isinstance(machine, GceInstanceGroup) for machine in in_vpc):
                health = (STATUS_PORT,)
                rules.append(
                    FirewallRule(rule_name(vpc, workload, "health"), vpc, HEALTH_CHECKS, workload, health, "Google's health checks")
                )
    return [*rules, *_rules_to_pods(settings)]


def peerings(settings: Settings) -> list[tuple[str, str]]:
    """Return the pairs of VPCs that are peered, because declared traffic passes between them.

    Peering is not transitive: each pair has its own. The VPC that is first in `vpcs` is first.
    Two VPCs that exist are connected by their owners, in whatever way.
    """
    if settings.google is None:
        return []
    subnets = settings.google.subnets
    vpc_of = {subnet.cidr: subnet.vpc for subnet in subnets.values()}
    flows = [(rule.vpc, source) for rule in firewall_rules(settings) for source in rule.sources]
    if vpc_of_cluster := cluster_vpc(settings):
        vpc_of |= dict.fromkeys(settings.pod_cidrs, vpc_of_cluster)
        # To the load balancer of the east-west gateway.
        flows += [(vpc_of_cluster, source) for source in machine_cidrs(settings)]
    order = vpcs(settings)
    pairs = {frozenset((vpc, vpc_of.get(source, vpc))) for vpc, source in flows}
    return [
        (one, other)
        for other in order
        for one in order[: order.index(other)]
        if {one, other} in pairs and not {one, other} <= settings.google.vpcs.keys()
    ]


def unmanaged_notes(stack: str, settings: Settings) -> list[str]:
    """Return what owners of VPCs do that the program does not manage, as commands of gcloud."""
    google = settings.google
    if google is None:
        return []
    paths = {name: vpc.existing for name, vpc in google.vpcs.items() if not vpc.managed}
    notes = []
    for rule in firewall_rules(settings):
        if rule.vpc in paths:
            words = ["gcloud compute firewall-rules create", resource_name(stack, rule.name)]
            words += ["--project", project_of(paths[rule.vpc]), "--network", paths[rule.vpc].rpartition("/")[2]]
            words += ["--direction", "INGRESS", "--allow", ",".join(f"tcp:{port}" for port in rule.ports)]
            words += ["--source-ranges", ",".join(rule.sources)]
            words += ["--target-service-accounts", account_email(google.project, stack, rule.target)]
            notes.append(f"VPC {rule.vpc} is not managed. For {rule.description}, its owners run: {' '.join(words)}")
    for pair in peerings(settings):
        for vpc, other in (pair, pair[::-1]):
            if vpc in paths:
                notes.append(
                    f"VPC {vpc} is not managed: its owners peer it with the VPC {other} of this stack (gcloud compute networks list)"
                )
    return notes


def ssh_sources(settings: Settings) -> tuple[str, ...]:
    """Return the CIDRs from which SSH connections to machines come."""
    assert settings.google is not None
    return (IAP,) if settings.google.ssh.via == "iap" else settings.google.ssh.cidrs


def _rules_to_pods(settings: Settings) -> list[FirewallRule]:
    """Return the rules for machines that call pods; an existing cluster has its owners' rules."""
    cluster = settings.cluster
    if isinstance(cluster, ExistingCluster) or not isinstance(cluster, GkeCluster):
        return []
    ports = {port for workload in settings.workloads.values() if workload.pods for port in workload.ports.values()} | {*cluster.pod_ports}
    sources = sorted(set(_client_cidrs(settings, cluster.network)) - {cluster.pod_cidr})
    vpc = vpcs(settings)[0]
    return (
        [FirewallRule(rule_name(vpc, "pods"), vpc, tuple(sources), NODES, tuple(sorted(ports)), "calls of machines to pods")]
        if sources and ports
        else []
    )
