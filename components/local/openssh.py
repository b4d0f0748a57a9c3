"""Runs scripts on machines by the OpenSSH client of the user who runs Pulumi.

One connection carries one script: `bash -s` reads it from standard input, so no login shell has to
parse more than two words. The first line of the script prints `MARK`: output without it shows that
the login shell ran something else, or nothing.

Options on the command line set what the stack file states: user, port, pinned host keys, jump
hosts, a key file. All else is the operator's: ~/.ssh/config, known_hosts, agents, certificates.
Each hop logs to a file of its own, from which `Outcome.reach` follows.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep

from ..names import SSH_PORT
from . import conversation, private_files, scripting
from .conversation import Answer
from .ssh_log import CLOSED, LOGIN_REFUSED, NOT_CONNECTED, Reach, classify, last_words

MARK = "istio-vm-mesh: the script begins"
MACHINE = "machine"
"""Name of the last hop's files."""
COMMAND = "bash -s"
"""What a login shell is given; every login shell reads it alike."""
KEY_VARIABLE = "ISTIO_VM_MESH_SSH_KEY"
"""Environment variable with the text of a private key, for runners in CI."""
PROXY_START_S = 20
"""Seconds that a proxy command may take until it connects: gcloud takes one, and ten where many start."""
CONNECT_TIMEOUT_S = 10
PAUSE_S = 2.0
"""Seconds between two attempts to connect."""
QUIET_S = 60.0
"""Seconds for which a new machine may refuse connections without a message."""


@dataclass(frozen=True)
class Hop:
    """One SSH server, and how to log in there.

    host: address, DNS name, or `Host` of ~/.ssh/config.
    port, user: None: as ~/.ssh/config has them, else ssh's defaults.
    host_key: type and key in base64, as in a known_hosts file; None: known_hosts decides.
    accept_any_host_key: whether the host key goes unchecked, where `host_key` is None.
    identity_file: path of a private key, or the reference of one (`private_files`); None, or a
        reference without a link: as ~/.ssh/config and agents have it.
    """

    host: str
    port: int | None = None
    user: str | None = None
    host_key: str | None = None
    accept_any_host_key: bool = False
    identity_file: str | None = None


@dataclass(frozen=True)
class Iap:
    """Where Identity-Aware Proxy finds an instance of Google Cloud: its project and its zone."""

    project: str
    zone: str


@dataclass(frozen=True)
class Target:
    """A machine that is reached by SSH.

    machine: its name in the stack, for messages.
    hop: its SSH server.
    jumps: the servers that the connection passes through, in order.
    iap: by what the first hop, an instance of its host's name, is reached; None: TCP.
    """

    machine: str
    hop: Hop = field(metadata={"record": Hop})
    jumps: tuple[Hop, ...] = field(default=(), metadata={"record": Hop})
    iap: Iap | None = field(default=None, metadata={"record": Iap})

    @property
    def proxy_command(self) -> str | None:
        """The ProxyCommand by which the first hop is reached, where it is not by TCP.

        It needs gcloud, and the role IAP-secured Tunnel User.
        """
        if self.iap is None:
            return None
        first, *_ = (*self.jumps, self.hop)
        words = ["gcloud", "compute", "start-iap-tunnel", first.host, str(SSH_PORT), "--listen-on-stdin"]
        words += ["--project", self.iap.project, "--zone", self.iap.zone, "--verbosity", "warning"]
        # ssh replaces %% before a shell runs this.
        return shlex.join(words).replace("%", "%%")


@dataclass(frozen=True)
class Outcome:
    """How a script on a machine ended.

    reach: how far it came.
    status: exit status of ssh, which is the script's where `reach` is DONE or FAILED.
    stdout, stderr: what it printed, without what a login shell printed before it.
    reason: why the connection or the login failed, in ssh's words; "" where they did not.
    """

    reach: Reach
    status: int
    stdout: str = ""
    stderr: str = ""
    reason: str = ""

    @property
    def began(self) -> bool:
        """Whether the script began, or may have begun."""
        return self.reach in (Reach.DONE, Reach.FAILED, Reach.TIMED_OUT, Reach.CUT_OFF)


