"""The comment of a plan: what it is, and what it becomes when a newer commit came.

A plan is data of its run. The text around it is of this program, and holds no text of others but
web addresses that were checked.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from .. import render_markdown
from ..model import Level, Plan, Verdict
from ..untrusted import code_span
from .errors import TooLongError
from .forge import Forge, Run
from .marker import ANY, PLAN, Marker, digest, mark, text_of
from .settle import Account, Decision, Item, Keep, Remove, Settler, mine

LIMIT, LEAST = render_markdown.LIMIT, 4_000
"""Bytes of UTF-8 of a comment, and those below which it is not shortened any more."""
_ROOM = 2_000
"""Bytes for the marker and the lines before the plan."""
_ADDRESS = re.compile(r"https?://[\w.:-]+/[\w./%+~:?&=#-]*", re.ASCII)

OLD = "> **Old.** A newer commit came, and this is not its plan.\n\n"
FORK = "> The code of a fork computed this plan. Nothing here verifies its content.\n\n"
_RANKS = {"": 0, Level.FILES: 1, Level.STATE: 2, Level.LIVE: 3}
Render = Callable[[int], str]
"""Returns the text of a comment without its marker, of at most as many bytes as it is given."""


class Poster:
    """Posts about one run of one pull request."""

    def __init__(self, forge: Forge, account: Account, run: Run) -> None:
        self._forge, self._run, self._account = forge, run, account
        self._thread = forge.comments(run.pull)
        self._settler = Settler(forge.client, self._thread, account)

    def post(self, plan: Plan) -> str:
        """Post a plan, or edit the comment of its stack; return what was done.

        A plan in which nothing happens creates no comment; it only edits one.
        """
        marker = Marker(kind=PLAN, stack=plan.stack, head=self._run.head, level=plan.level)
        return self._settle(marker, lambda limit: self._text(plan, limit), quiet=_is_silent(plan))

    def post_failure(self, problems: tuple[str, ...]) -> str:
        """Post that the run has no plan, and why, in one comment for all stacks."""
        marker = Marker(kind=PLAN, stack=ANY, head=self._run.head)
        lines = [
            "### ⛔ No plan",
            "",
            f"The run ended without a plan. {self._link('See its log')}.",
            "",
        ]
        lines += [f"- {code_span(problem, 300)}" for problem in problems[:20]]
        return self._settle(marker, lambda _: "\n".join(lines) + "\n", quiet=False)

    def remove_failure(self) -> None:
        """Remove the comment of `post_failure`, because there are plans now."""
        self._settler.settle((PLAN, ANY), lambda item: Remove() if item else Keep())

    def mark_old(self) -> list[str]:
        """Mark each comment as old that is of another commit; return their stacks."""
        stacks = [
            item.marker.stack
            for item in mine(self._thread, self._account)
            if item.marker and item.marker.kind == PLAN
        ]
        stacks = sorted(set(stacks))
        return [
            stack for stack in stacks if self._settler.settle((PLAN, stack), self._aged) == "edited"
        ]

    def _aged(self, item: Item | None) -> Decision:
        marker = item.marker if item else None
        if (
            item is None
            or marker is None
            or marker.old
            or marker.head == self._forge.head(self._run.pull)
        ):
            return Keep()
        return _aged(marker, text_of(item.body))

    def _settle(self, marker: Marker, render: Render, *, quiet: bool) -> str:
        limit = LIMIT
        while True:
            text = render(limit - _ROOM)
            body = mark(replace(marker, digest=digest(text)), text)

            def decide(item: Item | None, body: str = body) -> Decision:
                return self._decide(item, marker, body, quiet=quiet)

            try:
                return self._settler.settle(marker.key, decide)
            except TooLongError:
                if (limit := limit // 2) < LEAST:
                    raise

    def _decide(self, item: Item | None, marker: Marker, body: str, *, quiet: bool) -> Decision:
        """Return the comment that is to be there, for what is there now.

        The pull request's commit is read again: another run may have come meanwhile. The plan of
        another commit than that one never replaces a plan of that one.
        """
        if item is None and quiet:
            return Keep()
        there = item.marker if item else None
        newest = self._forge.head(self._run.pull)
        if there and there.head == marker.head and _RANKS[there.level] > _RANKS[marker.level]:
            return self._aged(item)
        if marker.head == newest:
            return body
        if there and there.head != marker.head:
            return self._aged(item)
        return _aged(replace(marker, digest=digest(text_of(body))), text_of(body))

    def _text(self, plan: Plan, limit: int) -> str:
        before = FORK if self._run.fork else ""
        rest = f"All of it is {self._link('in the artefact of its run')}."
        shown = replace(plan, head=self._run.head)
        return before + render_markdown.text(shown, limit=limit, rest=rest)

    def _link(self, words: str) -> str:
        return f"[{words}]({self._run.url})" if _ADDRESS.fullmatch(self._run.url) else words


def _aged(marker: Marker, text: str) -> str:
    return mark(replace(marker, old=True), OLD + text)


def _is_silent(plan: Plan) -> bool:
    return plan.verdict is Verdict.NOTHING and not (
        plan.error or plan.broken or plan.live or plan.program
    )
