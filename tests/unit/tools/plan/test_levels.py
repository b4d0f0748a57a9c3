"""A level that cannot be had becomes the one below, whatever is in its way."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.tiers import some_quick
from tests.unit.tools.plan.plans import plan
from tools import PYTHONPATH, ROOT
from tools.plan import files, levels, preview, state, words
from tools.plan.files import DescriptionError
from tools.plan.model import Level

PARENT = "urn:pulumi:s::istio-vm-mesh::istio-vm-mesh:machines:Machine::web-1"


def state_of(inputs: dict[str, Any]) -> str:
    """Return a preview of a machine whose join has these inputs in the state."""
    machine = {"urn": PARENT, "type": "istio-vm-mesh:machines:Machine"}
    join = {
        "urn": "urn:pulumi:s::istio-vm-mesh::command:local:Command::web-1-join",
        "type": "command:local:Command",
        "parent": PARENT,
        "inputs": inputs,
    }
    return json.dumps(
        {"steps": [{"op": "same", "oldState": each, "newState": each} for each in (machine, join)]},
        indent=2,
    )


@pytest.mark.parametrize(
    "output",
    [
        state_of({"stdin": json.dumps({"create": {"bundle": {"proxy": "of another version"}}})}),
        state_of({"stdin": "{cut"}),
        json.dumps({"steps": [{"oldState": {}}]}, indent=2),
        json.dumps({"steps": ["text"]}, indent=2),
        "no JSON",
    ],
)
def test_a_state_of_another_version_becomes_a_plan_of_files(
    output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preview, "run", lambda *_: output)
    monkeypatch.setattr(files, "plan", lambda *_: plan())
    planned = levels.plan(levels.Request(stack="existing"))
    assert planned.level is Level.FILES
    [degraded] = planned.degraded
    assert degraded.level is Level.STATE and "another form" in degraded.reason


def checkout(root: Path, program: str) -> Path:
    """Return a checkout whose stack files are read by this program."""
    directory = root / "components" / "config"
    directory.mkdir(parents=True)
    for file in (root / "components" / "__init__.py", directory / "__init__.py"):
        file.touch()
    (directory / "problems.py").write_text("class SettingsError(Exception): pass\n")
    (directory / "reader.py").write_text(f"from .problems import SettingsError\n{program}\n")
    return root


HANGS = """
import fcntl, time
lock = open("lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
open("running", "w")
time.sleep(600)
"""
BOMB = "\n".join(
    ["config:", " a0: &a0 [x]", *(f" a{n + 1}: &a{n + 1} [{f'*a{n}, ' * 10}]" for n in range(9))]
)
REFUSES = """
def read_file(stack):
    raise SettingsError(f"{stack} is refused")
"""


@pytest.mark.slow
def test_one_side_that_cannot_run_takes_nothing_from_the_other(tmp_path: Path) -> None:
    broken = checkout(tmp_path / "a", "raise SystemExit('no such module')")
    killed = checkout(tmp_path / "b", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    refusing = checkout(tmp_path / "c", REFUSES)
    one, two, three = files.describe("lab", broken, killed, refusing)
    assert isinstance(one, DescriptionError) and "no such module" in str(one)
    assert isinstance(two, DescriptionError) and "ended without a description" in str(two)
    assert isinstance(three, files.Description) and three.problems == ("lab is refused",)


@pytest.mark.slow
def test_a_stack_file_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    without_bytecode = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "components", tmp_path / "components", ignore=without_bytecode)
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks" / "Pulumi.lab.yaml").write_text(BOMB)
    [side] = files.describe("lab", tmp_path)
    assert isinstance(side, files.Description)
    assert "aliases make more than 1,000,000 values" in "".join(side.problems)


@pytest.mark.slow
@pytest.mark.parametrize("interrupted", some_quick([False, True], False))
def test_a_program_that_hangs_is_a_reason_and_ends_with_the_plan(
    interrupted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = checkout(tmp_path / "checkout", HANGS)

    class Impatient(subprocess.Popen[bytes]):
        """Waits until the program hangs."""

        def wait(self, timeout: float | None = None) -> int:
            if timeout is None:
                return super().wait()
            while not (root / "running").exists():
                time.sleep(0.05)
            raise KeyboardInterrupt if interrupted else subprocess.TimeoutExpired("it", timeout)

    monkeypatch.setattr(subprocess, "Popen", Impatient)
    if interrupted:
        with pytest.raises(KeyboardInterrupt):
            files.describe("lab", root)
    else:
        [side] = files.describe("lab", root)
        assert isinstance(side, DescriptionError) and "did not end within" in str(side)
    with (root / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # waits for the end of the program


def test_a_base_that_is_not_there_is_said_at_the_level_state_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(state, "plan", lambda *_: replace(plan(), level=Level.STATE))
    planned = levels.plan(levels.Request(stack="lab", base="nowhere"))
    assert not planned.base
    [degraded] = planned.degraded
    assert "no branch or commit nowhere here: correct --base" in degraded.reason
    last = words.origin(planned)[-1].render(lambda text, _: text)
    assert last.startswith("The program was not compared: there is no branch")


def test_a_stack_file_that_the_program_did_not_get_through_with_is_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: str) -> None:
        raise AssertionError("it was read")

    monkeypatch.setattr(files, "plan", lambda *_: plan(picture=None))
    monkeypatch.setattr("components.config.load_file", refuse)
    assert levels.plan(levels.Request(stack="odd", level=Level.FILES)).broken == ()


PRINTED = """
import sys
from tests.unit.tools.plan.samples import EVERYTHING
from tools.plan import __main__, levels
levels.plan = lambda _: EVERYTHING
sys.exit(__main__.main(["--stack", "lab", *sys.argv[1:]]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("form", some_quick(["--json", "--markdown", "--verbose"], "--markdown"))
def test_neither_a_closed_pipe_nor_an_ascii_locale_changes_the_exit_code(
    form: str,
) -> None:
    command = [sys.executable, "-c", PRINTED, form]
    variables = {**os.environ, "PYTHONPATH": PYTHONPATH, "PYTHONIOENCODING": "ascii"}
    pipe = subprocess.PIPE
    printed = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, check=False)
    assert "→" in printed.stdout.decode() or form == "--json", printed.stderr
    with subprocess.Popen(command, cwd=ROOT, env=variables, stdout=pipe, stderr=pipe) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        messages = process.stderr.read()
    assert process.returncode == printed.returncode != 1
    assert not messages
