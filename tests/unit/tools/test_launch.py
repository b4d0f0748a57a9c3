"""Each command prints its usage before the virtual environment exists."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tools import PYTHONPATH, ROOT, launch

USAGE = """
import importlib, sys
[module] = sys.argv[1:]
sys.stdout.write(importlib.import_module(module).parser().format_usage())
"""


@pytest.mark.parametrize("command", sorted(launch.COMMANDS))
def test_usage_needs_no_environment(command: str) -> None:
    _, module = launch.COMMANDS[command]
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    done = subprocess.run([sys.executable, "-S", "-c", USAGE, module], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: ./scripts/{command} ")


def test_every_command_is_launched() -> None:
    launchers = {file.name for file in (ROOT / "scripts").iterdir() if file.is_file()}
    assert launchers == launch.COMMANDS.keys()
