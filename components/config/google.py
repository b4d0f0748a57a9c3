"""The platforms `gke`, `gce` and `group`: a cluster and machines on Google Cloud, and the VPCs that they are in."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from itertools import combinations
from typing import TYPE_CHECKING, Literal, TypeVar
from zlib import crc32

from .addresses import DNS_NAME
from .existing import Bastion, check_host_key
from .problems import Problem, suggestion

if TYPE_CHECKING:
    from .stack import Settings

DEBIAN = "projects/debian-cloud/global/images/family/debian-12"


@dataclass(frozen=True, kw_only=True)
class Subnet:
    """A subnet of a VPC, and the network in Istio's sense that its addresses belong to. VPCs are made as subnets name them."""

    vpc: str
    network: str
    range: str


@dataclass(frozen=True, kw_only=True)
class Ssh:
    """How the machine that runs Pulumi reaches machines that have no public address.

    `iap`: through Identity-Aware Proxy; `./scripts/tunnels` opens a local port for each machine while Pulumi runs. `bastion`: through an SSH server.
    `direct`: by the machines' own addresses, from inside the VPC or over a VPN. `ranges` says where connections come from for the latter two.
    """

    by: Literal["iap", "bastion", "direct"] = "iap"
    ranges: tuple[str, ...] = ()
    bastion: Bastion | None = None


@dataclass(frozen=True, kw_only=True)
class Google:
    """Where things are made on Google Cloud. VPCs of one stack are peered with the cluster's; subnets never overlap."""

    project: str
    region: str
    subnets: Mapping[str, Subnet]
    ssh: Ssh = Ssh()
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class GkeNodes:
    """The nodes of a Standard cluster: machine type, disk in GB, and how many in all, between which GKE scales."""

    machine_type: str = "e2-standard-2"
    disk_size: int = 50
    minimum: int = 2
    maximum: int = 4
    spot: bool = False


@dataclass(frozen=True, kw_only=True)
class GkeGateway:
    """The internal load balancer before the east-west gateway.

    `address` is reserved in the cluster's subnet, one that is free unless given. With `dns_name` machines find the gateway by that name, which a
    private zone of all VPCs of the stack has.
    """

    address: str | None = None
    dns_name: str | None = None


@dataclass(frozen=True, kw_only=True)
class GkeCluster:
    """A GKE cluster with private nodes, whose control plane is reached by its DNS name and Google identities alone.

    Regional unless `zone` is given. `autopilot` leaves nodes to Google. `pod_ports` are ports of pods, besides those of the stack's own workloads, that
    machines in the cluster's network call. A cluster under `deletion_protection` goes only after an update that takes it away.
    """

    platform: Literal["gke"]
    network: str
    subnet: str
    pod_range: str = "10.20.0.0/16"
    service_range: str = "10.30.0.0/20"
    zone: str | None = None
    autopilot: bool = False
    channel: Literal["RAPID", "REGULAR", "STABLE", "EXTENDED"] = "REGULAR"
    nodes: GkeNodes = GkeNodes()
    gateway: GkeGateway = GkeGateway()
    pod_ports: tuple[int, ...] = ()
    deletion_protection: bool = True


@dataclass(frozen=True, kw_only=True)
class GceMachine:
    """A Compute Engine machine without a public address.

    `setup` is a script that brings the application; it runs as root at every start, so it must bear that. `image` is an image or a family.
    `subnet` is needed only where the network has several for machines. `local_port` is where `./scripts/tunnels` listens for it, should two
    machines' ports ever collide.
    """

    platform: Literal["gce"]
    workload: str
    network: str
    zone: str
    subnet: str | None = None
    machine_type: str = "e2-small"
    image: str = DEBIAN
    disk_size: int = 20
    setup: str | None = None
    spot: bool = False
    local_port: int | None = None
    rotation: int = 0


@dataclass(frozen=True, kw_only=True)
class GceInstanceGroup:
    """A regional managed instance group whose machines join by themselves, without SSH.

    They mint their own tokens with their Google identity. `minimum` and `maximum` bound the autoscaler, which aims at `target_cpu` (0 to 1).
    `setup` as in `gce`; it runs before the machine joins. A changed `rotation` replaces all machines, a few at a time.
    """

    platform: Literal["group"]
    workload: str
    network: str
    subnet: str | None = None
    machine_type: str = "e2-small"
    image: str = DEBIAN
    disk_size: int = 20
    setup: str | None = None
    spot: bool = False
    zones: tuple[str, ...] = ()
    minimum: int = 1
    maximum: int = 3
    target_cpu: float = 0.6
    rotation: int = 0


