"""The report of a live run, in Markdown: rows that were seen are struck out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .page import how
from .runner import Result, State


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a report has besides its rows.

    stack, project: what was run, and where. began: the date and time.
    cost: so far, with the currency. left: what was not taken down.
    """

    stack: str
    project: str
    began: str
    cost: str
    left: Sequence[str] = ()


def text(summary: Summary, results: Sequence[Result]) -> str:
    """Return the report."""
    lines = [
        f"# Live run of {summary.stack}",
        "",
        f"In the project {summary.project}, begun {summary.began}. Rows that were seen are struck "
        f"out. So far it cost about {summary.cost}.",
        "",
        "| what only this shows | how | look for | |",
        "| --- | --- | --- | --- |",
        *map(_line, results),
    ]
    for result in results:
        if result.state is State.SURPRISE:
            lines += ["", f"## Surprise: {result.row.shows}", "", "```", result.text, "```"]
    if summary.left:
        lines += ["", "## Left in the project", "", *(f"- {each}" for each in summary.left)]
    return "\n".join(lines) + "\n"


def _line(result: Result) -> str:
    row = result.row
    cells = [row.shows, how(row), row.look]
    if result.state is State.SEEN:
        cells = [f"~~{cell}~~" for cell in cells]
    state = f"**{result.state}**" if result.state is State.SURPRISE else str(result.state)
    return f"| {' | '.join(cells)} | {state} |"
