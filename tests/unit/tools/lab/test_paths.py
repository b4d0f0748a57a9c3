"""The environment of Pulumi and the tools."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tools import ROOT
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
