"""Waiting for a condition."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(
    condition: Callable[[], object],
    seconds: float = 10,
    description: str = "the condition holds",
    *,
    interval: float = 0.02,
) -> float:
    """Return once `condition` holds: the seconds that it took. Fail the test after `seconds`.

    `interval` is the time in seconds between two calls of `condition`.
    """
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, f"not within {seconds} s: {description}"
        time.sleep(interval)
    return time.monotonic() - start
