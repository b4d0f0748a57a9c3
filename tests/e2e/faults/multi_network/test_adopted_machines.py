"""Faults of machines of somebody else's that a stack has adopted: in a mesh that has another network, too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.existing_lab import AGENT, SERVICE, AdoptingStack, ExistingMachines, existing_machines
from tests.support.lab import MultiNetworkLab
from tests.support.package_server import never_ready, served_package
from tests.support.true_plans import as_planned
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def machines(multi_network_lab: MultiNetworkLab) -> Iterator[ExistingMachines]:
    """Two machines with a past, in the network of the lab's pods."""
    with existing_machines(multi_network_lab) as machines:
        yield machines


@pytest.fixture(scope="module")
def stack(machines: ExistingMachines) -> Iterator[AdoptingStack]:
    """A stack that has adopted both. Every test ends with it."""
    stack = AdoptingStack(machines, "brown")
    stack.workload()
    stack.declare_both()
    stack.init()
    stack.up()
    yield stack
    stack.remove()


def test_a_firewall_that_forgets_the_redirection_gets_it_back(stack: AdoptingStack, machines: ExistingMachines) -> None:
    flush = "for b in iptables iptables-legacy iptables-nft; do for t in nat raw mangle; do $b -t $t -F; $b -t $t -X; done; done 2>/dev/null; true"
    machines.root("one", flush)
    rules = "{ iptables-save; iptables-legacy-save; iptables-nft-save; } 2>/dev/null | grep -c ISTIO_REDIRECT"
    wait_until(lambda: machines.root("one", rules, check=False).strip() not in ("", "0"), description="the redirection is back")
    assert machines.root("one", "getent hosts billing.billing.svc.cluster.local").strip()


def test_an_upgrade_that_cannot_work_leaves_the_machine_as_it_was(stack: AdoptingStack, tmp_path: Path) -> None:
    """The package passes its check, and its agent never gets ready."""
    with served_package(stack.lab, never_ready, tmp_path) as package:
        stack.mesh["package"] = package
        output = stack.up(check=False)
    stack.mesh.clear()
    assert "runs as before" in output, output
    wait_until(lambda: stack.healthy() == {"one", "two"}, description="at most one machine was touched, and it is back")
    stack.up()
    stack.assert_no_changes()


def test_a_machine_that_is_out_of_the_mesh_is_joined_by_the_next_up(stack: AdoptingStack, machines: ExistingMachines) -> None:
    machines.root("two", f"systemctl disable --now {AGENT}; rm -r /var/lib/istio-vm-mesh")
    wait_until(lambda: stack.healthy() == {"one"}, description="istiod has removed its entry")
    with as_planned(stack):
        stack.up()
    assert stack.healthy() == {"one", "two"}


def test_a_key_that_is_refused_does_not_remove_a_machine(stack: AdoptingStack, machines: ExistingMachines) -> None:
    """The update fails and names the ways out; with the key it leaves, and nothing of it is left."""
    machines.root("two", "mv /home/admin/.ssh/authorized_keys /root/")
    del stack.declared["billing-2"]
    output = stack.up(check=False)
    assert "forget" in output and "ISTIO_VM_MESH_FORGET" in output and "Permission denied" in output, output
    machines.root("two", "mv /root/authorized_keys /home/admin/.ssh/")
    stack.up()
    assert stack.healthy() == {"one"}
    stack.declare_both()
    with as_planned(stack):
        stack.up()


def test_a_dead_machine_leaves_and_stays_out(stack: AdoptingStack, machines: ExistingMachines) -> None:
    """It comes back with its agent and its certificate, and is in no Service until it is joined again."""
    container = machines.container("two")
    stack.lab.docker("stop", "--time", "0", container)
    del stack.declared["billing-2"]
    with as_planned(stack):
        output = stack.up()
    assert "machine billing-2 is dead" in output, output
    machines.boot("two")
    is_active = lambda: machines.root("two", f"systemctl is-active {AGENT}", check=False) == "active\n"  # noqa: E731
    wait_until(is_active, description="its agent runs again")
    refused = f"journalctl --unit {AGENT} --since -60s | grep -ci 'service account mismatch\\|PermissionDenied\\|Unauthenticated'"
    wait_until(lambda: machines.root("two", refused, check=False).strip() not in ("", "0"), description="istiod refuses its stream")
    assert {answer.hostname for answer in stack.lab.call_from_pod(SERVICE, count=40)} == {"one"}
    status = stack.lab.run("./scripts/status", "--stack", stack.name, check=False).stdout
    assert "billing-2" in status
    stack.declare_both()
    with as_planned(stack):
        stack.up()
    assert stack.healthy() == {"one", "two"}
