"""Which connections Google Cloud lets through between the parts of a stack. Pure.

It models:

- routes of subnets, secondary ranges and peerings (VPC: "Routes", "VPC Network Peering")
- implied rules and declared firewall rules
- the rules that GKE adds (GKE: "Automatically created firewall rules")
- source addresses of pods (GKE: "IP masquerade agent", default non-masquerade destinations)
- internal passthrough load balancers (region, global access, address)
- Cloud NAT
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network
from itertools import islice
from typing import Any

from components.names import CROSS_NETWORK_PORT, STATUS_PORT, XDS_PORT, part_name
from components.platforms.google.names import RULE, balancer_name, subnet_name, workload_of_account
from tools.google_model import cloud
from tools.google_model.cloud import Cloud, service_of_gateway
from tools.mock_engine import Node
from tools.plan import resources
from tools.plan.resources import items, mapping, value_at

EVERY_PORT = (1 << 65536) - 2
"""Ports as bits of a number: 1 to 65535."""
PRIVATE = tuple(
    IPv4Network(text)
    for text in (
        "10.0.0.0/8",
        "100.64.0.0/10",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.168.0.0/16",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "240.0.0.0/4",
    )
)
"""Destinations to which packets of pods keep their source address."""
HEALTH_CHECK_CIDRS = ("35.191.0.0/16", "130.211.0.0/22")
WEBHOOK_PORT = 15017
NETWORK_GATEWAY_PORTS = tuple(map(str, (XDS_PORT, WEBHOOK_PORT, STATUS_PORT, CROSS_NETWORK_PORT)))
"""What the chart `gateway` gives a Service whose value `networkGateway` is set, and no others."""
NODE_HEALTH_PORT = 10256
"""Of kube-proxy, or what replaces it: the checks of a Service with a load balancer call it."""
KUBELET_READ_ONLY = 10255
GLOBAL_ACCESS = "networking.gke.io/internal-load-balancer-allow-global-access"
INTERNAL = "networking.gke.io/load-balancer-type"


class Kind(StrEnum):
    """What an end of a connection is."""

    MACHINES = "machines"
    NODES = "nodes"
    PODS = "pods"
    BALANCER = "load balancer"
    PROBE = "probe of Google"
    OUTSIDE = "outside"


@dataclass(frozen=True, kw_only=True)
class Place:
    """An end of connections: VMs or pods of one kind, a load balancer, or what is outside.

    vpc: the name of its VPC, "" outside. address: one of its addresses; another of them differs in
    nothing. account: the Google service account of its VM. of_cluster: its cluster.
    public: it has an external address.
    """

    name: str
    kind: Kind
    address: IPv4Address
    vpc: str = ""
    region: str = ""
    account: str = ""
    of_cluster: str = ""
    public: bool = False
    balancer: Balancer | None = None


@dataclass(frozen=True, kw_only=True)
class Balancer:
    """An internal passthrough load balancer. Packets keep its address as their destination.

    backends: the names of the places behind it.
    """

    ports: int
    global_access: bool
    backends: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """An ingress rule of a VPC's firewall.

    sources, destinations: CIDRs; no destinations: all. accounts, cluster: whose VMs it is for.
    """

    name: str
    vpc: str
    sources: tuple[IPv4Network, ...]
    ports: Mapping[str, int]
    accounts: frozenset[str] = frozenset()
    cluster: str = ""
    destinations: tuple[IPv4Network, ...] = ()
    allows: bool = True
    priority: int = 1000

    def targets(self, place: Place) -> bool:
        """Return whether the rule is for the VM of a place."""
        if self.cluster:
            return place.of_cluster == self.cluster
        return not self.accounts or place.account in self.accounts


IAP = Place(name="IAP", kind=Kind.PROBE, address=IPv4Address("35.235.240.5"))
HEALTH_CHECKS = Place(name="health checks", kind=Kind.PROBE, address=IPv4Address("35.191.0.5"))
"""Google's own clients: their packets arrive by routes that no VPC shows."""
INTERNET = Place(name="internet", kind=Kind.OUTSIDE, address=IPv4Address("8.8.8.8"))
ELSEWHERE = Place(name="private addresses of others", kind=Kind.OUTSIDE, address=IPv4Address("192.168.77.5"))


