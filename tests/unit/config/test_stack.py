"""What follows from a stack: its CIDRs, its machines by kind, and records that never change."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from components import config
from components.config import reader
from components.config.docker import DockerMachine
from components.config.google import GceInstanceGroup, GceMachine, GkeCluster
from components.config.problems import SettingsError
from components.config.stack import Settings
from components.config.workload import HttpProbe, Probe, Service, WorkloadSettings


def settings(stack: str) -> Settings:
    raw = reader.read_file(stack)
    return config.load(raw)


@pytest.mark.parametrize(
    ("stack", "network", "cidrs"),
    [
        ("lab", "pods", ("10.244.0.0/16", "172.31.6.0/24")),
        ("lab-multi-network", "far", ("172.31.9.0/24",)),
        ("existing", "pods", ("10.20.0.0/16", "10.11.0.0/24")),
        ("single-network", "pods", ("10.10.0.0/22", "10.11.0.0/24", "10.20.0.0/16")),
        ("multi-network", "pods", ("10.10.0.0/22", "10.20.0.0/16")),
        ("multi-network", "far", ("10.40.0.0/24",)),
    ],
)
def test_a_networks_cidrs_follow_from_subnets_pods_and_what_it_states(
    stack: str, network: str, cidrs: tuple[str, ...]
) -> None:
    assert settings(stack).cidrs(network) == cidrs


def test_a_cluster_that_exists_may_have_several_cidrs_of_pods() -> None:
    raw = reader.read_file("existing")
    raw["cluster"]["additionalPodCidrs"] = ["10.21.0.0/16", "100.64.0.0/10"]
    several = config.load(raw)
    assert several.pod_cidrs == ("10.20.0.0/16", "10.21.0.0/16", "100.64.0.0/10")
    assert several.cidrs("pods") == (*several.pod_cidrs, "10.11.0.0/24")
    assert several.machine_cidrs("pods") == ("10.11.0.0/24",)


def test_ports_of_a_gateway_that_the_chart_fixes_are_not_compared() -> None:
    """The chart's value networkGateway gives the Service the port by which machines call pods."""
    raw = reader.read_file("existing")
    raw["cluster"]["gateway"]["service"] = {"ports": [{"name": "tls-istiod", "port": 15012}]}
    raw["networks"] |= {"far": {"cidrs": ["10.99.0.0/24"]}}
    raw["machines"]["billing-1"] |= {"network": "far", "host": "10.99.0.5"}
    assert config.load(raw).networks.keys() >= {"far"}


@pytest.mark.parametrize("gateway", [{"behindNat": True}, {"install": False}])
def test_a_translated_port_may_be_one_that_proxies_listen_on(gateway: dict[str, bool]) -> None:
    raw = reader.read_file("existing")
    raw["cluster"]["gateway"] |= {"port": 15020, **gateway}
    if not gateway.get("install", True):
        raw["cluster"]["gateway"].pop("service", None)
    assert config.load(raw).cluster.platform == "existing"


@pytest.mark.parametrize(
    "values", [{"networkGateway": "pods"}, {"labels": {"topology.istio.io/network": "pods"}}]
)
def test_a_gateway_for_other_clusters_has_their_network_by_its_values(
    values: dict[str, Any],
) -> None:
    raw = reader.read_file("lab")
    raw["mesh"].setdefault("values", {})["gateway"] = values
    assert config.load(raw).mesh.values.gateway == values


def test_istios_namespaces_are_created_with_what_the_stack_states_of_them() -> None:
    raw = reader.read_file("lab")
    raw["mesh"] |= {"namespace": "mesh-system"}
    raw["mesh"]["values"] = {"istiod": {"meshConfig": {"rootNamespace": "mesh-root"}}}
    raw["namespaces"] = {name: {"labels": {"of": name}} for name in ("mesh-root", "mesh-system")}
    created = config.load(raw).created_namespaces
    assert {name: stated.labels for name, stated in created.items()} == {
        "mesh-root": {"of": "mesh-root"},
        "mesh-system": {"of": "mesh-system"},
        "shop": {},
    }


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, {"shop": ["product"]}),
        ({"verify": {"mode": "none"}}, {"shop": ["product"]}),
        ({"pods": None, "of workload": {"mode": "none"}}, {}),
        (
            {"pods": None, "verify": {"mode": "none"}, "of workload": {"mode": "warn"}},
            {"shop": ["product"]},
        ),
        ({"pods": None}, {"shop": ["product"]}),
        ({"pods": None, "verify": {"mode": "none"}}, {}),
        ({"pods": None, "headless": True}, {}),
    ],
)
def test_pods_with_sidecars_are_a_workloads_own_and_the_jobs_that_call_it(
    change: dict[str, Any], expected: dict[str, list[str]]
) -> None:
    raw = reader.read_file("lab")
    product = raw["workloads"]["product"]
    raw["verify"] = change.get("verify", {})
    product["services"]["product"]["headless"] = change.get("headless", False)
    product["verify"] = change.get("of workload", {})
    if "pods" in change:
        del product["pods"]
    assert config.load(raw).pods_with_sidecars == expected


def test_machines_are_in_no_cidr_of_pods() -> None:
    assert settings("lab").machine_cidrs("pods") == ("172.31.6.0/24",)
    assert settings("multi-network").machine_cidrs("far") == ("10.40.0.0/24",)


