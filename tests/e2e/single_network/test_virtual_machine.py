"""A virtual machine with a kernel, a clock and a Docker of its own is adopted by a stack.

Its application runs in a container with a published port.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from components.names import CONNECTED_ANNOTATION
from tests.support import manifest
from tests.support.existing_lab import SERVICE, AdoptingStack
from tests.support.lab import Lab
from tests.support.manifest import Manifest
from tests.support.traffic import parse_answers
from tests.support.virtual_machine import VirtualMachines, virtual_machine
from tests.support.waiting import wait_until

VM = "virtual"
DAY_S = 24 * 3600
OF_BOOTS = ("/var/lib/docker/*", "/var/lib/containerd/*", "*docker0*", "*veth*", "/var/lib/systemd/random-seed", "vm.user_reserve_kbytes")
"""What Docker and systemd make anew when they start."""


@pytest.fixture(scope="module")
def machines(single_network_lab: Lab) -> Iterator[VirtualMachines]:
    """The machine, which has booted and runs its application."""
    with virtual_machine(single_network_lab, VM) as machines:
        yield machines


@pytest.fixture(scope="module")
def before(machines: VirtualMachines) -> Manifest:
    """All that the machine was before it joined."""
    return machines.manifest(VM)


@pytest.fixture(scope="module")
def declared(machines: VirtualMachines, before: Manifest) -> Iterator[AdoptingStack]:
    """A stack that declares the machine, and has not been run."""
    stack = AdoptingStack(machines, "virtual")
    stack.workload()
    stack.declare("billing-1", VM)
    stack.init()
    yield stack
    stack.remove()


@pytest.fixture(scope="module")
def early(declared: AdoptingStack, machines: VirtualMachines) -> str:
    """What `up` prints where the machine's clock is a day behind. The clock is right again afterwards."""
    machines.set_clock(VM, -DAY_S)
    output = declared.up(check=False)
    machines.set_clock(VM, 0)
    return output


@pytest.fixture(scope="module")
def stack(declared: AdoptingStack, early: str) -> AdoptingStack:
    """The stack that the machine is joined by. Every test leaves it so."""
    declared.up()
    return declared


def assert_in_mesh(stack: AdoptingStack, machines: VirtualMachines) -> None:
    """Check that pods call the machine, that it calls pods by name, and that its container calls out."""
    wait_until(lambda: stack.healthy() == {VM}, description="the machine is healthy in the mesh", interval=1)
    wait_until(lambda: [each.hostname for each in stack.lab.call_from_pod(SERVICE, count=1)] == [VM], description="pods call the machine")
    printed = ""

    def is_answered() -> bool:
        nonlocal printed
        printed = machines.calls(VM, "http://product.shop")
        return bool(parse_answers(printed))

    wait_until(is_answered, description="the machine calls pods by name", interval=1)
    assert "All 1 requests succeeded" in printed, "its container calls out"


def connections(stack: AdoptingStack) -> set[str]:
    """Return when the agents of the entries connected."""
    annotations = (entry["metadata"]["annotations"] for entry in stack.entries().values())
    return {each[CONNECTED_ANNOTATION] for each in annotations if CONNECTED_ANNOTATION in each}


@pytest.mark.istio_case(27)
def test_a_clock_that_is_behind_is_named(early: str) -> None:
    assert re.search(r"the clock is at least 14\d\d minutes behind the cluster's", early), early


def test_the_machine_is_in_the_mesh(stack: AdoptingStack, machines: VirtualMachines) -> None:
    assert_in_mesh(stack, machines)
    stack.assert_no_changes()


def test_status_names_a_clock_that_is_ahead(stack: AdoptingStack, machines: VirtualMachines) -> None:
    """Where the processor is emulated, the machine may answer later than status waits."""

    def is_named() -> bool:
        status = stack.lab.run("./scripts/status", "--stack", stack.name, "--json", check=False).stdout
        return "its clock is 2 h ahead" in status

    machines.set_clock(VM, 2 * 3600)
    try:
        wait_until(is_named, description="status names the clock", interval=1)
    finally:
        machines.set_clock(VM, 0)


def test_a_restart_of_docker_leaves_the_mesh_as_it_is(stack: AdoptingStack, machines: VirtualMachines) -> None:
    machines.root(VM, "systemctl restart docker")
    assert_in_mesh(stack, machines)


@pytest.mark.istio_case(26)
def test_a_reboot(stack: AdoptingStack, machines: VirtualMachines) -> None:
    with machines.booting(VM):
        machines.root(VM, "systemctl reboot", check=False)
    assert_in_mesh(stack, machines)


def test_a_power_cut(stack: AdoptingStack, machines: VirtualMachines) -> None:
    """istiod notices the end of the connection by its own keep-alive, while the machine boots."""
    before = connections(stack)
    assert before
    with machines.booting(VM):
        machines.cut_power(VM)
        machines.switch_on(VM)
        wait_until(lambda: connections(stack).isdisjoint(before), description="istiod has noticed", interval=1)
    assert_in_mesh(stack, machines)


def test_nothing_is_left(stack: AdoptingStack, machines: VirtualMachines, before: Manifest) -> None:
    stack.destroy()
    assert manifest.differences(before, machines.manifest(VM), [*manifest.exceptions(), *OF_BOOTS]) == []
