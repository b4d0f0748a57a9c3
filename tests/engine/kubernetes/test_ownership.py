"""What happens to machines that exist already, when the stack file changes: the whole program under the real CLI.

Machines are directories, with real connections' order; WorkloadEntries and Leases are those of a real API server.
"""

from __future__ import annotations

import base64
import copy
import json
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dill
import pytest
import yaml
from pulumi.runtime import rpc

from components import names
from components.local import scripting
from components.verification.evidence import parse
from tests.support import fake_providers, harness, states
from tests.support.cli_stack import Stack
from tests.support.control_plane import ControlPlane
from tests.support.waiting import wait_until
from tests.support.world import World
from tools.standins import command
from tools.standins.provider import UNKNOWN, Checked, Created, Difference, Properties, Provider, Request, plain

Config = dict[str, Any]
FIRST, SECOND, THIRD = "10.11.0.5", "10.11.0.6", "10.11.0.7"


class Commands(command.Command):
    """Joins and drains are run; of all other commands the result is that of the harness."""

    def create(self, request: Request) -> Created:
        if names.is_part(request.name, names.JOIN, names.DRAIN):
            return super().create(request)
        return Created(f"{request.name}-id", {**request.inputs, **harness.answer(request.name, request.type)})

    def update(self, request: Request) -> Properties:
        if names.is_part(request.name, names.JOIN, names.DRAIN):
            return super().update(request)
        return {**request.inputs, **harness.answer(request.name, request.type)}


class Dynamic(Provider):
    """The dynamic providers themselves, in this process."""

    name, version = "pulumi-python", ""

    def supports(self, type: str) -> bool:
        return True

    def check(self, request: Request) -> Checked:
        result = _provider(request).check(_wire(request.old_inputs), _wire(request.inputs))
        return Checked(_replaced(result.inputs, rpc.UNKNOWN, UNKNOWN), [fake_providers.failure(each) for each in result.failures])

    def diff(self, request: Request) -> Difference:
        result = _provider(request).diff(request.id, _wire(request.state), _wire(request.inputs))
        replaces = frozenset(result.replaces or ())
        return Difference({"identity": "update"} if result.changes else {}, replaces)

    def create(self, request: Request) -> Created:
        if request.preview:
            return Created("", {**request.inputs, **_outputs(request)})
        result = _provider(request).create(_wire(request.inputs))
        return Created(result.id, {**request.inputs, **(result.outs or {})})

    def update(self, request: Request) -> Properties:
        if request.preview:
            return {**request.inputs, **_outputs(request)}
        result = _provider(request).update(request.id, _wire(request.state), _wire(request.inputs))
        return {**request.inputs, **(result.outs or {})}


def _outputs(request: Request) -> Properties:
    return {"checked": UNKNOWN} if names.is_part(request.name, names.REGISTRATION) else {}


def _provider(request: Request) -> Any:
    return dill.loads(base64.b64decode(plain(request.inputs)["__provider"]))


def _wire(values: Properties | None) -> dict[str, Any]:
    """Return values as a dynamic provider gets them."""
    wire: dict[str, Any] = _replaced(plain(values or {}), UNKNOWN, rpc.UNKNOWN)
    return wire


def _replaced(value: Any, old: Any, new: Any) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(item, old, new) for key, item in value.items()}
    return new if value is old or (isinstance(old, str) and value == old) else value


