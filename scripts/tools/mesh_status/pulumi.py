"""Calls of the Pulumi CLI on this checkout. The lab calls it by the same options and signals."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress

from components.config import reader
from components.config.problems import nearest
from tools import ROOT, interruption

QUIET = ("--non-interactive", "--color", "never")
# Pulumi ends in order after the first signal, when the running operations are over, and at once
# after the second.
STOP = (signal.SIGINT, signal.SIGINT)
STOP_GRACE = 4.0
"""Seconds between these signals."""
LAB_ENVIRONMENT = ROOT / ".lab" / "state" / "environment.json"
"""The variables of the lab in this checkout (null: unset), beside the state of its stacks;
`./scripts/lab up` writes it.
"""


_FIXES = {
    "PULUMI_ACCESS_TOKEN must be set": "run `pulumi login`, set PULUMI_BACKEND_URL, or bring the lab up first (./scripts/lab up)",
    "no stack named": "create it by `pulumi stack init`, or log in to the backend that has it; ./scripts/lab up creates those of the lab",
    "no stack selected": "give one with --stack",
}
"""What to do about what the CLI prints without a fix that fits, by a part of its text."""


class StackError(Exception):
    """The stack cannot be read; one sentence with cause and fix."""


def environment() -> dict[str, str]:
    """Return the environment for Pulumi and kubectl.

    It is this process's if that names a backend, else the lab's where there is one, else this
    process's.
    """
    variables = dict(os.environ)
    if variables.get("PULUMI_BACKEND_URL"):
        return variables
    with suppress(FileNotFoundError):
        for name, value in json.loads(LAB_ENVIRONMENT.read_text()).items():
            if value is None:
                variables.pop(name, None)
            elif name == "PATH":
                variables[name] = os.pathsep.join([value, os.environ.get("PATH", os.defpath)])
            else:
                variables[name] = value
    return variables


def call(variables: Mapping[str, str], *arguments: str) -> str:
    """Run the CLI and return its standard output. Raises StackError with what it printed."""
    command = ["pulumi", *arguments, *QUIET]
    try:
        done = run(command, variables)
    except FileNotFoundError:
        raise StackError("pulumi is not on PATH: install it, or bring the lab up first (./scripts/lab up)") from None
    if done.returncode:
        raise StackError(f"`pulumi {' '.join(arguments[:2])}` failed: {with_fix(_last_lines(done.stderr))}")
    return done.stdout


def update(variables: Mapping[str, str], *arguments: str) -> tuple[int, str]:
    """Run `pulumi up` and return its exit code and output.

    When this process is interrupted, Pulumi ends first.
    """
    command = ["pulumi", "up", "--yes", "--skip-preview", "--suppress-outputs", *arguments, *QUIET]
    done = run(command, variables, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout


def run(command: Sequence[str], variables: Mapping[str, str], *, stderr: int | None = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    """Run a command that has children of its own, and return what it printed.

    stderr: as of `subprocess.run`. When this process is interrupted, the command and its children end first.
    Raises FileNotFoundError.
    """
    process: subprocess.Popen[str] | None = None
    with ExitStack() as stack:
        try:
            with interruption.postponed():
                process = stack.enter_context(_start(command, variables, stderr))
            output, messages = process.communicate()
        except KeyboardInterrupt:
            if process:
                _end(process)
            raise
    return subprocess.CompletedProcess(command, process.returncode, output, messages)


def _start(command: Sequence[str], variables: Mapping[str, str], stderr: int | None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        env=dict(variables),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        errors="replace",
        start_new_session=True,  # the signals of `_end` reach it once, not from the terminal too
    )


def _end(process: subprocess.Popen[str]) -> None:
    for number in (*STOP, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=STOP_GRACE)
            return


def _last_lines(stderr: str) -> str:
    lines = [line.strip().removeprefix("error: ") for line in stderr.splitlines() if line.strip()]
    return " ".join(lines[-3:]) or "it gave no reason"


def with_fix(reason: str) -> str:
    """Return what the CLI printed, with what to do about it where that is known."""
    fix = next((fix for text, fix in _FIXES.items() if text in reason), "")
    return f"{reason}{_nearest_stack(reason)}: {fix}" if fix else reason


def _nearest_stack(reason: str) -> str:
    """Return a hint for a stack that the backend does not have, and that has no file here."""
    match, there = re.search("no stack named '(?:.*/)?(.+?)'", reason), reader.stacks()
    return nearest(match[1], there) if match and match[1] not in there else ""


def explanation(output: str) -> str:
    """Return why an update failed: its diagnostics if there are any, else its last lines; without
    the text of a failed command.
    """
    lines = re.sub(r'(exit(?:ed with)? status \d+): running "(?:[^"\\]|\\.)*":$', r"\1:", output, flags=re.MULTILINE).splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("Diagnostics:")]
    if not starts:
        return "\n".join(line for line in lines[-10:] if line.strip())
    ends = [
        number for number, line in enumerate(lines) if number > starts[-1] and re.match(r"(Outputs|Resources|Duration|Policies):|\S", line)
    ]
    return "\n".join(line for line in lines[starts[-1] + 1 : ends[0] if ends else None] if line.strip())
