"""Two networks with nothing but gateways between them: who calls whom, and by which way."""

from __future__ import annotations

import json

import pytest

from components.names import ENVOY_ADMIN_PORT
from tests.support.lab import MultiNetworkLab
from tests.support.waiting import wait_until

DECADE_S = 10 * 365 * 24 * 3600


@pytest.fixture(scope="module")
def lab(multi_network_lab: MultiNetworkLab) -> MultiNetworkLab:
    """The stack `lab-multi-network`."""
    multi_network_lab.ensure()
    return multi_network_lab


@pytest.mark.istio_case(22)
def test_every_endpoint_calls_every_endpoint(lab: MultiNetworkLab) -> None:
    for caller in ("pod", *sorted(lab.machines)):
        lab.wait_until_answered_by(caller, lab.service_endpoints)


def test_no_proxy_has_an_endpoint_that_it_cannot_reach(lab: MultiNetworkLab) -> None:
    near = {*lab.pod_endpoints(), f"{lab.address('product-1')}:8080"}
    gateways = {f"{lab.address(name)}:15443" for name in lab.gateways}
    far = {f"{lab.address(name)}:8080" for name in ("product-2", "product-3")}
    expected = dict.fromkeys(("pod", "product-1"), near | gateways)
    expected |= dict.fromkeys(("product-2", "product-3"), far | {f"{lab.outputs()['gateway']}:15443"})
    for caller, endpoints in expected.items():
        wait_until(lambda caller=caller, endpoints=endpoints: lab.proxy_endpoints(caller) == endpoints, description=f"those of {caller}")  # type: ignore[misc]


def test_no_packet_passes_the_gateways_by(lab: MultiNetworkLab) -> None:
    """None was sent there, and one that is sent there does not arrive."""
    assert lab.packets_dropped_by_node() == 0
    target = f"http://{lab.address('product-2')}:8080/"
    curl = ["curl", "--silent", "--max-time", "2", target]
    done = lab.run("kubectl", "--namespace", "shop", "exec", "deploy/product", "--container", "istio-proxy", "--", *curl, check=False)
    assert done.returncode == 28  # curl's: no answer in time
    assert lab.packets_dropped_by_node() > 0


def test_the_evidence_names_the_path(lab: MultiNetworkLab) -> None:
    calls = lab.evidence("product").calls
    paths = {(call.caller, call.path) for call in calls}
    assert {
        ("Job verify-product", "direct"),
        ("Job verify-product", "through far-gateway-1"),
        ("Job verify-product", "through far-gateway-2"),
    } <= paths
    assert {("machine product-2", "through istio-vm-mesh-gateway"), ("machine product-3", "through istio-vm-mesh-gateway")} <= paths
    counted = {call.machine for call in calls if call.kind == "counter" and call.answers > 0}
    assert counted == {"product-1", "product-2", "product-3"}
    carried = lab.evidence("far-gateway").gateway_traffic
    assert {each.gateway for each in carried} == {"far-gateway-1", "far-gateway-2"}
    # A gateway chooses an endpoint for each connection, and a verification makes a few: they may all be to one machine.
    # That both are reached through the gateways is test_every_endpoint_calls_every_endpoint.
    assert {each.endpoint for each in carried} <= {f"{lab.address(name)}:8080" for name in ("product-2", "product-3")}


def test_a_machines_proxy_keeps_the_number_of_its_calls(lab: MultiNetworkLab) -> None:
    """istiod has it keep them. Else a proof that comes late would find none, where the application closes its connections."""
    query = "config_dump?resource=dynamic_active_clusters&name_regex=inbound%5B%7C%5D8080%5B%7C%5D%5B%7C%5D"
    dump = json.loads(lab.ssh("product-2", f"curl --silent --fail 'http://127.0.0.1:{ENVOY_ADMIN_PORT}/{query}'"))
    (cluster,) = (each["cluster"] for each in dump["configs"])
    assert (cluster["name"], cluster["type"]) == ("inbound|8080||", "ORIGINAL_DST")
    assert int(cluster["cleanup_interval"].removesuffix("s")) > DECADE_S
