"""Lines on standard error about what takes more than a few seconds."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

FIRST_S, NEXT_S = 3.0, 10.0
"""Seconds until the first line, and from one line to the next."""


@contextmanager
def reported(what: str) -> Iterator[None]:
    """Report what is done while the block runs, where that takes long. what: as a sentence."""
    begin, over = monotonic(), threading.Event()

    def report() -> None:
        pause_s = FIRST_S
        while not over.wait(pause_s):
            print(f"{what} ({monotonic() - begin:.0f} s)", file=sys.stderr, flush=True)
            pause_s = NEXT_S

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
