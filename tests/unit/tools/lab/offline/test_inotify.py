"""The lab raises what would stop a few machines from booting, and says so."""

from __future__ import annotations

from pathlib import Path

from tools.lab.offline import inotify
from tools.steps import Step


class Lines(Step):
    """A step that keeps what it says."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def line(self, text: str) -> None:
        self.notes.append(text)


def test_a_low_limit_is_raised_and_said(tmp_path: Path) -> None:
    limit, step = tmp_path / "limit", Lines()
    limit.write_text("128\n")
    inotify.ensure(step, limit)
    assert limit.read_text() == "1024\n"
    assert len(step.notes) == 1


def test_a_high_limit_is_left_alone(tmp_path: Path) -> None:
    limit, step = tmp_path / "limit", Lines()
    limit.write_text("65536\n")
    inotify.ensure(step, limit)
    assert limit.read_text() == "65536\n"
    assert step.notes == []
