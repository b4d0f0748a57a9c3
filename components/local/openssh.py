"""Runs scripts on machines by the OpenSSH client of the computer that runs Pulumi.

One connection carries one script: `bash -s` reads it from standard input, so no login shell has to
parse more than two words. The first line of the script prints `MARK`: output without it shows that
the login shell ran something else, or nothing. Keys are in private files while ssh runs.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep

from . import scripting

MARK = "istio-vm-mesh: the script begins"
COMMAND = "bash -s"
"""What a login shell is given; every login shell reads it alike."""
CONNECT_TIMEOUT_S = 10
PAUSE_S = 2.0
"""Seconds between two attempts to connect."""
NOT_CONNECTED = 255
"""Exit status of ssh where it, and not the command, failed."""

# Another attempt does not change a host's key.
_WRONG_HOST_KEY = ("Host key verification failed", "REMOTE HOST IDENTIFICATION HAS CHANGED")


@dataclass(frozen=True)
class Hop:
    """One SSH server, and how to log in there.

    host: address or DNS name.
    port: TCP port.
    user: login name.
    private_key: the key's text, in a format of OpenSSH.
    host_key: type and key in base64, as in a known_hosts file; None accepts any key.
    """

    host: str
    port: int
    user: str
    private_key: str = field(repr=False)
    host_key: str | None = None


@dataclass(frozen=True)
class Target:
    """A machine that is reached by SSH.

    machine: its name in the stack, for messages.
    hop: its SSH server.
    bastion: the server that the connection passes through, or None.
    """

    machine: str
    hop: Hop = field(metadata={"record": Hop})
    bastion: Hop | None = field(default=None, metadata={"record": Hop})


@dataclass(frozen=True)
class Outcome:
    """How a script on a machine ended.

    status: exit status of ssh, which is the script's; `NOT_CONNECTED` and `scripting.TIMED_OUT` are
        not.
    began: whether its first line ran.
    stdout: what it printed, without what a login shell printed before it.
    stderr: what it, a login shell and ssh printed.
    """

    status: int
    began: bool
    stdout: str
    stderr: str


def run_script(target: Target, script: str, timeout_s: float, patience_s: float = 0) -> Outcome:
    """Run a script on a machine, once its SSH server accepts the login.

    timeout_s: seconds that one connection may last.
    patience_s: seconds in which a connection that fails is tried again, and only while the script
        has not begun: one that is refused, times out, or whose key is not authorised yet.

    Raises scripting.Failed where ssh is not on PATH.
    """
    with scripting.private_directory() as directory:
        config = configuration(target, directory)
        words = ["ssh", "-F", str(config), "machine", COMMAND]
        # A new line first: what a login shell prints may end without one.
        text = f"printf '\\n%s\\n' '{MARK}'\n{script}".encode()
        end = monotonic() + patience_s
        while True:
            outcome = _outcome(scripting.call(words, stdin=text, timeout_s=timeout_s))
            refused = outcome.status == NOT_CONNECTED and not outcome.began
            final = host_key_differs(outcome)
            if not refused or final or monotonic() + PAUSE_S > end:
                return outcome
            sleep(PAUSE_S)


def describe(target: Target) -> str:
    """Return USER@HOST, with the port where it is not 22, and the bastion."""
    hop, bastion = target.hop, target.bastion
    port = "" if hop.port == 22 else f" port {hop.port}"
    return f"{hop.user}@{hop.host}{port}" + (f" through {bastion.host}" if bastion else "")


def host_key_differs(outcome: Outcome) -> bool:
    """Return whether ssh refused a hop, because its host key is not the pinned one."""
    return any(message in outcome.stderr for message in _WRONG_HOST_KEY)


def _outcome(done: scripting.Done) -> Outcome:
    lines = done.stdout.decode(errors="replace").splitlines()
    began = MARK in lines
    output = lines[lines.index(MARK) + 1 :] if began else []
    return Outcome(done.status, began, "\n".join(output), done.error)


def configuration(target: Target, directory: Path) -> Path:
    """Write ssh's configuration, keys and known hosts; return the configuration's path.

    `-F` with this file excludes the user's and the system's configuration.
    """
    config = directory / "config"
    lines = [*_hop("machine", target.hop, directory)]
    if target.bastion:
        # The user's shell runs this: quoted, because [ is special in some.
        jump = f"ssh -F {shlex.quote(str(config))} -W '[%h]:%p' bastion"
        lines += [f"  ProxyCommand {jump}", *_hop("bastion", target.bastion, directory)]
    scripting.write_private(config, "\n".join(lines) + "\n")
    return config


def _hop(alias: str, hop: Hop, directory: Path) -> list[str]:
    key, hosts = directory / f"{alias}.key", directory / f"{alias}.known_hosts"
    scripting.write_private(key, hop.private_key.rstrip("\n") + "\n")
    # A HostKeyAlias is looked up without the port.
    scripting.write_private(hosts, f"{alias} {hop.host_key}\n" if hop.host_key else "")
    options = {
        "HostName": _word(hop.host),
        "Port": str(hop.port),
        "User": _word(hop.user),
        "IdentityFile": f'"{key}"',
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "PreferredAuthentications": "publickey",
        "BatchMode": "yes",
        "HostKeyAlias": alias,
        "UserKnownHostsFile": f'"{hosts}"',
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes" if hop.host_key else "no",
        "CheckHostIP": "no",
        "UpdateHostKeys": "no",
        "ConnectTimeout": str(CONNECT_TIMEOUT_S),
        "ServerAliveInterval": "15",
        "ClearAllForwardings": "no" if alias == "bastion" else "yes",
        "RequestTTY": "no",
        "LogLevel": "ERROR",
    }
    return [f"Host {alias}", *(f"  {name} {value}" for name, value in options.items())]


def _word(text: str) -> str:
    """Return a word of ssh's configuration. Raises scripting.Failed where it has none."""
    if not text or '"' in text or not text.isprintable():
        raise scripting.Failed(f"{text!r} is neither a host nor a user that ssh could be given")
    return f'"{text}"'