def run_script(
    target: Target,
    script: str | Callable[[], str],
    timeout_s: float,
    patience_s: float = 0,
    answer: Answer | None = None,
    new_connection: bool = False,
) -> Outcome:
    """Run a script on a machine, once its SSH server accepts the login.

    script: for `bash -s`, which reads it byte by byte from the stream that the answers follow in.
        With `answer` it must end by `exit`, because its standard input stays open. A function
        returns it, at each attempt, while ssh connects.
    timeout_s: seconds that one connection may last; the time that `script` and `answer` take does
        not count.
    patience_s: seconds in which a connection that fails is tried again, and only while the script
        has not begun.
    answer: answers a question (`conversation`). Without it the script's standard input ends after
        the script.
    new_connection: whether it must be a TCP connection to the machine of its own, where
        ~/.ssh/config shares those that are open already (ControlPath).

    Raises scripting.Failed where ssh is not on PATH, or a key is missing.
    """
    start = monotonic()
    reported: set[str] = set()
    while True:
        with scripting.private_directory() as directory:
            connection = _Connection(target, directory, new_connection)
            outcome = connection.run(script, timeout_s, answer)
        passed_s = monotonic() - start
        if not _may_succeed_later(target, outcome) or passed_s + PAUSE_S > patience_s:
            return outcome
        if target.proxy_command and passed_s > QUIET_S and outcome.reason not in reported:
            # Not each attempt: a refusal lasts, and is worth an interruption.
            reported.add(outcome.reason)
            until = f"it is tried for {patience_s - passed_s:.0f} s more"
            print(f"machine {target.machine}: {explain(target, outcome, '')}; {until}", file=sys.stderr, flush=True)
        sleep(PAUSE_S)


def _may_succeed_later(target: Target, outcome: Outcome) -> bool:
    """Return whether another attempt may succeed.

    A login that a person's key did not get is not repeated: servers ban addresses for it. A key
    that the stack generated may be authorised a little later.
    """
    if outcome.reach is Reach.LOGIN_REFUSED:
        return private_files.is_generated(target.hop.identity_file)
    return outcome.reach in (Reach.DEAD, Reach.UNRESOLVED, Reach.BASTION, Reach.BROKEN)


def describe(target: Target) -> str:
    """Return USER@HOST, with the port where it is not SSH's default, and the jump hosts."""
    hop = target.hop
    user = f"{hop.user}@" if hop.user else ""
    port = "" if hop.port in (None, SSH_PORT) else f" port {hop.port}"
    jumps = ", ".join(jump.host for jump in target.jumps)
    return f"{user}{hop.host}{port}" + (f" through {jumps}" if jumps else "")


def explain(target: Target, outcome: Outcome, purpose: str) -> str:
    """Return a clause with the cause, and the fix where there is one, of a script that did not begin.

    purpose: what the script does: "join", "proof".
    """
    place, reason = describe(target), outcome.reason
    if outcome.reach is Reach.HOST_KEY and target.hop.host_key:
        return f"host key mismatch: {place} does not have the pinned key (hostKey): {reason}"
    if outcome.reach is Reach.HOST_KEY:
        fix = "log in once by ssh, or set hostKey"
        return f"the host key of {place} is not in known_hosts, or is another one: {reason} ({fix})"
    if outcome.reach is Reach.LOGIN_REFUSED:
        return f"{place} refused the login: {reason} ({_login_fix(target.hop)})"
    if outcome.reach is Reach.NOT_BEGUN:
        fix = "look into its start-up files, at a ForceCommand of its sshd, and whether bash is on its PATH"
        shell = f"the login shell of {place} did not run the {purpose}"
        printed = f": {reason}" if reason else ""
        return f"{shell} and ended with status {outcome.status} ({fix}){printed}"
    if target.proxy_command:
        return f"SSH did not reach {place}: {reason} (see what `{target.proxy_command}` prints)"
    refusing = [jump for jump in target.jumps if reason.startswith(f"jump host {jump.host}: ")]
    fix = f" ({_login_fix(refusing[0])})" if refusing and LOGIN_REFUSED.search(reason) else ""
    if CLOSED.search(reason):
        fix = " (sshd closes new connections beyond its MaxStartups, and those of addresses that it bans)"
    return f"SSH did not reach {place}: {reason}{fix}"