def test_machines_are_not_in_the_subnet_of_a_gke_cluster() -> None:
    stack = settings("single-network")
    assert isinstance(stack.cluster, GkeCluster) and stack.cluster.subnet == "nodes"
    assert list(stack.machine_subnets("pods")) == ["machines"]
    assert {stack.subnet_of(machine) for machine in stack.google_machines.values()} == {"machines"}


def test_instance_groups_are_apart_from_single_machines() -> None:
    stack = settings("fleet")
    assert list(stack.instance_groups) == ["product-fleet"]
    assert stack.single_machines == {}
    assert stack.min_group_sizes("product") == {"pods": 2}
    [group] = stack.instance_groups.values()
    others = {"near": group, "far": group.model_copy(update={"network": "far"})}
    several = stack.model_copy(update={"machines": {**stack.machines, **others}})
    assert several.min_group_sizes("product") == {"pods": 4, "far": 2}
    assert several.min_group_sizes("orders") == {}
    assert stack.machines_of_type(GceInstanceGroup).keys() == stack.google_machines.keys()


@pytest.mark.parametrize("group", [False, True])
def test_gateway_machines_take_nothing_of_other_machines(group: bool) -> None:
    raw = reader.read_file("multi-network")
    raw["networks"]["far"]["gateway"]["group"] = group
    before = config.load(raw)
    chosen = {
        "machineType": "n2-highmem-8",
        "image": "rocky-9",
        "diskSize": 300,
        "diskType": "pd-ssd",
    }
    more = {"spot": True, "rotation": 7, "zone": "europe-west1-d"}
    raw["machines"]["product-1"] |= {**chosen, **more}
    raw["machines"]["adapter-1"] = {**raw["machines"]["product-1"], "firewall": "manage"}
    raw["workloads"]["product"] |= {"failClosed": True, "maxUnavailable": "100%"}
    after = config.load(raw)
    (names,) = {
        tuple(name for name in stack.machines if name.startswith("far-gateway"))
        for stack in (before, after)
    }
    assert len(names) == (1 if group else 2)
    assert all(before.machines[name] == after.machines[name] for name in names)
    assert before.workloads["far-gateway"] == after.workloads["far-gateway"]


def test_gateway_machines_are_ordinary_machines_without_an_application() -> None:
    stack = settings("multi-network")
    gateways = stack.single_machines_of("far-gateway")
    assert list(gateways) == ["far-gateway-1", "far-gateway-2"]
    first, second = gateways.values()
    assert isinstance(first, GceMachine) and isinstance(second, GceMachine)
    assert (first.name, first.zone, second.zone) == (
        "far-gateway-1",
        "europe-west1-b",
        "europe-west1-c",
    )
    assert first.startup_script is None
    assert stack.workloads["far-gateway"].role == "router"


def test_docker_networks_are_those_of_containers_and_of_kind() -> None:
    assert settings("lab-multi-network").docker_networks == {"pods", "far"}
    assert settings("existing").docker_networks == set()


def test_in_python_records_are_made_by_name_and_are_checked_too() -> None:
    workload = WorkloadSettings(
        name="product",
        namespace="shop",
        labels={"app": "product"},
        ports={"http": 8080},
        probe=Probe(http=HttpProbe(port=8080)),
        services={"product": Service(name="product", ports={"http": 80})},
    )
    assert workload.service_account_name == "product"
    with pytest.raises(ValidationError):
        HttpProbe(port="8080")  # type: ignore[arg-type]


def test_records_cannot_be_changed() -> None:
    machine = DockerMachine(platform="docker", name="a", workload="w", network="n")
    with pytest.raises(ValidationError, match="frozen"):
        machine.workload = "other"  # type: ignore[misc]
    assert machine.model_copy(update={"workload": "other"}).workload == "other"
    assert machine.workload == "w"


def test_a_service_selects_what_stays_when_other_labels_come_and_go() -> None:
    def selected(labels: dict[str, str], selector: dict[str, str] | None = None) -> dict[str, str]:
        return Service(name="product", ports={}, selector=selector).selected(labels)

    assert selected({"app": "product", "version": "v1"}) == {"app": "product"}
    assert selected({"app.kubernetes.io/name": "product", "tier": "x"}) == {
        "app.kubernetes.io/name": "product"
    }
    assert selected({"tier": "x"}) == {"tier": "x"}
    assert selected({"app": "product", "version": "v1"}, selector={"version": "v1"}) == {
        "version": "v1"
    }


def test_what_google_has_no_room_for_is_refused() -> None:
    """Labels of a resource, and a script in metadata: a group's is a part of the program's own."""
    raw = reader.read_file("fleet")
    script = "#!/bin/sh\n" + "#" * (128 * 1024)
    raw["google"]["labels"] = {f"label-{number}": "x" for number in range(63)}
    raw["machines"]["product-fleet"]["startupScript"] = script
    single = {"platform": "gce", "workload": "product", "network": "pods", "zone": "europe-west1-b"}
    raw["machines"]["product-1"] = {**single, "startupScript": script}
    raw["machines"]["product-2"] = {**single, "startupScript": script + script}
    with pytest.raises(SettingsError) as refused:
        config.load(raw)
    assert [problem.path for problem in refused.value.problems] == [
        "google.labels",
        "machines.product-2.startupScript",
        "machines.product-fleet.startupScript",
    ]
