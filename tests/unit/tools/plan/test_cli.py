"""The command in a checkout with commits, at the level FILES, with nothing but git on PATH."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools import ROOT

pytestmark = pytest.mark.slow

COPIED = (
    "__main__.py",
    "Pulumi.yaml",
    "components",
    "docs/costs.yaml",
    "docs/stack.schema.json",
    "requirements.txt",
    "scripts",
    "stacks",
)
REFUSED = ("pulumi", "kubectl", "gcloud", "docker", "kind", "helm", "ssh", "curl")
"""Programs that read a state, a cluster, a cloud or a machine."""


@dataclass
class Checkout:
    """A repository with the program, its commit `base` on the branch main."""

    root: Path
    programs: Path
    calls: Path

    def git(self, *words: str) -> None:
        identity = ["-c", "user.name=tester", "-c", "user.email=tester@example.com"]
        subprocess.run(["git", *identity, *words], cwd=self.root, check=True, capture_output=True)

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "A change", "--allow-empty")

    def edit(self, path: str, change: Callable[[str], str]) -> None:
        file = self.root / path
        text = change(file.read_text())
        assert text != file.read_text()
        file.write_text(text)

    def edit_stack(self, stack: str, change: Callable[[Any], object]) -> None:
        file = self.root / "stacks" / f"Pulumi.{stack}.yaml"
        document = yaml.safe_load(file.read_text())
        change({key.partition(":")[2]: value for key, value in document["config"].items()})
        file.write_text(yaml.safe_dump(document))

    def plan(self, *words: str) -> tuple[int, dict[str, Any]]:
        environment = {
            "PATH": str(self.programs),
            "HOME": str(self.programs / "home"),
            "CALLS": str(self.calls),
            "PYTHONPATH": os.pathsep.join([str(self.root / "scripts"), str(self.root)]),
        }
        command = [sys.executable, "-m", "tools.plan", "--level", "files", "--json", *words]
        done = subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, check=False
        )
        assert done.stdout, done.stderr
        assert not self.calls.exists(), f"called: {self.calls.read_text()}"
        return done.returncode, json.loads(done.stdout)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    root, programs = tmp_path / "checkout", tmp_path / "programs"
    for name in COPIED:
        source, target = ROOT / name, root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    programs.mkdir()
    git = shutil.which("git")
    assert git
    (programs / "git").symlink_to(git)
    for name in REFUSED:
        (programs / name).write_text(f'#!/bin/sh\necho {name} "$@" >>"$CALLS"\nexit 1\n')
        (programs / name).chmod(0o755)
    checkout = Checkout(root, programs, tmp_path / "calls")
    (root / ".gitignore").write_text("__pycache__/\n")
    checkout.git("init", "--quiet", "--initial-branch", "main")
    checkout.commit()
    checkout.git("checkout", "--quiet", "-b", "change")
    return checkout


def changes_of(plan: dict[str, Any], workload: str) -> dict[str, str]:
    (change,) = (each for each in plan["workloads"] if each["name"] == workload)
    return {each["machine"]: each["action"] for each in change["machines"]}


def test_a_plan_needs_nothing_but_git(checkout: Checkout) -> None:
    checkout.edit_stack(
        "existing", lambda config: config["workloads"]["billing"]["labels"].update(tier="front")
    )
    code, plan = checkout.plan("--stack", "existing", "--base", "main")
    assert (code, plan["level"], plan["verdict"]) == (2, "files", "safe")
    assert changes_of(plan, "billing") == {"billing-1": "registers", "billing-2": "registers"}
    assert plan["head"].endswith("+") and len(plan["base"]) == 40
    checkout.commit()
    _, committed = checkout.plan("--stack", "existing", "--base", "main")
    assert committed["workloads"] == plan["workloads"]
    assert not committed["head"].endswith("+")


def test_a_change_of_main_after_the_branch_left_it_is_not_in_a_plan(checkout: Checkout) -> None:
    checkout.git("checkout", "--quiet", "main")
    checkout.edit_stack(
        "existing", lambda config: config["workloads"]["billing"]["labels"].update(tier="front")
    )
    checkout.commit()
    checkout.git("checkout", "--quiet", "change")
    code, plan = checkout.plan("--stack", "existing", "--base", "main")
    assert (code, plan["verdict"]) == (0, "nothing")


def test_a_changed_script_of_machines_restarts_their_agents_and_is_named(
    checkout: Checkout,
) -> None:
    path = "components/machines/scripts/withdraw.sh"
    checkout.edit(path, lambda text: f"{text}# changed\n")
    code, plan = checkout.plan("--stack", "existing", "--base", "main")
    assert code == 2 and plan["verdict"] == "program"
    assert changes_of(plan, "billing") == {"billing-1": "restarts", "billing-2": "restarts"}
    assert [(each["what"], each["name"]) for each in plan["program"]] == [("machine-files", path)]


def test_a_changed_script_of_joins_runs_them_again(checkout: Checkout) -> None:
    checkout.edit("components/machines/scripts/join.sh", lambda text: f"{text}# changed\n")
    code, plan = checkout.plan("--stack", "existing", "--base", "main")
    assert code == 2 and plan["verdict"] == "program"
    assert changes_of(plan, "billing") == {"billing-1": "rejoins", "billing-2": "rejoins"}


def test_a_changed_default_is_never_nothing(checkout: Checkout) -> None:
    checkout.edit(
        "components/config/workload.py", lambda text: text.replace('default="25%"', 'default="50%"')
    )
    checkout.edit(
        "docs/stack.schema.json", lambda text: text.replace('"default": "25%"', '"default": "50%"')
    )
    code, plan = checkout.plan("--stack", "existing", "--base", "main")
    assert code == 2 and plan["verdict"] == "program"
    (default,) = (each for each in plan["program"] if each["what"] == "default")
    assert (default["name"], default["before"], default["after"]) == (
        "WorkloadSettings.maxUnavailable",
        "25%",
        "50%",
    )
    (change,) = plan["workloads"]
    assert change["settings"] == [{"key": "max-unavailable", "before": "25%", "after": "50%"}]


def test_a_base_that_cannot_run_here_is_said_and_what_differs_of_it(checkout: Checkout) -> None:
    checkout.git("checkout", "--quiet", "main")
    checkout.edit("components/stack.py", lambda text: f"{text}import a_module_that_is_gone\n")
    checkout.commit()
    checkout.git("checkout", "--quiet", "-B", "change")
    checkout.edit(
        "components/stack.py", lambda text: text.replace("import a_module_that_is_gone\n", "")
    )
    checkout.edit("components/machines/scripts/redirect.sh", lambda text: f"{text}# changed\n")
    code, plan = checkout.plan("--stack", "existing", "--base", "main")
    assert code == 2 and plan["verdict"] == "program"
    assert "a_module_that_is_gone" in plan["degraded"][0]["reason"]
    named = {each["name"]: each["what"] for each in plan["program"]}
    assert named["components/machines/scripts/redirect.sh"] == "machine-files"
    assert named["components/stack.py"] == "program"


def test_a_refused_stack_file_and_one_that_is_new(checkout: Checkout) -> None:
    checkout.edit_stack("lab", lambda config: config["mesh"].pop("version"))
    shutil.copy(
        checkout.root / "stacks/Pulumi.existing.yaml", checkout.root / "stacks/Pulumi.another.yaml"
    )
    code, plan = checkout.plan("--stack", "lab", "--base", "main")
    assert (code, plan["verdict"], plan["error"]["kind"]) == (1, "refused", "settings")
    code, plan = checkout.plan("--stack", "another", "--base", "main")
    assert code == 2
    assert changes_of(plan, "billing") == {"billing-1": "joins", "billing-2": "joins"}


def test_without_the_base_there_is_a_plan_with_the_cause(checkout: Checkout) -> None:
    code, plan = checkout.plan("--stack", "existing", "--base", "origin/main")
    assert code == 1
    [line] = plan["error"]["lines"]
    assert line == "there is no branch or commit origin/main here: correct --base, or fetch it"
    assert plan["picture"]["workloads"]


def test_a_shallow_clone_without_the_base_names_the_fix(checkout: Checkout) -> None:
    tip = checkout.root.parent / "tip"
    checkout.commit()
    checkout.git("clone", "--quiet", "--depth", "1", f"file://{checkout.root}", str(tip))
    code, plan = replace(checkout, root=tip).plan("--stack", "existing", "--base", "main")
    assert code == 1
    assert "The clone is shallow: `git fetch --unshallow`" in plan["error"]["lines"][0]


@pytest.mark.parametrize(
    ("missing", "problem"),
    [("git", "git is not on PATH, so nothing can be compared"), (".git", "is no clone of a")],
)
def test_without_git_there_is_a_plan_with_the_cause(
    checkout: Checkout, missing: str, problem: str
) -> None:
    if missing == "git":
        (checkout.programs / "git").unlink()
    else:
        shutil.rmtree(checkout.root / ".git")
    code, plan = checkout.plan("--stack", "existing")
    assert code == 1
    assert problem in plan["error"]["lines"][0]
    assert plan["picture"]["workloads"]


def test_a_rule_that_the_change_disables_is_marked(checkout: Checkout) -> None:
    def disable(**reasons: str) -> None:
        file = checkout.root / "stacks" / "Pulumi.existing.yaml"
        document = yaml.safe_load(file.read_text())
        document["config"]["istio-vm-mesh:rules"] = {"disabled": reasons}
        file.write_text(yaml.safe_dump(document))

    disable(plaintext="there from the start")
    checkout.commit()
    checkout.git("branch", "--force", "main")
    disable(plaintext="there from the start", openToWorld="since today")
    _, plan = checkout.plan("--stack", "existing", "--base", "main")
    assert {each["rule"]: each["new"] for each in plan["broken"]} == {
        "openToWorld": True,
        "plaintext": False,
    }


def test_a_higher_level_becomes_the_one_below_with_the_cause(checkout: Checkout) -> None:
    (checkout.programs / "pulumi").unlink()
    code, plan = checkout.plan("--stack", "existing", "--base", "main", "--level", "live")
    assert (code, plan["level"], plan["verdict"]) == (0, "files", "nothing")
    assert [
        (each["level"], "pulumi is not on PATH" in each["reason"]) for each in plan["degraded"]
    ] == [("state", True)]


def test_a_digest_beside_the_stack_file_that_changes_is_named(checkout: Checkout) -> None:
    def by_file(config: Any) -> None:
        url = "https://packages.example.com/istio-sidecar.deb"
        config["mesh"]["package"] = {"url": url, "sha256": "package.sha256"}

    (checkout.root / "package.sha256").write_text("0" * 64)
    checkout.edit_stack("existing", by_file)
    checkout.commit()
    checkout.git("branch", "--force", "main")
    (checkout.root / "package.sha256").write_text("1" * 64)
    code, plan = checkout.plan("--stack", "existing", "--base", "main")
    assert (code, plan["verdict"]) == (2, "program"), plan["error"]
    assert [(each["what"], each["name"]) for each in plan["program"]] == [
        ("local-file", "package.sha256")
    ]