@dataclass(frozen=True)
class Fabric:
    """Everything that decides about packets in a stack.

    routes: the CIDRs that VMs of a VPC reach, by VPC. nat: VPCs with Cloud NAT.
    names: DNS names by the VPCs that resolve them.
    """

    places: tuple[Place, ...]
    rules: tuple[Rule, ...]
    routes: Mapping[str, tuple[IPv4Network, ...]]
    nat: frozenset[str]
    names: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def place(self, name: str) -> Place:
        """Return a place by its name."""
        return next(place for place in self.places if place.name == name)

    def matrix(self, protocol: str = "tcp") -> dict[tuple[str, str], str]:
        """Return the open ports, as text, by source and destination; no pair without any."""
        listed: dict[tuple[str, str], str] = {}
        for source in (*self.places, IAP, HEALTH_CHECKS, INTERNET, ELSEWHERE):
            for destination in (*self.places, INTERNET, ELSEWHERE):
                ports = self.open_ports(source, destination, protocol)
                if ports:
                    listed[source.name, destination.name] = ports_text(ports)
        return listed

    def open_ports(self, source: Place, destination: Place, protocol: str = "tcp") -> int:
        """Return the ports at which `destination` gets connections of `source`, as bits."""
        if source.kind is Kind.BALANCER or (Kind.OUTSIDE is source.kind is destination.kind):
            return 0
        if destination.kind is Kind.OUTSIDE:
            return self._outward(source, destination)
        address = self._source_address(source, destination)
        if not self._arrives(source, destination, address):
            return 0
        if destination.balancer is None:
            return self._admitted(address, destination, destination.address, protocol)
        return self._balanced(source, destination, address, protocol)

    def _outward(self, source: Place, destination: Place) -> int:
        if source.kind is Kind.PROBE or destination is not INTERNET:
            return 0
        return EVERY_PORT if source.public or source.vpc in self.nat else 0

    def _source_address(self, source: Place, destination: Place) -> IPv4Address:
        if source.kind is not Kind.PODS or any(destination.address in cidr for cidr in PRIVATE):
            return source.address
        [nodes] = [place for place in self.places if place.kind is Kind.NODES and place.of_cluster == source.of_cluster]
        return nodes.address

    def _arrives(self, source: Place, destination: Place, address: IPv4Address) -> bool:
        """Return whether packets have routes, there and back."""
        if source.kind is Kind.PROBE:
            return destination.vpc != ""
        if source.kind is Kind.OUTSIDE:
            return source is INTERNET and destination.public
        there = any(destination.address in cidr for cidr in self.routes.get(source.vpc, ()))
        back = any(address in cidr for cidr in self.routes.get(destination.vpc, ()))
        return there and back

    def _balanced(self, source: Place, destination: Place, address: IPv4Address, protocol: str) -> int:
        balancer = destination.balancer
        assert balancer is not None
        if protocol != "tcp":
            return 0
        if source.of_cluster and source.of_cluster == destination.of_cluster:
            return balancer.ports  # nodes send it to a pod themselves (GKE Dataplane V2)
        if source.kind is Kind.PROBE:
            # Checks call backends at the load balancer's address; IAP forwards to VMs alone.
            ports = EVERY_PORT if source is HEALTH_CHECKS else 0
        elif source.region == destination.region or balancer.global_access:
            ports = balancer.ports
        else:
            return 0
        for name in balancer.backends:
            ports &= self._admitted(address, self.place(name), destination.address, protocol)
        return ports

    def _admitted(self, address: IPv4Address, place: Place, destination: IPv4Address, protocol: str) -> int:
        """Return the ports that the firewall of a VM's VPC opens to an address."""
        rules = [
            rule
            for rule in self.rules
            if rule.vpc == place.vpc
            and rule.targets(place)
            and any(address in cidr for cidr in rule.sources)
            and (not rule.destinations or any(destination in cidr for cidr in rule.destinations))
        ]
        admitted, undecided = 0, EVERY_PORT
        for rule in sorted(rules, key=lambda rule: (rule.priority, rule.allows)):
            ports = rule.ports.get(protocol, 0) & undecided
            admitted |= ports if rule.allows else 0
            undecided &= ~ports
        return admitted


def ports_of(texts: Iterable[str]) -> int:
    """Return ports and ranges such as `80` and `8000-8100` as bits; no texts: every port."""
    ports, empty = 0, True
    for text in texts:
        first, _, last = str(text).partition("-")
        ports |= (1 << (int(last or first) + 1)) - (1 << int(first))
        empty = False
    return EVERY_PORT if empty else ports


def ports_text(ports: int) -> str:
    """Return ports as text, such as `22 80-90`; `every port`."""
    if ports == EVERY_PORT:
        return "every port"
    texts: list[str] = []
    while ports:
        first = (ports & -ports).bit_length() - 1
        run = ~(ports >> first)
        last = first + (run & -run).bit_length() - 2
        texts.append(str(first) if first == last else f"{first}-{last}")
        ports &= ~((1 << (last + 1)) - (1 << first))
    return " ".join(texts)


