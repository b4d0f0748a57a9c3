"""Plans are true: what one says is what the update then did, under the real engine.

Providers note what they are asked to do (tests/support/noting_world.py). Each step of a scenario is one
update, planned before at the levels FILES and STATE.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import components.platforms.google.names
from components import names
from components.config import load
from components.machines import registration
from tests.engine.plan.differences import differences
from tests.engine.plan.steps import SCENARIOS, Config
from tests.engine.test_preview import Mesh, program
from tests.support import harness
from tests.support.cli_stack import STACK, Stack
from tests.support.fake_providers import VERSIONS
from tests.support.noting_mesh import NOTHING, Seen, see
from tests.support.noting_world import MANAGER, NotingProvider, World, owner_of
from tests.unit.tools.plan.changes import actions, plan_between
from tools.plan import live, preview, state
from tools.plan.mesh_model import Host
from tools.plan.model import Action, Plan, Verdict
from tools.standins.provider import Found, Provider, Request

COMPARED = ("create", "update", "delete", "replace")
WITHOUT_UPDATES = ("create", "delete", "replace")
"""What is compared at the level FILES: an update of a command may follow from what a machine answers."""
PART = 4
"""At most so many steps of a scenario are one test: other workers take parts, and no part comes near the limit of a test.

Twelve steps took 49 s alone, and more than 900 s beside two labs and a process that kept a core busy.
"""
GROUP = "gce-instance-group"


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def mesh(stack: Stack, host: Callable[[Provider], None], world: World) -> Callable[[str], Mesh]:
    def make(name: str) -> Mesh:
        for provider in VERSIONS:
            host(NotingProvider(provider, world))
        (stack.project / f"Pulumi.{STACK}.yaml").unlink(missing_ok=True)
        (stack.project / "Pulumi.yaml").write_text(f"name: {harness.PROJECT}\nruntime: python\n")
        stack.init()
        return Mesh(stack, name)

    return make


def planned(running: Mesh, config: Config) -> Plan:
    """Return the plan of an update at the level STATE."""
    running.write(config)
    output = running._stack.preview(program, "--json", "--show-sames").output
    return state.plan_of(STACK, preview.decode(output), load(config))


def resources(running: Mesh) -> dict[str, Any]:
    """Return the resources of the state by name."""
    file = running._stack.root / "state" / ".pulumi" / "stacks" / harness.PROJECT / f"{STACK}.json"
    saved = json.loads(file.read_text())["checkpoint"]["latest"]["resources"]
    return {each["urn"].rpartition("::")[2]: each for each in saved}


def machine_actions(plan: Plan) -> dict[str, str]:
    """Return what a plan says of machines; one that moves is told of in both workloads."""
    return {name: action.removeprefix("moves+") for name, action in actions(plan).items()}


def noted(log: Iterable[tuple[str, str, str]]) -> dict[str, str]:
    """Return the operations of an update by name; what was deleted and created was replaced."""
    ops: dict[str, str] = {}
    for op, type_, name in log:
        if not type_.startswith("pulumi:"):
            ops[name] = "replace" if {ops.get(name), op} == {"delete", "create"} else op
    return ops


def check_operations(
    plan: Plan, saved: Mapping[str, Any], log: Iterable[tuple[str, str, str]], compared: tuple[str, ...] = COMPARED
) -> None:
    """Check that what a plan promises happened, and nothing else.

    saved: the resources before. What goes with another resource is not deleted by itself, nor is a
    namespace, which a command removes. What depends on values that are known during the update
    alone may happen or not.
    """
    did = {name: op for name, op in noted(log).items() if op in compared}
    listed = {each.name: each for each in plan.operations if each.op in compared}
    deleted = {name for name, each in listed.items() if each.op in ("delete", "replace")}
    with_another = {name for name in deleted if str(saved[name].get("deletedWith", "")).rpartition("::")[2] in deleted}
    stay = {*with_another, *(name for name in deleted if saved[name].get("retainOnDelete"))}
    sure = {name: each.op for name, each in listed.items() if each.certain and not (each.op == "delete" and name in stay)}
    assert {name: op for name, op in sure.items() if did.get(name) != op} == {}, "promised, and did not happen"
    others = {name: op for name, op in did.items() if name not in sure}
    allowed = {name: (each.op, "update") for name, each in listed.items() if not each.certain}
    assert {name: op for name, op in others.items() if op not in allowed.get(name, ())} == {}, "happened, and was not promised"


THEIR_SERVICE = {"spec": {"selector": {"app": "billing"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}}
"""A Service as its cluster has it."""


@dataclass(frozen=True)
class Compared:
    """A stack whose updates are compared with their plans."""

    name: str
    running: Mesh
    world: World

    def see(self, config: Config) -> Seen:
        groups = {name: machine["network"] for name, machine in config["machines"].items() if machine["platform"] == GROUP}
        gateways = {name for name, network in config["networks"].items() if (network.get("gateway") or {}).get("group")}
        groups |= {names.gateway_group_name(name): name for name in gateways}
        return see(self.world, groups, config["cluster"]["network"])

    def effects(self) -> dict[str, str]:
        """Return what became of machines; an instance group comes and goes with its manager."""
        groups = {owner_of(name, components.platforms.google.names.MANAGER): op for op, type_, name in self.world.log if type_ == MANAGER}
        of_groups = {"create": "joins", "delete": "leaves"}
        return {**self.world.effects(), **{name: of_groups[op] for name, op in groups.items() if op in of_groups}}

    def check(self, plan: Plan, seen: tuple[Seen, Seen]) -> None:
        """Check all of a plan but its operations."""
        assert differences(plan, *seen, self.world) == {}
        moved = {each.machine for workload in plan.workloads for each in workload.machines if each.action is Action.MOVES}
        assert moved == set(self.world.moved)
        check_order(plan, self.world)
        verified = {name for op, _, name in self.world.log if names.is_part(name, names.VERIFICATION) and op != "delete"}
        sure, maybe = (plan.verification.runs, plan.verification.may_run) if plan.verification else ((), ())
        assert set(sure) <= {owner_of(name, names.VERIFICATION) for name in verified} <= {*sure, *maybe}

    def update(self, before: Config, after: Config) -> dict[str, str]:
        """Update the stack, check its plans at both levels, and return what became of machines.

        before: {} for the first update.
        """
        seen = self.see(before) if before else NOTHING
        plan, of_files = planned(self.running, after), plan_between(self.name, before, after)
        saved = resources(self.running) if before else {}
        self.world.forget()
        self.running.up(after)
        did = self.effects()
        for each in (plan, of_files):
            assert machine_actions(each) == did, each.level
            self.check(each, (seen, self.see(after)))
        check_operations(plan, saved, self.world.log)
        check_operations(of_files, saved, self.world.log, WITHOUT_UPDATES)
        # What is given to others stays as it is, and no provider is asked: the plan alone says it.
        given = any(each.after and each.after.existing for each in plan.services)
        assert (plan.verdict is Verdict.NOTHING) == (not self.world.log and not given)
        return did

    def destroy(self, before: Config) -> None:
        """Destroy the stack, and check its plan."""
        seen = self.see(before)
        output = self.running._stack.call("destroy", "--stack", STACK, "--preview-only", "--json").output
        plan = state.plan_of(STACK, preview.decode(output), load(before), destroy=True)
        saved = resources(self.running)
        self.world.forget()
        self.running._stack.destroy()
        assert machine_actions(plan) == self.effects()
        self.check(plan, (seen, self.see(before)))
        check_operations(plan, saved, self.world.log)


def check_order(plan: Plan, world: World) -> None:
    """Check that what is drained is drained before it is deleted, and that nothing else is."""
    for change in (each for workload in plan.workloads for each in workload.machines if each.host is not Host.GROUP):
        events = [event for machine, event in world.events if machine == change.machine]
        if change.action not in (Action.LEAVES, Action.REPLACED):
            assert not {"leaves", "host deleted"} & {*events}, change
            continue
        assert ("leaves" in events) == change.drained, change
        assert ("host deleted" in events) == change.deleted, change
        if change.drained and change.deleted:
            assert events.index("leaves") < events.index("host deleted"), change


@pytest.mark.parametrize(("name", "start"), [(name, start) for name, steps in SCENARIOS.items() for start in range(0, len(steps), PART)])
def test_what_a_plan_says_is_what_the_update_does(
    mesh: Callable[[str], Mesh], world: World, name: str, start: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of a scenario begins with a new stack that has the changes of all steps before it. The last one ends with a destroy."""
    monkeypatch.setitem(harness.ANSWERS, "billing-service-billing", THEIR_SERVICE)
    compared = Compared(name, mesh(name), world)
    before, steps = compared.running.config, SCENARIOS[name]
    for step in steps[:start]:
        step.change(before)
    first = compared.update({}, before)
    assert first == dict.fromkeys({**before["machines"], **{each: "" for each in first if "gateway" in each}}, "joins")
    false = []
    for step in steps[start : start + PART]:
        after = copy.deepcopy(before)
        step.change(after)
        try:
            assert compared.update(before, after) == step.effects
        except AssertionError as error:
            false.append(f"{step.name}: {error}")
        before = after
    assert not false, "\n\n".join(false)
    if start + PART >= len(steps):  # before that, a cluster may be protected
        compared.destroy(before)


