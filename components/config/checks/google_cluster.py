"""Rules for clusters on Google Kubernetes Engine."""

from __future__ import annotations

from collections.abc import Iterator

from ...mesh_facts import from_values
from ..addresses import DNS_NAME, ipv4_cidr, is_address, is_port
from ..google import ZONES, GkeCluster, GkeNodes, Google
from ..google_machine_types import has_accelerators
from ..problems import Problem, suggestion
from ..stack import Settings
from .google_machines import check_disk, check_disk_size, check_zone
from .texts import check_machine_type

SUBNET_RESERVED = 4
"""Addresses of a subnet that Google Cloud keeps for itself."""
_NODE_PREFIX = 24
"""GKE gives a node of a Standard cluster 256 addresses of the pods' CIDR, for 110 pods."""
_SERVICES_PREFIX = 27
"""The smallest CIDR of Services that GKE takes."""


def check(settings: Settings, cluster: GkeCluster, google: Google) -> Iterator[Problem]:
    """Yield what is wrong with a cluster that is created."""
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
        yield from check_zone("cluster.zone", cluster.zone, google)
    yield from _check_nodes(cluster)
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


def _check_nodes(cluster: GkeCluster) -> Iterator[Problem]:
    nodes = cluster.nodes
    yield from check_machine_type("cluster.nodes.machineType", nodes.machine_type)
    yield from check_disk("cluster.nodes.diskType", nodes.disk_type, nodes.machine_type)
    yield from check_disk_size("cluster.nodes.diskSize", nodes.disk_size)
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
    if subnet and subnet.num_addresses - SUBNET_RESERVED < most + 1:
        yield Problem(
            "cluster.subnet",
            f"{subnet} has too few addresses for the gateway and {most} nodes "
            "(cluster.nodes.maxNodes and one during upgrades): give the subnet a larger CIDR",
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
