"""The wheel: the whole package under the project's name, which works where nothing else of the project is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.library.conftest import PACKAGE, Documented
from tools import ROOT

GRAPH = """
import json, pathlib, sys
from pulumi.runtime import mocks
from tools import mock_engine

class Echo(mocks.Mocks):
    def new_resource(self, args):
        names.append(args.name)
        return None, args.inputs
    def call(self, args):
        raise AssertionError(f"the program calls {args.token}")

names, inputs = [], json.load(sys.stdin)
program = mock_engine.Program(pathlib.Path(sys.argv[1]), sys.argv[2])
monitor = mocks.MockMonitor(Echo())
mock_engine.run_program(monitor, inputs["config"], preview=True, program=program)
import istio_vm_mesh
print(json.dumps({"package": istio_vm_mesh.__file__, "names": names}))
"""
"""A driver for the mocks: it prints the package's place and the names of what a program declares."""


def tracked(directory: str) -> set[str]:
    """List the files of a directory that belong to the project, caches left out."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", directory]
    output = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {name for name in output.split("\0") if name and (ROOT / name).exists()}


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    metadata = {name for name in names if ".dist-info/" in name}
    expected = {name.replace("components/", f"{PACKAGE}/", 1) for name in tracked("components")}
    assert names - metadata == expected
    assert {f"{PACKAGE}/py.typed", f"{PACKAGE}/machines/scripts/join.sh", f"{PACKAGE}/machines/units/istio-vm-mesh.service"} < names


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel, with what it requires in the locked versions, into an empty environment."""
    directory = tmp_path_factory.mktemp("environment")
    venv.create(directory, with_pip=False)
    interpreter = directory / "bin" / "python"
    lock = (ROOT / "requirements.txt").read_text().splitlines()
    constraints = directory / "constraints.txt"
    constraints.write_text("\n".join(line.split(" ")[0] for line in lock if line[:1].isalnum()))
    pip = [sys.executable, "-m", "pip", "--python", str(interpreter), "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--constraint", str(constraints), str(wheel)], check=True)
    return interpreter


def test_an_empty_environment_builds_a_graph(python: Path, documented: Documented, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT / "scripts")}
    inputs = {"config": documented.config}
    done = subprocess.run(
        [str(python), "-c", GRAPH, str(documented.program.file), documented.program.project],
        cwd=tmp_path,
        env=environment,
        input=json.dumps(inputs),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert Path(result["package"]).is_relative_to(python.parents[1])
    assert {"billing-1-join", "billing-2-join", "billing-group", "istio-vm-mesh-gateway"} < set(result["names"])


def test_a_script_runs_from_the_environment(python: Path) -> None:
    """Scripts beside Pulumi run as files of the package, by any `python3`."""
    locate = [str(python), "-c", f"import {PACKAGE}.local.run as run; print(run.__file__)"]
    runner = subprocess.run(locate, capture_output=True, text=True, check=True).stdout.strip()
    arguments = ["machines/scripts/create_ssh_key.py", "create"]
    payload = json.dumps({"create": {"comment": "test"}})
    done = subprocess.run(["python3", "-I", runner, *arguments], input=payload, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["public"].startswith("ssh-ed25519 ")
