"""Runs a script on a machine over SSH: the proof.

A command that did nothing must not count as done. So the output must show that the script began,
and where its last line is given, that it completed.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from .. import shell
from . import openssh, scripting
from .ssh_log import Reach

TIMEOUT_S = 660
"""Seconds that one connection may last, where nothing else is said."""


@dataclass(frozen=True)
class Payload:
    """What is run where.

    target: the machine.
    script: the script's text, for `bash -s`.
    purpose: what the script does, for messages.
    body: a script of this package that follows it, `<package>/<script>`, as root and with the
        functions of lib.sh; "" for none. Its text is in no input.
    timeout_s: seconds that one connection may last.
    patience_s: seconds in which a connection that fails is tried again.
    last_line: what its output must end with; None accepts any end.
    """

    target: openssh.Target = field(metadata={"record": openssh.Target})
    script: str = field(repr=False)
    purpose: str = "proof"
    timeout_s: int = TIMEOUT_S
    patience_s: int = 0
    last_line: str | None = None
    body: str = ""


@dataclass(frozen=True)
class Result:
    """What the script printed."""

    stdout: str


def run(payload: Payload) -> Result:
    """Run the script. Raises scripting.Failed where it did not run, or not to its end."""
    limits = (payload.timeout_s, payload.patience_s)
    outcome = openssh.run_script(payload.target, text(payload.script, payload.body), *limits)
    if outcome.reach is Reach.FAILED and outcome.stderr:
        raise scripting.Failed(outcome.stderr)  # the script's own message has the cause
    problem = _problem(payload, outcome)
    if problem:
        sentences = [outcome.stderr, f"machine {payload.target.machine}: {problem}"]
        raise scripting.Failed("\n".join(filter(None, sentences)))
    if outcome.stderr:
        print(outcome.stderr, file=sys.stderr)
    return Result(outcome.stdout.strip())


def text(script: str, body: str) -> str:
    """Return all that runs on the machine (see `Payload`)."""
    if not body:
        return script
    functions = shell.read_script("machines/lib")
    return shell.run_as_root(script + functions + shell.read_script(body))


def _problem(payload: Payload, outcome: openssh.Outcome) -> str:
    """Return what is wrong with a script's end; "" where nothing is."""
    purpose, place = payload.purpose, openssh.describe(payload.target)
    if not outcome.began:
        cause = openssh.explain(payload.target, outcome, purpose)
        return f"{cause}; the {purpose} did not run"
    if outcome.reach is Reach.TIMED_OUT:
        return f"the {purpose} over SSH at {place} did not end within {payload.timeout_s} s"
    if outcome.reach is Reach.CUT_OFF:
        return f"the SSH connection to {place} ended before the {purpose} did: {outcome.reason}"
    if outcome.reach is Reach.FAILED:
        return f"the {purpose} at {place} ended with status {outcome.status} without output"
    lines = outcome.stdout.strip().splitlines()
    if payload.last_line is not None and (not lines or lines[-1] != payload.last_line):
        return f"the {purpose} at {place} ended before its last step"
    return ""
