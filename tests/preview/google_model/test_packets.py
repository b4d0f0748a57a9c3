"""Every declared flow passes Google's networks and firewalls, and nothing else does."""

from __future__ import annotations

import pytest

from components.config import load
from tests.support import google_stacks, harness
from tests.support.google_model import packets
from tests.support.google_model.packets import EVERY_PORT, fabric, ports_of, ports_text
from tests.support.google_stacks import STACKS, built, flows, shipped, with_input, without
from tests.support.tiers import some_quick

PRODUCT, FAR, FAR_GATEWAY = "product in machines", "product in far", "far-gateway in far"
GATEWAY, BALANCER = "gateway of the cluster", "balancer of far-gateway"
OF_GKE = {
    ("nodes", "nodes"): "every port",
    ("nodes", "pods"): "every port",
    ("pods", "nodes"): "every port",
    ("pods", "pods"): "every port",
    ("nodes", "internet"): "every port",
    ("pods", "internet"): "every port",
    ("health checks", "nodes"): "10256",
    ("health checks", "pods"): "10256",
    ("health checks", GATEWAY): "10256",
}
CONTROL = "15012 15021"
CONTROL_AND_CALLS = "15012 15017 15021 15443"
MATRICES = {
    "single-network": OF_GKE
    | {
        ("nodes", GATEWAY): CONTROL,
        ("pods", GATEWAY): CONTROL,
        (PRODUCT, GATEWAY): CONTROL,
        (PRODUCT, "internet"): "every port",
        (PRODUCT, PRODUCT): "80",
        ("pods", PRODUCT): "80",
        (PRODUCT, "pods"): "80",
        (PRODUCT, "nodes"): "80",
        ("IAP", PRODUCT): "22",
    },
    "fleet": OF_GKE
    | {
        ("nodes", GATEWAY): CONTROL,
        ("pods", GATEWAY): CONTROL,
        (PRODUCT, GATEWAY): CONTROL,
        (PRODUCT, "internet"): "every port",
        (PRODUCT, PRODUCT): "80",
        ("pods", PRODUCT): "80",
        ("health checks", PRODUCT): "15021",
    },
    "multi-network": OF_GKE
    | {
        ("nodes", GATEWAY): CONTROL_AND_CALLS,
        ("pods", GATEWAY): CONTROL_AND_CALLS,
        (FAR, GATEWAY): CONTROL_AND_CALLS,
        (FAR_GATEWAY, GATEWAY): CONTROL_AND_CALLS,
        (FAR, "internet"): "every port",
        (FAR_GATEWAY, "internet"): "every port",
        (FAR, FAR): "80",
        (FAR_GATEWAY, FAR): "80",
        ("pods", BALANCER): "15443",
        ("pods", FAR_GATEWAY): "15443",
        ("IAP", FAR): "22",
        ("IAP", FAR_GATEWAY): "22",
        ("health checks", FAR_GATEWAY): "15021",
        ("health checks", BALANCER): "15021",
    },
}


@pytest.mark.parametrize("stack", STACKS)
def test_only_what_was_reviewed_passes_in_shipped_stacks(stack: str) -> None:
    assert fabric(shipped(stack)).matrix() == MATRICES[stack]


@pytest.mark.parametrize("stack", STACKS)
def test_only_what_settings_declare_passes_in_shipped_stacks(stack: str) -> None:
    assert fabric(shipped(stack)).matrix() == flows(load(harness.configuration(stack)))


@pytest.mark.parametrize(
    "build", some_quick([google_stacks.several_vpcs, google_stacks.autopilot, google_stacks.groups_alone], google_stacks.several_vpcs)
)
def test_only_what_settings_declare_passes_in_other_stacks(build: google_stacks.Build) -> None:
    """Also between VPCs of one network, which reach each other directly."""
    assert fabric(built(build)).matrix() == flows(load(build()))


@pytest.mark.parametrize(
    "build", some_quick([google_stacks.cluster_in_shared_vpc, google_stacks.machines_in_shared_vpc], google_stacks.cluster_in_shared_vpc)
)
def test_the_same_passes_where_a_vpc_is_one_of_others(build: google_stacks.Build) -> None:
    with_owners = google_stacks.with_owners(built(build), load(build()))
    assert fabric(with_owners).matrix() == MATRICES["multi-network"]


def test_machines_of_one_network_in_two_vpcs_call_each_other() -> None:
    matrix = fabric(built(google_stacks.several_vpcs)).matrix()
    assert matrix["product in far", "billing in far2"] == "5432 8080"
    assert matrix["billing in far2", "product in far"] == "80"
    assert ("product in far", "billing in third") not in matrix


@pytest.mark.parametrize("stack", STACKS)
def test_only_gke_opens_what_is_not_tcp(stack: str) -> None:
    ends = {end for pair in fabric(shipped(stack)).matrix("udp") for end in pair}
    pairs = {pair for pair in fabric(shipped(stack)).matrix("udp") if pair[1] != "internet"}
    assert pairs == {(one, other) for one in ("nodes", "pods") for other in ("nodes", "pods")}
    assert "internet" in ends, "machines may send what they like"


