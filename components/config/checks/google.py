"""Rules for clusters, machines and networks on Google Cloud."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...mesh_facts import from_values
from ..addresses import DNS_NAME, ipv4_cidr, is_address, is_port
from ..google import GceInstanceGroup, GkeCluster, GkeNodes, Google, GoogleMachine, Ssh
from ..problems import Problem, suggestion
from ..stack import Settings
from .existing import check_server
from .texts import check_image, check_machine_image, check_machine_type

_ZONE = re.compile(r"[a-z]+-[a-z]+\d+-[a-z]")
_PROJECT = re.compile(r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]")
_SUBNET = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")
_VPC = re.compile(r"[a-z]([-a-z0-9]{0,20}[a-z0-9])?")


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
        if not gateway.zones:
            yield Problem(f"{path}.zones", "is missing: give the zones of the gateway machines")
        for index, zone in enumerate(gateway.zones):
            if settings.google:
                yield from _check_zone(f"{path}.zones[{index}]", zone, settings.google)
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
    for key, value in google.labels.items():
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
    if cluster.autopilot and nodes != GkeNodes():
        yield Problem("cluster.nodes", "Google manages the nodes of Autopilot: leave this out")
    if not 0 < nodes.min_nodes <= nodes.max_nodes:
        yield Problem(
            "cluster.nodes",
            f"expected 0 < minNodes <= maxNodes; got {nodes.min_nodes} and {nodes.max_nodes}",
        )
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


def _check_zone(path: str, zone: str, google: Google) -> Iterator[Problem]:
    if not _ZONE.fullmatch(zone) or not zone.startswith(f"{google.region}-"):
        yield Problem(
            path,
            f"{zone!r} is not a zone of {google.region}: expected one such as {google.region}-b",
        )


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
        yield from _check_lengths(path, machine, vpc, settings)
    if isinstance(machine, GceInstanceGroup):
        yield from _check_group(path, machine, settings, google)
    else:
        yield from _check_zone(f"{path}.zone", machine.zone, google)
    yield from check_machine_image(f"{path}.image", machine.image)
    yield from check_machine_type(f"{path}.machineType", machine.machine_type)
    script = machine.startup_script
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
            "the machines of an instance group issue tokens at a GKE cluster of this stack: "
            "use gke, or single machines",
        )


def _check_lengths(
    path: str, machine: GoogleMachine, vpc: str, settings: Settings
) -> Iterator[Problem]:
    """Yield names that exceed Google's limit of 63 characters, of which Pulumi appends 8.

    The longest name of two is `firewall-<vpc>-<workload>-health`. A network with gateway machines
    has a workload `<network>-gateway`.
    """
    if len(vpc) + len(machine.workload) > 38:
        yield Problem(
            f"{path}.workload",
            f"{machine.workload!r} and its VPC {vpc!r} are too long for names of firewall rules: "
            "at most 38 characters together",
        )
    network = settings.networks.get(machine.network)
    if network and network.gateway and len(vpc) + len(machine.network) > 29:
        yield Problem(
            f"{path}.network",
            f"{machine.network!r} and its VPC {vpc!r} are too long for names of its gateway: "
            "at most 29 characters together",
        )
    if isinstance(machine, GceInstanceGroup) and len(machine.name) > 44:
        yield Problem(path, "is too long for names of an instance group: at most 44 characters")
