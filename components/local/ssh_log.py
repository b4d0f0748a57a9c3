"""How far a script came, by what OpenSSH's client logged of each hop."""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence

from . import scripting

NOT_CONNECTED = 255
"""Exit status of ssh where it, and not the command, failed."""


class Reach(enum.Enum):
    """How far a script came.

    DONE, FAILED: the script ran; its status was 0, or another one.
    TIMED_OUT, CUT_OFF: it may have begun. CUT_OFF: the connection ended after the login.

    With the others it did not begin.

    DEAD: TCP to the machine was refused, timed out or had no route, from this computer or from the
        last jump host.
    UNRESOLVED: the machine's name or network does not resolve there.
    HOST_KEY: its host key is not the expected one.
    LOGIN_REFUSED: the key or the user was not accepted.
    NOT_BEGUN: the login succeeded, and the login shell ran something else.
    BASTION: a jump host was the cause.
    BROKEN: every other end of the connection.
    """

    DONE = "done"
    FAILED = "failed"
    TIMED_OUT = "timed out"
    CUT_OFF = "cut off"
    DEAD = "dead"
    UNRESOLVED = "unresolved"
    HOST_KEY = "host key"
    LOGIN_REFUSED = "login refused"
    NOT_BEGUN = "not begun"
    BASTION = "bastion"
    BROKEN = "broken"


# What OpenSSH's client logs (openssh-portable: sshconnect.c, sshconnect2.c, packet.c, channels.c).
_CONNECT = re.compile(r"connect to (?:host|address) \S+ port \S+: (?P<reason>.+)")
_OPEN_FAILED = re.compile(r"open failed: (?P<kind>[^:\r\n]+)(?:: (?P<reason>.+))?")
_HOST_KEY = re.compile(
    r"Host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED|"
    r"no matching host key type found|host key .* revoked|REVOKED HOST KEY"
)
CLOSED = re.compile(r"Connection (?:closed|reset) by")
LOGIN_REFUSED = re.compile(r"Permission denied \(.*\)|Too many authentication failures")
_UNREAD = re.compile(r'Load key ".*": .+')
_NO_NAME = re.compile(r"Could not resolve hostname .*")
_DEAD = re.compile(r"refused|timed out|No route to host|Host is (?:unreachable|down)")
_NO_HOME = re.compile(r"Could not chdir to home directory .*")  # sshd goes on in /
_AUTHENTICATED = "Authenticated to "
_OPENED = "open confirm"


def classify(machine: str, jumps: Sequence[tuple[str, str]], noise: str, done: scripting.Done) -> tuple[Reach, str]:
    """Return how far a script came that did not begin, and why.

    machine: what ssh logged of the machine.
    jumps: host and log of each jump host, in order.
    noise: standard error: of the jump hosts and proxies of ~/.ssh/config, and of the login shell.
    """
    for number, (host, log) in enumerate(jumps):
        last = number == len(jumps) - 1
        reach, reason = _hop_failure(log)
        if reach:
            return Reach.BASTION, f"jump host {host}: {reason}"
        if failed := _OPEN_FAILED.search(log):
            reach, reason = _forward_failure(failed)
            if reach is Reach.BASTION or not last:
                return Reach.BASTION, f"jump host {host}: {reason}"
            return reach, f"from jump host {host}: {reason}"
        waits = last and _AUTHENTICATED in log and _OPENED not in log
        if waits and ("timed out" in machine or done.status == scripting.TIMED_OUT):
            return Reach.DEAD, f"from jump host {host}: the connection timed out"
    if _AUTHENTICATED in machine:
        if done.status == scripting.TIMED_OUT:
            return Reach.TIMED_OUT, "the login shell did not end"
        if done.status == NOT_CONNECTED and _OPEN_FAILED.search(machine):
            return Reach.NOT_BEGUN, "sshd opens no session (MaxSessions)"
        if done.status == NOT_CONNECTED:
            # It may have run the script: what the script printed first can be lost.
            return Reach.CUT_OFF, last_words(machine)
        printed = done.stdout.decode(errors="replace")
        return Reach.NOT_BEGUN, scripting.last_words(_NO_HOME.sub("", noise)) or scripting.last_words(printed)
    reach, reason = _hop_failure(machine)
    if reach:
        return reach, reason
    if done.status == NOT_CONNECTED and not jumps:
        if failed := _OPEN_FAILED.search(noise):
            return _forward_failure(failed)
        reach, reason = _hop_failure(noise)
        if reach:
            return Reach.BASTION, reason
    if done.status == scripting.TIMED_OUT:
        return Reach.BROKEN, "timed out"
    if done.status != NOT_CONNECTED:
        return Reach.NOT_BEGUN, scripting.last_words(noise)
    for host, log in jumps:
        if _AUTHENTICATED not in log and last_words(log):
            return Reach.BASTION, f"jump host {host}: {last_words(log)}"
    return Reach.BROKEN, last_words(machine) or scripting.last_words(noise) or "no message"


def _hop_failure(log: str) -> tuple[Reach | None, str]:
    """Return why the connection to one server failed, by its log."""
    if match := _CONNECT.search(log):
        reason = match["reason"].strip()
        return (Reach.DEAD if _DEAD.search(reason) else Reach.UNRESOLVED), reason
    if match := _NO_NAME.search(log):
        return Reach.UNRESOLVED, match[0].strip()
    if match := _HOST_KEY.search(log):
        return Reach.HOST_KEY, match[0]
    if _AUTHENTICATED not in log and (match := LOGIN_REFUSED.search(log)):
        unread = [each[0].strip() for each in _UNREAD.finditer(log)]
        return Reach.LOGIN_REFUSED, "; ".join([*unread, match[0].strip()])
    return None, ""


def _forward_failure(failed: re.Match[str]) -> tuple[Reach, str]:
    """Return why a jump host did not connect to the next server."""
    kind, reason = failed["kind"].strip(), (failed["reason"] or "").strip()
    if kind != "connect failed":
        return Reach.BASTION, f"it refused to forward: {kind}"
    return (Reach.DEAD if _DEAD.search(reason) else Reach.UNRESOLVED), reason


def last_words(log: str) -> str:
    """Return the last line of a log that has a cause."""
    skip = ("debug", "Transferred", "Bytes per", "Authenticated")
    return scripting.last_words("\n".join(line for line in log.splitlines() if not line.startswith(skip)))
