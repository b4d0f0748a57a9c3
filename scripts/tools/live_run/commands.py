"""Commands of rows: shown while they run, and ended in order when the run is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from tools import ROOT, interruption

GRACE_S = 1800.0
"""Seconds that a command has after the first interruption: Pulumi waits for Google's operations."""


@dataclass(frozen=True)
class Done:
    """How a command ended. status: its exit code. output: both of its streams."""

    status: int
    output: str


def run(command: str, variables: Mapping[str, str], show: Callable[[str], None]) -> Done:
    """Run a command of bash in the checkout, and return how it ended.

    show: gets each line that it prints.
    Raises KeyboardInterrupt once the command has ended, if this process was interrupted.
    """
    lines: list[str] = []
    process: subprocess.Popen[str] | None = None
    with ExitStack() as stack:
        try:
            with interruption.postponed():
                process = stack.enter_context(_start(command, variables))
            for line in process.stdout or ():
                lines.append(line)
                show(line.rstrip("\n"))
        except KeyboardInterrupt:
            if process:
                _end(process)
            raise
    return Done(process.returncode, "".join(lines))


def _start(command: str, variables: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["bash", "-e", "-o", "pipefail", "-c", command],
        env=dict(variables),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # a signal of the terminal reaches this process alone
    )


def _end(process: subprocess.Popen[str]) -> None:
    """Interrupt a command, and kill it only where it does not end, or at a second interruption."""
    for number, grace_s in ((signal.SIGINT, GRACE_S), (signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            process.communicate(timeout=grace_s)
            return
