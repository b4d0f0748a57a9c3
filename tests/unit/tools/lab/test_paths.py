"""The environment of Pulumi and the tools, and the virtual environment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools import ROOT, venv
from tools.lab import paths


def test_env_prints_lines_for_a_shell() -> None:
    command = [sys.executable, "-m", "tools.lab", "env"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT / "scripts").stdout
    shell = subprocess.run(
        ["sh", "-euc", f'{printed}\necho "$PULUMI_BACKEND_URL"; echo "$PATH"'], capture_output=True, text=True, check=True
    )
    backend, path = shell.stdout.splitlines()
    assert backend == paths.backend(paths.STATE)
    assert path.startswith(f"{paths.BIN}:{paths.VENV}/bin:")


def test_no_agents_keys_reach_pulumi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
    assert "SSH_AUTH_SOCK" not in paths.environment()


def test_the_state_is_private(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o755)
    assert paths.make_private(tmp_path / "state").stat().st_mode & 0o777 == 0o700


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
