"""Runs the rows in their order, stops at the first surprise, and takes everything down."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from . import commands
from .rows import LiveRun, Row


class State(StrEnum):
    """What became of a row."""

    SEEN = "seen"
    SURPRISE = "surprise"
    BY_HAND = "by hand"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class Result:
    """A row and what became of it. text: of a surprise, why it is one."""

    row: Row
    state: State
    text: str = ""


@dataclass
class Run:
    """A live run.

    live_run: its rows. variables: the environment of their commands.
    show: gets each line for the user. changed: is called whenever a result was added.
    stack_file: the stack's file, which lifting the protection changes.
    results: what became of the rows so far. left: what a destroy has left.
    """

    live_run: LiveRun
    variables: Mapping[str, str]
    show: Callable[[str], None]
    changed: Callable[[], None]
    stack_file: Path
    results: list[Result] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    before: dict[str, set[str]] = field(default_factory=dict)

    @property
    def surprise(self) -> Result | None:
        """The first row that was not as expected."""
        return next((each for each in self.results if each.state is State.SURPRISE), None)

    def remember(self) -> None:
        """Note what the project has before the run. What cannot be listed counts as nothing."""
        self.before = {each: self._listed(each) or set() for each in self.live_run.leftovers}

    def up(self) -> None:
        """Run the rows until one is a surprise. Raises KeyboardInterrupt."""
        stopped = False
        for row in self.live_run.rows:
            self._add(Result(row, State.NOT_RUN) if stopped else self._row(row))
            stopped = self.surprise is not None

    def down(self) -> bool:
        """Take everything down; return whether nothing is left.

        One interruption is not enough to end it.
        """
        original = self.stack_file.read_bytes()
        count = len(self.results)
        try:
            with _patient(self.show):
                for row in self.live_run.down:  # each, whatever became of the one before
                    self._add(self._row(row))
                self.left = list(self._remnants())
        except KeyboardInterrupt:
            return False
        finally:
            _restore(self.stack_file, original)
        taken = all(each.state is State.SEEN for each in self.results[count:])
        return taken and not self.left

    def _remnants(self) -> Iterator[str]:
        for command, before in self.before.items():
            kind = command.partition(" list ")[0].removeprefix("gcloud ")
            listed = self._listed(command)
            if listed is None:
                yield f"{kind}: unknown, because the list failed: run {command}"
            elif more := listed - before:
                yield f"{kind}: {', '.join(sorted(more))}"

    def _listed(self, command: str) -> set[str] | None:
        """Return the lines that a command prints; None where it fails."""
        done = commands.run(command, self.variables, lambda line: None)
        if done.status:
            return None
        return {line.strip() for line in done.output.splitlines() if line.strip()}

    def _add(self, result: Result) -> None:
        self.results.append(result)
        self.changed()

    def _row(self, row: Row) -> Result:
        if row.hand:
            return Result(row, State.BY_HAND)
        self.show(f"\n== {row.shows}")
        if row.by:
            shown = {each.row.name for each in self.results if each.state is State.SEEN}
            return Result(row, State.SEEN if row.by in shown else State.NOT_RUN)
        done = commands.run(row.run, self.variables, self.show)
        wrong = surprise(row, done)
        self.show(f"-- {wrong or 'as expected'}")
        if wrong:
            return Result(row, State.SURPRISE, f"{wrong}\n\n{_last_lines(done.output)}")
        return Result(row, State.SEEN)


def surprise(row: Row, done: commands.Done) -> str:
    """Return what is not as a row expects; "" where all is."""
    if (done.status != 0) != row.fails:
        return f"the command ended with {done.status}{', and should fail' if row.fails else ''}"
    for pattern in row.expect:
        if not re.search(pattern, done.output, re.MULTILINE):
            return f"the output has no match for {pattern}"
    for pattern in row.refuse:
        if match := re.search(pattern, done.output, re.MULTILINE):
            return f"the output has {match[0]!r}"
    return ""


def _restore(file: Path, content: bytes) -> None:
    """Give a file its content again in one step: another program may be reading it."""
    file = file.resolve()  # a link stays one
    if file.exists() and file.read_bytes() == content:
        return
    new = file.with_name(f".{file.name}.restored")
    new.write_bytes(content)
    if file.exists():
        shutil.copymode(file, new)
    new.replace(file)


def _last_lines(output: str) -> str:
    return "\n".join(output.splitlines()[-20:])


@contextmanager
def _patient(show: Callable[[str], None]) -> Iterator[None]:
    """Take the first interruption for a mistake, and say how to insist."""
    seen: list[int] = []

    def interrupted(number: int, frame: object) -> None:
        seen.append(number)
        if len(seen) > 1:
            raise KeyboardInterrupt
        show("The stack is being taken down. Interrupt again to leave it: what is left costs.")

    before = {each: signal.signal(each, interrupted) for each in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
