"""Fixtures of the unit tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.fake_programs import Programs


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Programs that are all of PATH, for the test itself and for the scripts that it runs."""
    fakes = Programs(tmp_path / "bin")
    monkeypatch.setitem(os.environ, "PATH", str(fakes.directory))
    return fakes
