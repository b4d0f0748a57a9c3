"""Named steps: what is being done, how far it is, how long it took, and what to read and do when it
fails.

On a terminal the running step is one line that is updated. Elsewhere (CI, a pipe) every step is
plain lines, with a progress line at most every 15 seconds. Each step has a log file,
`.lab/logs/NN-<step>.log`.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from tools import ROOT, process
from tools.directories import make_private

if TYPE_CHECKING:
    from rich.status import Status

LOGS = ROOT / ".lab" / "logs"
"""Of all tools; ignored by git."""
HEARTBEAT = 15.0
TAIL = 30
"""Lines of the log that a failure shows."""


class StepError(Exception):
    """Why a step failed, in one sentence, and what to do about it."""

    def __init__(self, cause: str, hint: str = "", show_log: bool = True) -> None:
        super().__init__(cause)
        self.cause, self.hint, self.show_log = cause, hint, show_log


class StepFailedError(Exception):
    """The whole message about a failed step, ready to be printed."""


def seconds(value: float) -> str:
    """Return a duration in words: `0.4 s`, `41 s`, `6 min 12 s`."""
    if value < 9.95:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


class Step:
    """One running step. `note` shows its progress, `line` prints a line that stays, `run` runs a
    command into the step's log.
    """

    def __init__(self, title: str, log: Path, display: Display, label: str = "", group: process.Group | None = None) -> None:
        self.title, self.log, self.label = title, log, label or title
        self.group = group
        """What stops the commands of this step, if it runs beside others."""
        self.started = time.monotonic()
        self.detail = ""
        self.summary = ""
        """What stands behind the time on the finished step's line, for example `from the cache`."""
        self._display = display

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def note(self, detail: str) -> None:
        """Say how far the step is, for example `212/640 packages`.

        Raises StoppedError if the step's group is stopped.
        """
        if self.group:
            self.group.refuse_if_stopped()
        self.detail = detail
        self._display.refresh(self)

    def line(self, text: str) -> None:
        """Print a line that stays, below the step; it also goes to the log."""
        self.write(text)
        self._display.print(f"        {text}")

    def write(self, text: str) -> None:
        """Write a line to the log alone."""
        with self.log.open("a") as log:
            log.write(text.rstrip("\n") + "\n")

    @contextmanager
    def part(self, title: str) -> Iterator[None]:
        """Yield a named part of the step: shown while it runs, and as a line with its time when it
        ends.
        """
        before, started = self.detail, time.monotonic()
        self.note(title)
        yield
        self.line(f"{title}: {seconds(time.monotonic() - started)}")
        self.note(before)

    def run(
        self,
        command: process.Command | Sequence[str | Path],
        *,
        progress: process.Progress | None = None,
        check: bool = True,
        hint: str = "",
    ) -> process.Completed:
        """Run a command as `process.run` does, with its output in the step's log and what
        `progress` returns as the step's note.

        Raises StepError with `hint` when the command cannot be started, or ends with another code
        than 0 unless `check` is false.
        """

        def show(line: str) -> None:
            if progress and (detail := progress(line)):
                self.note(detail)

        if not isinstance(command, process.Command):
            command = process.Command(command)
        program, *arguments = command.arguments
        name = Path(program).name
        try:
            done = process.run(command, log=self.log, progress=show, group=self.group)
        except OSError as error:
            raise StepError(f"{name} cannot be started: {error.strerror}", hint, show_log=False) from error
        if check and done.code:
            raise StepError(f"`{' '.join([name, *map(str, arguments[:2])])}` ended with code {done.code}", hint)
        return done


class Display:
    """Plain lines; `Live` is the same for terminals."""

    def __init__(self, stream: TextIO | None = None, heartbeat: float = HEARTBEAT) -> None:
        self.stream, self.heartbeat = stream or sys.stdout, heartbeat
        self._last = time.monotonic()
        self._stop = threading.Event()

    def print(self, text: str) -> None:
        self._last = time.monotonic()
        # One call: parts of a step print from threads.
        self.stream.write(f"{text}\n")
        self.stream.flush()

    def start(self, step: Step) -> None:
        self._last = time.monotonic()
        self._stop = threading.Event()
        threading.Thread(target=self._beat, args=(step, self._stop), daemon=True).start()

    def _beat(self, step: Step, stop: threading.Event) -> None:
        while not stop.wait(max(0.01, self._last + self.heartbeat - time.monotonic())):
            if time.monotonic() - self._last >= self.heartbeat:
                self.print(status(step))

    def refresh(self, step: Step) -> None:
        """Called when the step's note changed; plain lines wait for the next sign of life."""

    def finish(self, step: Step, failed: bool) -> None:
        self._stop.set()
        if not failed:
            self.print(f"{step.label} … {seconds(step.elapsed)}" + (f" ({step.summary})" if step.summary else ""))


