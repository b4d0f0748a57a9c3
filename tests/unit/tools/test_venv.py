"""The virtual environment is used while it is complete, and made again otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import venv


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(venv, "REQUIREMENTS", tmp_path / "requirements.txt")
    monkeypatch.setattr(venv, "STAMP", tmp_path / "stamp")
    monkeypatch.setattr(venv, "PYTHON", tmp_path / "python")
    venv.REQUIREMENTS.write_text("rich==15.0.0 --hash=sha256:0\n")
    venv.PYTHON.touch()
    venv.STAMP.write_text(venv.recipe())
    return tmp_path


def test_a_complete_environment_is_used(environment: Path) -> None:
    assert venv.ensure() == venv.PYTHON


@pytest.mark.parametrize("change", ["requirements", "half-made", "no python"])
def test_an_environment_that_is_half_made_or_of_other_requirements_is_made_again(environment: Path, change: str) -> None:
    if change == "requirements":
        venv.REQUIREMENTS.write_text("rich==15.0.1 --hash=sha256:0\n")
    elif change == "half-made":
        venv.STAMP.unlink()
    else:
        venv.PYTHON.unlink()
    assert not venv.complete()
