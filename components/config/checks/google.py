"""Rules for clusters, machines and networks on Google Cloud."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import permutations

from ...mesh_facts import from_values
from ...names import PODS, PROJECT, gateway_group_name, gateway_workload_name
from ..addresses import DNS_NAME, ipv4_cidr, is_address, is_port
from ..existing import ExistingCluster
from ..google import (
    DEBIAN,
    ZONES,
    GceInstanceGroup,
    GkeCluster,
    GkeNodes,
    Google,
    GoogleMachine,
    Ssh,
    has_accelerators,
    is_arm64,
    needs_hyperdisk,
    refused_disks,
    surge,
    takes_hyperdisk,
)
from ..problems import Problem, suggestion
from ..stack import Settings
from .existing import check_server
from .names import check_google_name, longest_of_gateway, longest_of_group, longest_of_workload
from .texts import check_image, check_machine_image, check_machine_type

_NAME = "[a-z]([-a-z0-9]{0,61}[a-z0-9])?"
_ZONE = re.compile(r"[a-z]+-[a-z]+\d+-[a-z]")
_PROJECT = re.compile(r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]")
_SUBNET = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")
_VPC = re.compile(r"[a-z]([-a-z0-9]{0,20}[a-z0-9])?")
_WITHOUT_ZONE_A = ("europe-west1", "us-east1")
"""Regions whose zones begin with b (Compute Engine: "Available regions and zones")."""
_TOKENS_OF_GROUPS = (
    "the machines of an instance group issue tokens at a GKE cluster of this stack: use gke, or "
    "single machines"
)
_NODE_PREFIX = 24
"""GKE gives a node of a Standard cluster 256 addresses of the pods' CIDR, for 110 pods."""
_SERVICES_PREFIX = 27
"""The smallest CIDR of Services that GKE takes."""
_VPC_PATH = re.compile(rf"projects/{_PROJECT.pattern}/global/networks/{_NAME}")
_SUBNET_PATH = re.compile(rf"projects/{_PROJECT.pattern}/regions/([a-z0-9-]+)/subnetworks/{_NAME}")
_MOST_VPCS = 26
"""Google Cloud takes 25 peerings of a VPC."""
_SMALLEST_DISK, _LARGEST_DISK = 10, 65536
"""GB: what Google's images need at least, and the most that a disk has."""
_MOST_LABELS = 62
"""A resource has 64. One is the program's, and one the provider's."""
_MOST_SCRIPT = 256 * 1024
"""Bytes of a value of metadata (Compute Engine: "About VM metadata")."""
_MOST_GROUP_SCRIPT = 128 * 1024
"""Bytes of a startup script that is, encoded, a part of the program's own."""
_SUBNET_RESERVED = 4
"""Addresses of a subnet that Google Cloud keeps for itself."""


def check(settings: Settings) -> Iterator[Problem]:
    """Yield what is wrong with what is on Google Cloud."""
    cluster, machines, google = settings.cluster, settings.google_machines, settings.google
    yield from _check_gateways(settings)
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
    yield from _check_existing(settings, google)
    yield from _check_room(settings, google)
    yield from _check_names(settings, google)
    if isinstance(cluster, GkeCluster):
        yield from _check_cluster(settings, cluster, google)
    for machine in machines.values():
        yield from _check_machine(f"machines.{machine.name}", machine, settings, google)
    if cluster.platform == "kind" and machines:
        yield Problem(
            "cluster.platform",
            "machines on Google Cloud cannot reach a kind cluster: use gke or existing",
        )


def _check_gateways(settings: Settings) -> Iterator[Problem]:
    for name, network in settings.networks.items():
        gateway, path = network.gateway, f"networks.{name}.gateway"
        if gateway is None:
            continue
        subnets = settings.machine_subnets(name)
        if not settings.has_subnets(name):
            given = {
                "zones": gateway.zones,
                "subnet": gateway.subnet,
                "machineType": gateway.machine_type,
                "group": gateway.group,
            }
            if gateway.image is not None:
                yield from check_image(f"{path}.image", gateway.image)
            for key in (key for key, value in given.items() if value):
                yield Problem(
                    f"{path}.{key}",
                    "is of gateway machines on Compute Engine, and this network has no subnet: "
                    "leave it out",
                )
            continue
        if gateway.image is not None:
            yield from check_machine_image(f"{path}.image", gateway.image)
        if gateway.machine_type is not None:
            yield from check_machine_type(f"{path}.machineType", gateway.machine_type)
            yield from _check_architecture(
                f"{path}.image", gateway.image or DEBIAN, gateway.machine_type
            )
        if not gateway.zones:
            yield Problem(f"{path}.zones", "is missing: give the zones of the gateway machines")
        for index, zone in enumerate(gateway.zones):
            if settings.google:
                yield from _check_zone(f"{path}.zones[{index}]", zone, settings.google)
        if settings.google and (subnet := subnets.get(gateway.subnet or next(iter(subnets), ""))):
            workload = gateway_workload_name(name)
            yield from check_google_name(path, longest_of_workload(subnet.vpc, workload))
            yield from check_google_name(path, longest_of_gateway(name))
            if gateway.group:
                yield from check_google_name(path, longest_of_group(gateway_group_name(name)))
        if gateway.group and not isinstance(settings.cluster, GkeCluster):
            yield Problem(f"{path}.group", _TOKENS_OF_GROUPS)
        if gateway.subnet is None and len(subnets) > 1:
            yield Problem(f"{path}.subnet", f"is missing: give one of {', '.join(sorted(subnets))}")
        elif gateway.subnet is not None and gateway.subnet not in subnets:
            hint = suggestion(gateway.subnet, subnets)
            yield Problem(
                f"{path}.subnet",
                f"{gateway.subnet!r} is not a subnet for machines of this network{hint}",
            )


