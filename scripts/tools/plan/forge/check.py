"""Compare the plan that was reviewed with the plan of now: nothing may be new."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace

from ..model import (
    Action,
    BrokenRule,
    Level,
    MachineChange,
    Operation,
    Plan,
    Verdict,
    WorkloadChange,
)
from ..untrusted import LINE, clean

_OF_ITSELF = {"stack", "level", "verdict", "format", "base", "head", "destroy", "degraded", "error"}
"""Fields of a plan that are compared apart, or that say when it was computed."""
_CONSEQUENCES = {"picture", "former", "cost"}
"""Fields that follow from the others, or from a list of prices."""
TOKENS = frozenset({"rotation", "token"})
"""Keys of the reasons for which a machine only gets another token."""
_CARRIERS = frozenset({"changes", "CHANGES", "stdin", "checked", *TOKENS})
"""The last parts of the input properties by which a new token has a machine's commands run."""


def news(reviewed: Plan, now: Plan) -> tuple[str, ...]:
    """Return what the plan of now has and the reviewed one has not, one line each.

    What the reviewed plan has and the one of now has not is done already, which is no news.
    """
    return tuple(clean(line, LINE) for line in _news(reviewed, now))


def _news(reviewed: Plan, now: Plan) -> Iterator[str]:
    for name, plan in (("reviewed plan", reviewed), ("plan of now", now)):
        if plan.error:
            yield f"the {name} failed: {'; '.join(plan.error.lines)}"
        if plan.level is Level.FILES:
            reasons = "; ".join(each.reason for each in plan.degraded)
            yield f"the {name} is of the level files, which does not see the state: {reasons}"
    if reviewed.stack != now.stack:
        yield f"the reviewed plan is of the stack {reviewed.stack}, not {now.stack}"
    if reviewed.destroy != now.destroy:
        yield "one plan is of a destruction, and the other one is not"
    if _severity(now) > _severity(reviewed):
        yield f"verdict: {now.verdict}, reviewed: {reviewed.verdict}"
    yield from _new_records(reviewed, now)


def _severity(plan: Plan) -> int:
    return list(Verdict).index(plan.verdict)


def _new_records(reviewed: Plan, now: Plan) -> Iterator[str]:
    allowed = Counter(_records(reviewed))
    for field, record in _records(now):
        if allowed[field, record] > 0:
            allowed[field, record] -= 1
        else:
            yield f"{field}: {_line(record)}"


def _records(plan: Plan) -> Iterator[tuple[str, object]]:
    """Yield each record of a plan with its field, without those about tokens and exceptions."""
    machines = [machine for workload in plan.workloads for machine in workload.machines]
    renewed = frozenset(machine.machine for machine in machines if _is_about_token(machine))
    for field in fields(plan):
        if field.name in _OF_ITSELF | _CONSEQUENCES:
            continue
        value = getattr(plan, field.name)
        for record in value if isinstance(value, tuple) else [value]:
            if record is None or (isinstance(record, BrokenRule) and record.excepted):
                continue
            if isinstance(record, Operation) and _renews_token(record, renewed):
                continue
            yield from ((field.name, part) for part in _parts(record))


def _parts(record: object) -> Iterator[object]:
    """Yield a record, or its machines one by one with what they are in."""
    if not isinstance(record, WorkloadChange):
        yield record
        return
    for machine in record.machines:
        if not _is_about_token(machine):
            yield (record.namespace, record.name, machine)
    # Fewer machines than reviewed take fewer waves, and that is no news.
    rest = replace(record, machines=(), restarts=0, waves=0, seconds=0)
    if rest != WorkloadChange(
        name=rest.name,
        namespace=rest.namespace,
        mark=rest.mark,
        role=rest.role,
        at_once=rest.at_once,
    ):
        yield rest


def _is_about_token(machine: MachineChange) -> bool:
    reasons = {each.key for each in machine.reasons}
    return (
        machine.action in (Action.REJOINS, Action.RESTARTS) and bool(reasons) and reasons <= TOKENS
    )


def _renews_token(operation: Operation, machines: frozenset[str]) -> bool:
    """Return whether a command of a machine runs for a new token alone.

    machines: those that the plan marks so.
    """
    keys = {key.rpartition(".")[2] for key in operation.keys}
    updates = operation.op == "update" and not operation.destructive
    return updates and operation.parent in machines and bool(keys) and keys <= _CARRIERS


def _line(record: object) -> str:
    """Return a record on one line, without what is empty."""
    if isinstance(record, tuple):
        return " ".join(map(_line, record))
    if not is_dataclass(record):
        return str(record)
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return ", ".join(
        f"{name} {_line(value)}" for name, value in values.items() if value not in ("", (), None)
    )
