"""The tools of operators work without the lab and without the stand-ins."""

from __future__ import annotations

import os
import subprocess
import sys

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


def test_the_lab_is_refused_here() -> None:
    with pytest.raises(AssertionError, match=r"tools\.lab must not be needed"):
        python("import tools.lab")
