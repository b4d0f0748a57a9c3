"""Runs one script on a machine over SSH, with the login that the stack's state holds."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from components.local import openssh, scripting

TIMEOUT_S = 2 * openssh.CONNECT_TIMEOUT_S
"""Seconds for the connection and the script together."""

# What OpenSSH's client prints when a connection fails, and what status shows instead. The first that fits counts.
_REASONS = {
    "Host key verification failed": "host key mismatch: the server's key is not the one in `hostKey`",
    "Permission denied": "the server does not accept the login (wrong user, or its key is not installed there)",
    "forwarding failed": "its bastion cannot connect to it",
    "timed out": "timed out",
    "onnection closed": "the server closed the connection",
}
_NO_CONNECTION = re.compile(r"(?:connect to host|resolve hostname) (?P<host>\S+?):?(?: port \d+:)? (?P<reason>.+)")
_NO_LOGIN = re.compile(r"\S+@(?P<host>\S+): Permission denied")


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
    """Connect, run a script to its end, disconnect. Raises SshError."""
    started = time.time()
    try:
        outcome = openssh.run_script(target, script, TIMEOUT_S)
    except scripting.Failed as error:
        raise SshError(f"cannot be reached: {error}") from error
    broke = outcome.status in (openssh.NOT_CONNECTED, scripting.TIMED_OUT)
    if broke and outcome.began:
        raise SshError(f"can be reached by SSH and does not answer: {_reason(outcome)}")
    if broke:
        host = _failed_host(target, outcome.stderr)
        tunnel = "; does ./scripts/tunnels run this command?" if host == "127.0.0.1" else ""
        raise SshError(f"cannot be reached by SSH at {host}: {_reason(outcome)}{tunnel}")
    if not outcome.began and not outcome.status:
        raise SshError("can be reached by SSH, and its login shell does not run bash: look into the shell's start-up files")
    return Result(started, time.time(), outcome.status, outcome.stdout, outcome.stderr)


def _failed_host(target: openssh.Target, stderr: str) -> str:
    """Return the host that a connection failed at: the machine's, or its bastion's."""
    if match := _NO_CONNECTION.search(stderr) or _NO_LOGIN.search(stderr):
        return match["host"]
    if target.bastion and "Host key for bastion" in stderr:
        return target.bastion.host
    return target.hop.host


def _reason(outcome: openssh.Outcome) -> str:
    """Return in a few words why a connection failed."""
    if outcome.status == scripting.TIMED_OUT:
        return "timed out"
    if match := _NO_CONNECTION.search(outcome.stderr):
        return match["reason"].strip().lower()
    reasons = (reason for words, reason in _REASONS.items() if words in outcome.stderr)
    return next(reasons, "") or scripting.last_words(outcome.stderr) or "the connection broke"
