"""A machine behind gateways comes, changes and goes while a pod calls."""

from __future__ import annotations

import pytest

from tests.support.istio_cases import CALLER, start_steady_caller
from tests.support.lab import Config, MultiNetworkLab
from tests.support.traffic import assert_no_lost_requests


@pytest.fixture(scope="module")
def lab(multi_network_lab: MultiNetworkLab) -> MultiNetworkLab:
    """The stack `lab-multi-network` with version labels."""
    multi_network_lab.ensure()
    return multi_network_lab


def one_more(config: Config) -> None:
    config["machines"]["product-4"] = config["machines"]["product-3"]


def another_probe(config: Config) -> None:
    one_more(config)
    config["workloads"]["product"]["probe"]["period"] = 3


def one_less(config: Config) -> None:
    another_probe(config)
    del config["machines"]["product-4"]


def test_a_far_machine_comes_changes_and_goes_without_a_lost_call(lab: MultiNetworkLab) -> None:
    """Every call to it goes through the gateways. The change restarts the agents of all machines of the workload while pods answer."""
    start_steady_caller(lab)
    agents = {name: lab.agent_pid(name) for name in lab.machines}
    five = lab.service_endpoints | {"product-4"}
    for change, hostnames in ((one_more, five), (another_probe, five), (one_less, lab.service_endpoints)):
        lab.configure(change)
        with lab.background_requests(CALLER) as requests:
            lab.up()
        assert_no_lost_requests(requests)
        lab.wait_until_answered_by("pod", hostnames)
        restarted = {name for name, agent in agents.items() if lab.agent_pid(name) != agent}
        assert restarted == (set() if change is one_more else lab.machines)