def fabric(stack: Cloud) -> Fabric:
    """Return what decides about the packets of a stack.

    Raises ValueError for what this module does not model, such as egress rules.
    """
    places = [*_machines(stack), *_of_clusters(stack)]
    places += list(_balancers(stack, places))
    return Fabric(
        places=tuple(places),
        rules=(
            *(_rule(stack, node) for node in stack.of_type(resources.FIREWALL)),
            *_rules_of_gke(stack),
        ),
        routes=_routes(stack),
        nat=frozenset(_nat(stack)),
        names=_names(stack),
    )


def _cidrs(subnet: Node) -> list[IPv4Network]:
    ranges = [each["ipCidrRange"] for each in items(subnet.inputs.get("secondaryIpRanges"))]
    return [IPv4Network(text) for text in (subnet.inputs["ipCidrRange"], *ranges)]


def _routes(stack: Cloud) -> dict[str, tuple[IPv4Network, ...]]:
    """Return the subnets of each VPC and of those that both halves of a peering connect it to.

    Routes that a VPC has by peering are not handed on to a third one.
    """
    cidrs: dict[str, list[IPv4Network]] = {}
    for subnet in stack.of_type(cloud.SUBNETWORK):
        cidrs.setdefault(stack.vpc(subnet.inputs["network"]), []).extend(_cidrs(subnet))
    halves = {(stack.vpc(half.inputs["network"]), stack.vpc(half.inputs["peerNetwork"])) for half in stack.of_type(cloud.PEERING)}
    peers = {(one, other) for one, other in halves if (other, one) in halves}
    return {
        vpc: tuple(local + [each for one, other in sorted(peers) if one == vpc for each in cidrs.get(other, [])])
        for vpc, local in cidrs.items()
    }


def _nat(stack: Cloud) -> Iterator[str]:
    for nat in stack.of_type(cloud.NAT):
        if nat.inputs["sourceSubnetworkIpRangesToNat"] != "ALL_SUBNETWORKS_ALL_IP_RANGES":
            raise ValueError(f"{nat.name}: NAT of some subnets only is not modelled")
        router = stack.resolve(nat.inputs["router"], cloud.ROUTER)
        assert router is not None
        yield stack.vpc(router.inputs["network"])


def _names(stack: Cloud) -> dict[str, frozenset[str]]:
    names: dict[str, frozenset[str]] = {}
    for record in stack.of_type(cloud.RECORD):
        zone = stack.resolve(record.inputs["managedZone"], cloud.ZONE)
        assert zone is not None
        networks = items(value_at(zone.inputs, "privateVisibilityConfig.networks"))
        names[record.inputs["name"].rstrip(".")] = frozenset(stack.vpc(each["networkUrl"]) for each in networks)
    return names


def _machines(stack: Cloud) -> Iterator[Place]:
    """Yield a place for the VMs of each subnet and service account: they differ in nothing else."""
    names: set[str] = set()
    for node in stack.of_type(resources.INSTANCE, resources.TEMPLATE):
        [interface] = node.inputs["networkInterfaces"]
        subnet = stack.resolve(interface["subnetwork"], cloud.SUBNETWORK)
        account = stack.resolve(value_at(node.inputs, "serviceAccount.email"), cloud.ACCOUNT)
        if subnet is None or account is None:
            raise ValueError(f"{node.name}: subnets and accounts of others are not modelled")
        if node.inputs.get("tags") or node.inputs.get("canIpForward"):
            raise ValueError(f"{node.name}: tags and forwarding are not modelled")
        name = f"{workload_of_account(account.name)} in {subnet.name.removeprefix(subnet_name(''))}"
        if name in names:
            continue
        names.add(name)
        yield Place(
            name=name,
            kind=Kind.MACHINES,
            address=next(islice(IPv4Network(subnet.inputs["ipCidrRange"]).hosts(), 9, None)),
            vpc=stack.vpc(subnet.inputs["network"]),
            region=subnet.inputs["region"],
            account=value_at(node.inputs, "serviceAccount.email"),
            public="accessConfigs" in interface or "ipv6AccessConfigs" in interface,
        )


@dataclass(frozen=True)
class _Cluster:
    """A GKE cluster in its subnet. pods: the CIDR of its pods."""

    node: Node
    subnet: Node
    pods: IPv4Network
    account: str

    @property
    def nodes(self) -> IPv4Network:
        return IPv4Network(self.subnet.inputs["ipCidrRange"])


