"""Stacks on Google Cloud for the model of it: the shipped ones, and others that settings accept."""

from __future__ import annotations

import bisect
import copy
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from components.config import load
from components.config.google import GceInstanceGroup, GkeCluster
from components.config.problems import SettingsError
from components.config.stack import Settings
from components.names import CROSS_NETWORK_PORT, STATUS_PORT, XDS_PORT, gateway_workload_name
from components.platforms.google import names
from tests.support import harness
from tests.support.google_model.packets import WEBHOOK_PORT
from tools.google_model.cloud import NAT, NETWORK, ROUTER, SUBNETWORK, Cloud
from tools.mock_engine import Node

STACKS = ("fleet", "multi-network", "single-network")
Config = dict[str, Any]
Build = Callable[[], Config]


def shipped(stack: str) -> Cloud:
    """Return the resources of a shipped stack; none of them may be changed."""
    return Cloud.of(harness.declared(stack).graph.values())


@cache
def built(build: Build, stack: str = "test") -> Cloud:
    """Return the resources of a configuration that a function returns; none may be changed."""
    return declared(build(), stack)


def declared(config: Mapping[str, Any], stack: str = "test") -> Cloud:
    """Return the resources of a configuration. Raises what the program raises."""
    return Cloud.of(harness.run(config, stack=stack).graph.values())


def with_input(cloud: Cloud, name: str, path: str, value: object) -> Cloud:
    """Return resources of which one has another input. path: keys with dots between."""
    node = cloud.nodes[name]
    inputs = copy.deepcopy(node.inputs)
    *parents, last = path.split(".")
    place: Any = inputs
    for key in parents:
        place = place[int(key)] if key.isdigit() else place.setdefault(key, {})
    place[last] = value
    changed = Node(**{**vars(node), "inputs": inputs})
    return Cloud({**cloud.nodes, name: changed})


def with_options(cloud: Cloud, name: str, **options: object) -> Cloud:
    """Return resources of which one has other options."""
    node = cloud.nodes[name]
    return Cloud({**cloud.nodes, name: Node(**{**vars(node), "options": node.options | options})})


def without(cloud: Cloud, *names: str) -> Cloud:
    """Return resources without some."""
    return Cloud({name: node for name, node in cloud.nodes.items() if name not in names})


# ---- Configurations.


def several_vpcs() -> Config:
    """Return a stack with a network in two VPCs, two more networks, and three workloads."""
    config = harness.configuration("multi-network")
    config["google"]["subnets"] |= {
        "near": {"vpc": "mesh", "network": "pods", "cidr": "10.11.0.0/24"},
        "far2": {"vpc": "far2", "network": "far", "cidr": "10.41.0.0/24"},
        "third": {"vpc": "third", "network": "third", "cidr": "10.42.0.0/24"},
    }
    config["networks"]["far"]["gateway"]["subnet"] = "far"
    config["networks"]["third"] = {"gateway": {"machines": 1, "zones": ["europe-west1-b"]}}
    config["cluster"]["gateway"]["address"] = "10.10.0.250"
    config["cluster"]["podPorts"] = [9090]
    billing = copy.deepcopy(config["workloads"]["product"])
    billing |= {"labels": {"app": "billing"}, "ports": {"http": 8080, "tcp-db": 5432}}
    billing["probe"] = {"http": {"port": 8080, "path": "/"}}
    billing["services"] = {"billing": {"ports": {"http": 80}}}
    del billing["pods"]
    config["workloads"]["billing"] = billing
    machine = config["machines"]["product-1"]
    config["machines"] = {
        "product-near": machine | {"network": "pods"},
        "product-far": machine | {"subnet": "far"},
        "product-far2": machine | {"subnet": "far2"},
        "billing-far2": machine | {"subnet": "far2", "workload": "billing"},
        "billing-third": machine | {"network": "third", "workload": "billing"},
    }
    group = {key: machine[key] for key in ("workload", "startupScript")}
    group |= {"platform": "gce-instance-group", "network": "pods"}
    config["machines"]["group"] = group | {"workload": "billing"}
    return config


def group_of_one() -> Config:
    """Return a stack whose only machine is that of a group."""
    config = harness.configuration("fleet")
    config["machines"]["product-fleet"] |= {"minReplicas": 1, "maxReplicas": 1}
    return config


