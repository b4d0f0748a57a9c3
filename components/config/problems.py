"""Problems of a stack file, and how they are reported."""

from __future__ import annotations

import difflib
import typing
from typing import NamedTuple


class Problem(NamedTuple):
    """One thing that is wrong in a stack file."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


def suggestion(word: str, known: typing.Iterable[str]) -> str:
    """A hint for a mistyped word (" (did you mean 'x'?)"), or what is known, or nothing."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1)
    if near:
        return f" (did you mean {near[0]!r}?)"
    return f" (known: {', '.join(known)})" if known else ""


class SettingsError(Exception):
    """The stack file is wrong; the text lists every problem, one a line."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        many = f"{len(problems)} problems" if len(problems) > 1 else "1 problem"
        super().__init__(f"the stack file has {many}:\n" + "\n".join(f"  {problem}" for problem in problems))
