"""The rules for commands beside Pulumi and on machines."""

from __future__ import annotations

import ast
import sys
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
from tests.support import harness

COMPONENTS = harness.ROOT / "components"
SCRIPTS = sorted(file.relative_to(COMPONENTS).as_posix() for file in COMPONENTS.rglob("scripts/*.py") if "def run(" in file.read_text())
SLOTS = ["machines/scripts/slots.py", "machines/scripts/slot_decision.py", "machines/scripts/slot_lease.py"]
PARTS = [
    "grammar.py",
    "machines/bundle.py",
    "machines/entries.py",
    *SLOTS,
    "ownership.py",
    "shell.py",
    "verification/evidence.py",
    "verification/target.py",
]
LOCAL = sorted({*SCRIPTS, *PARTS, *(f"local/{file.name}" for file in COMPONENTS.glob("local/*.py"))})


@pytest.mark.parametrize("name", LOCAL)
def test_what_runs_beside_pulumi_needs_python_3_9_and_its_library_alone(name: str) -> None:
    tree = ast.parse((COMPONENTS / name).read_text(), feature_version=(3, 9))
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names


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
    assert names(over_ssh) == {*base, *ssh, "shell.py"}
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
            delete=["true"],
            options=commands.CommandOptions(converges=True),
        )
