"""Machines of somebody else's, adopted by stacks: whatever changes in the stack file, none is lost, and what is theirs stays theirs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.existing_lab import NAMESPACE, SERVICE, AdoptingStack, ExistingMachines, existing_machines
from tests.support.lab import Lab
from tests.support.traffic import Request, assert_no_lost_requests
from tests.support.true_plans import as_planned


@pytest.fixture(scope="module")
def machines(single_network_lab: Lab) -> Iterator[ExistingMachines]:
    """Two machines with a past, in the network of the lab's pods."""
    with existing_machines(single_network_lab) as machines:
        yield machines


@pytest.fixture(scope="module")
def pasts(machines: ExistingMachines) -> dict[str, str]:
    """What the machines were like before anything joined."""
    return {name: machines.past(name) for name in machines.addresses}


@pytest.fixture(scope="module")
def stack(machines: ExistingMachines, pasts: dict[str, str]) -> Iterator[AdoptingStack]:
    """A stack that has adopted both. Every test leaves both joined, under whatever names and by whatever ports."""
    stack = AdoptingStack(machines, "brown")
    stack.workload()
    stack.declare_both()
    stack.init()
    with as_planned(stack):
        stack.up()
    yield stack
    stack.remove()


@contextmanager
def calls(stack: AdoptingStack) -> Iterator[list[Request]]:
    """Call the Service from a pod during the block; no call may be lost, as there is always another endpoint."""
    stack.lab.call_from_pod(SERVICE, count=20)
    with stack.lab.background_requests(name=SERVICE) as requests:
        yield requests
    assert_no_lost_requests(requests)


def test_what_was_on_the_machines_is_as_it_was(stack: AdoptingStack, machines: ExistingMachines, pasts: dict[str, str]) -> None:
    assert stack.healthy() == {"one", "two"}
    assert {answer.hostname for answer in stack.lab.call_from_pod(SERVICE, count=40)} == {"one", "two"}
    for name in ("one", "two"):
        assert machines.past(name) == pasts[name]
    stack.assert_no_changes()


def test_no_change_of_name_or_way_loses_a_machine(stack: AdoptingStack, machines: ExistingMachines) -> None:
    """A machine that is renamed, dialled by another port, or pinned otherwise is the machine that it was."""
    stack.declared["billing-a"] = stack.declared.pop(stack.named("one"))
    with as_planned(stack), calls(stack):
        stack.up()
    assert stack.healthy() == {"one", "two"}
    stack.assert_no_changes()
    agents = [machines.agent_pid(name) for name in ("one", "two")]
    stack.declared["billing-a"]["port"] = 2222
    other = stack.declared[stack.named("two")]
    del other["hostKey"]
    other["acceptAnyHostKey"] = True
    with as_planned(stack):
        stack.up()
    assert stack.healthy() == {"one", "two"}
    stack.assert_no_changes()
    assert agents == [machines.agent_pid(name) for name in ("one", "two")]


def test_two_machines_swap_their_hosts(stack: AdoptingStack) -> None:
    one, two = stack.named("one"), stack.named("two")
    stack.declare(one, "two")
    stack.declare(two, "one", port=2222)
    with as_planned(stack), calls(stack):
        stack.up()
    assert stack.healthy() == {"one", "two"}
    stack.assert_no_changes()


def test_a_machine_belongs_to_one_stack(stack: AdoptingStack, machines: ExistingMachines) -> None:
    """The second stack is refused with the name of the first, takes over where it says so, and then the first removes nothing."""
    first = stack.named("one")
    second = AdoptingStack(machines, "green")
    second.workload("invoices")
    second.declare("invoices-1", "one", workload="invoices")
    second.init()
    try:
        agent = machines.agent_pid("one")
        output = second.up(check=False)
        assert f"this is the machine {first} of the stack istio-vm-mesh/{stack.name}" in output, output
        assert f"machines.invoices-1.takeOver: istio-vm-mesh/{stack.name}" in output
        assert machines.agent_pid("one") == agent
        assert stack.healthy() == {"one", "two"}
        second.declared["invoices-1"]["takeOver"] = f"istio-vm-mesh/{stack.name}"
        with as_planned(second):
            second.up()
        del stack.declared[first]
        with as_planned(stack):
            output = stack.up()
        assert f"istio-vm-mesh/{second.name}" in output, output
        assert {answer.hostname for answer in stack.lab.call_from_pod("invoices.billing", count=10)} == {"one"}
        second.assert_no_changes()
        second.destroy()
    finally:
        second.remove()
    stack.declare_both()
    stack.up()
    assert stack.healthy() == {"one", "two"}


def test_nothing_is_left_of_a_stack(stack: AdoptingStack, machines: ExistingMachines, pasts: dict[str, str]) -> None:
    stack.destroy()
    for name in ("one", "two"):
        assert machines.past(name) == pasts[name]
        look = "pgrep -l 'pilot|envoy'; systemctl list-unit-files 'istio-vm-mesh*' --no-legend; ls -d /opt/istio-vm-mesh /var/lib/istio-vm-mesh"
        rules = "{ iptables-save; iptables-legacy-save; iptables-nft-save; nft list ruleset; } 2>/dev/null | grep -i 'istio'"
        assert machines.root(name, f"{look} 2>/dev/null; {rules}; id istio-proxy 2>/dev/null", check=False) == ""
    text = stack.lab.run(
        "kubectl", "--namespace", NAMESPACE, "get", "all,workloadgroups,workloadentries,leases,serviceaccounts", "--output", "name"
    ).stdout
    assert text.split() == ["serviceaccount/default"]
