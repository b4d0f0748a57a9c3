"""A network's gateway is an ordinary workload on ordinary machines; a network without one is closed, not half open."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from components.plan import machine, router
from components.plan import mesh as mesh_plan
from components.settings import Settings, load
from tests.unit.test_settings import GOOD


def settings(gateway: Any = None) -> Settings:
    raw = copy.deepcopy(GOOD)
    raw["networks"]["far"] = {"ranges": ["172.31.7.0/24"], **({"gateway": gateway} if gateway else {})}
    raw["machines"]["product-2"] = {"platform": "docker", "workload": "product", "network": "far", "image": "own:1"}
    return load(raw)


def test_a_gateway_is_a_workload_with_machines_like_those_beside_it() -> None:
    expanded = router.expand(settings({"machines": 2}))
    assert set(expanded.workloads) == {"product", "far-gateway"}
    assert set(expanded.machines_of("far-gateway")) == {"far-gateway-1", "far-gateway-2"}
    made = expanded.machines["far-gateway-1"]
    assert (made.network, made.platform) == ("far", "docker")
    assert expanded.machines["product-2"] == settings().machines["product-2"]


def test_without_gateways_nothing_is_expanded() -> None:
    assert router.expand(settings()) == settings()


def test_the_gateways_agent_routes_captures_nothing_and_keeps_to_its_network() -> None:
    expanded = router.expand(settings({"machines": 1}))
    workload = expanded.workloads["far-gateway"]
    unit = machine.unit(workload.role)
    assert "pilot-agent proxy router" in unit
    assert "capture.sh nothing\n" in unit and "capture.sh traffic" not in unit
    assert "ISTIO_META_REQUESTED_NETWORK_VIEW='far'\n" in machine.own_env("far-gateway-1", "172.31.6.130", "172.31.6.2", "far")
    assert "REQUESTED_NETWORK_VIEW" not in machine.own_env("product-2", "172.31.7.130", "172.31.6.2")


def test_calls_are_passed_on_by_name_by_the_gateways_machines_alone() -> None:
    server = router.server("far")
    assert server["spec"]["selector"] == router.expand(settings({"machines": 1})).workloads["far-gateway"].labels
    assert server["spec"]["servers"][0]["tls"] == {"mode": "AUTO_PASSTHROUGH"}
    assert server["metadata"]["name"] != mesh_plan.services_exposure()["metadata"]["name"]


def test_callers_with_a_choice_of_gateways_leave_one_that_does_not_answer_and_never_for_what_the_application_says() -> None:
    assert router.needs_failover(settings({"machines": 2}), "product")
    assert not router.needs_failover(settings({"machines": 1}), "product")
    assert not router.needs_failover(load(GOOD), "product")
    manifest = router.failover("product", load(GOOD).workloads["product"])
    assert manifest["spec"]["host"] == "product.shop.svc.cluster.local"
    assert manifest["spec"]["trafficPolicy"]["outlierDetection"]["consecutive5xxErrors"] == 0


def test_istiod_learns_addresses_without_a_value_of_its_chart() -> None:
    manifest = router.addresses("far", ["172.31.6.130", "172.31.6.131"])
    assert manifest["metadata"]["labels"] == {"topology.istio.io/network": "far"}
    assert [address["value"] for address in manifest["spec"]["addresses"]] == ["172.31.6.130", "172.31.6.131"]
    assert "far" not in str(mesh_plan.istiod_values(settings().mesh, "pods"))


def test_a_network_without_a_gateway_gives_its_endpoints_to_nobody_outside() -> None:
    assert router.closed(settings()) == ["far"]
    assert router.closed(settings({"machines": 1})) == []
    assert router.closed(load(GOOD)) == []
    assert router.nowhere("far")["metadata"]["labels"] == {"topology.istio.io/network": "far"}


def test_what_a_closed_network_means_is_said() -> None:
    closed = "network far has no gateway: its machines call pods, and nothing outside of it calls them"
    alone = settings()
    assert router.notes(alone) == [closed]
    assert router.notes(settings({"machines": 1})) == []
    without_pods = replace(alone.workloads["product"], pods=None)
    assert router.notes(replace(alone, workloads={"product": without_pods})) == [closed], "a machine beside the pods answers them"
    far = {name: machine for name, machine in alone.machines.items() if machine.network == "far"}
    cut_off = replace(alone, workloads={"product": without_pods}, machines=far)
    assert router.notes(cut_off) == [f"{closed}, so no pod reaches the Services of product"]
