"""Helm releases that a killed run left half-way. Helm refuses to go on from there, and so does
Pulumi's kubernetes plugin.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.process import Command
from tools.steps import Step

from . import paths

TYPE = "kubernetes:helm.sh/v3:Release"


def repair(step: Step, operations: Sequence[dict[str, Any]], kubeconfig: Path) -> None:
    """Remove releases whose installation was under way, and roll back those whose upgrade was, so
    that the next `up` can go on.

    `operations` are the pending ones of the state. An installation is removed even if Helm finished
    it: it is not in the state.
    """
    for operation in operations:
        if operation["resource"]["type"] != TYPE:
            continue
        name, namespace = (str(operation["resource"]["inputs"][key]) for key in ("name", "namespace"))
        where = ["--namespace", namespace, "--kubeconfig", str(kubeconfig)]
        if operation["type"] == "creating":
            step.line(f"a former run was killed: removing what it installed of the release {name}")
            step.run([paths.BIN / "helm", "uninstall", name, *where, "--ignore-not-found", "--wait", "--timeout", "2m"])
        elif operation["type"] == "updating" and _status(step, name, where).startswith("pending-"):
            step.line(f"a former run was killed: rolling the release {name} back")
            step.run([paths.BIN / "helm", "rollback", name, *where])


def _status(step: Step, name: str, where: list[str]) -> str:
    done = step.run(Command([paths.BIN / "helm", "status", name, *where, "--output", "json"], capture=True), check=False)
    return str(json.loads(done.output)["info"]["status"]) if done.code == 0 else ""
