"""Locks between commands of the lab. A killed process holds none."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from tools.directories import make_private
from tools.steps import StepError

from . import paths


@contextmanager
def checkout_lock() -> Iterator[None]:
    """Hold the lock of this checkout's lab. Raises StepError while another command holds it."""
    make_private(paths.RUN)
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


def reserve(name: str) -> bool:
    """Take something of this machine until this process ends; return False where it is taken."""
    lock = os.open(_lock_file(name), os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return False
    return True  # the open file holds it


def _users() -> TextIO:
    return _lock_file("engine").open("w")


def _lock_file(name: str) -> Path:
    file = paths.cache() / paths.LOCKS / name  # not in RUN, which goes with the engine
    file.parent.mkdir(parents=True, exist_ok=True)
    return file
