"""Machines for a test, of a file whose `joined_once` has joined."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.machine import FakeMachine


@pytest.fixture
def machine(joined_once: FakeMachine, tmp_path: Path) -> FakeMachine:
    """A copy of the file's machine that has joined."""
    return joined_once.copy(tmp_path / "machine")


@pytest.fixture
def fresh(tmp_path: Path) -> FakeMachine:
    """A machine that never joined."""
    return FakeMachine(tmp_path / "fresh").create()
