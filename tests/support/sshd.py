"""A real sshd on loopback, and ports."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from components.local import openssh
from tests.support.waiting import wait_until


@dataclass(frozen=True)
class Sshd:
    """A running server, and what a client needs for a login.

    identity_file: the path of the private key that it accepts.
    host_key: type and key in base64.
    log: the server's log file. Its configuration and its keys are beside it.
    """

    port: int
    user: str
    identity_file: Path
    host_key: str
    log: Path

    @property
    def private_key(self) -> str:
        """The text of the private key."""
        return self.identity_file.read_text()

    def hop(self, **changes: Any) -> openssh.Hop:
        """Return the server as the program's SSH gets it, with its host key pinned."""
        hop = openssh.Hop("127.0.0.1", self.port, self.user, self.host_key, identity_file=str(self.identity_file))
        return replace(hop, **changes)

    def connections(self) -> int:
        """Count the established connections."""
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        address = f":{self.port:04X}"
        return sum(fields[1].endswith(address) and fields[3] == "01" for fields in map(str.split, lines))


@contextmanager
def running(directory: Path, *options: str, kind: str = "ed25519", port: int = 0) -> Iterator[Sshd]:
    """Run an sshd that accepts one key; its files are in `directory`.

    options: further lines of its configuration.
    kind: type of its host key and of the client's key.
    port: where it listens; 0: a free port.

    It needs Debian's package openssh-server, and runs as this user.
    """
    binary = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if not binary:
        pytest.fail("no sshd: install Debian's package openssh-server")
    if os.geteuid() == 0:
        # sshd insists on it as root. Debian creates it when the service starts.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    for name in ("host", "client"):
        key_pair(directory / name, kind)
    log = directory / "log"
    with contextlib.nullcontext(port) if port else reserved_port() as port:
        (directory / "config").write_text(
            f"ListenAddress 127.0.0.1:{port}\n"
            f"HostKey {directory}/host\n"
            f"AuthorizedKeysFile {directory}/client.pub\n"
            "PidFile none\n"
            "StrictModes no\n"
            "UsePAM no\n"
            "PasswordAuthentication no\n"
            "MaxStartups 100\n" + "".join(f"{option}\n" for option in options)
        )
        command: list[str | Path] = [binary, "-D", "-f", directory / "config", "-E", log]
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        try:
            wait_until(lambda: can_connect(port) or server.poll() is not None)
            assert server.poll() is None, log.read_text()
            host_key = " ".join((directory / "host.pub").read_text().split()[:2])
            yield Sshd(port, getpass.getuser(), directory / "client", host_key, log)
        finally:
            server.terminate()
            server.wait()


def key_pair(file: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    """Make a key pair, and return the path of the private key."""
    words = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "", "-f", str(file)]
    subprocess.run(words, check=True)
    return file


@contextmanager
def reserved_port() -> Iterator[int]:
    """Reserve a port of loopback.

    Connections to it are refused until a server that was given its number listens on it.
    A number that is only looked up may be given to another process before it is used.
    The server must set SO_REUSEADDR, as sshd, Go's and Python's servers do.
    """
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        yield int(sock.getsockname()[1])


def can_connect(port: int) -> bool:
    """Return whether something listens on a port of loopback."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
