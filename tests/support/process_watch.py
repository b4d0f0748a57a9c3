"""What every process of this computer could have read while the lab came up."""

from __future__ import annotations

import os
import threading

SIZE = 1 << 16
"""Bytes that are read at once."""


def read(path: str) -> bytes:
    """Return a file's content. Raises OSError. A watch reads thousands a second, for which `Path.read_bytes` takes a quarter of a processor."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        parts = [os.read(descriptor, SIZE)]
        while len(parts[-1]) == SIZE:
            parts.append(os.read(descriptor, SIZE))
        return b"".join(parts)
    finally:
        os.close(descriptor)


class ProcessWatch:
    """Everything that stood on a command line or in an environment on this machine, containers included, while it watched."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self._commands: set[tuple[str, bytes]] = set()
        self._stop = threading.Event()

    def __enter__(self) -> ProcessWatch:
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            for pid in os.listdir("/proc"):
                if pid.isdigit():
                    self._look(pid)

    def _look(self, pid: str) -> None:
        try:
            command = read(f"/proc/{pid}/cmdline")
            if command and (pid, command) not in self._commands:
                environment = read(f"/proc/{pid}/environ")
                self.seen |= {command, environment}
                if environment:  # a program has it a moment after its command line
                    self._commands.add((pid, command))
        except OSError:
            return  # ended meanwhile