def _check_place(google: Google) -> Iterator[Problem]:
    if not _PROJECT.fullmatch(google.project):
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
        room = cidr.num_addresses - _SUBNET_RESERVED if cidr else needed[name]
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


def _check_existing(settings: Settings, google: Google) -> Iterator[Problem]:
    """Yield problems of VPCs and subnets that exist."""
    cluster = settings.cluster
    used = {subnet.vpc for subnet in google.subnets.values()}
    for name, vpc in google.vpcs.items():
        path = f"google.vpcs.{name}"
        if not _VPC_PATH.fullmatch(vpc.existing):
            yield Problem(
                f"{path}.existing",
                f"{vpc.existing!r} is not the path of a VPC: expected one such as "
                "projects/net-host/global/networks/shared",
            )
        if name not in used:
            yield Problem(path, f"no subnet is in this VPC{suggestion(name, used)}")
        if isinstance(cluster, GkeCluster) and cluster.gateway.dns_name and not vpc.managed:
            yield Problem(
                "cluster.gateway.dnsName",
                f"needs a private DNS zone for the VPC {name}, which is not managed: leave it out",
            )
    for name, subnet in google.subnets.items():
        path = f"google.subnets.{name}.existing"
        if subnet.existing is None:
            if subnet.vpc in google.vpcs:
                yield Problem(
                    path, f"is missing: the VPC {subnet.vpc} exists, so give the path of a subnet"
                )
        elif subnet.vpc not in google.vpcs:
            hint = suggestion(subnet.vpc, google.vpcs)
            yield Problem(
                path, f"its VPC {subnet.vpc} is created: name one of google.vpcs as `vpc`{hint}"
            )
        elif (match := _SUBNET_PATH.fullmatch(subnet.existing)) is None:
            yield Problem(
                path,
                f"{subnet.existing!r} is not the path of a subnet: expected one such as "
                "projects/net-host/regions/europe-west1/subnetworks/machines",
            )
        elif f"/regions/{google.region}/" not in match[0]:
            yield Problem(path, f"is not in the region {google.region}")
        else:
            yield from _check_project(path, subnet.existing, google.vpcs[subnet.vpc].existing)
    if isinstance(cluster, ExistingCluster) and settings.google_machines:
        of_network = {
            subnet.vpc for subnet in google.subnets.values() if subnet.network == cluster.network
        }
        if not of_network & google.vpcs.keys():
            yield Problem(
                "google.vpcs",
                "is missing: a VPC of this stack has no route to a cluster that exists. Give the "
                f"cluster's VPC, and a subnet of it in the network {cluster.network}",
            )
    if isinstance(cluster, GkeCluster):
        for key, name in (
            ("podRangeName", cluster.pod_range_name),
            ("serviceRangeName", cluster.service_range_name),
        ):
            if not re.fullmatch(_NAME, name):
                yield Problem(
                    f"cluster.{key}",
                    f"{name!r} is not the name of a secondary range: up to 63 lower-case letters, "
                    "digits and '-', a letter first",
                )
        if cluster.pod_range_name == cluster.service_range_name:
            yield Problem(
                "cluster.serviceRangeName", "is the name of the pods' range: give another one"
            )


def _check_project(path: str, subnet: str, vpc: str) -> Iterator[Problem]:
    if _VPC_PATH.fullmatch(vpc) and subnet.split("/")[1] != vpc.split("/")[1]:
        yield Problem(
            path,
            f"is not in the project of its VPC ({vpc}): subnets of a Shared VPC are in its host "
            "project",
        )


