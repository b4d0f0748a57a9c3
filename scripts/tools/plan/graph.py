"""Resources as a graph: those of a type, and those of each parent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from components import names

from .resources import Resource


@dataclass(frozen=True)
class Graph:
    """Resources, and those of each parent."""

    resources: Sequence[Resource]
    children: Mapping[str, Sequence[Resource]]

    @classmethod
    def of(cls, listed: Iterable[Resource]) -> Graph:
        """Return the graph of a list of resources."""
        all_resources = tuple(listed)
        children: dict[str, list[Resource]] = {}
        for each in all_resources:
            children.setdefault(each.parent, []).append(each)
        return cls(all_resources, children)

    def of_type(self, type_: str) -> list[Resource]:
        """Return the resources of a type."""
        return [each for each in self.resources if each.type == type_]

    def child(self, owner: str, part: str) -> Resource | None:
        """Return the resource of a machine or a workload, by the last part of its name."""
        name = names.part_name(owner, part)
        return next((each for each in self.children.get(owner, ()) if each.name == name), None)
