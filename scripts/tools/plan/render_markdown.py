"""A plan as Markdown, for a comment of GitHub or GitLab: short enough, and safe to post.

All text of stack files and clusters is in code spans and code blocks (`untrusted`). So it mentions
no person, links nothing, contains no HTML and closes no fold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from . import mermaid, rule_words, words
from .lines import Line
from .model import Plan, Verdict
from .untrusted import code_block, code_span

LIMIT = 65_536
"""Bytes of UTF-8 of a comment. GitHub counts characters; so this is safe there too."""

_SIGNS = {
    Verdict.NOTHING: "⚪",
    Verdict.SAFE: "🟢",
    Verdict.PROGRAM: "🟡",
    Verdict.PAUSES: "🟠",
    Verdict.LEAVES: "🔴",
    Verdict.REFUSED: "⛔",
}
REST = "The rest is in the artefact of this run."


@dataclass(frozen=True, kw_only=True)
class _Block:
    """Lines that belong together.

    opening, closing: what must be there with any of the lines. lines: may be cut from the end.
    atomic: the block is there with all lines, or not at all.
    """

    opening: tuple[str, ...] = ()
    lines: tuple[str, ...]
    closing: tuple[str, ...] = ()
    atomic: bool = False


def text(plan: Plan, *, limit: int = LIMIT, rest: str = REST) -> str:
    """Return the Markdown of a plan, of at most `limit` bytes of UTF-8, the most important first.

    rest: a sentence of Markdown, trusted: where the whole plan is, if this is cut.
    """
    return _fit(list(_blocks(plan)), limit, f"\n**This plan is cut.** {rest}\n")


def _fit(blocks: list[_Block], limit: int, note: str) -> str:
    """Return the lines of the blocks that fit, then the note if not all do."""
    complete = "".join(f"{line}\n" for each in blocks for line in _all_lines(each))
    if len(complete.encode()) <= limit:
        return complete
    left = limit - len(note.encode())
    result: list[str] = []
    for block in blocks:
        frame = _size(block.opening) + _size(block.closing)
        fitting = _fitting(block.lines, left - frame)
        if block.atomic and len(fitting) < len(block.lines):
            continue
        if fitting:
            result += [*block.opening, *fitting, *block.closing]
            left -= frame + _size(fitting)
        if len(fitting) < len(block.lines):
            break
    return "".join(f"{line}\n" for line in result) + note


def _all_lines(block: _Block) -> tuple[str, ...]:
    return (*block.opening, *block.lines, *block.closing)


def _size(lines: tuple[str, ...]) -> int:
    return sum(len(line.encode()) + 1 for line in lines)


def _fitting(lines: tuple[str, ...], size: int) -> tuple[str, ...]:
    """Return the first lines that together have at most `size` bytes."""
    for index, line in enumerate(lines):
        size -= len(line.encode()) + 1
        if size < 0:
            return lines[:index]
    return lines


def _blocks(plan: Plan) -> Iterator[_Block]:
    for first, sign in (
        (rule_words.broken_rules(plan), "❌"),
        (rule_words.newly_disabled_rules(plan), "⚠️"),
    ):
        if first.lines:
            yield _block(first.lines, f"### {sign} {first.title}")
    yield _Block(lines=tuple(_head(plan)))
    for section in (*words.sections(plan), rule_words.disabled_rules(plan)):
        if section.lines:
            yield _block(section.lines, f"#### {section.title}")
    if chart := mermaid.picture(plan):
        opening = ("#### The mesh after the change", "", "```mermaid")
        yield _Block(opening=opening, lines=chart, closing=("```", ""), atomic=True)
    yield from _resources(plan)


def _head(plan: Plan) -> Iterator[str]:
    action = "Destruction" if plan.destroy else "Plan"
    yield f"### {_SIGNS[plan.verdict]} {action} of stack {code_span(plan.stack)}"
    yield ""
    yield f"**{words.verdict(plan).render(code_span)}**"
    yield ""
    if summary := words.summary(plan).render(code_span):
        yield summary
        yield ""
    for line in words.origin(plan):
        yield f"- {line.render(code_span)}"
    yield ""


def _resources(plan: Plan) -> Iterator[_Block]:
    if not plan.operations:
        return
    counts = words.operations(plan.operations).render(code_span)
    if destroyed := words.destroyed(plan):
        yield _block(destroyed, "#### Deleted or replaced")
    yield _folded(f"All resources: {counts}", _items(words.resources(plan)))
    if diff := words.diff(plan):
        first, lines, last = code_block(diff)
        yield _folded("Differences", tuple(lines), first=first, last=last)


def _folded(title: str, lines: tuple[str, ...], *, first: str = "", last: str = "") -> _Block:
    """Return a fold. title: trusted, plain text. first, last: of a code block that it contains."""
    opening = (f"<details><summary>{title}</summary>", "", *filter(None, [first]))
    return _Block(
        opening=opening, lines=lines, closing=(*filter(None, [last]), "", "</details>", "")
    )


def _block(lines: tuple[Line, ...], title: str) -> _Block:
    return _Block(opening=(title, ""), lines=_items(lines), closing=("",))


def _items(lines: tuple[Line, ...]) -> tuple[str, ...]:
    return tuple(f"{'  ' * line.depth}- {line.text.render(code_span)}" for line in lines)
