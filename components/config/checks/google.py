"""Rules for a stack on Google Cloud: its project, its SSH, its VPCs and their subnets."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import permutations

from ...names import PODS, PROJECT, gateway_workload_name
from ..addresses import ipv4_cidr
from ..google import GceInstanceGroup, GkeCluster, Google, Ssh, surge
from ..problems import Problem, suggestion
from ..stack import Settings
from . import google_cluster, google_existing, google_machines
from .existing import check_server
from .google_cluster import SUBNET_RESERVED
from .google_existing import PROJECT_ID

_SUBNET = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")
_VPC = re.compile(r"[a-z]([-a-z0-9]{0,20}[a-z0-9])?")
_MOST_VPCS = 26
"""Google Cloud takes 25 peerings of a VPC."""
_MOST_LABELS = 62
"""A resource has 64. One is the program's, and one the provider's."""


def check(settings: Settings) -> Iterator[Problem]:
    """Yield what is wrong with what is on Google Cloud."""
    cluster, machines, google = settings.cluster, settings.google_machines, settings.google
    yield from google_machines.check_gateways(settings)
    if google is None:
        if isinstance(cluster, GkeCluster) or machines:
            yield Problem(
                "google",
                "is missing: the platforms gke, gce and gce-instance-group need a project, "
                "a region and subnets",
            )
        return
    yield from _check_place(google)
    yield from _check_ssh(google.ssh)
    yield from _check_subnets(settings, google)
    yield from google_existing.check(settings, google)
    yield from _check_room(settings, google)
    yield from _check_names(settings, google)
    if isinstance(cluster, GkeCluster):
        yield from google_cluster.check(settings, cluster, google)
    for machine in machines.values():
        path = f"machines.{machine.name}"
        yield from google_machines.check_machine(path, machine, settings, google)
    if cluster.platform == "kind" and machines:
        yield Problem(
            "cluster.platform",
            "machines on Google Cloud cannot reach a kind cluster: use gke or existing",
        )


def _check_place(google: Google) -> Iterator[Problem]:
    if not PROJECT_ID.fullmatch(google.project):
        yield Problem(
            "google.project",
            f"{google.project!r} is not a project ID: 6 to 30 lower-case letters, digits and '-', "
            "a letter first",
        )
    if not re.fullmatch(r"[a-z]+-[a-z]+\d+", google.region):
        yield Problem(
            "google.region",
            f"{google.region!r} is not a region: expected one such as europe-west1",
        )
    if len(google.labels) > _MOST_LABELS:
        yield Problem(
            "google.labels", f"are {len(google.labels)}: a resource takes {_MOST_LABELS} of them"
        )
    for key, value in google.labels.items():
        if key.startswith("goog") or key == f"{PROJECT}-stack":
            yield Problem(
                f"google.labels.{key}",
                f"is reserved: labels of Google begin with goog, and {PROJECT}-stack is the "
                "program's",
            )
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", key) or not re.fullmatch(
            r"[a-z0-9_-]{1,63}", value
        ):
            yield Problem(
                f"google.labels.{key}",
                "labels are up to 63 lower-case letters, digits, '-' and '_', and not empty",
            )


def _check_ssh(ssh: Ssh) -> Iterator[Problem]:
    path = "google.ssh.bastion"
    if ssh.via == "bastion" and ssh.bastion is None:
        yield Problem(path, "is missing: give the SSH server in front of the machines")
    if ssh.via != "bastion" and ssh.bastion:
        yield Problem(path, f"is not used with `via: {ssh.via}`: leave it out")
    if ssh.bastion:
        yield from check_server(path, ssh.bastion)
    if ssh.via != "iap" and not ssh.cidrs:
        yield Problem(
            "google.ssh.cidrs", "is missing: give the CIDRs that the firewall admits to SSH"
        )
    if ssh.via == "iap" and ssh.cidrs:
        yield Problem(
            "google.ssh.cidrs", "is not used with `via: iap`: connections come from Google's CIDR"
        )
    for index, text in enumerate(ssh.cidrs):
        cidr = ipv4_cidr(text)
        if cidr is None:
            yield Problem(
                f"google.ssh.cidrs[{index}]",
                f"expected an IPv4 CIDR such as 10.0.0.0/24; got {text!r}",
            )
        elif cidr.prefixlen == 0:
            yield Problem(
                f"google.ssh.cidrs[{index}]",
                "would open SSH to the whole internet: give the CIDRs of the SSH clients",
            )


def _check_subnets(settings: Settings, google: Google) -> Iterator[Problem]:
    """Yield problems of subnets, and CIDRs that are not private; `networks` checks overlaps."""
    cidrs: dict[str, str] = {}
    if (count := len({subnet.vpc for subnet in google.subnets.values()})) > _MOST_VPCS:
        yield Problem(
            "google.subnets",
            f"are in {count} VPCs: Google Cloud peers a VPC with {_MOST_VPCS - 1} others at most",
        )
    for name, subnet in google.subnets.items():
        path = f"google.subnets.{name}"
        if not _SUBNET.fullmatch(name) or not _VPC.fullmatch(subnet.vpc):
            yield Problem(
                path,
                "names of subnets are up to 40 lower-case letters, digits and '-', a letter "
                "first, those of VPCs up to 22",
            )
        if subnet.network not in settings.networks:
            hint = suggestion(subnet.network, settings.networks)
            yield Problem(
                f"{path}.network", f"{subnet.network!r} is not a network of this stack{hint}"
            )
        cidrs[f"{path}.cidr"] = subnet.cidr
    if isinstance(settings.cluster, GkeCluster):
        cidrs["cluster.podCidr"] = settings.cluster.pod_cidr
        cidrs["cluster.serviceCidr"] = settings.cluster.service_cidr
    for path, text in cidrs.items():
        cidr = ipv4_cidr(text)
        if cidr and cidr.is_global:
            yield Problem(
                path,
                f"{cidr} is public address space, where pods would have the addresses of their "
                "nodes: use a private CIDR",
            )


def _check_room(settings: Settings, google: Google) -> Iterator[Problem]:
    """Yield subnets with fewer addresses than the machines that the stack permits.

    An update of a group has some more for a while. A network's gateway on Google Cloud has a load
    balancer with an address of its own.
    """
    needed: Counter[str] = Counter()
    for machine in settings.google_machines.values():
        subnets = settings.machine_subnets(machine.network)
        most = 1
        if isinstance(machine, GceInstanceGroup):
            most = _most(machine.zones, machine.max_replicas)
        needed[machine.subnet or next(iter(subnets), "")] += most
    for name, network in settings.networks.items():
        if gateway := network.gateway:
            count = gateway.machines
            if gateway.group:
                count = _most(tuple(dict.fromkeys(gateway.zones)), count)
            needed[gateway.subnet or next(iter(settings.machine_subnets(name)), "")] += count + 1
    for name, subnet in google.subnets.items():
        cidr = ipv4_cidr(subnet.cidr)
        room = cidr.num_addresses - SUBNET_RESERVED if cidr else needed[name]
        if needed[name] > room:
            yield Problem(
                f"google.subnets.{name}.cidr",
                f"{cidr} has {room} addresses, and machines and load balancers of networks' "
                f"gateways need {needed[name]} (groups have maxReplicas, and more during updates): "
                "give a larger CIDR",
            )


def _check_names(settings: Settings, google: Google) -> Iterator[Problem]:
    """Yield VPCs whose peerings, and workloads whose firewall rules or service accounts, have the
    names of others.

    They follow components/platforms/google/names.py, which this layer cannot import;
    tests/preview/test_google.py compares them.
    """
    peerings: dict[str, tuple[str, str]] = {}
    for pair in permutations(sorted({subnet.vpc for subnet in google.subnets.values()}), 2):
        other = peerings.setdefault("-".join(pair), pair)
        if other != pair:
            yield Problem(
                "google.subnets",
                f"a peering of the VPCs {pair[0]} and {pair[1]} has the name of that of {other[0]} "
                f"and {other[1]}: give one of them another name",
            )
    first: dict[str, str] = {}
    if isinstance(settings.cluster, GkeCluster):
        if settings.cluster.subnet in google.subnets:
            first[f"{google.subnets[settings.cluster.subnet].vpc}-{PODS}"] = "the cluster's pods"
        if any(machine.workload == "nodes" for machine in settings.google_machines.values()):
            yield Problem(
                "workloads.nodes",
                "is the name of the service account of the cluster's nodes: give another one",
            )
    for (workload, vpc), rules in rules_of_workloads(settings).items():
        for rule in sorted(rules):
            if rule in first:
                yield Problem(
                    f"workloads.{workload}",
                    f"has a firewall rule {rule!r} in the VPC {vpc}, as {first[rule]}: give it "
                    "another name",
                )
            first.setdefault(rule, f"the workload {workload} in the VPC {vpc}")


def rules_of_workloads(settings: Settings) -> dict[tuple[str, str], set[str]]:
    """Return the names of firewall rules, by the workload with machines and the VPC."""
    placed = [
        (each.workload, each.network, each.subnet, isinstance(each, GceInstanceGroup), False)
        for each in settings.google_machines.values()
    ]
    placed += [
        (gateway_workload_name(name), name, network.gateway.subnet, network.gateway.group, True)
        for name, network in settings.networks.items()
        if network.gateway
    ]
    rules: dict[tuple[str, str], set[str]] = {}
    for workload, network, subnet, is_group, is_gateway in placed:
        subnets = settings.machine_subnets(network)
        if (name := subnet or next(iter(subnets), "")) in subnets:
            kinds = {"health": is_group or is_gateway, "ssh": not is_group}
            vpc = subnets[name].vpc
            rule = f"{vpc}-{workload}"
            rules.setdefault((workload, vpc), set()).update(
                {rule, *(f"{rule}-{kind}" for kind, is_there in kinds.items() if is_there)}
            )
    return rules


def _most(zones: Sequence[str], max_replicas: int) -> int:
    return max_replicas + surge(zones, max_replicas)
