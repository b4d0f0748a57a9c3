"""For every test: its plugins, and Python's garbage collection."""

from __future__ import annotations

import gc
from collections.abc import Generator

import pytest

pytest_plugins = ["tests.support.skips", "tests.support.scheduling", "tests.support.fixtures"]


@pytest.fixture(autouse=True)
def _collect_garbage() -> Generator[None]:
    """Switch garbage collection on again: the program turns it off for its process, which ends with it."""
    yield
    gc.enable()
