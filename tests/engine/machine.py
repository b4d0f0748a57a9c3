"""Ports, waiting, and what a client needs to know of an sshd."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def reserved_port() -> Iterator[int]:
    """Reserve a port of the loopback interface: connections to it are refused until a server that was given its number listens on it.

    A number that is only looked up may be given to another process before it is used. The server must set SO_REUSEADDR, as sshd, Go's and
    Python's servers do.
    """
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        yield int(sock.getsockname()[1])


def can_connect(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Return when the condition holds; fail the test if it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@contextmanager
def when(condition: Callable[[], bool], action: Callable[[], object]) -> Iterator[None]:
    """During the block, run `action` in another thread as soon as `condition` holds: what a test interrupts must have begun."""

    def act() -> None:
        wait_until(condition)
        action()

    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield
    finally:
        thread.join()
