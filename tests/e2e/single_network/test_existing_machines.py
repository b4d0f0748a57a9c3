"""Machines of somebody else's, adopted by stacks: whatever changes in the stack file, none is lost, and what is theirs stays theirs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from components.names import STATUS_PORT
from tests.support import lived_in, manifest
from tests.support.existing_lab import AGENT, NAMESPACE, SERVICE, AdoptingStack, ExistingMachines, existing_machines
from tests.support.istio_cases import CALLER, start_steady_caller
from tests.support.lab import Lab
from tests.support.manifest import Manifest
from tests.support.package_server import another_version, served_package
from tests.support.traffic import Request, assert_no_lost_requests
from tests.support.true_plans import as_planned
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def machines(single_network_lab: Lab) -> Iterator[ExistingMachines]:
    """Two machines with a past, in the network of the lab's pods. One was used for years."""
    with existing_machines(single_network_lab, used=("two",)) as machines:
        start_steady_caller(single_network_lab)
        yield machines


@pytest.fixture(scope="module")
def pasts(machines: ExistingMachines) -> dict[str, str]:
    """What the machines were like before anything joined."""
    return {name: machines.past(name) for name in machines.addresses}


@pytest.fixture(scope="module")
def manifests(machines: ExistingMachines) -> dict[str, Manifest]:
    """All that the machines were before anything joined."""
    return {name: machines.manifest(name) for name in machines.addresses}


@pytest.fixture(scope="module")
def stack(machines: ExistingMachines, pasts: dict[str, str], manifests: dict[str, Manifest]) -> Iterator[AdoptingStack]:
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
    stack.wait_for_endpoints(CALLER, *stack.machines.addresses.values())
    with stack.lab.background_requests(CALLER, SERVICE) as requests:
        yield requests
    assert_no_lost_requests(requests)


def test_what_was_on_the_machines_is_as_it_was(stack: AdoptingStack, machines: ExistingMachines, pasts: dict[str, str]) -> None:
    assert stack.healthy() == {"one", "two"}
    stack.wait_for_endpoints("pod", *machines.addresses.values())
    assert {answer.hostname for answer in stack.lab.call_from_pod(SERVICE, count=40)} == {"one", "two"}
    for name in ("one", "two"):
        assert machines.past(name) == pasts[name]
    stack.assert_no_changes()


def assert_lived_in(stack: AdoptingStack, machines: ExistingMachines) -> None:
    """Check what the machine `two` does for others than the mesh.

    Its firewall drops what is not allowed. The application's container is called and calls out. Its
    metrics are read from outside, by both interfaces.
    """
    stack.lab.wait_until_answered_by("pod", {"one", "two"}, SERVICE)
    address, metrics, node = machines.addresses["two"], f"{lived_in.METRICS_PORT}/metrics", stack.lab.outputs()["gateway"]
    curl = ("curl", "--disable", "--noproxy", "*", "--silent", "--show-error")
    get = (*curl, "--max-time", "20", "--retry", "30", "--retry-delay", "1", "--retry-connrefused")
    assert "site_up" in stack.lab.run(*get, f"http://{address}:{metrics}").stdout
    assert "timed out" in stack.lab.run(*curl, "--max-time", "3", f"http://{address}:{STATUS_PORT}/healthz/ready", check=False).stderr
    on_machine = " ".join(get).replace("*", "'*'")
    assert "site_up" in machines.root("two", f"ip netns exec {lived_in.OFFICE} {on_machine} http://{lived_in.ADDRESS}:{metrics}")
    assert "site_up" in machines.root("two", f"{on_machine} http://127.0.0.1:{lived_in.LOCAL_PORT}/metrics")
    assert "ok" in machines.root("two", f"ip netns exec {lived_in.NAMESPACE} {on_machine} --insecure https://{node}:6443/livez")


