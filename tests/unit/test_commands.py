"""The rules for commands beside Pulumi and on machines."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pulumi
import pytest

from components import commands
from components.istio.scripts import gateway_api
from components.local import over_ssh
from components.machines.scripts import create_ssh_key, drain, join_machine
from components.verification import evidence
from components.verification.scripts import verify_workload
from tests.support import harness, python_3_9

COMPONENTS = harness.ROOT / "components"
SCRIPTS = sorted(file.relative_to(COMPONENTS).as_posix() for file in COMPONENTS.rglob("scripts/*.py") if "def run(" in file.read_text())
SLOTS = ["machines/scripts/slots.py", "machines/scripts/slot_decision.py", "machines/scripts/slot_lease.py"]
MODULES = {name: import_module(f"components.{name.removesuffix('.py').replace('/', '.')}") for name in ["local/over_ssh.py", *SCRIPTS]}
SOURCES = {name: sorted(file.relative_to(COMPONENTS).as_posix() for file in commands.sources(module)) for name, module in MODULES.items()}
BESIDE_PULUMI = sorted({file for files in SOURCES.values() for file in files})
"""What `python3` on PATH runs: scripts, and all of this package that they import."""
PACKAGES = ["config/__init__.py"]
"""What runs on the way to a module of another package. It does nothing there, so no digest covers it."""
PYTHONS = [sys.executable, *filter(shutil.which, (f"python3.{minor}" for minor in range(9, 14)))]
LOAD = """
import json, os, runpy, sys
directory, *scripts = sys.argv[1:]
runner = runpy.run_path(os.path.join(directory, "local", "run.py"))
files = {}
for script in scripts:
    runner["load"]("local/scripting.py")
    runner["load"](script)
    modules = [sys.modules.pop(name) for name in list(sys.modules) if name.startswith(runner["PACKAGE"])]
    files[script] = [os.path.relpath(module.__file__, directory) for module in modules if hasattr(module, "__file__")]
json.dump(files, sys.stdout)
"""
"""Load each script as `run.py` does, without what the one before it has loaded."""


def test_what_runs_beside_pulumi_is_derived_from_the_scripts() -> None:
    shared = {"local/run.py", "local/scripting.py", "local/over_ssh.py", "local/openssh.py", "local/conversation.py", "names.py"}
    assert {*shared, *SLOTS, "verification/calico_selectors.py", "verification/evidence.py", *SCRIPTS} <= set(BESIDE_PULUMI)
    assert len(SCRIPTS) > 15


@pytest.mark.parametrize("name", [*BESIDE_PULUMI, *PACKAGES])
def test_what_runs_beside_pulumi_needs_python_3_9_and_its_library_alone(name: str) -> None:
    assert python_3_9.problems((COMPONENTS / name).read_text()) == []


@pytest.mark.parametrize("python", PYTHONS, ids=lambda python: Path(python).name)
def test_each_python_that_is_here_loads_the_scripts_from_their_sources(python: str) -> None:
    # Without the packages of the environment, which `python3` on PATH need not have.
    line = [python, "-IS", "-c", LOAD, str(COMPONENTS), *MODULES]
    done = subprocess.run(line, capture_output=True, text=True)
    if python != sys.executable and done.returncode == 127:
        return  # pyenv's placeholder for a Python that is not selected here
    assert (done.returncode, done.stderr) == (0, "")
    for script, loaded in json.loads(done.stdout).items():
        assert sorted({*loaded, "local/run.py"} - {*PACKAGES}) == SOURCES[script], script


def test_a_command_line_is_the_same_in_every_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    line = "python3 -I components/local/run.py machines/scripts/drain.py delete"
    monkeypatch.chdir(harness.ROOT)
    assert commands.command_line(drain, "delete") == line
    monkeypatch.chdir(tmp_path)
    assert commands.command_line(drain, "delete") == line.replace("components/local", f"{COMPONENTS}/local")


def test_a_digest_covers_what_a_script_imports() -> None:
    def names(module: Any) -> set[str]:
        return {file.relative_to(COMPONENTS).as_posix() for file in commands.sources(module)}

    base = {"local/run.py", "local/scripting.py"}
    ssh = {f"local/{name}.py" for name in ("over_ssh", "openssh", "ssh_log", "conversation", "private_files")}
    assert names(over_ssh) == {*base, *ssh, "names.py", "shell.py"}
    machine = {"machines/bundle.py", "machines/entries.py", *SLOTS, "machines/scripts/join_machine.py"}
    assert names(join_machine) >= {*base, *machine, "local/openssh.py", "names.py"}
    cluster = {f"local/{name}.py" for name in ("cluster_access", "private_files", "update_id")}
    assert names(gateway_api) == {
        *base,
        *cluster,
        "istio/scripts/gateway_api.py",
        "manifest.py",
        "names.py",
        "ownership.py",
        "versions.py",
    }
    assert names(verify_workload) == {
        *base,
        *cluster,
        "config/addresses.py",
        "manifest.py",
        "names.py",
        "shell.py",
        "verification/calico_selectors.py",
        "verification/cni_policies.py",
        "verification/network_policies.py",
        "verification/resource_limits.py",
        "verification/scripts/calling_pods.py",
        "verification/scripts/cluster_objects.py",
        "verification/scripts/deployment.py",
        "verification/scripts/members.py",
        "verification/scripts/policy_causes.py",
        "verification/scripts/verify_workload.py",
        "verification/target.py",
        Path(evidence.__file__).relative_to(COMPONENTS).as_posix(),
    }


def test_a_command_that_converges_has_nothing_to_delete() -> None:
    script = commands.Script(create_ssh_key, create_ssh_key.Payload(comment="x"))
    with pytest.raises(ValueError, match="nothing to delete"):
        commands.local_command(
            "it",
            script,
            pulumi.ResourceOptions(),
            delete=script,
            options=commands.CommandOptions(converges=True),
        )
