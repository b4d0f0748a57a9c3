"""A network without a gateway: its machines call, and are not called from outside."""

from __future__ import annotations

import pytest

from tests.support.lab import Config, MultiNetworkLab
from tests.support.true_plans import as_planned
from tests.support.waiting import wait_until


def without_gateway(config: Config) -> None:
    config["networks"]["far"].pop("gateway")


@pytest.fixture(scope="module")
def preview(multi_network_lab: MultiNetworkLab) -> str:
    """What the preview of the change to this stack prints, or of the stack itself where no lab is up."""
    multi_network_lab.ensure_any()
    multi_network_lab.configure(without_gateway)
    return multi_network_lab.pulumi("preview")


@pytest.fixture(scope="module")
def lab(multi_network_lab: MultiNetworkLab, preview: str) -> MultiNetworkLab:
    """The stack `lab-multi-network` without the far network's gateway."""
    with as_planned(multi_network_lab):
        multi_network_lab.ensure(without_gateway)
    return multi_network_lab


def test_the_preview_says_what_is_not_connected(preview: str) -> None:
    assert "its machines call pods, and no client outside of it calls them" in preview


def test_its_machines_call_and_are_not_called_from_outside(lab: MultiNetworkLab) -> None:
    assert "far-gateway-1" not in lab.outputs()["machines"]
    near = {*lab.pod_endpoints(), f"{lab.address('product-1')}:8080"}
    wait_until(lambda: lab.proxy_endpoints("pod") == near, description="pods have no endpoint in the far network")
    assert {each.hostname for each in lab.call_from_pod(count=40)} == {"pod", "product-1"}
    lab.wait_until_answered_by("product-2", {"pod", "product-2"})
