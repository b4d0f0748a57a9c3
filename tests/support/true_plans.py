"""Plans of updates of the labs, compared with what the updates did to agents and to the mesh.

What happened is read from the machines and from the cluster: which agents run that ran before, and
which machines have a WorkloadEntry.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from components.names import CONNECTED_ANNOTATION, DISCONNECTED_ANNOTATION

AGENT_START = "systemctl show --property InvocationID --value istio-vm-mesh"
"""Prints what is another text after each start of the agent (systemd.exec(5): INVOCATION_ID)."""

EXPECTED = {
    "joins": {"joins"},
    "rejoins": {"stays"},
    "restarts": {"restarts"},
    "registers": {"restarts"},
    "replaced": {"restarts"},
    "leaves": {"leaves", "is out"},
}
"""What happens to a machine, by the action that a plan names. A machine may be out before it leaves."""
UNKNOWN = {"joins", "stays", "restarts"}
"""The same where the plan says that it depends on the machine."""


def is_connected(entry: Mapping[str, Any]) -> bool:
    """Return whether a WorkloadEntry is of a machine whose agent has a stream to istiod."""
    annotations = entry["metadata"].get("annotations") or {}
    return CONNECTED_ANNOTATION in annotations and DISCONNECTED_ANNOTATION not in annotations


class Planned(Protocol):
    """A stack of a lab, with what of it is compared."""

    def places(self) -> dict[str, str]:
        """Return what each declared or joined machine is, by its name: the same for one machine whatever its name."""

    def in_mesh(self) -> set[str]:
        """Return the places that have a WorkloadEntry of this stack."""

    def agent(self, place: str) -> str:
        """Return which start of its agent a machine runs; "" for none."""

    def plan(self) -> str:
        """Return what `./scripts/plan --level state --json` prints for the stack file as it is."""


@dataclass(frozen=True)
class Seen:
    """Machines by their places. inside: those in the mesh. agents: what runs on them."""

    places: Mapping[str, str]
    inside: frozenset[str]
    agents: Mapping[str, str]


@contextmanager
def as_planned(stack: Planned) -> Iterator[None]:
    """Plan the update that runs in the block, and check afterwards that it did that and nothing else.

    The stack file is written before.
    """
    before, plan = look(stack), json.loads(stack.plan())
    assert plan["level"] == "state", plan["degraded"]
    yield
    assert false_of(plan, before, look(stack)) == {}


def look(stack: Planned) -> Seen:
    """Return a stack's machines as they are."""
    places = stack.places()
    return Seen(places, frozenset(stack.in_mesh()), {place: stack.agent(place) for place in set(places.values())})


def false_of(plan: Mapping[str, Any], before: Seen, after: Seen) -> dict[str, str]:
    """Return what is not true of a plan, by machine: what it says, and what happened."""
    expected = _planned(plan, before, after)
    false = {}
    for place in sorted({*before.places.values(), *after.places.values()}):
        happened = _happened(place, before, after)
        if happened not in expected.get(place, {"stays", "is out"}):
            false[place] = f"planned {sorted(expected.get(place, ()))}, and it {happened}"
    return false


def _planned(plan: Mapping[str, Any], before: Seen, after: Seen) -> dict[str, set[str]]:
    """Return what a plan says of machines, by their places.

    One that moves is told of where it comes to. One that is given up stays as it is. Where another
    one takes a name, the former one leaves.
    """
    planned: dict[str, set[str]] = {}
    for change in (each for workload in plan["workloads"] for each in workload["machines"]):
        name, action = change["machine"], change["action"]
        if action in ("moves", "forgotten"):
            continue
        if action == "leaves":
            planned[before.places[name]] = EXPECTED[action]
        elif action == "replaced" and before.places.get(name) not in (None, after.places[name]):
            planned[before.places[name]], planned[after.places[name]] = EXPECTED["leaves"], EXPECTED["joins"]
        else:
            planned[after.places[name]] = EXPECTED[action] if change["certain"] else UNKNOWN
    return planned


def _happened(place: str, before: Seen, after: Seen) -> str:
    if place not in after.inside:
        return "leaves" if place in before.inside else "is out"
    if place not in before.inside:
        return "joins"
    return "stays" if before.agents.get(place) == after.agents.get(place) else "restarts"
