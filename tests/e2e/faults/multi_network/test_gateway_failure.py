"""One of two machines that are a network's gateway dies."""

from __future__ import annotations

import time

import pytest

from components.names import CONNECTED_ANNOTATION, ISTIO_NAMESPACE
from tests.support.istio_cases import CALLER, start_steady_caller
from tests.support.lab import MultiNetworkLab
from tests.support.traffic import assert_no_lost_requests
from tests.support.true_plans import is_connected
from tests.support.waiting import wait_until

FAILOVER_S = 20
"""Seconds after a gateway's death in which calls may be lost."""
ENOUGH = 500
"""Requests that show whether calls succeed again: those of five seconds."""


@pytest.fixture(scope="module")
def lab(multi_network_lab: MultiNetworkLab) -> MultiNetworkLab:
    """The stack `lab-multi-network`, and a steady caller."""
    multi_network_lab.ensure()
    start_steady_caller(multi_network_lab)
    return multi_network_lab


def connected_at(lab: MultiNetworkLab, entry: str) -> str:
    """Return when a gateway's agent connected to istiod; "" while it is not connected."""
    gateway = lab.get("workloadentry", entry, "--namespace", ISTIO_NAMESPACE)
    return gateway["metadata"]["annotations"][CONNECTED_ANNOTATION] if gateway and is_connected(gateway) else ""


@pytest.mark.parametrize("death", ["agent", "machine"])
def test_when_one_of_two_gateways_dies_calls_succeed_again_within_seconds(lab: MultiNetworkLab, death: str) -> None:
    name = "far-gateway-1"
    container = lab.container(name)
    entry = lab.outputs()["machines"][name]["entry"]
    before = connected_at(lab, entry)
    assert before
    try:
        with lab.background_requests(CALLER) as requests:
            if death == "agent":
                lab.exec_in_container(name, "systemctl mask --runtime istio-vm-mesh; systemctl kill --signal KILL istio-vm-mesh")
            else:
                lab.docker("kill", container)
            safe = time.monotonic() + FAILOVER_S
            wait_until(lambda: sum(each.started > safe for each in requests) >= ENOUGH, description="enough calls began later")
        assert_no_lost_requests([each for each in requests if each.started > safe])
        lab.wait_until_answered_by("pod", lab.service_endpoints)
    finally:
        if death == "agent":
            lab.exec_in_container(name, "systemctl unmask istio-vm-mesh; systemctl start istio-vm-mesh")
        else:
            lab.docker("start", container)
    wait_until(lambda: connected_at(lab, entry) not in ("", before), description="the gateway is registered again")
