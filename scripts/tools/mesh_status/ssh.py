"""Runs one script on a machine over SSH, by the connection that the stack's state holds."""

from __future__ import annotations

import time
from dataclasses import dataclass

from components.local import openssh, scripting
from components.local.ssh_log import Reach

TIMEOUT_S = 60
"""Seconds for the connection and the script together.

A machine that is dead is reported once `openssh.CONNECT_TIMEOUT_S` are over. One that is slow, or
busy, lives: the script took more than 20 s on an emulated processor that others used as well.
"""


class SshError(Exception):
    """The machine cannot be reached, or the connection broke; one sentence with the reason."""


@dataclass(frozen=True)
class Result:
    """A script that ended.

    started, ended: when the connection was begun and when it was over, in seconds since the epoch
        by this computer's clock. The script ran between the two.
    code: the script's exit status.
    output, error: what it printed.
    """

    started: float
    ended: float
    code: int
    output: str
    error: str


def run(target: openssh.Target, script: str) -> Result:
    """Run a script on a machine to its end, over one connection. Raises SshError."""
    started = time.time()
    try:
        outcome = openssh.run_script(target, script, TIMEOUT_S)
    except scripting.Failed as error:
        raise SshError(f"cannot be reached: {error}") from error
    if outcome.reach is Reach.NOT_BEGUN and not outcome.status:
        raise SshError("can be reached by SSH, and its login shell does not run bash: look into the shell's start-up files")
    if not outcome.began:
        cause = openssh.explain(target, outcome, "script")
        raise SshError(f"cannot be reached: {cause}")
    if outcome.reach in (Reach.CUT_OFF, Reach.TIMED_OUT):
        reason = outcome.reason or "timed out"
        raise SshError(f"can be reached by SSH and does not answer: {reason}")
    return Result(started, time.time(), outcome.status, outcome.stdout, outcome.stderr)