def _check_cluster(settings: Settings, cluster: GkeCluster, google: Google) -> Iterator[Problem]:
    subnet = google.subnets.get(cluster.subnet)
    if subnet is None:
        hint = suggestion(cluster.subnet, google.subnets)
        yield Problem("cluster.subnet", f"{cluster.subnet!r} is not a subnet of this stack{hint}")
    elif subnet.network != cluster.network:
        yield Problem(
            "cluster.subnet",
            f"is in the network {subnet.network}, the cluster in {cluster.network}: "
            "they must be the same",
        )
    if cluster.zone is not None:
        yield from _check_zone("cluster.zone", cluster.zone, google)
    nodes = cluster.nodes
    yield from check_machine_type("cluster.nodes.machineType", nodes.machine_type)
    yield from _check_disk("cluster.nodes.diskType", nodes.disk_type, nodes.machine_type)
    yield from _check_disk_size("cluster.nodes.diskSize", nodes.disk_size)
    if has_accelerators(nodes.machine_type):
        yield Problem(
            "cluster.nodes.machineType",
            f"{nodes.machine_type} has GPUs, for which nodes need drivers and settings that this "
            "program has not: use another type",
        )
    if cluster.autopilot and cluster.zone is not None:
        yield Problem("cluster.zone", "Autopilot clusters are regional: leave it out")
    if cluster.autopilot and nodes != GkeNodes():
        yield Problem("cluster.nodes", "Google manages the nodes of Autopilot: leave this out")
    if not 0 < nodes.min_nodes <= nodes.max_nodes:
        yield Problem(
            "cluster.nodes",
            f"expected 0 < minNodes <= maxNodes; got {nodes.min_nodes} and {nodes.max_nodes}",
        )
    yield from _check_sizes(cluster, subnet.cidr if subnet else "")
    yield from _check_gateway_address(cluster.gateway.address, subnet.cidr if subnet else "")
    domain = from_values(dict(settings.mesh.values.istiod), settings.mesh.namespace).cluster_domain
    name = cluster.gateway.dns_name
    if name is not None and (not DNS_NAME.fullmatch(name) or name.endswith((f".{domain}", ".svc"))):
        yield Problem(
            "cluster.gateway.dnsName",
            "expected a name in a domain that is yours, such as gateway.mesh.internal; "
            f"got {name!r}",
        )
    for index, port in enumerate(cluster.pod_ports):
        if not is_port(port):
            yield Problem(
                f"cluster.podPorts[{index}]", f"{port} is not a port: expected 1 to 65535"
            )


def _check_sizes(cluster: GkeCluster, subnet_cidr: str) -> Iterator[Problem]:
    """Yield CIDRs in which the nodes that the stack permits, or their pods, have no room.

    An upgrade adds a node. A regional cluster begins with a node in each zone.
    """
    services, subnet = ipv4_cidr(cluster.service_cidr), ipv4_cidr(subnet_cidr)
    pods = ipv4_cidr(cluster.pod_cidr)
    if services and services.prefixlen > _SERVICES_PREFIX:
        yield Problem(
            "cluster.serviceCidr",
            f"{services} is too small: GKE takes /{_SERVICES_PREFIX} or larger",
        )
    most = max(cluster.nodes.max_nodes + 1, 1 if cluster.zone else ZONES)
    if cluster.autopilot:
        most = ZONES
    room = pods.num_addresses // 2 ** (32 - _NODE_PREFIX) if pods else most
    if room < most:
        yield Problem(
            "cluster.podCidr",
            f"{pods} has room for {room} nodes, of /{_NODE_PREFIX} each, and {most} may run "
            "(cluster.nodes.maxNodes and one during upgrades): give a larger CIDR",
        )
    # Each node has one address of the subnet, and the gateway's load balancer has one.
    if subnet and subnet.num_addresses - _SUBNET_RESERVED < most + 1:
        yield Problem(
            "cluster.subnet",
            f"{subnet} has too few addresses for the gateway and {most} nodes "
            "(cluster.nodes.maxNodes and one during upgrades): give the subnet a larger CIDR",
        )


def _check_disk_size(path: str, disk_size: int) -> Iterator[Problem]:
    if not _SMALLEST_DISK <= disk_size <= _LARGEST_DISK:
        yield Problem(path, f"expected {_SMALLEST_DISK} to {_LARGEST_DISK} GB; got {disk_size}")


def _check_disk(path: str, disk_type: str | None, machine_type: str) -> Iterator[Problem]:
    if disk_type is None:
        return
    if disk_type.startswith("pd-") and needs_hyperdisk(machine_type):
        yield Problem(path, f"{machine_type} takes no Persistent Disk: use hyperdisk-balanced")
    elif disk_type in refused_disks(machine_type):
        yield Problem(path, f"{machine_type} takes no {disk_type}: use pd-balanced")
    if disk_type.startswith("hyperdisk-") and not takes_hyperdisk(machine_type):
        yield Problem(path, f"{machine_type} does not boot from Hyperdisk: use pd-balanced")


