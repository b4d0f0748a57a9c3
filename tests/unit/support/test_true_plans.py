"""The comparison of plans with what happened in a lab finds what is promised and does not happen, and the reverse."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.true_plans import Seen, false_of

BEFORE = Seen({"a-1": "one", "a-2": "two"}, frozenset({"one", "two"}), {"one": "10", "two": "20"})


def plan(**actions: str) -> dict[str, Any]:
    changes = [{"machine": name.replace("_", "-"), "action": action, "certain": True} for name, action in actions.items()]
    return {"workloads": [{"machines": changes}]}


def seen(places: dict[str, str], **agents: str) -> Seen:
    """Return machines after an update: those in the mesh, with their agents."""
    return Seen(places, frozenset(agents), agents)


SAME = seen({"a-1": "one", "a-2": "two"}, one="10", two="20")


@pytest.mark.parametrize(
    ("planned", "after"),
    [
        (plan(), SAME),
        (plan(a_1="rejoins"), SAME),
        (plan(a_1="forgotten"), SAME),
        (plan(a_1="restarts"), seen({"a-1": "one", "a-2": "two"}, one="11", two="20")),
        (plan(a_9="registers"), seen({"a-9": "one", "a-2": "two"}, one="11", two="20")),
        (plan(a_1="registers", a_2="registers"), seen({"a-1": "two", "a-2": "one"}, one="11", two="21")),
        (plan(a_1="leaves"), seen({"a-2": "two"}, two="20")),
        (plan(a_3="joins"), seen({"a-1": "one", "a-2": "two", "a-3": "three"}, one="10", two="20", three="30")),
        (plan(a_1="replaced"), seen({"a-1": "three", "a-2": "two"}, two="20", three="30")),
        (plan(a_1="replaced"), seen({"a-1": "one", "a-2": "two"}, one="11", two="20")),
    ],
)
def test_what_happens_as_planned_is_true(planned: dict[str, Any], after: Seen) -> None:
    assert false_of(planned, BEFORE, after) == {}


@pytest.mark.parametrize(
    ("planned", "after", "false"),
    [
        (plan(a_1="restarts"), SAME, {"one": "planned ['restarts'], and it stays"}),
        (plan(a_1="leaves"), SAME, {"one": "planned ['leaves', 'is out'], and it stays"}),
        (plan(), seen({"a-1": "one", "a-2": "two"}, one="11", two="20"), {"one": "planned [], and it restarts"}),
        (plan(), seen({"a-1": "one"}, one="10"), {"two": "planned [], and it leaves"}),
        (plan(a_1="rejoins"), seen({"a-1": "one", "a-2": "two"}, one="11", two="20"), {"one": "planned ['stays'], and it restarts"}),
        (
            plan(a_3="joins"),
            seen({"a-1": "one", "a-2": "two", "a-3": "three"}, one="10", two="20"),
            {"three": "planned ['joins'], and it is out"},
        ),
        (
            plan(a_1="replaced"),
            seen({"a-1": "three", "a-2": "two"}, one="10", two="20", three="30"),
            {"one": "planned ['is out', 'leaves'], and it stays"},
        ),
    ],
)
def test_what_happens_otherwise_is_false(planned: dict[str, Any], after: Seen, false: dict[str, str]) -> None:
    assert {
        place: text.replace("'leaves', 'is out'", "'is out', 'leaves'") for place, text in false_of(planned, BEFORE, after).items()
    } == {place: text.replace("'leaves', 'is out'", "'is out', 'leaves'") for place, text in false.items()}