GoogleMachine = GceMachine | GceInstanceGroup
_M = TypeVar("_M", GceMachine, GceInstanceGroup)


def machines_of_type(settings: Settings, platform: type[_M]) -> dict[str, _M]:
    """The machines of a platform, by name."""
    return {name: machine for name, machine in settings.machines.items() if isinstance(machine, platform)}


def google_machines(settings: Settings) -> dict[str, GoogleMachine]:
    """The machines and groups on Google Cloud, by name."""
    return {**machines_of_type(settings, GceMachine), **machines_of_type(settings, GceInstanceGroup)}


def machine_subnets(settings: Settings, network: str) -> dict[str, Subnet]:
    """The subnets of a network for machines: all but the cluster's.

    GKE opens node ports of its own subnet to everything in it, so machines there would pass by the firewall.
    """
    of_cluster = settings.cluster.subnet if isinstance(settings.cluster, GkeCluster) else None
    subnets = settings.google.subnets if settings.google else {}
    return {name: subnet for name, subnet in subnets.items() if subnet.network == network and name != of_cluster}


def subnet_of(settings: Settings, machine: GoogleMachine) -> str:
    """The name of the subnet that a machine is in."""
    return machine.subnet or next(iter(machine_subnets(settings, machine.network)))


def local_port(name: str, machine: GceMachine) -> int:
    """The port of this computer at which a machine's tunnel begins. It follows from the name, so that other machines never change it."""
    return machine.local_port or 20000 + crc32(name.encode()) % 10000


_ZONE = re.compile(r"[a-z]+-[a-z]+\d+-[a-z]")
_PROJECT = re.compile(r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]")


def check(settings: Settings, secrets: Collection[str]) -> Iterator[Problem]:
    """What is wrong with what shall be on Google Cloud, and which of the `secrets` that it needs are not there."""
    cluster, machines = settings.cluster, google_machines(settings)
    yield from _check_gateways(settings)
    if settings.google is None:
        if isinstance(cluster, GkeCluster) or machines:
            yield Problem("google", "is missing: the platforms gke, gce and group need a project, a region and subnets")
        return
    yield from _check_place(settings.google)
    if settings.google.ssh.bastion and "sshPrivateKey" not in secrets:
        yield Problem("google.ssh.bastion", "needs a key: set it with `pulumi config set --secret istio-vm-mesh:sshPrivateKey`")
    yield from _check_subnets(settings, settings.google)
    if isinstance(cluster, GkeCluster):
        yield from _check_cluster(cluster, settings.google)
    for name, machine in machines.items():
        yield from _check_machine(f"machines.{name}", machine, settings, settings.google)
    yield from _check_ports(settings)
    if cluster.platform == "kind" and machines:
        yield Problem("cluster.platform", "machines on Google Cloud cannot reach a kind cluster: use gke, or an existing cluster")


def _check_gateways(settings: Settings) -> Iterator[Problem]:
    for name, network in settings.networks.items():
        if not network.gateway or not network.gateway.zones:
            continue
        path = f"networks.{name}.gateway.zones"
        if not any(isinstance(machine, GceMachine) for machine in settings.singles.values() if machine.network == name):
            yield Problem(path, "its machines would be made like this network's, which are not on Compute Engine: leave this out")
        elif settings.google:
            for index, zone in enumerate(network.gateway.zones):
                yield from _check_zone(f"{path}[{index}]", zone, settings.google)