def test_a_machine_that_was_used_for_years_does_what_it_did(stack: AdoptingStack, machines: ExistingMachines) -> None:
    """Also after a reboot, which starts firewall, container and agent in the order of their units."""
    assert_lived_in(stack, machines)
    stack.lab.docker("stop", "--time", "40", machines.container("two"))
    machines.boot("two")
    wait_until(lambda: stack.healthy() == {"one", "two"}, description="the machine is back in the mesh")
    assert_lived_in(stack, machines)


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
    """The second stack is refused with the name of the first, takes over where it says so, and then the first removes nothing.

    The second one knows the machine by a floating address.
    """
    first = stack.named("one")
    second = AdoptingStack(machines, "green")
    second.workload("invoices")
    with machines.floating_address("one") as address:
        second.declare("invoices-1", "one", workload="invoices", address=address)
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
                assert f"pods reach this machine at {address}, which is on none of its interfaces" in second.up()
            assert address in stack.healthy_addresses()
            del stack.declared[first]
            with as_planned(stack):
                output = stack.up()
            assert f"istio-vm-mesh/{second.name}" in output, output
            second.wait_for_endpoints("pod", address, service="invoices")
            assert {answer.hostname for answer in stack.lab.call_from_pod("invoices.billing", count=10)} == {"one"}
            second.assert_no_changes()
            second.destroy()
        finally:
            second.remove()
    stack.declare_both()
    stack.up()
    assert stack.healthy() == {"one", "two"}


def test_a_machine_that_fails_closed_takes_no_connection_without_its_agent(stack: AdoptingStack, machines: ExistingMachines) -> None:
    """Other connections go on, and without `failClosed` the application answers then. The other machine has no nftables."""
    get = ("curl", "--disable", "--noproxy", "*", "--silent", "--show-error", "--max-time", "10")

    def answer() -> str:
        done = stack.lab.run(*get, f"http://{machines.addresses['two']}:8080/", check=False)
        return "answered" if "Hostname=" in done.stdout else "no connection" if "timed out" in done.stderr else "refused"

    def with_agent_stopped() -> str:
        machines.root("two", f"systemctl stop {AGENT}")
        try:
            assert "site_up" in stack.lab.run(*get, f"http://{machines.addresses['two']}:{lived_in.METRICS_PORT}/metrics").stdout
            return answer()
        finally:
            machines.root("two", f"systemctl start {AGENT}")
            wait_until(lambda: "two" in stack.healthy(), description="the machine is back in the mesh")

    assert with_agent_stopped() == "answered"
    stack.workloads["billing"]["failClosed"] = True
    del stack.declared[stack.named("one")]
    stack.up()
    assert answer() == "refused"
    assert with_agent_stopped() == "no connection"
    del stack.workloads["billing"]["failClosed"]
    stack.declare_both()
    stack.up()
    assert stack.healthy() == {"one", "two"}


def test_nothing_is_left_of_a_stack(
    stack: AdoptingStack, machines: ExistingMachines, pasts: dict[str, str], manifests: dict[str, Manifest], tmp_path: Path
) -> None:
    """The machines have joined several times by now. They are upgraded before they leave."""
    with served_package(stack.lab, another_version, tmp_path) as package:
        stack.mesh["package"] = package
        stack.up()
    stack.destroy()
    for name in ("one", "two"):
        assert machines.past(name) == pasts[name]
        assert manifest.differences(manifests[name], machines.manifest(name), manifest.exceptions()) == []
        look = "pgrep -l 'pilot|envoy'; systemctl list-unit-files 'istio-vm-mesh*' --no-legend; ls -d /opt/istio-vm-mesh /var/lib/istio-vm-mesh"
        rules = "{ iptables-save; iptables-legacy-save; iptables-nft-save; nft list ruleset; } 2>/dev/null | grep -i 'istio' | grep -v SITE-GUESTS"
        assert machines.root(name, f"{look} 2>/dev/null; {rules}; id istio-proxy 2>/dev/null", check=False) == ""
    text = stack.lab.run(
        "kubectl", "--namespace", NAMESPACE, "get", "all,workloadgroups,workloadentries,leases,serviceaccounts", "--output", "name"
    ).stdout
    assert text.split() == ["serviceaccount/default"]