class Mesh:
    """The stack `existing` on machines of a world."""

    def __init__(self, stack: Stack, world: World, name: str = "lab") -> None:
        self._stack, self._name = stack, name
        config = harness.configuration("existing")
        del config["cluster"]["kubeconfig"]  # KUBECONFIG names it
        config["cluster"] |= {"context": "test", "namespaces": [world.namespace]}
        config["workloads"]["billing"]["namespace"] = world.namespace
        config["verify"] = {"mode": "none"}
        config["machines"] = {"billing-1": machine(FIRST), "billing-2": machine(SECOND)}
        self.config: Config = config

    def copy(self) -> Config:
        return copy.deepcopy(self.config)

    def up(self, config: Config, fails: bool = False, *options: str) -> str:
        self._write(config)
        return self._call("up", "--yes", "--skip-preview", *options, fails=fails)

    def preview(self, config: Config) -> dict[str, str]:
        """Return what a preview would do, by name."""
        self._write(config)
        output = self._call("preview", "--json")
        steps = json.loads(output[output.index("{\n") :])["steps"]
        return {step["urn"].rpartition("::")[2]: step["op"] for step in steps if step["op"] not in ("same", "read")}

    def destroy(self, fails: bool = False) -> str:
        return self._stack.call("destroy", "--stack", self._name, "--yes", "--skip-preview", fails=fails).output

    def exported(self) -> str:
        return self._stack.call("stack", "export", "--stack", self._name).output

    def _call(self, *words: str, fails: bool = False) -> str:
        return self._stack.call(*words, "--stack", self._name, program=program, fails=fails).output

    def _write(self, config: Config) -> None:
        file = self._stack.project / f"Pulumi.{self._name}.yaml"
        kept = {key: value for key, value in (yaml.safe_load(file.read_text()) or {}).items() if key != "config"}
        values = {f"{harness.PROJECT}:{key}": value for key, value in config.items()}
        file.write_text(yaml.safe_dump({**kept, "config": values}, sort_keys=False))


def machine(host: str, **settings: Any) -> Config:
    return {"platform": "ssh", "workload": "billing", "network": "pods", "host": host, "acceptAnyHostKey": True, **settings}


def program() -> None:
    runpy.run_path(str(harness.ROOT / "__main__.py"), run_name="__main__")


