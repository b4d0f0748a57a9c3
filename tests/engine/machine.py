"""Ports, waiting, and what a client needs to know of an sshd."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sshd:
    """A running server, and what a client needs to know of it."""

    port: int
    user: str
    private_key: str
    host_key: str
    log: Path

    def connections(self) -> int:
        """How many connections there are now."""
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        here = f":{self.port:04X}"
        return sum(fields[1].endswith(here) and fields[3] == "01" for fields in map(str.split, lines))


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def can_connect(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Return when the condition holds; fail the test if it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
