"""What operations of Pulumi do to machines. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from components import names

from . import resources
from .model import Operation


@dataclass(frozen=True)
class Effects:
    """What the operations say of machines.

    replaced: machines whose hosts are recreated, with the properties that are why.
    joined: those whose joins run.
    out: those that the cluster does not have as connected, so that their joins run.
    unsure: machines of `replaced` for which it depends on what is not known yet.
    cluster: whether the cluster is another one afterwards.
    deleted: the resources that are deleted.
    """

    replaced: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    joined: frozenset[str] = frozenset()
    out: frozenset[str] = frozenset()
    unsure: frozenset[str] = frozenset()
    cluster: bool = False
    deleted: frozenset[str] = frozenset()

    @classmethod
    def of(cls, operations: Iterable[Operation]) -> Effects:
        """Return the effects of operations."""
        replaced: dict[str, tuple[str, ...]] = {}
        joined: set[str] = set()
        updated: set[str] = set()
        unsure: set[str] = set()
        deleted: set[str] = set()
        cluster = False
        for each in operations:
            if each.op == "delete":
                deleted.add(each.name)
            is_host = each.type == resources.INSTANCE or names.is_part(each.name, "container")
            if is_host and each.op == "replace":
                # Inputs of a command say nothing to people.
                replaced[each.parent] = each.why if each.type == resources.INSTANCE else ()
                unsure.update(() if each.certain else (each.parent,))
            if names.is_part(each.name, names.JOIN) and each.op != "delete":
                joined.add(each.parent)
            if (
                names.is_part(each.name, names.REGISTRATION)
                and each.op == "update"
                and not each.diff
            ):
                updated.add(each.parent)
            if each.type == resources.CLUSTER or each.name == "cluster-kind":
                cluster = cluster or each.op in ("replace", "delete")
        return cls(
            replaced,
            frozenset(joined),
            frozenset(updated),
            frozenset(unsure),
            cluster,
            frozenset(deleted),
        )
