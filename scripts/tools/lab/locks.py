"""Locks between commands of the lab. A killed process holds none."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from . import paths
from .steps import StepError


@contextmanager
def checkout_lock() -> Iterator[None]:
    """Hold the lock of this checkout's lab. Raises StepError while another command holds it."""
    paths.make_private(paths.RUN)
    with (paths.RUN / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StepError("another ./scripts/lab works in this checkout: wait until it has ended") from error
        yield


@contextmanager
def shared_lock() -> Iterator[None]:
    """Hold a share of the engine: no other checkout stops it, or what all labs of this machine
    share in it.
    """
    with _users() as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        yield


@contextmanager
def exclusive_lock() -> Iterator[bool]:
    """Yield True if no process on this machine holds `shared_lock`; none can take it until this
    block exits.
    """
    with _users() as users:
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _users() -> TextIO:
    file = paths.cache() / paths.LOCKS / "engine"  # not in RUN, which goes with the engine
    file.parent.mkdir(parents=True, exist_ok=True)
    return file.open("w")
