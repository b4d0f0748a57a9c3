"""Child processes: output to a log file line by line, a process group of their own, and an end
when this process is interrupted.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tools import interruption

Progress = Callable[[str], str | None]
"""Takes one line of output and returns what to show as the step's progress, or None to leave
that as it is.
"""


@dataclass(frozen=True)
class Command:
    """A command, and how it is run.

    - `arguments`: the program and its arguments
    - `cwd`, `env`: this process's where they are None
    - `stdin`: its input, empty by default
    - `capture`: standard output is a result: it is not logged, and standard error goes to the log
      alone
    - `stop`, `grace`: the signals for its process group when this process is interrupted, `grace`
      seconds
      apart; then comes SIGKILL
    """

    arguments: Sequence[str | Path]
    cwd: Path | None = None
    env: Mapping[str, str] | None = None
    stdin: bytes | None = None
    capture: bool = False
    stop: Sequence[signal.Signals] = (signal.SIGTERM,)
    grace: float = 3.0


@dataclass(frozen=True)
class Completed:
    """What a finished command left: its exit code, and its output (standard error included
    unless kept apart).
    """

    code: int
    output: str


class StoppedError(Exception):
    """Commands of a group that is stopped are not run."""


class Group:
    """Commands that run in several threads, and that one thread can stop together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[int, Command] = {}
        self.stopped = False

    def refuse_if_stopped(self) -> None:
        """Raise StoppedError once the group is stopped."""
        if self.stopped:
            raise StoppedError

    @contextmanager
    def member(self, pid: int, command: Command) -> Iterator[None]:
        """Count a process to the group during the block. Raises StoppedError."""
        with self._lock:
            self.refuse_if_stopped()
            self._running[pid] = command
        try:
            yield
        finally:
            with self._lock:
                del self._running[pid]

    def stop(self) -> None:
        """End the commands that run, and let none start from now on."""
        with self._lock:
            self.stopped = True
            running = dict(self._running)
        with contextlib.ExitStack() as stack:
            for pid, command in running.items():
                stack.callback(end, pid, command.stop, command.grace)


def accept_sigint() -> None:
    """End this process on SIGINT, and every program that it starts from now on.

    What a shell starts in its background ignores SIGINT, and so do the children of it. A child must
    not undo that itself: Python code between fork and exec runs beside threads that hold locks.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


def run(command: Command, *, log: Path | None = None, progress: Progress | None = None, group: Group | None = None) -> Completed:
    """Run a command to its end and return its exit code and output; a non-zero code is no error
    here.

    The output goes to `log` (appended) and, line by line, to `progress`. The call returns when the
    output is closed, so a command that leaves a daemon behind must redirect the daemon's output.
    Raises OSError when the command cannot be started, and StoppedError if its group is stopped.
    """
    arguments = [str(part) for part in command.arguments]
    with open(log or os.devnull, "ab") as record:
        record.write(f"$ {' '.join(arguments)}\n".encode())
        record.flush()
        process: subprocess.Popen[bytes] | None = None
        try:
            with interruption.postponed():
                process = subprocess.Popen(
                    arguments,
                    cwd=command.cwd,
                    env=command.env,
                    stdin=subprocess.DEVNULL if command.stdin is None else subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=record if command.capture else subprocess.STDOUT,
                    start_new_session=True,
                )
            with group.member(process.pid, command) if group else contextlib.nullcontext():
                if command.stdin is not None and process.stdin:
                    _feed(process.stdin, command.stdin)
                lines: list[str] = []
                for raw in process.stdout or ():
                    if not command.capture:
                        record.write(raw)
                        record.flush()
                    lines.append(raw.decode(errors="replace"))
                    if progress:
                        progress(lines[-1].rstrip())
                return Completed(process.wait(), "".join(lines))
        finally:
            if process:
                with process:
                    if process.poll() is None:
                        end(process.pid, command.stop, command.grace, process.poll)


def _feed(pipe: IO[bytes], data: bytes) -> None:
    """Write all of a command's input; the commands used here read it before they write more than
    a pipe holds.
    """
    try:
        pipe.write(data)
        pipe.close()
    except BrokenPipeError:
        pass  # the command ended without reading; its exit code shows why


def end(
    group: int,
    stop: Sequence[signal.Signals] = (signal.SIGTERM,),
    grace: float = 3.0,
    reap: Callable[[], object] = lambda: None,
) -> None:
    """End a process group: the signals `stop`, `grace` seconds apart, then SIGKILL. `reap` collects
    its leader, if that is our child.

    A second interruption while this waits leads to SIGKILL at once.
    """
    try:
        for number in stop:
            if _gone(group, number, grace, reap):
                return
    finally:
        _gone(group, signal.SIGKILL, grace, reap)


def _gone(group: int, number: signal.Signals, seconds: float, reap: Callable[[], object]) -> bool:
    """Signal a process group; whether nothing of it runs any more within so many seconds."""
    until = time.monotonic() + seconds
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return True
    while _runs(group):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
        reap()
    return True


def kill(pids: Sequence[int], seconds: float = 5.0) -> None:
    """Kill processes of any parent, and wait until they have ended.

    Waits `seconds` at most, because a process may be stuck in the kernel.
    """
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + seconds
    while any(_group(Path(f"/proc/{pid}/stat")) is not None for pid in pids) and time.monotonic() < until:
        time.sleep(0.02)


def _runs(group: int) -> bool:
    """Whether a process of the group runs."""
    return any(_group(stat) == group for stat in Path("/proc").glob("[0-9]*/stat"))


def _group(stat: Path) -> int | None:
    """Return the group of a process that runs; None for one that is gone, or a zombie, as in
    containers without an init.
    """
    try:
        state, _, group, *_ = stat.read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None  # gone meanwhile
    return int(group) if state not in "ZX" else None