def test_a_machine_out_of_the_mesh_is_joined_again(mesh: Callable[[str], Mesh], world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    running = mesh("existing")
    running.up()
    monkeypatch.setattr(registration, "list_entries", lambda *_: {})
    plan = planned(running, running.config)
    world.forget()
    running.up()
    assert world.effects() == machine_actions(plan) == dict.fromkeys(("billing-1", "billing-2"), "rejoins")
    assert not any(change.certain for each in plan.workloads for change in each.machines)


def test_a_renamed_workload_is_refused_in_the_words_of_the_program(mesh: Callable[[str], Mesh], cli: Path) -> None:
    running = mesh("existing")
    running.up()
    after = copy.deepcopy(running.config)
    after["workloads"]["bills"] = after["workloads"].pop("billing")
    for machine in after["machines"].values():
        machine["workload"] = "bills"
    running.write(after)
    output = running._stack.preview(program, "--json", "--show-sames", fails=True).output
    error = preview.failure(output, "")
    assert error.refused
    assert "the workload billing, which this machine runs, is now called bills, or gone" in str(error)
    assert plan_between("existing", running.config, after).verdict is Verdict.REFUSED


def test_what_the_world_lost_is_drift(mesh: Callable[[str], Mesh], monkeypatch: pytest.MonkeyPatch) -> None:
    running = mesh("existing")
    running.up()

    def refresh() -> dict[str, str]:
        words = ("refresh", "--stack", STACK, "--preview-only", "--json")
        return {each.subject: each.text for each in live.drift(running._stack.call(*words).output)}

    assert refresh() == {}
    read = NotingProvider.read

    def changed(self: NotingProvider, request: Request) -> Found | None:
        if request.name == "billing-service-billing":
            return None
        found_there = read(self, request)
        if found_there and request.name == "billing-group":
            spec = copy.deepcopy(dict(request.inputs["spec"]))
            spec["metadata"]["labels"] = {"app": "other", "added-by": "others"}
            return Found(request.id, {**request.state, "spec": spec}, {**request.inputs, "spec": spec})
        return found_there

    monkeypatch.setattr(NotingProvider, "read", changed)
    assert refresh() == {"billing-service-billing": "it is gone", "billing-group": "it differs in spec.metadata.labels.app"}
