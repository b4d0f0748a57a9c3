"""What a destroy leaves of a stack. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tools.mock_engine import Node
from tools.plan import resources

from . import cloud
from .cloud import Cloud, has_unique_id


class Remnant(NamedTuple):
    """What a destroy leaves.

    kind: what it is. left: in which form. days: how long, 0: until it is deleted by hand.
    blocks: the days after the destroy, first and last, in which the stack cannot be created again;
    None if it can.
    """

    name: str
    kind: str
    left: str
    days: int
    blocks: tuple[int, int] | None = None


ROLE_RESTORABLE_DAYS, ROLE_RESERVED_DAYS = 7, 37
"""A deleted custom role can be restored for a week. Its ID is free after 30 days more.

The provider restores a role within the week.
Source: docstring of `IAMCustomRole` in pulumi_gcp 10.2.
"""
ACCOUNT_RESTORABLE_DAYS = 30


def remnants(stack: Cloud) -> list[Remnant]:
    """Return what is left of a stack after it was destroyed, sorted by name."""
    listed: list[Remnant] = []
    for node in stack.on_google():
        if node.options.get("retain_on_delete"):
            listed.append(Remnant(node.name, "retained resource", "complete", 0))
        elif node.type == cloud.ROLE:
            blocks = (
                None if has_unique_id(stack, node) else (ROLE_RESTORABLE_DAYS, ROLE_RESERVED_DAYS)
            )
            left = "its ID, which no other role can have"
            listed.append(Remnant(node.name, "custom role", left, ROLE_RESERVED_DAYS, blocks))
        elif node.type == cloud.ACCOUNT:
            left = "can be restored; its ID is free at once"
            listed.append(Remnant(node.name, "service account", left, ACCOUNT_RESTORABLE_DAYS))
        elif node.type in (resources.INSTANCE, resources.TEMPLATE):
            listed += [Remnant(node.name, "disk", "complete", 0) for kept in _disks(node) if kept]
    return sorted(listed)


def _disks(node: Node) -> list[bool]:
    """Return of each disk whether it outlives its machine."""
    disks = node.inputs.get("disks") or [node.inputs.get("bootDisk") or {}]
    return [disk.get("autoDelete") is False for disk in disks]


def table(stacks: Mapping[str, Cloud]) -> str:
    """Return the table of docs/google.md. stacks: the stacks that it is about, by name."""
    rows: dict[tuple[str, str, int], set[str]] = {}
    for name, stack in stacks.items():
        for each in remnants(stack):
            rows.setdefault((each.kind, each.left, each.days), set()).add(name)
    lines = ["| what | of | what is left | days |", "| --- | --- | --- | ---: |"]
    for (kind, left, days), names in sorted(rows.items()):
        lines.append(f"| {kind} | {', '.join(sorted(names))} | {left} | {days or ''} |")
    return "".join(f"{line}\n" for line in lines)
