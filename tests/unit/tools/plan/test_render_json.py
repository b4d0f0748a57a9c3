"""A plan as JSON is read again as it was, and nothing else is read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.tiers import some_quick
from tests.unit.tools.plan.plans import hostile
from tests.unit.tools.plan.samples import EVERYTHING, HOSTILE, NOTHING, REFUSED
from tools.devtools import schema
from tools.plan import render_json
from tools.plan.model import Plan
from tools.plan.render_json import MOST_CHARACTERS, ArtefactError

FULL = json.loads(render_json.text(hostile("x")))
"""A plan in which every key has a value."""

Path = tuple[str | int, ...]


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the path of every object and value."""
    yield path
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, item in items:
        yield from places(item, (*path, key))


def changed(path: Path, value: Any) -> bytes:
    """Return the full plan with another value at a path."""
    copy = json.loads(json.dumps(FULL))
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return json.dumps(copy).encode()


def at(path: Path) -> Any:
    value = FULL
    for key in path:
        value = value[key]
    return value


FIRST = [path for path in places(FULL) if all(key == 0 for key in path if isinstance(key, int))]
"""The paths of the first item of each list: one of each kind of place."""


@pytest.mark.parametrize("plan", [EVERYTHING, HOSTILE, NOTHING, REFUSED])
def test_a_plan_is_read_again_as_it_was(plan: Plan) -> None:
    assert render_json.read(render_json.text(plan).encode()) == plan


def test_unknown_keys_are_refused_wherever_they_are() -> None:
    objects = [path for path in FIRST if isinstance(at(path), dict)]
    assert len(objects) > 25
    for path in objects:
        with pytest.raises(ArtefactError, match="Extra inputs are not permitted"):
            render_json.read(changed((*path, "surprise"), "x"))


def test_missing_keys_are_refused_wherever_they_are() -> None:
    for path in (path for path in FIRST if path and isinstance(path[-1], str)):
        copy = json.loads(json.dumps(FULL))
        place = copy
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]
        with pytest.raises(ArtefactError, match="required"):
            render_json.read(json.dumps(copy).encode())


@pytest.mark.parametrize("wrong", some_quick([{"a": 1}, [[]], 1.5, "no such word"], "no such word"))
def test_wrong_types_are_refused_wherever_they_are(wrong: Any) -> None:
    kinds = (dict, list, float, str)
    [kind] = [each for each in kinds if isinstance(wrong, each)]
    for path in FIRST[1:]:
        value = at(path)
        # A text may be any text, but for words of an enumeration; a number may be a fraction.
        if kind is str and isinstance(value, str):
            continue
        if kind is float and (path[0] == "cost" or path[-1] in ("usd", "count", "most")):
            continue
        with pytest.raises(ArtefactError):
            render_json.read(changed(path, wrong))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("verdict",), "great"),
        (("level",), "FILES"),
        (("format",), 2),
        (("format",), "1"),
        (("destroy",), 1),
        (("stack",), None),
        (("stack",), "x" * (MOST_CHARACTERS + 1)),
        (("operations",), [FULL["operations"][0]] * (render_json.MOST_ITEMS + 1)),
        (("operations", 0, "diff"), "x" * (render_json.MOST_IN_DIFF + 1)),
        (("cost", "after"), float("inf")),
        (("cost", "after"), float("nan")),
        (("workloads", 0, "seconds"), 10**30),
    ],
)
def test_values_that_no_plan_has_are_refused(path: Path, value: Any) -> None:
    with pytest.raises(ArtefactError):
        render_json.read(changed(path, value))


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b'{"stack": "\\ud800"}', b"1" * 9_999],
)
def test_what_is_no_plan_is_refused_in_short_lines(data: bytes) -> None:
    with pytest.raises(ArtefactError) as raised:
        render_json.read(data)
    assert all(len(line) < 500 and line.isprintable() for line in str(raised.value).splitlines())


def test_a_file_that_is_too_large_is_not_parsed() -> None:
    with pytest.raises(ArtefactError, match="bytes"):
        render_json.read(b" " * (render_json.MOST_BYTES + 1))


def test_problems_hold_no_text_of_the_file_as_it_is() -> None:
    key = "::set-output name=x::\n\x1b[2J"
    with pytest.raises(ArtefactError) as raised:
        render_json.read(changed((key,), 1))
    assert str(raised.value).isprintable()


def test_a_long_text_is_cut_to_what_is_read() -> None:
    plan = hostile("x" * 100_000)
    assert render_json.read(render_json.text(plan).encode()).stack.endswith("…")


def test_the_schema_in_the_documents_is_that_of_the_records() -> None:
    assert schema.PLAN_SCHEMA.read_text() == render_json.schema(), "run ./scripts/schema"


def test_the_schema_allows_no_other_keys_and_limits_every_text_and_list() -> None:
    document = json.loads(schema.PLAN_SCHEMA.read_text())
    records = [document, *(each for each in document["$defs"].values() if "properties" in each)]
    assert len(records) > 25
    assert all(each["additionalProperties"] is False for each in records)
    for record in records:
        for node in record["properties"].values():
            for choice in (node, *node.get("anyOf", ())):
                limit = {"string": "maxLength", "array": "maxItems"}.get(choice.get("type", ""))
                assert limit is None or limit in choice