def _check_architecture(path: str, image: str, machine_type: str) -> Iterator[Problem]:
    if is_arm64(machine_type) and image == DEBIAN:
        yield Problem(
            path,
            f"is missing: {machine_type} has ARM processors, and the default image is for x86; "
            f"give one such as {DEBIAN}-arm64",
        )


def _check_gateway_address(address: str | None, subnet_cidr: str) -> Iterator[Problem]:
    subnet = ipv4_cidr(subnet_cidr)
    if address is None or subnet is None:
        return
    parsed = ipv4_cidr(address) if is_address(address) else None
    if parsed is None:
        yield Problem("cluster.gateway.address", f"{address!r} is not an IPv4 address")
    elif not parsed.subnet_of(subnet):
        yield Problem(
            "cluster.gateway.address",
            f"{address} is not in {subnet}, the CIDR of the cluster's subnet",
        )
    elif str(parsed.network_address) in {str(subnet[place]) for place in (0, 1, -2, -1)}:
        yield Problem(
            "cluster.gateway.address",
            f"{address} is Google's own: the first two and the last two addresses of a subnet",
        )


def _check_zone(path: str, zone: str, google: Google) -> Iterator[Problem]:
    if not _ZONE.fullmatch(zone) or not zone.startswith(f"{google.region}-"):
        yield Problem(
            path,
            f"{zone!r} is not a zone of {google.region}: expected one such as {google.region}-b",
        )
    elif zone.endswith("-a") and google.region in _WITHOUT_ZONE_A:
        yield Problem(path, f"the zones of {google.region} begin with {google.region}-b")


def _check_machine(
    path: str, machine: GoogleMachine, settings: Settings, google: Google
) -> Iterator[Problem]:
    subnets = settings.machine_subnets(machine.network)
    if machine.subnet is not None and machine.subnet not in subnets:
        hint = suggestion(machine.subnet, subnets)
        yield Problem(
            f"{path}.subnet",
            f"{machine.subnet!r} is not a subnet for machines of the network "
            f"{machine.network}{hint}",
        )
    elif machine.subnet is None and len(subnets) != 1 and machine.network in settings.networks:
        has = "has no subnet for machines: add one"
        if subnets:
            has = f"has {len(subnets)} subnets for machines ({', '.join(subnets)}): name one"
        yield Problem(
            f"{path}.subnet",
            f"the network {machine.network} {has} (the cluster's own is not for machines)",
        )
    elif subnets:
        vpc = google.subnets[settings.subnet_of(machine)].vpc
        yield from check_google_name(f"{path}.workload", longest_of_workload(vpc, machine.workload))
    if isinstance(machine, GceInstanceGroup):
        yield from _check_group(path, machine, settings, google)
    else:
        yield from _check_zone(f"{path}.zone", machine.zone, google)
    yield from check_machine_image(f"{path}.image", machine.image)
    yield from check_machine_type(f"{path}.machineType", machine.machine_type)
    yield from _check_disk(f"{path}.diskType", machine.disk_type, machine.machine_type)
    yield from _check_architecture(f"{path}.image", machine.image, machine.machine_type)
    yield from _check_disk_size(f"{path}.diskSize", machine.disk_size)
    script = machine.startup_script
    most = _MOST_GROUP_SCRIPT if isinstance(machine, GceInstanceGroup) else _MOST_SCRIPT
    if script is not None and len(script.encode()) > most:
        yield Problem(
            f"{path}.startupScript",
            f"has {len(script.encode())} bytes, and Google's metadata takes {most} of it: put the "
            "rest into the image, or fetch it",
        )
    if script is not None and not script.startswith("#!"):
        yield Problem(
            f"{path}.startupScript",
            "expected a script whose first line names its interpreter, such as #!/bin/bash",
        )


def _check_group(
    path: str, group: GceInstanceGroup, settings: Settings, google: Google
) -> Iterator[Problem]:
    for index, zone in enumerate(group.zones):
        yield from _check_zone(f"{path}.zones[{index}]", zone, google)
    if len(set(group.zones)) != len(group.zones):
        yield Problem(f"{path}.zones", "name a zone twice: give each once")
    yield from check_google_name(path, longest_of_group(group.name))
    if not 0 < group.min_replicas <= group.max_replicas:
        yield Problem(
            path,
            "expected 0 < minReplicas <= maxReplicas; "
            f"got {group.min_replicas} and {group.max_replicas}",
        )
    if not 0 < group.target_cpu <= 1:
        yield Problem(
            f"{path}.targetCpu", f"expected more than 0 and at most 1; got {group.target_cpu}"
        )
    if not isinstance(settings.cluster, GkeCluster):
        yield Problem(
            f"{path}.platform",
            _TOKENS_OF_GROUPS,
        )
