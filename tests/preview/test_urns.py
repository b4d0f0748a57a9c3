"""Resources keep their URNs: to Pulumi another type, name or parent is another resource, so the one before would be deleted, with machines in it.

`golden/urns.txt` has every URN of every stack. UPDATE_GOLDEN=1 adds new ones and takes none out. One that is gone needs an alias (`pulumi.Alias`) on the
resource that has taken its place. Where it shall go indeed, take its line out by hand: whoever reviews the change sees that something is deleted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pytest

from tests.support import golden, harness
from tests.support.harness import Node

FILE = golden.DIRECTORY / "urns.txt"


def urn(types: str, name: str) -> str:
    return f"{types}::{name}"


def current_urn(graph: Mapping[str, Node], node: Node) -> str:
    """The part of a resource's URN after stack and project: types from the outermost parent's to its own, and the name."""
    parent = graph.get(node.parent)
    return urn(f"{current_urn(graph, parent).partition('::')[0]}${node.type}" if parent else node.type, node.name)


def urns_with_aliases(graph: Mapping[str, Node], node: Node) -> set[str]:
    """By what URNs the engine finds a resource in a state: its own and those that aliases give, its parents' included.

    As the engine does, a child whose name begins with its parent's follows its parent's former names (sdk/go/common/resource: inheritedChildAlias).
    """
    urns = set()
    for alias in ({}, *node.options.get("aliases", ())):
        if "urn" in alias:
            urns.add("::".join(alias["urn"].split("::")[2:]))
            continue
        type_, name = alias.get("type", node.type), alias.get("name", node.name)
        parent = None if "noParent" in alias else graph.get(alias.get("parent", node.parent))
        if parent is None:
            urns.add(urn(type_, name))
            continue
        for types, _, called in (urn.partition("::") for urn in urns_with_aliases(graph, parent)):
            urns.add(urn(f"{types}${type_}", called + name.removeprefix(parent.name) if name.startswith(parent.name) else name))
    return urns


def graph(stack: str) -> dict[str, Node]:
    """All that is made; what is only read is nobody's to delete."""
    return {name: node for name, node in harness.declared(stack).graph.items() if set(node.inputs) != {"id"}}


@pytest.mark.parametrize("stack", harness.stacks())
def test_no_resource_loses_its_urn(stack: str) -> None:
    resources = graph(stack)
    recorded = {line for line in FILE.read_text().splitlines() if line.startswith(f"{stack} ")}
    if os.environ.get("UPDATE_GOLDEN"):
        recorded |= {f"{stack} {current_urn(resources, node)}" for node in resources.values()}
        others = {line for line in FILE.read_text().splitlines() if not line.startswith(f"{stack} ")}
        FILE.write_text("".join(f"{line}\n" for line in sorted(recorded | others)))
    lost = recorded - {f"{stack} {urn}" for node in resources.values() for urn in urns_with_aliases(resources, node)}
    assert not lost, f"{sorted(lost)}: give an alias to what has taken its place, or take the line out of {FILE.name}"
    new = {f"{stack} {current_urn(resources, node)}" for node in resources.values()} - recorded
    assert not new, f"write down what is new with {golden.UPDATE}: {sorted(new)}"


def with_aliases(node: Node, *aliases: dict[str, Any]) -> Node:
    return Node(node.type, node.name, {}, {}, node.parent, options={"aliases": list(aliases)})


@pytest.mark.parametrize(
    ("parent", "child", "urns"),
    [
        (Node("c:C", "one", {}, {}, ""), Node("r:R", "one-key", {}, {}, "one"), {"c:C$r:R::one-key"}),
        (Node("c:C", "one", {}, {}, ""), with_aliases(Node("r:R", "one-key", {}, {}, "one"), {"name": "key"}), {"c:C$r:R::one-key", "c:C$r:R::key"}),
        (Node("c:C", "one", {}, {}, ""), with_aliases(Node("r:R", "one-key", {}, {}, "one"), {"noParent": True}), {"c:C$r:R::one-key", "r:R::one-key"}),
        (with_aliases(Node("c:C", "one", {}, {}, ""), {"name": "two"}), Node("r:R", "one-key", {}, {}, "one"), {"c:C$r:R::one-key", "c:C$r:R::two-key"}),
        (with_aliases(Node("c:C", "one", {}, {}, ""), {"type": "d:D"}), Node("r:R", "key", {}, {}, "one"), {"c:C$r:R::key", "d:D$r:R::key"}),
        (
            Node("c:C", "one", {}, {}, ""),
            with_aliases(Node("r:R", "key", {}, {}, "one"), {"urn": "urn:pulumi:s::p::x:X$r:R::key"}),
            {"c:C$r:R::key", "x:X$r:R::key"},
        ),
    ],
)  # fmt: skip
def test_an_alias_keeps_the_former_urn(parent: Node, child: Node, urns: set[str]) -> None:
    assert urns_with_aliases({parent.name: parent, child.name: child}, child) == urns