def _login_fix(hop: Hop) -> str:
    """Return what helps where a hop refused the login, with the key that it was given, if any."""
    if private_files.is_generated(hop.identity_file):
        # Stacks of one name, with states in two places, share the file.
        return "run `pulumi preview`, which writes the key of this stack to its file"
    fix = "a key with a passphrase must be in an agent"
    is_from_variable = os.environ.get(KEY_VARIABLE)
    key = f"that of {KEY_VARIABLE}" if is_from_variable else identity_path(hop.identity_file)
    return f"the key is {key}; {fix}" if key else fix


_OPTIONS = {
    # Options that an old client does not have; first, as it counts for those that follow.
    "IgnoreUnknown": "KnownHostsCommand,SessionType,StdinNull,ForkAfterAuthentication",
    "BatchMode": "yes",
    "ServerAliveInterval": "15",
    "ControlMaster": "no",
    "UpdateHostKeys": "no",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "PermitLocalCommand": "no",
    "RequestTTY": "no",
    "StdinNull": "no",
    "ForkAfterAuthentication": "no",
}
# `-W` sets the others. What became of the forwarding is logged at this level.
_JUMP = {"LogLevel": "DEBUG2"}
_SESSION = {
    "LogLevel": "VERBOSE",
    "ClearAllForwardings": "yes",
    "RemoteCommand": "none",
    "SessionType": "default",
}


class _Connection:
    """One attempt: ssh's words, its private files, and what its hops logged."""

    def __init__(self, target: Target, directory: Path, is_new: bool = False) -> None:
        self._target, self._directory, self._is_new = target, directory, is_new
        self._key: Path | None = None
        if text := os.environ.get(KEY_VARIABLE):
            self._key = directory / "key"
            scripting.write_private(self._key, text.replace("\r\n", "\n").rstrip("\n") + "\n")

    def run(self, script: str | Callable[[], str], timeout_s: float, answer: Answer | None) -> Outcome:
        # A new line first: what a login shell prints may end without one.
        mark = f"printf '\\n%s\\n' '{MARK}'\n"
        begin = f"{mark}{mark.rstrip()} >&2\n"
        text = begin + script if isinstance(script, str) else lambda: begin + script()
        done = conversation.converse(self.words(), text, timeout_s, answer)
        return self._outcome(done)

    def words(self) -> list[str]:
        """Return the command line. It holds no secret."""
        target, proxy = self._target, self._target.proxy_command
        for number, jump in enumerate(target.jumps):
            words = [*self._hop(f"jump-{number}", jump, proxy, number), "--", jump.host]
            # ssh replaces %h, %p and %% before a shell runs this.
            proxy = f"ssh -W '[%h]:%p' {shlex.join(words).replace('%', '%%')}"
        hop = self._hop(MACHINE, target.hop, proxy, len(target.jumps))
        return ["ssh", *hop, "--", target.hop.host, COMMAND]

    def _hop(self, name: str, hop: Hop, proxy: str | None, before: int) -> list[str]:
        """Return ssh's options for a hop. before: number of hops before it."""
        for text in (hop.host, hop.user or "user"):
            if not text or text.startswith("-") or not text.isprintable():
                raise scripting.Failed(f"{text!r} is neither a host nor a user that ssh can be given")
        # The time for the hops before it counts, and for what connects to the first.
        timeout_s = CONNECT_TIMEOUT_S * (before + 1) + (PROXY_START_S if self._target.proxy_command else 0)
        words = ["-E", str(self._log(name))]
        words += ["-l", hop.user] if hop.user else []
        words += ["-p", str(hop.port)] if hop.port else []
        options = {
            **_OPTIONS,
            **(_SESSION if name == MACHINE else _JUMP),
            "ConnectTimeout": str(timeout_s),
            **self._host_key(name, hop),
            **self._identity(hop),
            **({"ControlPath": "none"} if self._is_new and name == MACHINE else {}),
            **({"ProxyCommand": proxy} if proxy else {}),
        }
        for option, value in options.items():
            words += ["-o", f"{option}={value}"]
        return words

    def _host_key(self, name: str, hop: Hop) -> dict[str, str]:
        if hop.host_key is None and not hop.accept_any_host_key:
            return {"StrictHostKeyChecking": "yes"}
        options = {
            # A connection that is open already was checked by other rules.
            "ControlPath": "none",
            "GlobalKnownHostsFile": "/dev/null",
            "KnownHostsCommand": "none",
            "VerifyHostKeyDNS": "no",
            "CheckHostIP": "no",
        }
        if hop.host_key is None:
            return {**options, "StrictHostKeyChecking": "no", "UserKnownHostsFile": "/dev/null"}
        hosts = self._directory / f"{name}.known_hosts"
        # An alias is looked up without the port.
        scripting.write_private(hosts, f"istio-vm-mesh-{name} {hop.host_key}\n")
        kind = hop.host_key.split()[0]
        return {
            **options,
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": _quoted(str(hosts)),
            "HostKeyAlias": f"istio-vm-mesh-{name}",
            # By the type of the key; RSA keys sign with SHA-2.
            "HostKeyAlgorithms": "rsa-sha2-512,rsa-sha2-256" if kind == "ssh-rsa" else kind,
        }

    def _identity(self, hop: Hop) -> dict[str, str]:
        if private_files.is_generated(hop.identity_file):
            path = private_files.path_of(str(hop.identity_file))
            if not path.exists():
                raise scripting.Failed(
                    f"the SSH key of the stack is not on this computer ({path}): run `pulumi preview` here once, which writes it"
                )
            return {**_only(path), "IdentityAgent": "none"}
        if self._key:
            return _only(self._key)
        file = identity_path(hop.identity_file)
        return _only(file) if file else {}

    def _log(self, name: str) -> Path:
        return self._directory / f"{name}.log"

    def _logged(self, name: str) -> str:
        log = self._log(name)
        return log.read_text(errors="replace") if log.exists() else ""

    def _outcome(self, done: scripting.Done) -> Outcome:
        before, began, stdout = _after_mark(done.stdout)
        noise, marked, stderr = _after_mark(done.stderr)
        if began and not marked:  # a login shell that joins both streams
            stderr = noise
        if began:
            reach = {
                0: Reach.DONE,
                scripting.TIMED_OUT: Reach.TIMED_OUT,
                NOT_CONNECTED: Reach.CUT_OFF,
            }.get(done.status, Reach.FAILED)
            reason = last_words(self._logged(MACHINE)) if reach is Reach.CUT_OFF else ""
            return Outcome(reach, done.status, stdout, stderr, reason)
        jumps = [(jump.host, self._logged(f"jump-{number}")) for number, jump in enumerate(self._target.jumps)]
        reach, reason = classify(self._logged(MACHINE), jumps, noise, done)
        if self._target.proxy_command and reach is Reach.BROKEN:
            reason = _words_of_proxy(noise) or reason
        return Outcome(reach, done.status, before, noise, reason)


