"""For every test: its plugins, its private files, and Python's garbage collection."""

from __future__ import annotations

import gc
import signal
from collections.abc import Generator
from pathlib import Path

import pytest

if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # as under nohup, which tests' children would inherit
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

pytest_plugins = ["tests.support.skips", "tests.support.scheduling", "tests.support.fixtures"]


@pytest.fixture(autouse=True)
def _private_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the program's private files out of the user's home."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg-state"))


@pytest.fixture(autouse=True)
def _collect_garbage() -> Generator[None]:
    """Switch garbage collection on again: the program turns it off for its process, which ends with it."""
    yield
    gc.enable()