def _check_place(google: Google) -> Iterator[Problem]:
    if not _PROJECT.fullmatch(google.project):
        yield Problem("google.project", f"{google.project!r} is no project ID: 6 to 30 lower-case letters, digits and '-', a letter first")
    if not re.fullmatch(r"[a-z]+-[a-z]+\d+", google.region):
        yield Problem("google.region", f"{google.region!r} is no region: expected one such as europe-west1")
    for key, value in google.labels.items():
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", key) or not re.fullmatch(r"[a-z0-9_-]{1,63}", value):
            yield Problem(f"google.labels.{key}", "labels are up to 63 lower-case letters, digits, '-' and '_', and not empty")
    ssh = google.ssh
    if ssh.by == "bastion" and ssh.bastion is None:
        yield Problem("google.ssh.bastion", "is missing: say which SSH server leads to the machines")
    if ssh.by != "bastion" and ssh.bastion:
        yield Problem("google.ssh.bastion", f"is not used with `by: {ssh.by}`: leave it out")
    if ssh.bastion:
        yield from check_host_key("google.ssh.bastion", ssh.bastion.host_key, ssh.bastion.accept_any_host_key, ssh.bastion.port)
    if ssh.by != "iap" and not ssh.ranges:
        yield Problem("google.ssh.ranges", "is missing: say where SSH connections come from, for the firewall")
    if ssh.by == "iap" and ssh.ranges:
        yield Problem("google.ssh.ranges", "is not used with `by: iap`: connections come from Google's own range")
    for index, text in enumerate(ssh.ranges):
        parsed = _range(text)
        if parsed is None:
            yield Problem(f"google.ssh.ranges[{index}]", f"expected an address range such as 10.0.0.0/24; got {text!r}")
        elif parsed.prefixlen == 0:
            yield Problem(f"google.ssh.ranges[{index}]", "would open SSH to the whole internet: name the ranges that connect")


def _range(text: str) -> IPv4Network | None:
    try:
        return IPv4Network(text)
    except ValueError:
        return None


def _check_subnets(settings: Settings, google: Google) -> Iterator[Problem]:
    ranges: dict[str, IPv4Network] = {}
    for name, subnet in google.subnets.items():
        path = f"google.subnets.{name}"
        if not re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", name) or not re.fullmatch(r"[a-z]([-a-z0-9]{0,20}[a-z0-9])?", subnet.vpc):
            yield Problem(path, "names of subnets are up to 40 lower-case letters, digits and '-', a letter first, those of VPCs up to 22")
        parsed = _range(subnet.range)
        if subnet.network not in settings.networks:
            yield Problem(
                f"{path}.network", f"{subnet.network!r} is no network of this stack" + suggestion(subnet.network, settings.networks)
            )
        elif parsed and not any(parsed.subnet_of(whole) for text in settings.networks[subnet.network].ranges if (whole := _range(text))):
            yield Problem(f"{path}.range", f"{subnet.range} is in none of the ranges of the network {subnet.network}: add it there")
        if parsed is None:
            yield Problem(f"{path}.range", f"expected an address range such as 10.0.0.0/24; got {subnet.range!r}")
        else:
            ranges[f"{path}.range"] = parsed
    if isinstance(settings.cluster, GkeCluster):
        for key, text in (("podRange", settings.cluster.pod_range), ("serviceRange", settings.cluster.service_range)):
            parsed = _range(text)
            if parsed is None:
                yield Problem(f"cluster.{key}", f"expected an address range such as 10.0.0.0/24; got {text!r}")
            else:
                ranges[f"cluster.{key}"] = parsed
    for path, known in ranges.items():
        if known.is_global:
            yield Problem(path, f"{known} is public address space: pods would come from their nodes' addresses there; use a private range")
    for (one, first), (other, second) in combinations(ranges.items(), 2):
        if first.overlaps(second):
            yield Problem(other, f"{second} overlaps {first} of {one}: the VPCs of a stack are peered, which overlapping ranges prevent")


def _check_cluster(cluster: GkeCluster, google: Google) -> Iterator[Problem]:
    subnet = google.subnets.get(cluster.subnet)
    if subnet is None:
        yield Problem("cluster.subnet", f"{cluster.subnet!r} is no subnet of this stack" + suggestion(cluster.subnet, google.subnets))
    elif subnet.network != cluster.network:
        yield Problem("cluster.subnet", f"is in the network {subnet.network}, the cluster in {cluster.network}: they must be the same")
    if cluster.zone is not None:
        yield from _check_zone("cluster.zone", cluster.zone, google)
    nodes = cluster.nodes
    if cluster.autopilot and nodes != GkeNodes():
        yield Problem("cluster.nodes", "Autopilot has no nodes of ours: leave this out")
    if not 0 < nodes.minimum <= nodes.maximum:
        yield Problem("cluster.nodes", f"expected 0 < minimum <= maximum; got {nodes.minimum} and {nodes.maximum}")
    address, whole = cluster.gateway.address, _range(subnet.range) if subnet else None
    if address is not None and whole and not (parsed := _range(address)):
        yield Problem("cluster.gateway.address", f"{address!r} is no IP address")
    elif address is not None and whole and parsed and not parsed.subnet_of(whole):
        yield Problem("cluster.gateway.address", f"{address} is not in {whole}, the range of the cluster's subnet")
    name = cluster.gateway.dns_name
    if name is not None and (not DNS_NAME.fullmatch(name) or name.endswith((".cluster.local", ".svc"))):
        yield Problem("cluster.gateway.dnsName", f"expected a name of a domain of yours such as gateway.mesh.internal; got {name!r}")
    for index, port in enumerate(cluster.pod_ports):
        if not 0 < port < 65536:
            yield Problem(f"cluster.podPorts[{index}]", f"{port} is no port: expected 1 to 65535")


