"""A network's gateway is an ordinary workload on ordinary machines; a network without one is closed, not half open."""

from __future__ import annotations

import copy
from typing import Any

from components.config import load
from components.config.stack import Settings
from components.istio import charts, manifests, network_gateways
from components.machines import bootstrap, files
from components.machines.bundle import Bundle, Owner, role_files
from components.names import DEFAULT_DOMAIN
from tests.support.samples import FACTS
from tests.unit.config.test_reader import GOOD


def settings(gateway: Any = None) -> Settings:
    raw = copy.deepcopy(GOOD)
    raw["networks"]["far"] = {"cidrs": ["172.31.7.0/24"], **({"gateway": gateway} if gateway else {})}
    raw["machines"]["product-2"] = {"platform": "docker", "workload": "product", "network": "far", "image": "own:1"}
    return load(raw)


def test_a_network_gateway_is_a_workload_on_machines_of_its_network() -> None:
    expanded = settings({"machines": 2})
    assert set(expanded.workloads) == {"product", "far-gateway"}
    assert set(expanded.single_machines_of("far-gateway")) == {"far-gateway-1", "far-gateway-2"}
    machine = expanded.machines["far-gateway-1"]
    assert (machine.network, machine.platform) == ("far", "docker")
    assert expanded.machines["product-2"] == settings().machines["product-2"]


def test_a_gateway_has_its_own_settings_whatever_machine_is_added() -> None:
    raw = copy.deepcopy(GOOD)
    raw["networks"]["far"] = {"cidrs": ["172.31.7.0/24"], "gateway": {"machines": 1, "image": "gateway:1", "rotation": 3}}
    machine = {"platform": "docker", "workload": "product", "network": "far", "image": "own:1"}
    raw["machines"]["product-2"] = machine
    before = load(raw).machines["far-gateway-1"]
    raw["machines"]["adapter-1"] = {**machine, "image": "own:2", "rotation": 9}
    assert load(raw).machines["far-gateway-1"] == before
    assert (getattr(before, "image", ""), before.rotation) == ("gateway:1", 3)


def test_without_gateways_no_machines_are_added() -> None:
    assert set(settings().machines) == {"product-1", "product-2"}
    assert set(settings().workloads) == {"product"}


def test_a_gateways_agent_is_a_router_without_redirection() -> None:
    expanded = settings({"machines": 1})
    workload = expanded.workloads["far-gateway"]
    assert not [file.path for file in role_files(workload.role) if file.path.endswith("sidecar.conf")]
    owner = Owner("p", "s", "far-gateway-1", "r", "istio-system", "far-gateway")
    proxy = bootstrap.proxy_config(FACTS, workload, "far")
    overrides = files.overrides_env(Bundle(owner, proxy, "172.31.6.130", "172.31.6.2", "", "", role=workload.role))
    assert "PROXY_ROLE='router'\n" in overrides
    assert "ISTIO_META_REQUESTED_NETWORK_VIEW='far'\n" in overrides


def test_gateway_machines_alone_pass_tls_through_by_sni() -> None:
    server = network_gateways.passthrough_gateway("far", "istio-system", DEFAULT_DOMAIN)
    assert server["spec"]["selector"] == settings({"machines": 1}).workloads["far-gateway"].labels
    assert server["spec"]["servers"][0]["tls"] == {"mode": "AUTO_PASSTHROUGH"}
    assert server["metadata"]["name"] != manifests.services_exposure("istio-system", DEFAULT_DOMAIN)["metadata"]["name"]


def test_clients_drop_a_gateway_that_does_not_answer_but_not_for_http_errors() -> None:
    assert network_gateways.needs_failover(settings({"machines": 2}), "product")
    assert not network_gateways.needs_failover(settings({"machines": 1}), "product")
    assert not network_gateways.needs_failover(load(GOOD), "product")
    manifest = network_gateways.failover_rule("product", load(GOOD).workloads["product"], DEFAULT_DOMAIN)
    assert manifest["spec"]["host"] == "product.shop.svc.cluster.local"
    assert manifest["spec"]["trafficPolicy"]["outlierDetection"]["consecutive5xxErrors"] == 0


def test_only_http_connections_through_a_gateway_are_limited_in_time() -> None:
    """A gateway passes on connections, so a caller has no endpoint to drop: its connections end instead."""
    workload = load(GOOD).workloads["product"]
    ports = {"http": 80, "http2-admin": 81, "tcp-db": 5432, "https": 443}
    service = workload.services["product"].model_copy(update={"ports": ports})
    workload = workload.model_copy(update={"services": {"product": service}})
    policy = network_gateways.failover_rule("product", workload, DEFAULT_DOMAIN)["spec"]["trafficPolicy"]
    assert [each["port"]["number"] for each in policy["portLevelSettings"]] == [80, 81]
    for each in policy["portLevelSettings"]:
        assert each["connectionPool"]["tcp"] == {**policy["connectionPool"]["tcp"], "maxConnectionDuration": "10s"}
        # What is not said again would not hold for the port.
        assert (each["outlierDetection"], each["loadBalancer"]) == (policy["outlierDetection"], policy["loadBalancer"])
        assert each["connectionPool"]["http"] == policy["connectionPool"]["http"]
    assert "maxConnectionDuration" not in policy["connectionPool"]["tcp"]
    service = service.model_copy(update={"ports": {"tcp-db": 5432}})
    only_tcp = workload.model_copy(update={"services": {"product": service}})
    assert "portLevelSettings" not in network_gateways.failover_rule("product", only_tcp, DEFAULT_DOMAIN)["spec"]["trafficPolicy"]


def test_gateway_addresses_are_a_resource_and_no_chart_value() -> None:
    manifest = network_gateways.remote_gateway("far", "istio-system", ["172.31.6.130", "172.31.6.131"])
    assert manifest["metadata"]["labels"] == {"topology.istio.io/network": "far"}
    assert [address["value"] for address in manifest["spec"]["addresses"]] == ["172.31.6.130", "172.31.6.131"]
    assert "far" not in str(charts.istiod_values(settings().mesh, "pods"))


def test_endpoints_of_a_network_without_gateway_stay_inside() -> None:
    assert network_gateways.networks_without_gateway(settings()) == ["far"]
    assert network_gateways.networks_without_gateway(settings({"machines": 1})) == []
    assert network_gateways.networks_without_gateway(load(GOOD)) == []
    assert network_gateways.blackhole_gateway("far", "istio-system")["metadata"]["labels"] == {"topology.istio.io/network": "far"}


def test_connectivity_notes_name_networks_without_gateway() -> None:
    closed = "network far has no gateway: its machines call pods, and no client outside of it calls them"
    alone = settings()
    assert network_gateways.connectivity_notes(alone) == [closed]
    assert network_gateways.connectivity_notes(settings({"machines": 1})) == []
    without_pods = alone.workloads["product"].model_copy(update={"pods": None})
    assert network_gateways.connectivity_notes(alone.model_copy(update={"workloads": {"product": without_pods}})) == [closed], (
        "a machine beside the pods answers them"
    )
    far = {name: machine for name, machine in alone.machines.items() if machine.network == "far"}
    cut_off = alone.model_copy(update={"workloads": {"product": without_pods}, "machines": far})
    assert network_gateways.connectivity_notes(cut_off) == [f"{closed}, so no pod reaches the Services of product"]