def groups_alone() -> Config:
    """Return two networks in which each machine joins by itself, the gateway's too."""
    config = harness.configuration("multi-network")
    config["networks"]["far"]["gateway"]["group"] = True
    single = config["machines"].pop("product-1")
    group = {key: single[key] for key in ("workload", "network", "startupScript")}
    config["machines"]["product-fleet"] = {**group, "platform": "gce-instance-group", "minReplicas": 1, "maxReplicas": 1}
    return config


def autopilot() -> Config:
    """Return a stack whose nodes are Google's."""
    config = harness.configuration("single-network")
    config["cluster"] |= {"autopilot": True, "zone": None}
    return config


def cluster_in_shared_vpc() -> Config:
    """Return a stack whose cluster is in a VPC of another project, and its machines in an own one."""
    return _in_shared_vpc("nodes")


def machines_in_shared_vpc() -> Config:
    """Return a stack whose machines are in a VPC of another project, and its cluster in an own one."""
    return _in_shared_vpc("far")


def _in_shared_vpc(subnet: str) -> Config:
    config = harness.configuration("multi-network")
    google, host = config["google"], "projects/net-host"
    google["vpcs"] = {google["subnets"][subnet]["vpc"]: {"existing": f"{host}/global/networks/shared"}}
    google["subnets"][subnet]["existing"] = f"{host}/regions/europe-west1/subnetworks/{subnet}"
    return config


def with_owners(cloud: Cloud, settings: Settings) -> Cloud:
    """Return the resources with those that the owners of existing VPCs have: subnets, and NAT."""
    google, cluster = settings.google, settings.cluster
    assert google and isinstance(cluster, GkeCluster)
    nodes: list[Node] = []

    def add(type_: str, name: str, path: str, **inputs: object) -> None:
        nodes.append(Node(type_, name, dict(inputs), {"selfLink": names.link(path)}, "", id=path))

    for name, vpc in google.vpcs.items():
        router, nat = names.router_name(name), names.nat_name(name)
        add(NETWORK, names.vpc_name(name), vpc.existing)
        add(ROUTER, router, router, network=vpc.existing)
        ranges = "ALL_SUBNETWORKS_ALL_IP_RANGES"
        add(NAT, nat, nat, router=router, sourceSubnetworkIpRangesToNat=ranges)
    for name, subnet in google.subnets.items():
        if subnet.existing is None:
            continue
        secondary = {cluster.pod_range_name: cluster.pod_cidr}
        secondary[cluster.service_range_name] = cluster.service_cidr
        add(
            SUBNETWORK,
            names.subnet_name(name),
            subnet.existing,
            network=google.vpcs[subnet.vpc].existing,
            region=google.region,
            ipCidrRange=subnet.cidr,
            secondaryIpRanges=[{"rangeName": key, "ipCidrRange": cidr} for key, cidr in secondary.items() if name == cluster.subnet],
        )
    return Cloud({**cloud.nodes, **{node.name: node for node in nodes}})


def accepts(config: Mapping[str, Any]) -> bool:
    """Return whether the settings are in order."""
    try:
        load(copy.deepcopy(dict(config)))
    except SettingsError:
        return False
    return True


def longest(build: Callable[[str], Config]) -> str:
    """Return the longest name that settings accept in a place.

    build: returns the configuration with a name.
    """
    lengths = range(1, 81)
    refused = bisect.bisect_left(lengths, True, key=lambda length: not accepts(build("n" * length)))
    assert 0 < refused < len(lengths), "one letter is too long, or nothing is"
    return "n" * refused


def _renamed(values: Config, old: str, new: str) -> None:
    values[new] = values.pop(old)


def _of_gateway_group(name: str) -> Config:
    """Return two networks, one with a gateway that is an instance group."""
    config = _of_network(name, "far")
    config["networks"][name]["gateway"]["group"] = True
    return config


def _of_network(name: str, vpc: str) -> Config:
    """Return two networks, in a region and zones with long names."""
    config = harness.configuration("multi-network")
    google, region = config["google"], "northamerica-northeast1"
    google["region"] = region
    config["cluster"]["zone"] = f"{region}-b"
    google["subnets"]["far"] |= {"vpc": vpc, "network": name}
    _renamed(config["networks"], "far", name)
    zones = [f"{region}-{letter}" for letter in "abc"]
    config["networks"][name]["gateway"] |= {"machines": 3, "zones": zones}
    config["machines"]["product-1"] |= {"network": name, "zone": f"{region}-c"}
    return config


