"""What the machines say: one SSH connection each, over which root runs one short script that changes nothing."""

from __future__ import annotations

import base64
import binascii
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import paramiko
from cryptography import x509

from components import shell
from tools.standins.provider import ProviderError
from tools.standins.ssh import log_in, reason

from .read_state import Machine

PARALLEL = 8
TIMEOUT = 10.0
"""Seconds for the connection, and again for the script."""


@dataclass(frozen=True)
class Certificate:
    """The certificate that the agent holds; the times are by the clock of whoever issued it."""

    begins: datetime
    ends: datetime
    identity: str


@dataclass(frozen=True)
class Examined:
    """What a machine said. `problem` is why it said nothing; then all else is empty.

    `offset` is by how many seconds its clock is ahead of this one's. `unit` is systemd's ActiveState, "" without the unit; `active` and `up`
    are seconds since the unit became active and since the boot. `gateway` is whether the east-west gateway's port 15012 accepts connections.
    """

    problem: str = ""
    offset: float = 0.0
    unit: str = ""
    restarts: int = 0
    active: int | None = None
    up: int | None = None
    agent: str = ""
    envoy: str = ""
    ready: bool = False
    certificate: Certificate | None = None
    token_expires: datetime | None = None
    gateway: bool | None = None


def examine(machines: Iterable[Machine], gateway: str) -> dict[str, Examined]:
    """Look at the machines that have a connection, in parallel. One that cannot be looked at is a row with its reason."""
    with ThreadPoolExecutor(PARALLEL) as pool:
        looking = {each.name: pool.submit(_look, each.connection, each.as_root, gateway) for each in machines if each.connection}
        return {name: found.result() for name, found in looking.items()}


def _look(connection: Mapping[str, Any], as_root: str, gateway: str) -> Examined:
    text = shell.assignments({"GATEWAY": gateway}) + Path(__file__).with_name("examine.sh").read_text()
    try:
        with _connected(connection) as transport:
            asked = time.time()
            code, output, error = _run(transport, as_root, text)
    except ProviderError as failure:
        return Examined(problem=str(failure))
    except (paramiko.SSHException, EOFError, OSError) as failure:
        return Examined(problem=f"can be reached by SSH and does not answer: {reason(failure)}")
    if code:
        return Examined(problem=f"looking at it as root failed on it: {'; '.join(error.strip().splitlines())[:200] or f'code {code}'}")
    return parse(output, asked)


@contextmanager
def _connected(connection: Mapping[str, Any]) -> Iterator[paramiko.Transport]:
    """A connection that is logged in, through its proxy if it has one. Raises ProviderError that names the one that failed."""
    with ExitStack() as stack:
        through = stack.enter_context(_connected({**connection["proxy"], "proxy": None})) if connection.get("proxy") else None
        try:
            transport = _dialled(connection, through, stack)
        except (paramiko.SSHException, EOFError, OSError) as failure:
            tunnel = "; does ./scripts/tunnels run this command?" if connection["host"] == "127.0.0.1" else ""
            raise ProviderError(f"cannot be reached by SSH at {connection['host']}: {reason(failure)}{tunnel}") from failure
        yield transport


def _dialled(connection: Mapping[str, Any], through: paramiko.Transport | None, stack: ExitStack) -> paramiko.Transport:
    """Dial, through a bastion if there is one, and log in; `stack` closes the connection."""
    address = (connection["host"], int(connection.get("port") or 22))
    if through:
        sock: socket.socket | paramiko.Channel = through.open_channel("direct-tcpip", address, ("127.0.0.1", 0), timeout=TIMEOUT)
    else:
        sock = socket.create_connection(address, timeout=TIMEOUT)
    transport = paramiko.Transport(sock)
    stack.callback(transport.close)
    transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = TIMEOUT
    log_in(transport, {"user": "root", **connection}, TIMEOUT)
    return transport


def _run(transport: paramiko.Transport, as_root: str, text: str) -> tuple[int, str, str]:
    """Run a script and return its exit code and outputs. Raises OSError when it takes too long."""
    channel = transport.open_session(timeout=TIMEOUT)
    channel.settimeout(TIMEOUT)
    channel.exec_command(as_root)
    channel.sendall(text.encode())
    channel.shutdown_write()
    output, error = channel.makefile("rb").read(), channel.makefile_stderr("rb").read()
    return channel.recv_exit_status(), output.decode(errors="replace"), error.decode(errors="replace")


def parse(output: str, asked: float) -> Examined:
    """Take apart what the script printed; `asked` is this machine's time when it was started."""
    found = shell.parse_results(output)
    return Examined(
        offset=float(found["time"]) - asked if found.get("time") else 0.0,
        unit=found.get("ActiveState", "") if found.get("LoadState") == "loaded" else "",
        restarts=int(found.get("NRestarts") or 0),
        active=_number(found.get("active")),
        up=_number(found.get("up")),
        agent=found.get("agent", "").partition("-")[0],
        envoy=found.get("envoy", ""),
        ready=found.get("ready") == "200",
        certificate=certificate(found.get("certificate", "")),
        token_expires=datetime.fromtimestamp(int(found["token"]), UTC) if found.get("token") else None,
        gateway={"yes": True, "no": False}.get(found.get("gateway", "")),
    )


def _number(text: str | None) -> int | None:
    return int(text) if text else None


def certificate(encoded: str) -> Certificate | None:
    """The first certificate of a PEM file in base64, or None where there is none."""
    try:
        first = x509.load_pem_x509_certificates(base64.b64decode(encoded))[0]
        names = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, IndexError, binascii.Error, x509.ExtensionNotFound):
        return None
    identities = names.get_values_for_type(x509.UniformResourceIdentifier)
    return Certificate(first.not_valid_before_utc, first.not_valid_after_utc, identities[0] if identities else "")
