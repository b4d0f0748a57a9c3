"""Directories of the tools are their owner's alone."""

from __future__ import annotations

from pathlib import Path

from tools.directories import make_private


def test_the_state_is_private(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o755)
    assert make_private(tmp_path / "state").stat().st_mode & 0o777 == 0o700