class Silent(Display):
    """Shows nothing; for tests and for commands whose output is their result."""

    def __init__(self) -> None:
        super().__init__(heartbeat=1e9)

    def print(self, text: str) -> None:
        pass


class Live(Display):
    """One live line for the running step, with rich."""

    def __init__(self) -> None:
        super().__init__(heartbeat=0.25)
        from rich.console import Console

        self._console = Console(highlight=False, markup=False, emoji=False)
        self._status: Status | None = None

    def print(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    def start(self, step: Step) -> None:
        self._status = self._console.status(status(step))
        self._status.start()
        super().start(step)

    def _beat(self, step: Step, stop: threading.Event) -> None:
        while not stop.wait(self.heartbeat):
            self.refresh(step)

    def refresh(self, step: Step) -> None:
        if self._status:
            from rich.text import Text

            self._status.update(Text(status(step), no_wrap=True, overflow="ellipsis"))

    def finish(self, step: Step, failed: bool) -> None:
        self._stop.set()
        if self._status:
            self._status.stop()
            self._status = None
        super().finish(step, failed)


def status(step: Step) -> str:
    """Return the line of a running step: `[ 3/12] istio binaries … 41 s (212/640 packages)`."""
    return f"{step.label} … {seconds(step.elapsed)}" + (f" ({step.detail})" if step.detail else "")


def display() -> Display:
    """Return the display that fits standard output."""
    return Live() if sys.stdout.isatty() else Display()


class Steps:
    """The numbered steps of one command, such as `up` or `down`. Logs of an earlier run of the same
    command are removed.

    `retry_command` is what to run after a failure.
    """

    def __init__(self, command: str, total: int, show: Display | None = None, logs: Path | None = None, *, retry_command: str) -> None:
        self.total, self.done = total, 0
        self.retry_command = retry_command
        self.show = show or display()
        self.logs = logs or LOGS
        self._prefix = "" if command == "up" else f"{command}-"
        make_private(self.logs)
        for old in self.logs.glob(f"{self._prefix}[0-9][0-9]-*.log"):
            old.unlink()

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Run the body as the next step.

        When the body raises StepError or OSError, raises StepFailedError: the cause, the end of the
        log, its path, and what to do.
        """
        self.done += 1
        slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
        log = self.logs / f"{self._prefix}{self.done:02d}-{slug}.log"
        log.touch()
        step = Step(title, log, self.show, f"[{self.done:2d}/{self.total}] {title}")
        self.show.start(step)
        failed = True
        try:
            yield step
            failed = False
        except (StepError, OSError) as error:
            raise StepFailedError(self._explain(step, error)) from error
        finally:
            self.show.finish(step, failed)

    def _explain(self, step: Step, error: StepError | OSError) -> str:
        cause, hint, show_log = (error.cause, error.hint, error.show_log) if isinstance(error, StepError) else (str(error), "", True)
        text = [f"{step.label} failed after {seconds(step.elapsed)}: {cause}"]
        if show_log and (tail := step.log.read_text(errors="replace").splitlines()[-TAIL:]):
            text += [f"The end of {_short(step.log)}:", *(f"    {line}" for line in tail)]
        text += [f"The whole log: {_short(step.log)}"]
        what = f"{hint.rstrip('.')}; then" if hint else "when the cause is removed,"
        text += [f"What to do: {what} run {self.retry_command} again; what is done is kept."]
        return "\n".join(text)


def _short(file: Path) -> str:
    return str(file.relative_to(ROOT)) if file.is_relative_to(ROOT) else str(file)


def quiet(title: str, log: Path) -> Step:
    """Return a step without display, for tests and for commands that print a result only."""
    log.parent.mkdir(parents=True, exist_ok=True)
    return Step(title, log, Silent())
