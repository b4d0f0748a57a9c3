"""Each command prints its usage before the virtual environment exists."""

from __future__ import annotations

import importlib
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tools import PYTHONPATH, ROOT, launch
from tools.mesh_status.cli import UNREADABLE

HELP = """
import importlib, sys
[module] = sys.argv[1:]
sys.stdout.write(importlib.import_module(module).parser().format_help())
"""
FIRST_START = """
import importlib.util, pathlib, sys
from tools import launch, steps, venv
[_, logs] = sys.argv
steps.LOGS = pathlib.Path(logs)
venv.complete = lambda: False
importlib.util.find_spec = lambda name: None
sys.argv = ["status"]
launch.run("status")
"""
"""The first start of a command, on a Debian without python3-venv."""


@pytest.mark.parametrize("command", sorted(launch.COMMANDS))
def test_help_needs_no_environment_and_fits_a_terminal(command: str) -> None:
    _, module, _ = launch.COMMANDS[command]
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    done = subprocess.run([sys.executable, "-S", "-c", HELP, module], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: ./scripts/{command} ")
    assert [line for line in done.stdout.splitlines() if len(line) > 100] == []


def test_every_command_is_launched() -> None:
    launchers = {file.name for file in (ROOT / "scripts").iterdir() if file.is_file()}
    assert launchers == launch.COMMANDS.keys()


def test_commands_of_developers_prepare_this_machine_and_those_of_operators_do_not() -> None:
    preparing = {command for command, (_, _, preparation) in launch.COMMANDS.items() if preparation}
    assert launch.COMMANDS.keys() - preparing == {"live-run", "plan", "status"}
    for _, _, preparation in launch.COMMANDS.values():
        if preparation:
            machine = importlib.import_module(preparation)
            assert callable(machine.unmet_requirements) and callable(machine.install)


def test_on_a_terminal_the_environment_is_made_without_packages(tmp_path: Path) -> None:
    """Python's `-S` hides all packages, as in a checkout that has no environment yet."""
    screen, terminal = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-S", "-c", FIRST_START, tmp_path],
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
        stdout=terminal,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(terminal)
    os.close(screen)
    assert done.returncode == UNREADABLE
    assert done.stderr.startswith("[ 1/1] Python environment failed after")
