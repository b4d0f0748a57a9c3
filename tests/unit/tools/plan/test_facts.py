"""The variables of a startup script are read as a shell reads them."""

from __future__ import annotations

import itertools
import shlex

import pytest

from components import shell
from tools.plan import facts

TEXTS = [
    "",
    "plain",
    "/a/b=c",
    "two words",
    "it's",
    '"',
    "\\",
    "a\\b",
    "'",
    "''",
    "#",
    "$HOME",
    "é",
    "QUJD+/==",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_value_is_what_was_assigned(text: str) -> None:
    script = shell.assignments({"FIRST": text, "SECOND": "2"})
    assert facts.variables(f"{script}main\n") == ({"FIRST": text, "SECOND": "2"}, "main")


def test_a_line_is_an_assignment_exactly_where_it_has_one_word() -> None:
    """As shlex, which is too slow for a tar of files, splits it."""
    for characters in itertools.product("a'\"\\ =#\t", repeat=5):
        text = "".join(characters)
        try:
            words = shlex.split(text)
        except ValueError:
            words = ["no", "assignment"]
        expected = ({"NAME": "".join(words)}, "") if len(words) < 2 else ({}, f"NAME={text}")
        assert facts.variables(f"NAME={text}") == expected, text
