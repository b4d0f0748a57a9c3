"""What a command prints: kept as outputs, kept together for an error message, and shown line by
line while it runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal

Stream = Literal["stdout", "stderr"]

_LONGEST_LINE = 64 * 1024
"""Bytes of a line shown at once. The official provider hangs on longer lines
(pulumi/pulumi-command#201); here they are shown in pieces.
"""


class Output:
    """Collects both streams of one run. `feed` may be called from several threads.

    `show` gets each line of the streams named in `shown` while the command runs."""

    def __init__(self, show: Callable[[str], None], shown: frozenset[Stream]) -> None:
        self._show, self._shown = show, shown
        self._kept: dict[Stream, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        self._line: dict[Stream, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        self._both = bytearray()
        self._lock = threading.Lock()

    def feed(self, stream: Stream, data: bytes) -> None:
        """Take what the command has printed."""
        with self._lock:
            self._kept[stream] += data
            self._both += data
            if stream not in self._shown:
                return
            line = self._line[stream]
            line += data
            *complete, rest = line.split(b"\n")
            while len(rest) > _LONGEST_LINE:
                complete.append(rest[:_LONGEST_LINE])
                rest = rest[_LONGEST_LINE:]
            self._line[stream] = bytearray(rest)
            for text in complete:
                self._show(_text(text))

    def finish(self) -> None:
        """Show last lines that have no newline."""
        for line in self._line.values():
            if line:
                self._show(_text(line))

    def result(self) -> dict[str, str]:
        """Return the outputs `stdout` and `stderr`, each without one trailing newline."""
        return {stream: _text(data).removesuffix("\n") for stream, data in self._kept.items()}

    def together(self) -> str:
        """Both streams in the order in which they came."""
        return _text(self._both)


def _text(data: bytes | bytearray) -> str:
    return data.decode("utf-8", "replace")
