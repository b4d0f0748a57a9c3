"""The tools of operators work without the lab and without the stand-ins."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools import PYTHONPATH

WITHOUT_LAB = """
import importlib.abc, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[:2] in (["tools", "lab"], ["tools", "standins"]):
            raise ModuleNotFoundError(f"{name} must not be needed")

sys.meta_path.insert(0, Refuse())
"""
EVERY_MODULE = """
import importlib, pkgutil
package = importlib.import_module("tools.mesh_status")
for module in pkgutil.walk_packages(package.__path__, "tools.mesh_status."):
    importlib.import_module(module.name)
"""
LAUNCH = """
import os
from tools import launch, venv
venv.complete = lambda: True
os.execve = lambda python, command, environment: print(*command[1:])
sys.argv = {arguments!r}
launch.run({command!r})
"""

LAUNCH_FIRST = """
import importlib.util, pathlib, sys
from tools import launch, steps, venv
steps.LOGS = pathlib.Path({logs!r})
venv.complete = lambda: False
importlib.util.find_spec = lambda name: None
sys.argv = [{command!r}, *{arguments!r}]
try:
    launch.run({command!r})
except SystemExit as exit:
    print(exit.code)
"""
"""The first start of a command, on a Debian without python3-venv."""


def python(program: str) -> str:
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    done = subprocess.run([sys.executable, "-c", WITHOUT_LAB + program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_status_loads_without_lab_and_stand_ins() -> None:
    python(EVERY_MODULE)


def test_status_is_launched_without_lab_and_stand_ins() -> None:
    arguments = ["status", "--json"]
    assert python(LAUNCH.format(command="status", arguments=arguments)) == "-m tools.mesh_status --json\n"


@pytest.mark.parametrize(("command", "arguments", "code"), [("status", [], 3), ("plan", [], 1), ("live-run", ["a-stack", "--check"], 3)])
def test_the_first_start_of_an_operators_tool_needs_no_lab(command: str, arguments: list[str], code: int, tmp_path: Path) -> None:
    program = LAUNCH_FIRST.format(command=command, arguments=arguments, logs=str(tmp_path))
    assert python(program).splitlines()[-1] == str(code)


def test_the_lab_is_refused_here() -> None:
    with pytest.raises(AssertionError, match=r"tools\.lab must not be needed"):
        python("import tools.lab")
