"""Waiting for a condition."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LONGEST_S = 0.5
"""Seconds between two calls of a condition that takes long."""
HANG_S = 240
"""Seconds after which a wait counts as hanging.

A busy computer may need a hundred times the processor time of a program for its end. So nothing else
limits what a test waits for, unless the time is what the test is about.
"""


def wait_until(
    condition: Callable[[], object],
    seconds: float = HANG_S,
    description: str = "the condition holds",
    *,
    interval: float = 0.05,
) -> float:
    """Return once `condition` holds: the seconds that it took. Fail the test after `seconds`.

    `interval` is the time in seconds between two calls of `condition`. Where a call takes longer,
    the interval is longer too, up to `LONGEST_S`. Otherwise a condition that starts programs, such
    as kubectl, would take the processor from what it waits for.
    """
    start = time.monotonic()
    while True:
        called = time.monotonic()
        if condition():
            return time.monotonic() - start
        assert time.monotonic() - start < seconds, f"not within {seconds} s: {description}"
        time.sleep(max(interval, min(time.monotonic() - called, LONGEST_S)))


@contextmanager
def when(condition: Callable[[], object], action: Callable[[], object]) -> Iterator[None]:
    """During the block, run `action` in another thread as soon as `condition` holds.

    So what a test interrupts has begun.
    """

    def act() -> None:
        wait_until(condition)
        action()

    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield
    finally:
        thread.join()
