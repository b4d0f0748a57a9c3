"""The virtual environment is used while it is complete, and made again otherwise."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import pytest

from tools import steps, venv
from tools.steps import Silent, StepError, StepFailedError


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(venv, "REQUIREMENTS", tmp_path / "requirements.txt")
    monkeypatch.setattr(venv, "STAMP", tmp_path / "stamp")
    monkeypatch.setattr(venv, "PYTHON", tmp_path / "python")
    monkeypatch.setattr(venv, "VENV", tmp_path / "venv")
    monkeypatch.setattr(steps, "LOGS", tmp_path / "logs")
    venv.REQUIREMENTS.write_text("rich==15.0.0 --hash=sha256:0\n")
    venv.PYTHON.touch()
    venv.STAMP.write_text(venv.recipe())
    return tmp_path


def test_a_complete_environment_is_used(environment: Path) -> None:
    assert venv.ensure(Silent()) == venv.PYTHON


@pytest.mark.parametrize("change", ["requirements", "half-made", "no python"])
def test_an_environment_that_is_half_made_or_of_other_requirements_is_made_again(environment: Path, change: str) -> None:
    if change == "requirements":
        venv.REQUIREMENTS.write_text("rich==15.0.1 --hash=sha256:0\n")
    elif change == "half-made":
        venv.STAMP.unlink()
    else:
        venv.PYTHON.unlink()
    assert not venv.complete()


@pytest.fixture
def without_ensurepip(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Debian without its package python3-venv, and no environment."""
    venv.STAMP.unlink()
    monkeypatch.setattr(importlib.util, "find_spec", {}.get)


@pytest.mark.usefixtures("without_ensurepip")
def test_without_an_installer_the_missing_package_and_the_command_are_named() -> None:
    with pytest.raises(StepFailedError, match="ensurepip") as failed:
        venv.ensure(Silent())
    message = str(failed.value).splitlines()
    assert message[0].endswith(": this Python has no module ensurepip, which Debian has in its package python3-venv")
    assert message[-1].startswith("What to do: run `apt-get install python3-venv` as root; then run the same command again")
    assert not venv.VENV.exists()


@pytest.mark.usefixtures("without_ensurepip")
def test_an_installer_gets_the_missing_package_before_the_environment_is_made() -> None:
    wanted: list[str] = []

    def install(step: steps.Step, packages: Sequence[str]) -> None:
        wanted.extend(packages)
        assert not venv.VENV.exists()
        raise StepError("no network")

    with pytest.raises(StepFailedError, match="no network"):
        venv.ensure(Silent(), install)
    assert wanted == ["python3-venv"]