def _of_group(name: str, workload: str, vpc: str) -> Config:
    config = harness.configuration("fleet")
    for subnet in config["google"]["subnets"].values():
        subnet["vpc"] = vpc
    _renamed(config["machines"], "product-fleet", name)
    _renamed(config["workloads"], "product", workload)
    config["machines"][name]["workload"] = workload
    return config


def _of_subnet(subnet: str) -> Config:
    config = harness.configuration("single-network")
    _renamed(config["google"]["subnets"], "machines", subnet)
    return config


LONGEST = ("network", "network and VPC", "network with a group", "workload and group", "workload and VPC", "subnet")


@cache
def with_longest(what: str) -> Cloud:
    """Return the resources of a stack with names that are as long as settings accept.

    what: one of LONGEST.
    """
    if what == "network":
        return declared(_of_network(longest(lambda name: _of_network(name, "far")), "far"))
    if what == "network with a group":
        return declared(_of_gateway_group(longest(_of_gateway_group)))
    if what == "subnet":
        return declared(_of_subnet(longest(_of_subnet)))
    if what == "workload and group":
        group = longest(lambda name: _of_group(name, "w", "m"))
        return declared(_of_group(group, longest(lambda name: _of_group("g", name, "m")), "m"))
    vpc = longest(lambda name: _of_group("g", "w", name))
    if what == "network and VPC":
        return declared(_of_network(longest(lambda name: _of_network(name, vpc)), vpc))
    return declared(_of_group("g", longest(lambda name: _of_group("g", name, vpc)), vpc))


# ---- What a stack's settings say of its traffic.

EVERY_PORT = "every port"


def flows(settings: Settings) -> dict[tuple[str, str], str]:
    """Return the ports of each flow that a stack declares or Google adds, by its two ends.

    The ends have the names that `packets` gives them. This follows from the settings alone.
    """
    ports: dict[tuple[str, str], set[int]] = {}
    cluster = settings.cluster
    assert isinstance(cluster, GkeCluster)
    gateway = "gateway of the cluster"
    machines: dict[tuple[str, str], str] = {}
    groups: set[tuple[str, str]] = set()
    singles: set[tuple[str, str]] = set()
    for machine in settings.google_machines.values():
        key = machine.workload, settings.subnet_of(machine)
        machines[key] = machine.network
        (groups if isinstance(machine, GceInstanceGroup) else singles).add(key)
    networks = {_place(*key): network for key, network in machines.items()}
    networks["pods"] = cluster.network

    def add(source: str, destination: str, *numbers: int) -> None:
        ports.setdefault((source, destination), set()).update(numbers)

    with_pods = [each for each in settings.workloads.values() if each.pods]
    of_pods = {port for each in with_pods for port in each.ports.values()} | {*cluster.pod_ports}
    several = any(network != cluster.network for network in settings.networks)
    of_gateway = {XDS_PORT, STATUS_PORT, *((WEBHOOK_PORT, CROSS_NETWORK_PORT) if several else ())}
    for source, network in networks.items():
        for (workload, subnet), other in machines.items():
            spec = settings.workloads[workload]
            if (network != other) if spec.role == "router" else (network == other):
                add(source, _place(workload, subnet), *spec.ports.values())
        for name in settings.networks:
            if name != network and settings.networks[name].gateway:
                add(source, f"balancer of {gateway_workload_name(name)}", CROSS_NETWORK_PORT)
        if source != "pods":
            add(source, gateway, *of_gateway)
            if network == cluster.network:
                add(source, "pods", *of_pods)
                add(source, "nodes", *of_pods)  # a rule is for a VM, whatever its address
    for workload, subnet in singles:
        add("IAP", _place(workload, subnet), 22)
    for workload, subnet in machines:
        router = settings.workloads[workload].role == "router"
        if router or (workload, subnet) in groups:
            add("health checks", _place(workload, subnet), STATUS_PORT)
        if router:
            add("health checks", f"balancer of {workload}", STATUS_PORT)
    for destination in ("nodes", "pods", gateway):
        add("health checks", destination, 10256)
        if destination == gateway:
            add("pods", destination, *of_gateway)
            add("nodes", destination, *of_gateway)
    listed = {key: " ".join(map(str, sorted(each))) for key, each in ports.items() if each}
    for source in ("nodes", "pods"):
        listed |= {(source, destination): EVERY_PORT for destination in ("nodes", "pods")}
    return listed | {(name, "internet"): EVERY_PORT for name in (*networks, "nodes")}


def _place(workload: str, subnet: str) -> str:
    return f"{workload} in {subnet}"
