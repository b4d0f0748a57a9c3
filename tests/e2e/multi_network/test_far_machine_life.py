"""A machine behind gateways comes, changes and goes while a pod calls: every call to it goes through the gateways."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.support.istio_cases import CALLER, start_steady_caller
from tests.support.lab import Config, MultiNetworkLab
from tests.support.traffic import Request, assert_no_lost_requests
from tests.support.true_plans import as_planned


def one_more(config: Config) -> None:
    config["machines"]["product-4"] = config["machines"]["product-3"]


def another_probe(config: Config) -> None:
    """Change what all agents of the workload are restarted for, two at a time: half of its machines."""
    one_more(config)
    config["workloads"]["product"]["probe"]["period"] = 3
    config["workloads"]["product"]["maxUnavailable"] = "50%"


def one_less(config: Config) -> None:
    another_probe(config)
    del config["machines"]["product-4"]


@dataclass(frozen=True)
class Update:
    """One update: the requests meanwhile, and the machines whose agent it restarted."""

    requests: list[Request]
    restarted: set[str]


def update(lab: MultiNetworkLab) -> Update:
    """Update the lab while the steady caller calls."""
    agents = {name: lab.agent_pid(name) for name in lab.machines}
    with lab.background_requests(CALLER) as requests:
        lab.up()
    return Update(requests, {name for name in lab.machines if lab.agent_pid(name) != agents[name]})


@pytest.fixture(scope="module")
def lab(multi_network_lab: MultiNetworkLab) -> MultiNetworkLab:
    """The stack `lab-multi-network`, and a steady caller."""
    multi_network_lab.ensure()
    start_steady_caller(multi_network_lab)
    return multi_network_lab


@pytest.fixture(scope="module")
def coming(lab: MultiNetworkLab) -> Update:
    lab.configure(one_more)
    with as_planned(lab):
        return update(lab)


@pytest.fixture(scope="module")
def changing(lab: MultiNetworkLab, coming: Update) -> Update:
    """A change that restarts the agents of all machines of the workload."""
    lab.configure(another_probe)
    with as_planned(lab):
        return update(lab)


@pytest.fixture(scope="module")
def going(lab: MultiNetworkLab, changing: Update) -> Update:
    lab.configure(one_less)
    with as_planned(lab):
        return update(lab)


def test_a_far_machine_comes_without_a_lost_call(lab: MultiNetworkLab, coming: Update) -> None:
    assert_no_lost_requests(coming.requests)
    assert coming.restarted == set()
    lab.wait_until_answered_by("pod", lab.service_endpoints | {"product-4"})


def test_a_far_machine_changes_without_a_lost_call(lab: MultiNetworkLab, changing: Update) -> None:
    assert_no_lost_requests(changing.requests)
    assert changing.restarted == lab.machines
    lab.wait_until_answered_by("pod", lab.service_endpoints | {"product-4"})


def test_a_far_machine_goes_without_a_lost_call(lab: MultiNetworkLab, going: Update) -> None:
    """It leaves the mesh over SSH before its container goes: its agent closes the connections that callers have through gateways."""
    assert_no_lost_requests(going.requests)
    assert going.restarted == set()
    lab.wait_until_answered_by("pod", lab.service_endpoints)
