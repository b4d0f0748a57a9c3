"""A level that cannot be had becomes the one below, whatever is in its way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.unit.tools.plan.plans import plan
from tools import PYTHONPATH, ROOT
from tools.plan import files, levels, state
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
    monkeypatch.setattr(state, "preview", lambda *_: output)
    monkeypatch.setattr(files, "plan", lambda *_: plan())
    planned = levels.plan(levels.Request(stack="existing"))
    assert planned.level is Level.FILES
    [degraded] = planned.degraded
    assert degraded.level is Level.STATE and "another form" in degraded.reason


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import time; time.sleep(60)", "did not end within 1 seconds"),
        ("print('text')", "another form"),
        ("print('[]')", "another form"),
        ("raise SystemExit('no such module')", "no such module"),
    ],
)
def test_a_program_that_hangs_or_prints_something_else_is_a_reason(
    program: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "TIMEOUT_S", 1)
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        ended = files.ended(process)
        process.kill()
    assert isinstance(ended, DescriptionError) and reason in str(ended)


def test_a_program_that_hangs_ends_with_the_plan(tmp_path: Path) -> None:
    (tmp_path / "components").mkdir()
    (tmp_path / "components" / "__init__.py").write_text("import time\ntime.sleep(60)\n")
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt), ExitStack() as contexts:
        process = files.start(tmp_path, "lab", contexts)
        raise KeyboardInterrupt
    assert process.returncode == -signal.SIGKILL
    assert time.monotonic() - begin < 30


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


@pytest.mark.parametrize("form", ["--json", "--markdown", "--verbose"])
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
