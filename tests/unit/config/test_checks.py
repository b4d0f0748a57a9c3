"""Stack files that are wrong are refused, each for its own reason; the files of this repository are not."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from components import config
from components.config import reader
from components.config.problems import SettingsError

BROKEN: list[dict[str, Any]] = yaml.load(
    (Path(__file__).parent / "broken.yaml").read_text(),
    Loader=yaml.CSafeLoader,
)
STACKS = reader.stacks()


@cache
def stack_file(stack: str) -> dict[str, Any]:
    """Read a stack file once for all cases; they change copies."""
    return reader.read_file(stack)


def broken(case: dict[str, Any]) -> dict[str, Any]:
    """Return a stack's configuration with a case's changes."""
    raw = copy.deepcopy(stack_file(case["stack"]))
    changes = [
        *case.get("set", {}).items(),
        *((path, KeyError) for path in case.get("unset", [])),
    ]
    for path, value in changes:
        *parents, last = path.split("/")
        place = raw
        for part in parents:
            place = place.setdefault(part, {})
        if value is KeyError:
            del place[last]
        else:
            place[last] = value
    return raw


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of everything in a stack file."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from places(item, (*path, index))


@pytest.mark.parametrize("stack", ["existing", "multi-network"])
def test_no_value_at_any_place_makes_more_than_problems(stack: str) -> None:
    raw = reader.read_file(stack)
    refused = 0
    for path in places(raw):
        for value in (None, -1, "x", [], {"a": 1}, ["10.0.0.0/8"], {"platform": ["kind"]}):
            changed = copy.deepcopy(raw)
            place = changed
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = value
            try:
                config.load(changed)
            except SettingsError as error:
                refused += 1
                assert all(problem.path and "\0" not in str(problem) for problem in error.problems)
    assert refused > 200


@pytest.mark.parametrize("stack", STACKS)
def test_the_files_of_this_repository_are_good(stack: str) -> None:
    raw = reader.read_file(stack)
    config.load(raw)


@pytest.mark.parametrize(
    "case", BROKEN, ids=[f"{number}-{case['stack']}" for number, case in enumerate(BROKEN, 1)]
)
def test_a_broken_file_is_refused_for_its_own_reason(case: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as raised:
        config.load(broken(case))
    expected = case["says"] if isinstance(case["says"], list) else [case["says"]]
    assert [str(problem) for problem in raised.value.problems] == expected


def test_there_are_many_and_no_two_are_the_same() -> None:
    assert len(BROKEN) >= 60
    assert len(
        {str((case["stack"], case.get("set"), case.get("unset"))) for case in BROKEN}
    ) == len(BROKEN)


def test_no_two_cases_share_a_reason() -> None:
    """A reason that two cases share says that one of them tests nothing new."""
    reasons = [str(case["says"]) for case in BROKEN]
    shared = {reason for reason in reasons if reasons.count(reason) > 1}
    assert len(shared) <= 2, shared
