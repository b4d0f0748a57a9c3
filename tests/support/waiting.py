"""Waiting for a condition of a real system."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_for(condition: Callable[[], bool], seconds: float, description: str) -> float:
    """Check a condition every 0.2 s until it holds.

    Returns the seconds that it took. Raises AssertionError with the description after `seconds`.
    """
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, f"not within {seconds} s: {description}"
        time.sleep(0.2)
    return time.monotonic() - start
