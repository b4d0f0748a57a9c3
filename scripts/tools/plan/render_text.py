"""A plan for people at a terminal. A pipe or a log gets the same without colours."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

from . import rule_words, words
from .lines import Line
from .model import Plan, Verdict
from .untrusted import LINE, clean, log_line

WIDTH = 100
STYLES: dict[Verdict, str] = {
    Verdict.NOTHING: "green",
    Verdict.SAFE: "green",
    Verdict.PROGRAM: "yellow",
    Verdict.PAUSES: "yellow",
    Verdict.LEAVES: "red",
    Verdict.REFUSED: "red",
}


class _Console(Console):
    """A console that leaves a reader that went away to its caller; Rich would end with code 1."""

    def on_broken_pipe(self) -> None:
        raise  # Rich calls this where it has caught BrokenPipeError


class _Line(NamedTuple):
    """A line to print. hanging: by how many columns its further lines are indented."""

    text: str
    style: str = ""
    hanging: int = 0
    wrapped: bool = True


def show(plan: Plan, *, verbose: bool = False, console: Console | None = None) -> None:
    """Print a plan.

    verbose: with all resources and their differences. console: default: standard output.
    """
    console = console or _Console(highlight=False, markup=False, emoji=False)
    width = console.width if console.is_terminal else WIDTH
    output = Text()
    for line in _lines(plan, verbose=verbose):
        # Commands of runners are looked for after wrapping: any word may begin a line then.
        for part in _wrapped(line, width):
            output.append(f"{log_line(part)}\n", style=line.style)
    console.print(output, soft_wrap=True, end="")


def _wrapped(line: _Line, width: int) -> list[str]:
    if not line.wrapped or len(line.text) <= width:
        return [line.text]
    further = " " * line.hanging
    return textwrap.wrap(line.text, width, subsequent_indent=further, break_on_hyphens=False)


def _lines(plan: Plan, *, verbose: bool) -> Iterator[_Line]:
    for first, style in (
        (rule_words.broken_rules(plan), "bold red"),
        (rule_words.newly_disabled_rules(plan), "bold yellow"),
    ):
        if first.lines:
            yield _Line(first.title, style)
            yield from _items(first.lines)
            yield _Line("")
    action = "Destruction" if plan.destroy else "Plan"
    yield _Line(f"{action} of stack {clean(plan.stack)}", "bold")
    yield _Line(words.verdict(plan).render(clean), f"bold {STYLES[plan.verdict]}")
    if summary := words.summary(plan).render(clean):
        yield _Line(summary)
    for line in words.origin(plan):
        yield _Line(line.render(clean), "dim")
    for section in (*words.sections(plan), rule_words.disabled_rules(plan)):
        if section.lines:
            yield _Line("")
            yield _Line(section.title, "bold")
            yield from _items(section.lines)
    yield from _resources(plan, verbose=verbose)


def _resources(plan: Plan, *, verbose: bool) -> Iterator[_Line]:
    if not plan.operations:
        return
    yield _Line("")
    yield _Line(f"Resources: {words.operations(plan.operations).render(clean)}", "bold")
    if not verbose:
        yield from _items(words.destroyed(plan), "red")
        yield _Line("  --verbose lists all of them with their differences.", "dim")
        return
    yield from _items(words.resources(plan))
    if diff := words.diff(plan):
        yield _Line("")
        yield _Line("Differences", "bold")
        for line in diff:
            yield _Line(f"  {clean(line, LINE)}", wrapped=False)


def _items(lines: Iterable[Line], style: str = "") -> Iterator[_Line]:
    for line in lines:
        indent = "  " * line.depth
        yield _Line(f"{indent}- {line.text.render(clean)}", style, len(indent) + 2)
