"""Runs a command on another machine over SSH, with the connection settings of `command:remote:Command`.

Rules and retry times follow pulumi/pulumi-command v1.2.1 (`provider/pkg/provider/remote/connection.go`), with four differences, all of them
places where the official provider hangs, fails without need or leaves something behind: the wait for the server's greeting is bounded, a
failed handshake through a proxy is retried, connections are closed when the command ends, and a machine that vanishes is noticed after a
minute. Agents are not used: `agentSocketPath` and SSH_AUTH_SOCK are ignored.
"""

from __future__ import annotations

import base64
import binascii
import io
import logging
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import paramiko

from .output import Output
from .provider import Cancelled, ProviderError, Request

Connected = TypeVar("Connected")

_FIRST_DELAY, _BACKOFF, _LONGEST_DELAY = 0.1, 1.5, 5.0
_HANDSHAKE_SECONDS = 15.0
_VANISHED_MILLISECONDS = 60_000

# Everything that matters is raised; what the library logs would only appear a second time.
logging.getLogger("paramiko").setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True)
class Variables:
    """Environment variables: the server must accept those in `required` (AcceptEnv), and may refuse those in `optional`."""

    required: Mapping[str, str]
    optional: Mapping[str, str]


def run(
    request: Request,
    connection: Mapping[str, Any],
    command: str,
    output: Output,
    variables: Variables,
    stdin: str = "",
) -> None:
    """Connect, run `command` until it ends, disconnect. Raises `ProviderError`."""
    with _connected(request, connection) as transport:
        channel = _session(request, transport, variables)
        channel.exec_command(command)
        workers = [
            threading.Thread(target=_write, args=(channel, stdin.encode()), daemon=True),
            threading.Thread(target=_read, args=(channel.recv, lambda data: output.feed("stdout", data)), daemon=True),
            threading.Thread(target=_read, args=(channel.recv_stderr, lambda data: output.feed("stderr", data)), daemon=True),
        ]
        for worker in workers:
            worker.start()
        for worker in workers[1:]:
            worker.join()
        status = channel.recv_exit_status()
    if request.cancelled:
        raise Cancelled("interrupted")
    if status < 0:
        raise ProviderError(f"the connection to {connection['host']} ended before the command did, or the command was killed by a signal")
    if status:
        raise ProviderError(f"Process exited with status {status}")


@contextmanager
def _connected(request: Request, settings: Mapping[str, Any]) -> Iterator[paramiko.Transport]:
    """A connection that is logged in, through the proxy if there is one; closed at the end of the block."""
    proxy = settings.get("proxy")
    if proxy:
        with _connected(request, {**proxy, "proxy": None}) as through, _dialled(request, settings, through) as transport:
            yield transport
    else:
        with _dialled(request, settings, None) as transport:
            yield transport


@contextmanager
def _dialled(request: Request, settings: Mapping[str, Any], proxy: paramiko.Transport | None) -> Iterator[paramiko.Transport]:
    transport = _retry(request, settings, lambda: _dial(request, settings, proxy))
    try:
        with request.on_cancel(transport.close):
            yield transport
    except (paramiko.SSHException, EOFError, OSError) as error:
        if request.cancelled:
            raise Cancelled("interrupted") from error
        raise ProviderError(f"the connection to {settings['host']} broke: {reason(error)}") from error
    finally:
        transport.close()


def _retry(request: Request, settings: Mapping[str, Any], dial: Callable[[], Connected]) -> Connected:
    """Dial until it works or `dialErrorLimit` failures were retried (-1: for ever)."""
    limit, delay, failed = settings["dialErrorLimit"], _FIRST_DELAY, 0
    while True:
        try:
            return dial()
        except (paramiko.SSHException, EOFError, OSError) as error:
            if request.cancelled:
                raise Cancelled("interrupted") from error
            if -1 < limit <= failed:
                where = f"{settings['user']}@{settings['host']}:{settings['port']}"
                raise ProviderError(f"cannot connect to {where} by SSH: after {failed} failed attempts: {reason(error)}") from error
            failed += 1
            request.status(f"Dial {failed}/{'inf' if limit < 0 else limit} failed: retrying ({reason(error)})")
        request.wait(delay)
        delay = min(delay * _BACKOFF, _LONGEST_DELAY)


def _dial(request: Request, settings: Mapping[str, Any], proxy: paramiko.Transport | None) -> paramiko.Transport:
    address, seconds = (settings["host"], settings["port"]), settings["perDialTimeout"] or None
    handshake = seconds or _HANDSHAKE_SECONDS
    sock: socket.socket | paramiko.Channel
    if proxy:
        sock = proxy.open_channel("direct-tcpip", address, ("127.0.0.1", 0), timeout=handshake)
    else:
        sock = socket.create_connection(address, timeout=seconds)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 20)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _VANISHED_MILLISECONDS)
    transport = paramiko.Transport(sock)
    transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = handshake
    try:
        with request.on_cancel(transport.close):
            log_in(transport, settings, handshake)
    except BaseException:
        transport.close()
        raise
    return transport


