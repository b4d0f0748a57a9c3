"""One of two machines that are a network's gateway dies."""

from __future__ import annotations

import time

import pytest

from components.names import ISTIO_NAMESPACE
from tests.support.lab import MultiNetworkLab
from tests.support.traffic import LOST, SLOW_PATH
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def lab(multi_network_lab: MultiNetworkLab) -> MultiNetworkLab:
    """The stack `lab-multi-network`."""
    multi_network_lab.ensure()
    return multi_network_lab


@pytest.mark.parametrize("death", ["agent", "machine"])
def test_when_one_of_two_gateways_dies_calls_succeed_again_within_seconds(lab: MultiNetworkLab, death: str) -> None:
    name = "far-gateway-1"
    container = lab.container(name)
    if death == "agent":
        lab.exec_in_container(name, "systemctl mask --runtime istio-vm-mesh; systemctl kill --signal KILL istio-vm-mesh")
    else:
        lab.docker("kill", container)
    try:
        died = time.monotonic()
        wait_until(
            lambda: (
                {each.hostname for each in lab.call_from_pod(count=60, path=SLOW_PATH)} >= lab.service_endpoints and no_request_is_lost(lab)
            ),
            20,
            "calls succeed again",
        )
        print(f"{death}: calls succeeded again after {time.monotonic() - died:.1f} s")
    finally:
        if death == "agent":
            lab.exec_in_container(name, "systemctl unmask istio-vm-mesh; systemctl start istio-vm-mesh")
        else:
            lab.docker("start", container)
    entry = lab.outputs()["machines"][name]["entry"]
    get = ["kubectl", "get", "workloadentry", "--namespace", ISTIO_NAMESPACE, entry]
    wait_until(lambda: lab.run(*get, check=False).returncode == 0, description="the gateway is registered again")


def no_request_is_lost(lab: MultiNetworkLab) -> bool:
    return LOST not in {each.hostname for each in lab.call_from_pod(count=40)}
