"""Lines and sections of a plan, and words that several sections share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .model import MachineChange, Mark, Plan, ServiceChange, WorkloadChange
from .phrases import Phrase, phrase

KINDS = {
    Mark.ADDED: "is added",
    Mark.REMOVED: "is removed",
    Mark.CHANGED: "changes",
    Mark.SAME: "stays",
}


def all_machines(plan: Plan) -> Iterator[MachineChange]:
    for workload in plan.workloads:
        yield from workload.machines


def full_name(each: WorkloadChange | ServiceChange) -> str:
    return f"{each.namespace}/{each.name}"


def shown(text: str) -> Phrase:
    return phrase("{}", text) if text else phrase("none")


@dataclass(frozen=True, kw_only=True)
class Line:
    """A sentence of a section. depth: 0, or 1 for what belongs to the line above it."""

    text: Phrase
    depth: int = 0


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a plan. title: trusted."""

    title: str
    lines: tuple[Line, ...]
