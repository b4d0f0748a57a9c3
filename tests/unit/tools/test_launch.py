"""Each command prints its usage before the virtual environment exists."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import pytest

from tools import PYTHONPATH, ROOT, launch

HELP = """
import importlib, sys
[module] = sys.argv[1:]
sys.stdout.write(importlib.import_module(module).parser().format_help())
"""


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