def _clusters(stack: Cloud) -> Iterator[_Cluster]:
    for node in stack.of_type(resources.CLUSTER):
        subnet = stack.resolve(node.inputs["subnetwork"], cloud.SUBNETWORK)
        if subnet is None:
            raise ValueError(f"{node.name}: subnets of others are not modelled")
        name = value_at(node.inputs, "ipAllocationPolicy.clusterSecondaryRangeName")
        pods = next(each["ipCidrRange"] for each in items(subnet.inputs.get("secondaryIpRanges")) if each["rangeName"] == name)
        autopilot = "clusterAutoscaling.autoProvisioningDefaults.serviceAccount"
        account = value_at(node.inputs, "nodeConfig.serviceAccount")
        account = account or value_at(node.inputs, autopilot)
        yield _Cluster(node, subnet, IPv4Network(pods), str(account))


def _of_clusters(stack: Cloud) -> Iterator[Place]:
    for cluster in _clusters(stack):
        common: dict[str, Any] = {
            "vpc": stack.vpc(cluster.node.inputs["network"]),
            "region": cluster.subnet.inputs["region"],
            "account": cluster.account,
            "of_cluster": cluster.node.name,
        }
        nodes = next(islice(cluster.nodes.hosts(), 9, None))
        public = not value_at(cluster.node.inputs, "privateClusterConfig.enablePrivateNodes")
        yield Place(name="nodes", kind=Kind.NODES, address=nodes, public=public, **common)
        yield Place(name="pods", kind=Kind.PODS, address=cluster.pods[9], **common)


def _balancers(stack: Cloud, places: list[Place]) -> Iterator[Place]:
    for rule in stack.of_type(resources.FORWARDING_RULE):
        yield _forwarding_rule(stack, rule, places)
    for cluster in _clusters(stack):
        for release in service_of_gateway(stack):
            service = mapping(value_at(release.inputs, "values.service"))
            annotations = mapping(service.get("annotations"))
            if annotations.get(INTERNAL) != "Internal":
                raise ValueError(f"{release.name}: its load balancer would be external")
            reserved = stack.resolve(service.get("loadBalancerIP"), cloud.ADDRESS)
            if reserved is None:
                raise ValueError(f"{release.name}: its address is none that the stack reserves")
            subnet = stack.resolve(reserved.inputs["subnetwork"], cloud.SUBNETWORK)
            if subnet is not cluster.subnet:
                raise ValueError(f"{release.name}: its address is not in the cluster's subnet")
            yield Place(
                name="gateway of the cluster",
                kind=Kind.BALANCER,
                address=_address(reserved, cluster.nodes),
                vpc=stack.vpc(cluster.node.inputs["network"]),
                region=cluster.subnet.inputs["region"],
                of_cluster=cluster.node.name,
                balancer=Balancer(
                    ports=_service_ports(release),
                    global_access=annotations.get(GLOBAL_ACCESS) == "true",
                    backends=frozenset({"nodes"}),
                ),
            )


def _service_ports(release: Node) -> int:
    values = mapping(release.inputs["values"])
    if values.get("networkGateway"):
        return ports_of(NETWORK_GATEWAY_PORTS)
    return ports_of(str(port["port"]) for port in mapping(values["service"])["ports"])


def _address(reserved: Node, cidr: IPv4Network) -> IPv4Address:
    """Return the given address, or one of those that Google would choose."""
    given = reserved.inputs.get("address")
    address = IPv4Address(given) if given else next(islice(cidr.hosts(), 99, None))
    if address not in cidr:
        raise ValueError(f"{reserved.name}: {address} is not in {cidr}")
    return address


