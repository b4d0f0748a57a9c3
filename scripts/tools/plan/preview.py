"""What Pulumi previews: its calls, and the JSON that it prints."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tools.mesh_status import pulumi

from . import differences
from .model import Operation
from .resources import UNKNOWN, Resource

OPERATIONS = frozenset({"create", "update", "replace", "delete", "import"})
REGISTRATION = "dynamic/registration:Registration"


class NoPreviewError(Exception):
    """There is no preview: one sentence with cause and fix.

    lines: what Pulumi reports, where the preview itself failed; empty where it never ran.
    refused: whether the program refuses the change, so that an update would fail as well.
    """

    def __init__(self, reason: str, lines: tuple[str, ...] = (), refused: bool = False) -> None:
        super().__init__(reason)
        self.lines, self.refused = lines, refused


@dataclass(frozen=True)
class Preview:
    """What Pulumi previews. before, after: the resources on both sides."""

    before: tuple[Resource, ...]
    after: tuple[Resource, ...]
    operations: tuple[Operation, ...]


def run(variables: Mapping[str, str], stack: str, destroy: bool) -> str:
    """Return what Pulumi prints as JSON. Raises NoPreviewError."""
    words = ["destroy", "--preview-only"] if destroy else ["preview", "--show-sames"]
    command = ["pulumi", *words, "--json", "--stack", stack, *pulumi.QUIET]
    try:
        done = pulumi.run(command, variables)
    except FileNotFoundError:
        raise NoPreviewError(
            "pulumi is not on PATH: install it, or bring the lab up first (./scripts/lab up)"
        ) from None
    if done.returncode:
        raise failure(done.stdout, done.stderr)
    return done.stdout


def failure(stdout: str, stderr: str) -> NoPreviewError:
    """Return why there is no preview. Warnings and the text of secrets are not in it."""
    with contextlib.suppress(ValueError):
        errors = [
            each
            for each in _document(stdout).get("diagnostics") or ()
            if each.get("severity") == "error"
        ]
        lines = tuple(
            dict.fromkeys(line for each in errors for line in _lines(each.get("message", "")))
        )
        if lines:
            refused = any(REGISTRATION in str(each.get("urn", "")) for each in errors)
            return NoPreviewError(f"the preview failed: {lines[0]}", lines, refused)
    lines = tuple(_lines(stderr))[-5:]
    return NoPreviewError(pulumi.with_fix(lines[-1]) if lines else "pulumi gave no reason")


def _lines(text: str) -> Iterator[str]:
    for line in text.splitlines():
        words = line.strip().removeprefix("error: ")
        if words:
            yield words


def _document(text: str) -> Mapping[str, Any]:
    """Return the JSON in the output of Pulumi, which other lines may precede."""
    begin = text.find("{\n")
    document, _ = json.JSONDecoder().raw_decode(text[max(begin, 0) :])
    return document if isinstance(document, Mapping) else {}


def decode(text: str) -> Preview:
    """Return the resources and operations of a preview.

    text: the output of `pulumi preview --json --show-sames`.
    """
    steps = _document(text).get("steps") or ()
    before = [
        _resource(step["oldState"], str(step["op"])) for step in steps if step.get("oldState")
    ]
    after = [_resource(step["newState"], str(step["op"])) for step in steps if step.get("newState")]
    return Preview(tuple(before), tuple(after), tuple(filter(None, map(_operation, steps))))


def refreshed(text: str) -> list[tuple[Resource, Resource | None]]:
    """Return resources as the state and as the world has them; None where it has none.

    text: standard output of `pulumi refresh --preview-only --json`.
    """
    return [
        (
            _resource(step["oldState"], str(step["op"])),
            _resource(step["newState"], str(step["op"])) if step.get("newState") else None,
        )
        for step in _document(text).get("steps") or ()
        if step.get("oldState")
    ]


def _resource(state: Mapping[str, Any], op: str) -> Resource:
    return Resource(
        type=str(state.get("type", "")),
        name=_name(state.get("urn", "")),
        parent=_name(state.get("parent", "")),
        inputs=state.get("inputs") or {},
        outputs=state.get("outputs") or {},
        op=op,
        read=bool(state.get("external")),
        deleted_with=_name(state.get("deletedWith", "")),
        retained=bool(state.get("retainOnDelete")),
    )


def _name(urn: str) -> str:
    return urn.rpartition("::")[2]


def _operation(step: Mapping[str, Any]) -> Operation | None:
    op, old, new = str(step["op"]), step.get("oldState"), step.get("newState")
    state = new or old or {}
    resource = _resource(state, op)
    if op not in OPERATIONS or resource.is_component:
        return None
    if op == "delete":
        op = differences.removal(resource)
    lines = list(differences.differences(_inputs(old), _inputs(new))) if old and new else []
    # A provider may report a change where no input differs, or none where it ignores one.
    detailed = tuple(step.get("detailedDiff") or ())
    keys = tuple(dict.fromkeys(path for path, _, _ in lines)) or detailed
    return Operation(
        op=op,
        type=resource.type,
        name=resource.name,
        parent=resource.parent,
        destructive=op in ("delete", "replace") and differences.is_precious(resource),
        keys=keys,
        why=tuple(step.get("replaceReasons") or ()),
        diff=differences.difference_text(lines),
        certain=_is_certain(step, lines),
    )


def _is_certain(step: Mapping[str, Any], lines: Sequence[differences.Difference]) -> bool:
    """Return whether an update or a replacement follows from values that a preview has."""
    if step["op"] not in ("update", "replace") or not lines:
        return True
    why = tuple(step.get("replaceReasons") or ())
    causes = [line for line in lines if line[0] in why] if step["op"] == "replace" else lines
    return not causes or any(now != UNKNOWN for _, _, now in causes)


def _inputs(state: Mapping[str, Any]) -> Mapping[str, Any]:
    return state.get("inputs") or {}
