"""All processes of one `pulumi up` have one id, and each `pulumi up` has another one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from components.local import update_id
from components.local.update_id import Process
from tests.support.fake_programs import Programs

ROOT = Path(update_id.__file__).parents[2]
PRINT = "from components.local import update_id; print(update_id.update_id())"
CLI, PLUGIN = Process(40, 30, "pulumi", "400"), Process(50, 40, "pulumi-resource-c", "500")
SHELL, LOGIN = Process(60, 50, "sh", "600"), Process(30, 1, "bash", "300")


@pytest.mark.parametrize(
    ("above", "process"),
    [
        ([SHELL, PLUGIN, CLI, LOGIN], CLI),
        ([PLUGIN, CLI, LOGIN], CLI),
        # One of Pulumi's own plugins is not the command-line program.
        ([SHELL, PLUGIN, LOGIN], PLUGIN),
        ([SHELL, LOGIN], SHELL),
        # An update that was started by another update's program is an update of its own.
        ([SHELL, PLUGIN, CLI, LOGIN, Process(20, 1, "pulumi", "200")], CLI),
        ([], None),
    ],
)
def test_the_command_line_program_is_the_update(above: list[Process], process: Process | None) -> None:
    assert update_id.chosen(above) == process


@pytest.mark.parametrize(("above", "is_update"), [([SHELL, PLUGIN, CLI], True), ([SHELL, LOGIN], False), ([], False)])
def test_what_pulumi_does_not_run_is_no_update(above: list[Process], is_update: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update_id, "ancestors", lambda: above)
    assert update_id.of_pulumi() == (update_id.update_id() if is_update else "")


@pytest.fixture
def pulumi(tmp_path: Path) -> Path:
    """A program `pulumi` that runs what it is given by a shell."""
    program = tmp_path / "pulumi"
    shutil.copy("/bin/bash", program)
    return program


def ids(pulumi: Path, text: str) -> list[str]:
    words = [str(pulumi), "-c", text, sys.executable, PRINT]
    return subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()


def test_processes_of_one_update_have_one_id(pulumi: Path) -> None:
    direct, by_shell = '"$0" -c "$1"; true', 'sh -c "true; \\"\\$0\\" -c \\"\\$1\\"; true" "$0" "$1"; true'
    first, second = ids(pulumi, f"{direct}; {by_shell}")
    assert first == second
    assert len(first) == 16
    assert ids(pulumi, direct) != [first]


def test_other_systems_processes_are_read_by_ps(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    programs.add("ps", ("-p 7", 0, "   42 Thu Nov 26 01:02:03 2026     /usr/local/bin/pulumi\n", ""), ("", 1, "", ""))
    monkeypatch.setenv("PATH", str(programs.directory))
    process = update_id._from_ps(7)
    assert process == Process(7, 42, "pulumi", "Thu Nov 26 01:02:03 2026")
    assert update_id._from_ps(42) is None