_PROXY_FAILED = re.compile(r"Error while connecting .+"), re.compile(r"^ERROR: .+", re.MULTILINE)


def _words_of_proxy(printed: str) -> str:
    """Return why a proxy command did not connect; "" where it does not say.

    gcloud ends with status 0 where Identity-Aware Proxy refuses, and prints the cause before a
    traceback (Google Cloud SDK: command_lib/compute/iap_tunnel.py, RunReceiveLocalData). ssh's own
    words are then that the connection was closed.
    """
    for pattern in _PROXY_FAILED:
        if match := pattern.search(printed):
            return match[0].strip()[:500]
    return ""


def identity_path(identity_file: str | None) -> str | None:
    """Return the absolute path of a private key; None where ssh chooses."""
    if identity_file and private_files.is_reference(identity_file):
        return private_files.linked(identity_file)
    return os.path.expanduser(identity_file) if identity_file else None


def _only(path: str | Path) -> dict[str, str]:
    return {"IdentityFile": _quoted(str(path)), "IdentitiesOnly": "yes"}


def _quoted(path: str) -> str:
    """Return a path as a value of ssh's configuration. Raises scripting.Failed where it has none."""
    if not path.isprintable() or re.search(r'["%$\\]', path):
        raise scripting.Failed(f'ssh cannot be given the path {path!r}: use one without " % $ \\')
    return f'"{path}"'


def _after_mark(output: bytes) -> tuple[str, bool, str]:
    """Return what was printed before the mark, whether it was printed, and what came after."""
    lines = output.decode(errors="replace").splitlines()
    if MARK not in lines:
        return "\n".join(lines).strip(), False, ""
    at = lines.index(MARK)
    return "\n".join(lines[:at]).strip(), True, "\n".join(lines[at + 1 :])
