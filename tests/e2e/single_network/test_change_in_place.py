"""A change of label, probe and package at once: what is changed in place, what is restarted, and that no request is lost."""

from __future__ import annotations

import pytest
import yaml

from tests.support.changes import other_label_probe_and_package
from tests.support.istio_cases import CALLER, start_steady_caller
from tests.support.lab import Lab
from tests.support.traffic import assert_no_lost_requests
from tests.support.true_plans import as_planned
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def lab(single_network_lab: Lab) -> Lab:
    """The stack `lab`."""
    single_network_lab.ensure()
    return single_network_lab


@pytest.mark.istio_case(26)
def test_a_change_in_place_loses_no_call_and_shows_in_the_entry(lab: Lab) -> None:
    """The package is installed and the agent restarted while pods answer."""
    deployment, group = (lab.get(*what)["metadata"]["uid"] for what in (("deployment", "product"), ("workloadgroup", "product")))
    agent = lab.agent_pid()
    start_steady_caller(lab)
    lab.configure(other_label_probe_and_package)
    with as_planned(lab), lab.background_requests(CALLER) as requests:
        lab.up()
    assert lab.agent_pid() != agent
    assert_no_lost_requests(requests)
    [entry] = lab.entries().values()
    assert entry["metadata"]["labels"]["tier"] == entry["spec"]["labels"]["tier"] == "x"
    probe = {"httpGet": {"port": 8080, "path": "/?probe"}, "periodSeconds": 3, "timeoutSeconds": 1, "failureThreshold": 3}
    assert (
        yaml.safe_load(lab.ssh("product-1", "cat /var/lib/istio-vm-mesh/etc/istio/config/mesh"))["defaultConfig"]["readinessProbe"] == probe
    )
    assert lab.get("workloadgroup", "product")["spec"]["probe"] == probe
    # Both were changed in place: a new group would take every entry with it.
    assert lab.get("deployment", "product")["metadata"]["uid"] == deployment
    assert lab.get("workloadgroup", "product")["metadata"]["uid"] == group
    wait_until(
        lambda: all(pod["metadata"]["labels"]["tier"] == "x" for pod in lab.get("pods", "--selector", "app=product")["items"]),
        description="old pods are gone",
    )
    lab.assert_answered_by({"pod", "product-1"})
