"""Child processes: output to a log file line by line, a process group of their own, and an end when the lab is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

Progress = Callable[[str], str | None]
"""Takes one line of output and returns what to show as the step's progress, or None to leave that as it is."""


@dataclass(frozen=True)
class Completed:
    """What a finished command left: its exit code, and its output (standard error included unless kept apart)."""

    code: int
    output: str


def run(
    command: Sequence[str | Path],
    *,
    log: Path | None = None,
    progress: Progress | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    capture: bool = False,
    stop: Sequence[signal.Signals] = (signal.SIGTERM,),
    grace: float = 3.0,
) -> Completed:
    """Run a command to its end and return its exit code and output; a non-zero code is no error here.

    The output goes to `log` (appended) and, line by line, to `progress`. With `capture`, standard error goes to the log alone and
    `output` is standard output alone. When this process is interrupted, the command's process group gets the signals `stop`,
    `grace` seconds apart, and then SIGKILL. The call returns when the output is closed, so a command that leaves a daemon behind must
    redirect the daemon's output. Raises OSError when the command cannot be started.
    """
    arguments = [str(part) for part in command]
    with open(log or os.devnull, "ab") as record:
        record.write(f"$ {' '.join(arguments)}\n".encode())
        record.flush()
        process = subprocess.Popen(
            arguments,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=record if capture else subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            if stdin is not None and process.stdin:
                _feed(process.stdin, stdin)
            lines: list[str] = []
            for raw in process.stdout or ():
                record.write(raw)
                record.flush()
                lines.append(raw.decode(errors="replace"))
                if progress:
                    progress(lines[-1].rstrip())
            return Completed(process.wait(), "".join(lines))
        finally:
            if process.poll() is None:
                end(process, stop, grace)


def _feed(pipe: IO[bytes], data: bytes) -> None:
    """Write all of a command's input; the commands used here read it before they write more than a pipe holds."""
    try:
        pipe.write(data)
        pipe.close()
    except BrokenPipeError:
        pass  # the command ended without reading; its exit code says why


def end(process: subprocess.Popen[bytes], stop: Sequence[signal.Signals] = (signal.SIGTERM,), grace: float = 3.0) -> None:
    """End a process and its group: the signals `stop`, `grace` seconds apart, then SIGKILL."""
    for number in (*stop, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            continue
        if number == signal.SIGKILL or not _group_lives(process.pid, grace):
            break
    process.wait()


def _group_lives(group: int, seconds: float) -> bool:
    """Whether anything of a process group is still there after waiting for it to go."""
    until = time.monotonic() + seconds
    while True:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        if time.monotonic() > until:
            return True
        time.sleep(0.05)
