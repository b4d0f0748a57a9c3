"""The generated parts of `docs/first-live-run.md`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tools import ROOT

from .rows import LiveRun, Row, read

PAGE = ROOT / "docs" / "first-live-run.md"
_PART = re.compile(r"(<!-- rows: ([a-z-]+) -->\n).*?(<!-- end of rows -->\n)", re.DOTALL)
EVERY = "every-stack"


def page(text: str) -> str:
    """Return the text of the page with its parts, each between its marks."""
    live_run = read()
    return _PART.sub(lambda match: f"{match[1]}{_part(match[2], live_run)}{match[3]}", text)


def _part(name: str, parts: LiveRun) -> str:
    if name == "apis":
        listed = " \\\n  ".join(parts.apis)
        return f"```sh\ngcloud services enable \\\n  {listed}\n```\n"
    if name == "roles":
        lines = [f"- `{each.role}`{_only(each.stacks)}\n" for each in parts.roles]
        return "".join(lines)
    every = [*parts.rows, *parts.down]
    wanted = [row for row in every if (name in row.stacks if name != EVERY else not row.stacks)]
    return table(wanted)


def _only(stacks: Sequence[str]) -> str:
    return f" ({', '.join(stacks)})" if stacks else ""


def table(rows: Sequence[Row]) -> str:
    """Return rows as a table of Markdown."""
    lines = ["| what only this shows | how | look for |", "| --- | --- | --- |"]
    lines += [f"| {row.shows} | {how(row)} | {row.look} |" for row in rows]
    return "".join(f"{line}\n" for line in lines)


def how(row: Row) -> str:
    """Return how a row is shown, as a cell of a table."""
    if row.by:
        return f"the row `{row.by}`"
    if row.hand:
        return f"by hand: {row.hand}"
    lines = [f"`{line.strip()}`" for line in row.run.splitlines()]
    return "<br>".join(lines).replace("|", "\\|") + (", which must fail" if row.fails else "")
