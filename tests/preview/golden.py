"""Graphs as files that people review: one per stack, every resource with its inputs, dependencies and options."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.preview.harness import ROOT, Node, Run

DIRECTORY = Path(__file__).parent / "golden"
SCRIPTS = {file.stem: file.read_text() for file in sorted((ROOT / "components").rglob("*.sh"), key=lambda file: file.stem)}
LONG = 300
_VARIABLE = re.compile(r"""^([A-Z][A-Z0-9_]*)=((?:'[^']*'|"'"|[^\s'])*)$""", re.MULTILINE)
_FILE = re.compile(r"^ +put (\S+ \S+ \S+) \S+$", re.MULTILINE)


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
        head = value[: min(value.index(SCRIPTS[name]) for name in bodies)]
        found: dict[str, Any] = {"script": " ".join(bodies)}
        if variables := {name: _short(text) for name, text in _VARIABLE.findall(head)}:
            found["variables"] = variables
        if files := _FILE.findall(head):
            found["files"] = files
        return found
    return _short(value)


def _short(text: str) -> str:
    return text if len(text) <= LONG and "\n" not in text else "…"