def log_in(transport: paramiko.Transport, settings: Mapping[str, Any], seconds: float) -> None:
    """Greet the server within `seconds`, check its key against the pinned one, and log in. Raises `ProviderError` and what paramiko raises."""
    expected = _host_key(settings["hostKey"]) if settings.get("hostKey") else None
    if expected:
        kind = expected[0]
        transport.get_security_options().key_types = ["rsa-sha2-512", "rsa-sha2-256"] if kind == "ssh-rsa" else [kind]
    transport.start_client(timeout=seconds)
    if expected and transport.get_remote_server_key().asbytes() != expected[1]:
        raise paramiko.SSHException("host key mismatch: the server's key is not the one in `hostKey`")
    user, password = settings["user"], settings.get("password")
    if settings.get("privateKey"):
        try:
            transport.auth_publickey(user, _private_key(settings["privateKey"], settings.get("privateKeyPassword")))
        except paramiko.AuthenticationException:
            if password is None:
                raise
    if not transport.is_authenticated():
        transport.auth_password(user, password or "")


def _session(request: Request, transport: paramiko.Transport, variables: Variables) -> paramiko.Channel:
    """A channel with its environment set. A refused variable closes its channel, so optional ones are tried on others first."""
    accepted = {}
    for name, value in variables.optional.items():
        trial = transport.open_session()
        if _set_environment(transport, trial, name, value):
            accepted[name] = value
            trial.close()
        else:
            request.log(_not_set(name), "warning")
    channel = transport.open_session()
    for name, value in {**variables.required, **accepted}.items():
        if not _set_environment(transport, channel, name, value):
            raise ProviderError(_not_set(name))
    return channel


def _set_environment(transport: paramiko.Transport, channel: paramiko.Channel, name: str, value: str) -> bool:
    """Set a variable and say whether the server accepted it, which `Channel.set_environment_variable` does not ask for."""
    message = paramiko.Message()
    message.add_byte(paramiko.common.cMSG_CHANNEL_REQUEST)
    message.add_int(channel.remote_chanid)
    message.add_string("env")
    message.add_boolean(True)
    message.add_string(name)
    message.add_string(value)
    channel._event_pending()  # type: ignore[attr-defined]
    transport._send_user_message(message)  # type: ignore[attr-defined]
    try:
        channel._wait_for_event()  # type: ignore[attr-defined]
    except paramiko.SSHException:
        if not transport.is_active():
            raise
        return False
    return True


def _not_set(name: str) -> str:
    return (
        f"unable to set {name!r}: this only works if the SSH server is configured to accept the variable by AcceptEnv; alternatively, "
        "prefix the command with the variable in the form 'VAR=value command'"
    )


def _host_key(line: str) -> tuple[str, bytes]:
    """The type and the key of a line in the format of authorized_keys."""
    words = line.split()
    for kind, data in pairwise(words):
        with suppress(binascii.Error):
            key = base64.b64decode(data, validate=True)
            if key[4 : 4 + len(kind)] == kind.encode():
                return kind, key
    raise ProviderError("the connection's `hostKey` is no public key in the format of authorized_keys ('ssh-ed25519 AAAA...')")


def _private_key(text: str, password: str | None) -> paramiko.PKey:
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        try:
            return kind.from_private_key(io.StringIO(text), password)
        except paramiko.PasswordRequiredException as error:
            raise ProviderError("the connection's `privateKey` is encrypted: give `privateKeyPassword`") from error
        except (paramiko.SSHException, ValueError):
            continue
    raise ProviderError("the connection's `privateKey` is no Ed25519, ECDSA or RSA key in OpenSSH or PEM format, or its password is wrong")


def _write(channel: paramiko.Channel, data: bytes) -> None:
    # The command need not read its input.
    with suppress(OSError, EOFError, paramiko.SSHException):
        channel.sendall(data)
        channel.shutdown_write()


def _read(receive: Callable[[int], bytes], feed: Callable[[bytes], None]) -> None:
    while data := receive(65536):
        feed(data)


def reason(error: BaseException) -> str:
    """Why a connection failed, in a few words."""
    if isinstance(error, paramiko.AuthenticationException):
        return "the server does not accept the login (wrong user, or its key or password is not installed there)"
    if isinstance(error, EOFError):
        return "the server closed the connection"
    if isinstance(error, TimeoutError) or str(error) == "No existing session":  # how paramiko ends a handshake that took too long
        return "timed out"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
