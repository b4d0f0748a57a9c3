"""Graphs as files that people review: one per stack, every resource with its inputs, dependencies and options."""

from __future__ import annotations

import base64
import io
import json
import re
import tarfile
from typing import Any

from tests.support.harness import ROOT, Node, Run

DIRECTORY = ROOT / "tests" / "preview" / "golden"
SCRIPTS = {file.stem: file.read_text() for file in sorted((ROOT / "components").rglob("*.sh"), key=lambda file: file.stem)}
LONG = 300
_VARIABLE = re.compile(r"""^([A-Z][A-Z0-9_]*)=((?:'[^']*'|"'"|[^\s'])*)$""", re.MULTILINE)


def render(run: Run) -> str:
    """The graph and the names of the stack's outputs as JSON."""
    graph = {name: _node(run.graph[name]) for name in sorted(run.graph)}
    return json.dumps({"resources": graph, "outputs": run.outputs}, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _node(node: Node) -> dict[str, Any]:
    shown = {
        "type": node.type,
        "parent": node.parent,
        "provider": node.provider,
        "inputs": _readable(node.inputs),
        "dependencies": node.dependencies,
        "options": node.options,
    }
    return {key: value for key, value in shown.items() if value}


def _readable(value: Any) -> Any:
    """Values with scripts as their names, variables and files; what is long and no script is only named as such."""
    if isinstance(value, dict):
        return {key: "…" if key == "__provider" else _readable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_readable(item) for item in value]
    if not isinstance(value, str):
        return value
    if bodies := [name for name, text in SCRIPTS.items() if text in value]:
        for name in bodies:
            value = value.replace(SCRIPTS[name], "")
        shown: dict[str, Any] = {"script": " ".join(bodies)}
        variables = dict(_VARIABLE.findall(value))
        if files := variables.pop("FILES", None):
            shown["files"] = tar_listing(files)
        if variables:
            shown["variables"] = {name: _short(text) for name, text in variables.items()}
        return shown
    return _short(value)


def tar_listing(encoded: str) -> list[str]:
    """Return `path mode owner` for each file of a tar in base64."""
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(encoded))) as tar:
        return [f"/{file.name} {file.mode:04o} {file.uname}:{file.gname}" for file in tar]


def _short(text: str) -> str:
    return text if len(text) <= LONG and "\n" not in text else "…"