@pytest.fixture
def world(strict: ControlPlane, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Three machines, and the objects that a workload has in the cluster."""
    world = World(tmp_path / "world", strict, namespace, monkeypatch)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "local"))
    monkeypatch.setattr("components.machines.registration.LISTING_LIFE_S", 0)
    for host in (FIRST, SECOND, THIRD):
        world.machine(host)
    world.trust(harness.ANSWERS["root-certificate"]["data"])
    return world


@pytest.fixture
def make(world: World, stack: Stack, host: Callable[[Provider], None], plane: ControlPlane) -> Callable[..., Mesh]:
    (stack.project / "Pulumi.lab.yaml").unlink(missing_ok=True)
    (stack.project / "Pulumi.yaml").write_text(f"name: {harness.PROJECT}\nruntime: python\n")
    for provider in (Commands(), Dynamic(), Cluster(plane, world.namespace)):
        host(provider)

    def mesh(name: str = "lab") -> Mesh:
        stack.init(name)
        return Mesh(stack, world, name)

    return mesh


class Cluster(fake_providers.FakeProvider):
    """Make the objects that machines need in a real cluster; of all others the outputs are those of the harness."""

    KINDS = ("ServiceAccount", "WorkloadGroup", "Lease")

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        super().__init__("kubernetes")
        self._plane, self._namespace = plane, namespace

    def create(self, request: Request) -> Created:
        self._apply(request)
        return super().create(request)

    def update(self, request: Request) -> Properties:
        self._apply(request)
        return super().update(request)

    def delete(self, request: Request) -> None:
        inputs = plain(request.state)
        if self._is_real(request):
            name = inputs["metadata"]["name"]
            self._plane.cluster.delete(inputs["apiVersion"], inputs["kind"], self._namespace, name, "Background")

    def _is_real(self, request: Request) -> bool:
        return request.type.rpartition(":")[2] in self.KINDS

    def _apply(self, request: Request) -> None:
        if self._is_real(request) and not request.preview:
            inputs = plain(request.inputs)
            self._plane.cluster.apply({key: inputs[key] for key in ("apiVersion", "kind", "metadata", "spec") if key in inputs}, "pulumi")


@pytest.fixture
def mesh(make: Callable[..., Mesh], world: World) -> Iterator[Mesh]:
    """Two machines that are in the mesh."""
    mesh = make()
    mesh.up(mesh.config)
    assert sorted(world.log()) == ["joined billing-1", "joined billing-2"]
    world.connections()
    yield mesh


def settled(mesh: Mesh, config: Config) -> None:
    """The state is the stack file's."""
    assert mesh.preview(config) == {}


def entry(host: str, workload: str = "billing") -> str:
    return names.entry_name(workload, host, "pods")


def test_a_machine_that_is_renamed_stays_in_the_mesh(mesh: Mesh, world: World) -> None:
    config = mesh.copy()
    config["machines"]["billing-a"] = config["machines"].pop("billing-1")
    output = mesh.up(config)
    assert world.log() == ["joined billing-a"]
    assert "is now istio-vm-mesh/lab billing-a: nothing was changed on it" in output
    assert world.stamp(FIRST) == "istio-vm-mesh lab billing-a"
    assert world.entries() == {entry(FIRST): "billing-a", entry(SECOND): "billing-2"}
    settled(mesh, config)


def test_a_machine_is_pinned_by_a_key_and_dialled_by_another_name_and_port(mesh: Mesh, world: World) -> None:
    config = mesh.copy()
    world.name("billing.example.com", FIRST)
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ4PAGoNG2Yn3kXVSPFcGAGiqcXZNkHdHnzAlVnoUhS1"
    config["machines"]["billing-1"] = machine("billing.example.com", address=FIRST, port=2222, hostKey=key)
    del config["machines"]["billing-1"]["acceptAnyHostKey"]
    assert mesh.preview(config) == {"billing-1-join": "update", "billing-1-drain": "update"}
    mesh.up(config)
    assert world.log() == ["kept billing-1"]
    assert world.entries() == {entry(FIRST): "billing-1", entry(SECOND): "billing-2"}
    settled(mesh, config)


def test_a_host_that_a_second_machine_names_by_another_address_is_refused(mesh: Mesh, world: World) -> None:
    """It is joined as soon as the first one is out of the stack file."""
    config = mesh.copy()
    world.name(THIRD, FIRST)
    config["machines"]["billing-3"] = machine(THIRD)
    output = mesh.up(config, fails=True)
    assert f"this is the machine billing-1 of this stack, which joined it by the address {FIRST}" in output
    assert world.stamp(FIRST) == "istio-vm-mesh lab billing-1"
    assert not [line for line in world.log() if "billing-3" in line]
    config["machines"]["billing-a"] = {**config["machines"].pop("billing-3")}
    del config["machines"]["billing-1"]
    mesh.up(config)
    assert world.stamp(FIRST) == "istio-vm-mesh lab billing-a"
    settled(mesh, config)


def test_two_machines_that_swap_their_hosts_both_stay(mesh: Mesh, world: World) -> None:
    config = mesh.copy()
    config["machines"] = {"billing-1": machine(SECOND), "billing-2": machine(FIRST)}
    mesh.up(config)
    assert sorted(world.log()) == ["joined billing-1", "joined billing-2"]
    assert world.entries() == {entry(FIRST): "billing-2", entry(SECOND): "billing-1"}
    assert (world.stamp(FIRST), world.stamp(SECOND)) == ("istio-vm-mesh lab billing-2", "istio-vm-mesh lab billing-1")
    settled(mesh, config)


def test_a_swap_with_new_addresses_is_refused_and_served_by_two_updates(mesh: Mesh, world: World) -> None:
    """In one update it looks like one host that two machines name."""
    addresses = {FIRST: "10.11.0.15", SECOND: "10.11.0.16"}
    for host, address in addresses.items():
        world.name(address, host)
    config, swapped = mesh.copy(), mesh.copy()
    config["machines"] = {"billing-1": machine(addresses[SECOND]), "billing-2": machine(addresses[FIRST])}
    swapped["machines"] = {"billing-1": machine(SECOND), "billing-2": machine(FIRST)}
    output = mesh.up(config, fails=True)
    assert "this is the machine billing-2 of this stack" in output or "this is the machine billing-1 of this stack" in output
    assert "swap them by the addresses of before, and change the addresses in another update" in output
    assert world.entries() == {entry(FIRST): "billing-1", entry(SECOND): "billing-2"}
    for step in (swapped, config):
        mesh.up(step)
        settled(mesh, step)
    assert world.entries() == {entry(addresses[FIRST]): "billing-2", entry(addresses[SECOND]): "billing-1"}
    assert (world.stamp(FIRST), world.stamp(SECOND)) == ("istio-vm-mesh lab billing-2", "istio-vm-mesh lab billing-1")


def test_a_machine_in_the_place_of_another_joins_before_that_one_leaves(mesh: Mesh, world: World) -> None:
    config = mesh.copy()
    config["machines"]["billing-1"] = machine(THIRD)
    mesh.up(config)
    assert world.log() == ["joined billing-1", "left billing-1"]
    assert world.entries() == {entry(THIRD): "billing-1", entry(SECOND): "billing-2"}
    assert world.stamp(FIRST) == ""
    settled(mesh, config)


def test_a_machine_moves_to_another_workload(mesh: Mesh, world: World) -> None:
    config = mesh.copy()
    orders = {**copy.deepcopy(config["workloads"]["billing"]), "labels": {"app": "orders"}, "services": {}}
    config["workloads"]["orders"] = orders
    config["machines"]["billing-1"]["workload"] = "orders"
    mesh.up(config)
    assert world.log() == ["joined billing-1"]
    assert world.entries() == {entry(FIRST, "orders"): "billing-1", entry(SECOND): "billing-2"}
    settled(mesh, config)


def test_a_machine_that_is_removed_leaves_and_one_that_is_destroyed_too(mesh: Mesh, world: World) -> None:
    config = mesh.copy()
    del config["machines"]["billing-1"]
    mesh.up(config)
    assert world.log() == ["left billing-1"]
    assert world.entries() == {entry(SECOND): "billing-2"}
    mesh.destroy()
    assert world.log() == ["left billing-2"]
    assert world.entries() == {}


def test_a_machine_out_of_the_mesh_is_joined_by_the_next_update(mesh: Mesh, world: World, plane: ControlPlane) -> None:
    plane.cluster.delete("networking.istio.io/v1", "WorkloadEntry", world.namespace, entry(FIRST), "Background")
    assert mesh.preview(mesh.config) == {"billing-1-registration": "update", "billing-1-join": "update"}
    mesh.up(mesh.config)
    assert world.log() == ["joined billing-1"]
    settled(mesh, mesh.config)


def test_a_machine_whose_entry_lost_its_label_is_joined_by_the_next_update(mesh: Mesh, world: World, plane: ControlPlane) -> None:
    path = f"/apis/networking.istio.io/v1/namespaces/{world.namespace}/workloadentries/{entry(FIRST)}"
    plane.patch(path, {"metadata": {"labels": {names.REGISTRATION_LABEL: None}}})
    mesh.up(mesh.config)
    assert world.log() == ["joined billing-1"]
    settled(mesh, mesh.config)


def test_rotation_joins_again_a_machine_without_a_difference(mesh: Mesh, world: World) -> None:
    config = mesh.copy()
    config["machines"]["billing-1"]["rotation"] = 1
    mesh.up(config)
    assert world.log() == ["kept billing-1"]
    settled(mesh, config)


def test_a_machine_of_another_stack_is_refused_until_it_is_taken_over(mesh: Mesh, make: Callable[..., Mesh], world: World) -> None:
    second = make("second")
    workload = {**second.config["workloads"]["billing"], "labels": {"app": "orders"}, "services": {}}
    config = {**second.config, "workloads": {"orders": workload}, "machines": {"mine": {**machine(FIRST), "workload": "orders"}}}
    output = second.up(config, fails=True)
    assert "this is the machine billing-1 of the stack istio-vm-mesh/lab" in output
    assert "set machines.mine.takeOver: istio-vm-mesh/lab" in output
    assert world.log() == []
    assert world.entries() == {entry(FIRST): "billing-1", entry(SECOND): "billing-2"}
    config["machines"]["mine"]["takeOver"] = "istio-vm-mesh/lab"
    second.up(config)
    assert world.log() == ["joined mine"]
    output = mesh.destroy()
    assert "machine billing-1 at 10.11.0.5 is now istio-vm-mesh/second mine: nothing was changed on it" in output
    assert world.log() == ["left billing-2"]
    assert world.stamp(FIRST) == "istio-vm-mesh second mine"
    assert world.entries() == {entry(FIRST, "orders"): "mine"}


def test_a_dead_machine_is_kept_out_until_it_joins_again(mesh: Mesh, world: World) -> None:
    config = mesh.copy()
    del config["machines"]["billing-1"]
    world.kill(FIRST)
    output = mesh.up(config)
    assert "machine billing-1 is dead" in output and "as long as it reaches the east-west gateway" in output
    assert world.entries() == {entry(FIRST): "no billing-1", entry(SECOND): "billing-2"}
    settled(mesh, config)
    kept_out = world.objects()[entry(FIRST)]
    assert kept_out["spec"]["serviceAccount"] == names.QUARANTINE_ACCOUNT
    assert kept_out["metadata"]["annotations"][names.STACK_ANNOTATION] == "istio-vm-mesh/lab"
    world.revive(FIRST)
    mesh.up(mesh.config)
    assert world.log() == ["joined billing-1"]
    assert world.entries() == {entry(FIRST): "billing-1", entry(SECOND): "billing-2"}


def test_a_machine_that_was_dead_and_joins_another_workload_is_settled(mesh: Mesh, world: World) -> None:
    """Under another name too. Its old entry has the old workload's name."""
    config = mesh.copy()
    orders = {**copy.deepcopy(config["workloads"]["billing"]), "labels": {"app": "orders"}, "services": {}}
    config["workloads"]["orders"] = orders
    del config["machines"]["billing-1"]
    world.kill(FIRST)
    mesh.up(config)
    assert world.entries() == {entry(FIRST): "no billing-1", entry(SECOND): "billing-2"}
    world.revive(FIRST)
    config["machines"]["orders-1"] = {**machine(FIRST), "workload": "orders"}
    mesh.up(config)
    assert world.log() == ["joined orders-1"]
    assert world.entries() == {entry(FIRST, "orders"): "orders-1", entry(SECOND): "billing-2"}
    settled(mesh, config)


def test_a_machine_is_renamed_moved_and_dialled_otherwise_in_one_update(mesh: Mesh, world: World) -> None:
    config = mesh.copy()
    orders = {**copy.deepcopy(config["workloads"]["billing"]), "labels": {"app": "orders"}, "services": {}}
    config["workloads"]["orders"] = orders
    world.name("orders.example.com", FIRST)
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ4PAGoNG2Yn3kXVSPFcGAGiqcXZNkHdHnzAlVnoUhS1"
    del config["machines"]["billing-1"]
    dialled = {"platform": "ssh", "network": "pods", "host": "orders.example.com", "port": 2222, "hostKey": key}
    config["machines"]["orders-1"] = {**dialled, "workload": "orders", "address": FIRST}
    mesh.up(config)
    assert world.log() == ["joined orders-1"]
    assert world.stamp(FIRST) == "istio-vm-mesh lab orders-1"
    assert world.entries() == {entry(FIRST, "orders"): "orders-1", entry(SECOND): "billing-2"}
    settled(mesh, config)


def test_machines_of_two_workloads_swap_their_hosts(mesh: Mesh, world: World) -> None:
    config = mesh.copy()
    orders = {**copy.deepcopy(config["workloads"]["billing"]), "labels": {"app": "orders"}, "services": {}}
    config["workloads"]["orders"] = orders
    config["machines"]["orders-1"] = {**machine(THIRD), "workload": "orders"}
    mesh.up(config)
    world.log()
    config["machines"] |= {"billing-1": machine(THIRD), "orders-1": {**machine(FIRST), "workload": "orders"}}
    mesh.up(config)
    assert sorted(world.log()) == ["joined billing-1", "joined orders-1"]
    assert world.entries() == {entry(THIRD): "billing-1", entry(SECOND): "billing-2", entry(FIRST, "orders"): "orders-1"}
    settled(mesh, config)


def test_what_keeps_a_dead_machine_out_goes_with_the_workload(mesh: Mesh, world: World) -> None:
    world.kill(FIRST)
    mesh.destroy()
    wait_until(lambda: world.entries() == {})


REFUSALS = {
    "login": ("admin@10.11.0.5: Permission denied (publickey).", "refused the login: Permission denied (publickey)"),
    "host key": ("Host key verification failed.", "Host key verification failed"),
}


@pytest.mark.parametrize(("reason", "message"), REFUSALS.values(), ids=REFUSALS)
def test_a_machine_that_refuses_to_leave_is_an_error_and_stays_as_it_is(mesh: Mesh, world: World, reason: str, message: str) -> None:
    config = mesh.copy()
    del config["machines"]["billing-1"]
    (world.machine(FIRST) / "refuses").write_text(f"{reason}\n")
    output = mesh.up(config, fails=True)
    assert message in output
    assert (
        "set machines.billing-1.forget: true in an update before its removal, or run this one with ISTIO_VM_MESH_FORGET=billing-1" in output
    )
    assert world.entries() == {entry(FIRST): "billing-1", entry(SECOND): "billing-2"}
    parts = (names.REGISTRATION, names.JOIN, names.DRAIN)
    assert mesh.preview(config) == dict.fromkeys(["billing-1", *(names.part_name("billing-1", part) for part in parts)], "delete")


def test_a_machine_is_forgotten_by_a_setting_and_never_connected_to(mesh: Mesh, world: World) -> None:
    config = mesh.copy()
    config["machines"]["billing-1"]["forget"] = True
    mesh.up(config)
    settled(mesh, config)
    del config["machines"]["billing-1"]
    assert "machine billing-1 is forgotten: nothing was changed on it" in mesh.up(config)
    assert world.connections() == 0 and world.log() == []
    assert world.entries() == {entry(FIRST): "no billing-1", entry(SECOND): "billing-2"}
    settled(mesh, config)


def test_machines_are_forgotten_by_a_variable_in_a_destroy(mesh: Mesh, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for host in (FIRST, SECOND):
        (world.machine(host) / "refuses").write_text("Permission denied (publickey).\n")
    monkeypatch.setenv("ISTIO_VM_MESH_FORGET", "billing-1, billing-2")
    mesh.destroy()
    assert world.connections() == 0
    wait_until(lambda: world.entries() == {})


ANSWERED = states.call_line("machine billing-1", "billing", "10.11.0.5:8080", "billing-1")


def evidence(request: Request) -> dict[str, Any]:
    """Return what a verification of three endpoints gives."""
    lines = "\n".join([ANSWERED] * 3)
    shows = names.is_part(request.name, names.PROOF, names.VERIFICATION)
    return {"stdout": scripting.encode(parse(lines))} if shows else {}


def test_no_credential_is_in_the_state_and_a_machine_adds_at_most_30_kb(
    make: Callable[..., Mesh], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = f"-----BEGIN CERTIFICATE-----\n{'A' * 1900}\n-----END CERTIFICATE-----\n"
    monkeypatch.setitem(harness.ANSWERS, "root-certificate", {"data": {"root-cert.pem": certificate}})
    world.trust({"root-cert.pem": certificate})
    create = Commands.create

    def verified(self: Commands, request: Request) -> Created:
        created = create(self, request)
        return Created(created.id, {**created.state, **evidence(request)})

    monkeypatch.setattr(Commands, "create", verified)
    monkeypatch.setattr(Commands, "update", lambda self, request: {**verified(self, request).state})
    mesh = make()
    sizes: list[int] = []
    for machines in ({"billing-1": machine(FIRST)}, {"billing-1": machine(FIRST), "billing-2": machine(SECOND)}):
        mesh.up({**mesh.config, "verify": {"mode": "fail"}, "machines": machines})
        exported = mesh.exported()
        assert "eyJ" not in exported, "a token"
        sizes.append(states.exported_size(exported))
    assert sizes[1] - sizes[0] < 30_000, sizes
    assert sizes[1] - sizes[0] > 10_000, "the test measures nothing"