def _forwarding_rule(stack: Cloud, rule: Node, places: list[Place]) -> Place:
    inputs = rule.inputs
    if inputs.get("loadBalancingScheme") != "INTERNAL" or inputs.get("ipProtocol") != "TCP":
        raise ValueError(f"{rule.name}: only internal passthrough load balancers are modelled")
    subnet = stack.resolve(inputs["subnetwork"], cloud.SUBNETWORK)
    reserved = stack.resolve(inputs["ipAddress"], cloud.ADDRESS)
    backends = stack.resolve(inputs["backendService"], cloud.BACKENDS)
    assert subnet and reserved and backends
    groups = {
        group.name for each in backends.inputs["backends"] if (group := stack.resolve(each["group"], cloud.INSTANCE_GROUP, cloud.MANAGER))
    }
    accounts: set[str] = set()
    for member in stack.of_type(cloud.MEMBERSHIP):
        group = stack.resolve(member.inputs["instanceGroup"], cloud.INSTANCE_GROUP)
        instance = stack.resolve(member.inputs["instance"], resources.INSTANCE)
        if group and instance and group.name in groups:
            accounts.add(str(value_at(instance.inputs, "serviceAccount.email")))
    for manager in stack.of_type(cloud.MANAGER):
        for version in manager.inputs["versions"] if manager.name in groups else ():
            template = stack.resolve(version["instanceTemplate"], resources.TEMPLATE)
            assert template is not None
            accounts.add(str(value_at(template.inputs, "serviceAccount.email")))
    vpc = stack.vpc(inputs["network"])
    behind = {each.name for each in places if each.account in accounts and each.vpc == vpc}
    if not behind:
        raise ValueError(f"{rule.name}: nothing is behind it in {vpc}")
    return Place(
        name=f"balancer of {rule.name.removesuffix(part_name(balancer_name(''), RULE))}",
        kind=Kind.BALANCER,
        address=_address(reserved, IPv4Network(subnet.inputs["ipCidrRange"])),
        vpc=vpc,
        region=inputs["region"],
        balancer=Balancer(
            ports=ports_of(inputs["ports"]),
            global_access=bool(inputs.get("allowGlobalAccess")),
            backends=frozenset(behind),
        ),
    )


_MODELLED = {
    "allows",
    "denies",
    "description",
    "direction",
    "name",
    "network",
    "priority",
    "project",
    "sourceRanges",
    "targetServiceAccounts",
}


def _rule(stack: Cloud, node: Node) -> Rule:
    inputs = node.inputs
    if unknown := set(inputs) - _MODELLED:
        raise ValueError(f"{node.name}: {', '.join(sorted(unknown))}: not modelled")
    if inputs.get("direction", "INGRESS") != "INGRESS":
        raise ValueError(f"{node.name}: egress rules are not modelled")
    ports: dict[str, int] = {}
    for each in items(inputs.get("allows") or inputs.get("denies")):
        protocols = ("tcp", "udp") if each["protocol"] == "all" else (each["protocol"],)
        for protocol in protocols:
            ports[protocol] = ports.get(protocol, 0) | ports_of(items(each.get("ports")))
    return Rule(
        name=node.name,
        vpc=stack.vpc(inputs["network"]),
        sources=tuple(map(IPv4Network, inputs["sourceRanges"])),
        ports=ports,
        accounts=frozenset(inputs.get("targetServiceAccounts") or ()),
        allows="denies" not in inputs,
        priority=inputs.get("priority", 1000),
    )


_ALL = {"tcp": EVERY_PORT, "udp": EVERY_PORT}


def _rules_of_gke(stack: Cloud) -> Iterator[Rule]:
    """Yield what GKE creates for each cluster, and for its Services with load balancers."""
    everything = (IPv4Network("0.0.0.0/0"),)
    for cluster in _clusters(stack):
        vpc, name = stack.vpc(cluster.node.inputs["network"]), cluster.node.name
        read_only = {"tcp": ports_of([str(KUBELET_READ_ONLY)])}
        both = (cluster.pods, cluster.nodes)
        of_cluster: dict[str, Any] = {"vpc": vpc, "cluster": name}
        yield Rule(name=f"gke-{name}-all", sources=(cluster.pods,), ports=_ALL, **of_cluster)
        yield Rule(name=f"gke-{name}-vms", sources=(cluster.nodes,), ports=_ALL, **of_cluster)
        inside = Rule(name=f"gke-{name}-inkubelet", sources=both, ports=read_only, priority=999, **of_cluster)
        yield inside
        yield Rule(
            name=f"gke-{name}-exkubelet",
            sources=everything,
            ports=read_only,
            allows=False,
            **of_cluster,
        )
        for release in service_of_gateway(stack):
            service = mapping(value_at(release.inputs, "values.service"))
            reserved = stack.resolve(service.get("loadBalancerIP"), cloud.ADDRESS)
            assert reserved is not None
            address = IPv4Network(_address(reserved, cluster.nodes))
            clients = items(service.get("loadBalancerSourceRanges"))
            yield Rule(
                name=f"k8s2-{release.name}",
                sources=tuple(map(IPv4Network, clients)) or everything,
                ports={"tcp": _service_ports(release)},
                destinations=(address,),
                **of_cluster,
            )
            yield Rule(
                name=f"k8s2-{release.name}-health",
                sources=tuple(map(IPv4Network, HEALTH_CHECK_CIDRS)),
                ports={"tcp": ports_of([str(NODE_HEALTH_PORT)])},
                **of_cluster,
            )
