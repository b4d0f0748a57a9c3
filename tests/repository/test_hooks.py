"""The hooks of pre-commit are checks of `./scripts/test --quick`, and fetch nothing."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools import ROOT
from tools.devtools import test_runner

LINTERS = {
    *("ruff", "mypy", "shellcheck", "shfmt"),
    *("yamllint", "actionlint", "import-linter"),
}
DOCUMENT = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
HOOKS: list[dict[str, Any]] = [hook for repository in DOCUMENT["repos"] for hook in repository["hooks"]]


def test_yamllint_finds_nothing() -> None:
    command = [sys.executable, "-m", "yamllint", "--strict", "--format=parsable", "."]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_hooks_are_local_and_cover_every_linter() -> None:
    assert {repository["repo"] for repository in DOCUMENT["repos"]} == {"local"}
    assert {hook["language"] for hook in HOOKS} == {"system"}
    names = " ".join(hook["name"] for hook in HOOKS)
    assert [linter for linter in sorted(LINTERS) if linter not in names] == []


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook["id"])
def test_a_hook_runs_what_the_quick_tests_run(hook: dict[str, Any]) -> None:
    words = [word for word in shlex.split(hook["entry"]) if word != "env" and "=" not in word]
    assert words[0].startswith(".venv/bin/")
    if "pytest" in words:
        files = [Path(word) for word in words if word.startswith("tests/")]
        assert files and all((ROOT / file).is_file() for file in files)
        assert all(any(file.is_relative_to(place) for place in test_runner.QUICK_TESTS) for file in files)
        return
    program = words[0].removeprefix(".venv/bin/")
    stages = [" ".join(map(str, stage.command)) for stage in test_runner._stages({}, with_lab=False)]
    assert program == "yamllint" or any(program in stage for stage in stages)