def _check_zone(path: str, zone: str, google: Google) -> Iterator[Problem]:
    if not _ZONE.fullmatch(zone) or not zone.startswith(f"{google.region}-"):
        yield Problem(path, f"{zone!r} is no zone of {google.region}: expected one such as {google.region}-b")


def _check_machine(path: str, machine: GoogleMachine, settings: Settings, google: Google) -> Iterator[Problem]:
    subnets = machine_subnets(settings, machine.network)
    if machine.subnet is not None and machine.subnet not in subnets:
        hint = suggestion(machine.subnet, subnets)
        yield Problem(f"{path}.subnet", f"{machine.subnet!r} is no subnet for machines of the network {machine.network}{hint}")
    elif machine.subnet is None and len(subnets) != 1 and machine.network in settings.networks:
        found = (
            f"has {len(subnets)} subnets for machines ({', '.join(subnets)}): say which"
            if subnets
            else "has no subnet for machines: add one"
        )
        yield Problem(f"{path}.subnet", f"the network {machine.network} {found} (the cluster's own is not for machines)")
    elif subnets:
        yield from _check_lengths(path, machine, google.subnets[subnet_of(settings, machine)].vpc, settings)
    zones = (
        {f"{path}.zone": machine.zone}
        if isinstance(machine, GceMachine)
        else {f"{path}.zones[{i}]": z for i, z in enumerate(machine.zones)}
    )
    for where, zone in zones.items():
        yield from _check_zone(where, zone, google)
    if isinstance(machine, GceInstanceGroup):
        if not 0 < machine.minimum <= machine.maximum:
            yield Problem(path, f"expected 0 < minimum <= maximum; got {machine.minimum} and {machine.maximum}")
        if not 0 < machine.target_cpu <= 1:
            yield Problem(f"{path}.targetCpu", f"expected more than 0 and at most 1; got {machine.target_cpu}")
        if not isinstance(settings.cluster, GkeCluster):
            yield Problem(f"{path}.platform", "a group's machines mint tokens at a GKE cluster of this stack: use gke, or single machines")
    if machine.setup is not None and not machine.setup.startswith("#!"):
        yield Problem(f"{path}.setup", "expected a script, whose first line names its interpreter (such as #!/bin/bash)")


def _check_lengths(path: str, machine: GoogleMachine, vpc: str, settings: Settings) -> Iterator[Problem]:
    """Names on Google Cloud have 63 characters at most, and Pulumi appends 8: firewall-<vpc>-<workload>-health is the longest that is made of two.

    Networks whose gateway is machines have a workload <network>-gateway.
    """
    if len(vpc) + len(machine.workload) > 38:
        yield Problem(
            f"{path}.workload", f"{machine.workload!r} and its VPC {vpc!r} are too long for names of firewall rules: 38 letters together"
        )
    network = settings.networks.get(machine.network)
    if network and network.gateway and len(vpc) + len(machine.network) > 29:
        yield Problem(
            f"{path}.network", f"{machine.network!r} and its VPC {vpc!r} are too long for names of its gateway: 29 letters together"
        )
    if isinstance(machine, GceInstanceGroup) and len(path.partition(".")[2]) > 44:
        yield Problem(path, "is too long for names of a group: 44 letters")


def _check_ports(settings: Settings) -> Iterator[Problem]:
    if settings.google is None or settings.google.ssh.by != "iap":
        return
    ports = {name: local_port(name, machine) for name, machine in machines_of_type(settings, GceMachine).items()}
    for port, count in Counter(ports.values()).items():
        names = sorted(name for name, found in ports.items() if found == port)
        if count > 1:
            yield Problem(f"machines.{names[1]}.localPort", f"has the tunnel port {port}, as {names[0]} has: give one of them another")
        if not 1023 < port < 65536:
            yield Problem(f"machines.{names[0]}.localPort", f"{port} is no port for users: expected 1024 to 65535")
