"""Graphs as files that people review: one per stack, every resource with its inputs, dependencies and options.

A long text is shown as its length and a digest, so that a change of it shows in the file. Under mocks even secrets are constants
(tests/support/harness.py), so digests are the same in every run and tell nothing about a real secret.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import tarfile
from typing import Any

from tests.support.harness import ROOT, Node, Run

UPDATE = "UPDATE_GOLDEN=1 .venv/bin/python -m pytest tests/preview"
"""The command that writes wanted changes of graphs, and new URNs."""
DIRECTORY = ROOT / "tests" / "preview" / "golden"
SCRIPTS = {file.stem: file.read_text() for file in sorted((ROOT / "components").rglob("*.sh"), key=lambda file: file.stem)}
LONG = 300
"""Characters; a text with more of them is shown as its digest."""

UNSTABLE = {"__provider", "SCRIPT_DIGEST"}
"""Properties that say nothing to a reader: a dynamic provider, serialized, and digests of scripts."""

_VARIABLE = re.compile(r"""^([A-Z][A-Z0-9_]*)=((?:'[^']*'|"'"|[^\s'])*)$""", re.MULTILINE)


def render(run: Run) -> str:
    """Render the graph and the names of the stack's outputs as JSON."""
    graph = {name: _node(run.graph[name]) for name in sorted(run.graph)}
    return json.dumps({"resources": graph, "outputs": run.outputs}, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def digest(text: str) -> str:
    """Describe a text by its length and the first characters of its SHA-256."""
    return f"… {len(text)} characters, sha256 {hashlib.sha256(text.encode()).hexdigest()[:8]}"


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


def _changes(environment: dict[str, Any]) -> dict[str, str]:
    """Show what makes a command run again without the digests of scripts in it."""
    texts = {key: environment[key] for key in ("CHANGES", "changes") if isinstance(environment.get(key), str)}
    return {key: re.sub(r"\b[0-9a-f]{16}\b", "…", text) for key, text in texts.items()}


def _readable(value: Any) -> Any:
    """Show a script as its name, variables and files, and another long text as its digest."""
    if isinstance(value, dict):
        return {key: "…" if key in UNSTABLE else _readable(item) for key, item in value.items()} | _changes(value)
    if isinstance(value, list):
        return [_readable(item) for item in value]
    if not isinstance(value, str):
        return value
    if value.startswith("{") and isinstance(payload := _json(value), dict):
        return {"json": _readable(payload)}
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
    """Return path, mode, owner and digest of each file of a tar in base64."""
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(encoded))) as tar:
        files = [(file, tar.extractfile(file)) for file in tar if file.isfile()]
        return [
            f"/{file.name} {file.mode:04o} {file.uname}:{file.gname} {digest(content.read().decode())}"
            for file, content in files
            if content
        ]


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _short(text: str) -> str:
    return text if len(text) <= LONG else digest(text)
