"""Runs one command on a machine over SSH, with the login that the stack's state holds."""

from __future__ import annotations

import base64
import binascii
import io
import logging
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import paramiko

TIMEOUT = 10.0
"""Seconds for the connection, and again for the command."""

# Everything that matters is raised; what the library logs would only appear a second time.
logging.getLogger("paramiko").setLevel(logging.CRITICAL + 1)


class SshError(Exception):
    """The machine cannot be reached, or the connection broke; one sentence with the reason."""


@dataclass(frozen=True)
class Login:
    """How to log in to a machine.

    - `host`, `port`, `user`: where, and as whom
    - `host_key`: the machine's public key in the format of authorized_keys; "" accepts any
    - `private_key`, `passphrase`, `password`: credentials, "" where there is none
    - `proxy`: the machine to connect through, if any
    """

    host: str
    port: int = 22
    user: str = "root"
    host_key: str = ""
    private_key: str = field(default="", repr=False)
    passphrase: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    proxy: Login | None = None

    @classmethod
    def from_target(cls, target: Mapping[str, Any]) -> Login:
        """Read the target of a command on a machine, as the state has it (openssh.Target)."""
        bastion = target["bastion"]
        return cls._of_hop(target["hop"], cls._of_hop(bastion) if bastion else None)

    @classmethod
    def _of_hop(cls, hop: Mapping[str, Any], proxy: Login | None = None) -> Login:
        return cls(
            host=hop["host"],
            port=hop["port"],
            user=hop["user"],
            host_key=hop["host_key"] or "",
            private_key=hop["private_key"],
            proxy=proxy,
        )


@dataclass(frozen=True)
class Result:
    """A command that ended; `begun` is when it was started, in seconds since the epoch by this
    computer's clock.
    """

    begun: float
    code: int
    output: str
    error: str


def run(login: Login, command: str, stdin: str) -> Result:
    """Connect, run a command to its end, disconnect. Raises SshError."""
    with _connected(login) as transport:
        try:
            channel = transport.open_session(timeout=TIMEOUT)
            channel.settimeout(TIMEOUT)
            begun = time.time()
            channel.exec_command(command)
            channel.sendall(stdin.encode())
            channel.shutdown_write()
            output, error = channel.makefile("rb").read(), channel.makefile_stderr("rb").read()
            return Result(begun, channel.recv_exit_status(), output.decode(errors="replace"), error.decode(errors="replace"))
        except (paramiko.SSHException, EOFError, OSError) as failure:
            raise SshError(f"can be reached by SSH and does not answer: {reason(failure)}") from failure


@contextmanager
def _connected(login: Login) -> Iterator[paramiko.Transport]:
    """Connect and log in, through the proxy if there is one.

    Raises SshError that names the host that failed.
    """
    with ExitStack() as stack:
        proxy = stack.enter_context(_connected(login.proxy)) if login.proxy else None
        try:
            if proxy:
                address = (login.host, login.port)
                sock: socket.socket | paramiko.Channel = proxy.open_channel("direct-tcpip", address, ("127.0.0.1", 0), timeout=TIMEOUT)
            else:
                sock = socket.create_connection((login.host, login.port), timeout=TIMEOUT)
            transport = paramiko.Transport(sock)
            stack.callback(transport.close)
            transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = TIMEOUT
            _log_in(transport, login)
        except (paramiko.SSHException, EOFError, OSError) as failure:
            tunnel = "; does ./scripts/tunnels run this command?" if login.host == "127.0.0.1" else ""
            raise SshError(f"cannot be reached by SSH at {login.host}: {reason(failure)}{tunnel}") from failure
        yield transport


def _log_in(transport: paramiko.Transport, login: Login) -> None:
    """Check the server's key against the pinned one, and log in.

    Raises SshError and what paramiko raises.
    """
    expected = _host_key(login.host_key) if login.host_key else None
    if expected:
        kind = expected[0]
        transport.get_security_options().key_types = ["rsa-sha2-512", "rsa-sha2-256"] if kind == "ssh-rsa" else [kind]
    transport.start_client(timeout=TIMEOUT)
    if expected and transport.get_remote_server_key().asbytes() != expected[1]:
        raise paramiko.SSHException("host key mismatch: the server's key is not the one in `hostKey`")
    if login.private_key:
        try:
            transport.auth_publickey(login.user, _private_key(login))
        except paramiko.AuthenticationException:
            if not login.password:
                raise
    if not transport.is_authenticated():
        transport.auth_password(login.user, login.password)


def _host_key(line: str) -> tuple[str, bytes]:
    """Return the type and the key of a line in the format of authorized_keys."""
    for kind, data in pairwise(line.split()):
        with suppress(binascii.Error):
            key = base64.b64decode(data, validate=True)
            if key[4 : 4 + len(kind)] == kind.encode():
                return kind, key
    raise SshError("cannot be reached: the connection's `hostKey` is no public key in the format of authorized_keys")


def _private_key(login: Login) -> paramiko.PKey:
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        try:
            return kind.from_private_key(io.StringIO(login.private_key), login.passphrase or None)
        except paramiko.PasswordRequiredException as error:
            raise SshError("cannot be reached: the connection's `privateKey` is encrypted: give `privateKeyPassword`") from error
        except (paramiko.SSHException, ValueError):
            continue
    raise SshError("cannot be reached: the connection's `privateKey` is no Ed25519, ECDSA or RSA key, or its password is wrong")


def reason(error: BaseException) -> str:
    """Say in a few words why a connection failed."""
    if isinstance(error, paramiko.AuthenticationException):
        return "the server does not accept the login (wrong user, or its key or password is not installed there)"
    if isinstance(error, EOFError):
        return "the server closed the connection"
    if isinstance(error, TimeoutError) or str(error) == "No existing session":  # how paramiko ends a handshake that took too long
        return "timed out"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
