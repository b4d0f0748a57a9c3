"""Changes of stack files, and the plans of them at the level FILES, in this process."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from typing import Any

from components.config import reader
from tools import ROOT
from tools.plan import describe, files
from tools.plan.compare import compare
from tools.plan.differences import operations
from tools.plan.model import MachineChange, Plan, WorkloadChange

Config = dict[str, Any]
Change = Callable[[Config], object]

_described: dict[str, files.Description] = {}


def described(stack: str, config: Mapping[str, Any]) -> files.Description:
    """Describe a configuration, once."""
    key = json.dumps([stack, config], sort_keys=True)
    if key not in _described:
        _described[key] = files.decode(
            json.dumps(describe.declared(ROOT / "__main__.py", stack, config))
        )
    return _described[key]


def config_of(stack: str) -> Config:
    """Return the configuration of a shipped stack, to be changed."""
    return copy.deepcopy(reader.read_file(stack))


def both(*changes: Change) -> Change:
    """Return several changes as one."""

    def change(config: Config) -> None:
        for each in changes:
            each(config)

    return change


def plan_of(stack: str, change: Change, start: Change | None = None) -> Plan:
    """Return the plan of a change.

    stack: a shipped one. start: what its stack file has before the change, besides what is shipped.
    """
    before = config_of(stack)
    if start:
        start(before)
    after = copy.deepcopy(before)
    change(after)
    return plan_between(stack, before, after)


def plan_between(stack: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Plan:
    """Return the plan from one configuration to another; `before` is empty for a new stack."""
    old = described(stack, before) if before else files.Description()
    new = described(stack, after)
    assert not old.problems
    if new.problems:
        return files.compared(stack, old, new)
    return compare(old.mesh(stack), new.mesh(stack), operations(old.resources, new.resources))


def workload(plan: Plan, name: str) -> WorkloadChange:
    """Return the change of a workload."""
    (change,) = (each for each in plan.workloads if each.name == name)
    return change


def machines(plan: Plan) -> dict[str, MachineChange]:
    """Return the changes of machines by name."""
    return {change.machine: change for each in plan.workloads for change in each.machines}


def actions(plan: Plan) -> dict[str, str]:
    """Return what happens to machines, by name; more actions of one joined by `+`."""
    by_name: dict[str, list[str]] = {}
    for each in plan.workloads:
        for change in each.machines:
            by_name.setdefault(change.machine, []).append(change.action.value)
    return {name: "+".join(sorted(listed)) for name, listed in by_name.items()}
