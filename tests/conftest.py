"""For every test: its plugins, its private files, and Python's garbage collection."""

from __future__ import annotations

import gc
import itertools
import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

# What ignores a signal, as what a shell starts in its background does, has tests' children ignore it.
for number, action in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, action)

os.umask(0o022)  # whatever the user's is: dpkg-deb refuses a directory that others may not read

pytest_plugins = ["tests.support.skips", "tests.support.scheduling", "tests.support.fixtures"]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without garbage collection, and leave the modules out of it afterwards.

    They are most of all objects, and they stay. To scan them again and again takes a tenth of the
    time of tests in this process.
    """
    gc.disable()
    gc.set_threshold(50_000)
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def _state_homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield a place of its own for the private files of each test."""
    return map(tmp_path_factory.mktemp("state-homes").joinpath, map(str, itertools.count()))


@pytest.fixture(autouse=True)
def _private_files(_state_homes: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the program's private files out of the user's home, and what kubectl keeps of API servers.

    Few tests write any, so there is no directory until one does: `tmp_path` would create one for each
    test, and list all that are there. A test's API server may have the port of one of an earlier run,
    and kubectl would know the kinds of that one for hours.
    """
    home = next(_state_homes)
    monkeypatch.setenv("XDG_STATE_HOME", str(home))
    monkeypatch.setenv("KUBECACHEDIR", str(home.with_name("kubectl")))


@pytest.fixture(autouse=True)
def _collect_garbage() -> Generator[None]:
    """Switch garbage collection on again: the program turns it off for its process, which ends with it."""
    yield
    gc.enable()