@pytest.mark.parametrize("build", [None, google_stacks.several_vpcs])
def test_every_machine_resolves_the_gateways_name(build: google_stacks.Build | None) -> None:
    modelled = fabric(built(build) if build else shipped("multi-network"))
    vpcs = {place.vpc for place in modelled.places if place.kind is packets.Kind.MACHINES}
    assert modelled.names["gateway.mesh.internal"] >= vpcs


def test_machines_of_an_existing_cluster_are_not_alone_in_their_vpc() -> None:
    """Either the stack file says how they reach it, or it is refused."""
    config = harness.configuration("existing")
    google = harness.configuration("single-network")
    config["google"] = google["google"]
    config["google"]["subnets"] = {"machines": {"vpc": "mine", "network": "pods", "cidr": "10.12.0.0/24"}}
    config["machines"] = {"billing-1": google["machines"]["product-1"] | {"workload": "billing"}}
    config["networks"]["pods"].pop("cidrs")
    assert not google_stacks.accepts(config)


# ---- The model sees what is wrong.


def test_half_a_peering_connects_nothing() -> None:
    matrix = fabric(without(shipped("multi-network"), "peering-mesh-far")).matrix()
    assert (FAR, GATEWAY) not in matrix and ("pods", BALANCER) not in matrix


def test_a_machine_in_the_nodes_subnet_reaches_every_port_of_nodes() -> None:
    moved = shipped("single-network")
    for name in ("product-1-instance", "product-2-instance"):
        moved = with_input(moved, name, "networkInterfaces.0.subnetwork", moved.nodes["subnet-nodes"].id)
    assert fabric(moved).matrix()["product in nodes", "nodes"] == "every port"


def test_a_wider_source_lets_more_in() -> None:
    wider = with_input(shipped("multi-network"), "firewall-far-product", "sourceRanges", ["10.0.0.0/8"])
    more = fabric(wider).matrix().items() - MATRICES["multi-network"].items()
    assert dict(more) == {("pods", FAR): "80", ("nodes", FAR): "80"}


def test_a_rule_without_ports_opens_all_of_them() -> None:
    wider = with_input(shipped("multi-network"), "firewall-far-product", "allows", [{"protocol": "all"}])
    assert fabric(wider).matrix()[FAR, FAR] == "every port"
    assert fabric(wider).matrix("udp")[FAR, FAR] == "every port"


def test_a_rule_of_higher_priority_that_denies_wins() -> None:
    denied = with_input(shipped("multi-network"), "firewall-far-product-ssh", "denies", [{"protocol": "tcp"}])
    denied = with_input(denied, "firewall-far-product-ssh", "sourceRanges", ["10.40.0.0/24"])
    denied = with_input(denied, "firewall-far-product-ssh", "priority", 900)
    denied.nodes["firewall-far-product-ssh"].inputs.pop("allows")
    assert (FAR, FAR) not in fabric(denied).matrix()


def test_a_balancer_in_another_region_needs_global_access() -> None:
    moved = with_input(shipped("multi-network"), "far-gateway-balancer-rule", "region", "us-east1")
    assert ("pods", BALANCER) not in fabric(moved).matrix()
    reachable = with_input(moved, "far-gateway-balancer-rule", "allowGlobalAccess", True)
    assert fabric(reachable).matrix()["pods", BALANCER] == "15443"


def test_pods_have_their_nodes_address_outside_of_private_addresses() -> None:
    modelled = fabric(shipped("single-network"))
    pods, product = modelled.place("pods"), modelled.place(PRODUCT)
    public = packets.Place(**{**vars(product), "address": packets.IPv4Address("11.1.0.5")})
    cidr = packets.IPv4Network("11.1.0.0/24")
    routes = {vpc: (*cidrs, cidr) for vpc, cidrs in modelled.routes.items()}
    modelled = packets.Fabric(modelled.places, modelled.rules, routes, modelled.nat)
    assert modelled.open_ports(pods, public) == 0, "the firewall admits pods, and sees a node"


@pytest.mark.parametrize(
    ("name", "path", "value", "says"),
    [
        ("istio-vm-mesh-gateway", "values.service.annotations", {}, "would be external"),
        ("istio-vm-mesh-gateway", "values.service.loadBalancerIP", "10.11.0.250", "none that the stack reserves"),
        ("gateway-address", "address", "10.11.0.250", "is not in 10.10.0.0/22"),
        ("firewall-far-product", "direction", "EGRESS", "egress rules"),
        ("firewall-far-product", "sourceTags", ["web"], "sourceTags: not modelled"),
        ("product-1-instance", "tags", ["web"], "tags and forwarding"),
        ("far-gateway-balancer-rule", "loadBalancingScheme", "EXTERNAL", "only internal"),
    ],
)  # fmt: skip
def test_what_the_model_does_not_know_is_refused(name: str, path: str, value: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        fabric(with_input(shipped("multi-network"), name, path, value))


def test_ports_are_written_as_ranges() -> None:
    assert ports_text(ports_of(["22", "80-82", "8080"])) == "22 80-82 8080"
    assert ports_text(ports_of(["1-65534"])) == "1-65534"
    assert ports_of([]) == EVERY_PORT and ports_text(EVERY_PORT) == "every port"
