"""What differs in the program itself, by the files that differ. Pure, but for `git`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatch
from typing import Any

from components import names
from tools import ROOT

from . import git
from .differences import short
from .model import Mark, Operation, ProgramChange

MACHINE_FILES = (
    "components/machines/units/*",
    "components/machines/scripts/redirect*.sh",
    "components/machines/scripts/installation.sh",
    "components/machines/scripts/undo.sh",
    "components/machines/scripts/withdraw.sh",
    "components/platforms/google/scripts/*.sh",
)
"""Texts of files on machines: a change restarts their agents, or replaces a group's machines."""
JOIN = (
    "components/machines/*",
    "components/local/*",
    "components/manifest.py",
    "components/names.py",
    "components/shell.py",
)
"""What a join runs, or makes files from."""
_MARKS = {"A": Mark.ADDED, "D": Mark.REMOVED}


def changes(base: str, local_files: tuple[str, ...] = ()) -> tuple[ProgramChange, ...]:
    """Return what differs from a commit: the program, defaults, files that the stack names.

    base: the commit. local_files: paths that the stack file names.
    """
    files = git.changed(base)
    listed = [*_files(files), *defaults(git.text(base, git.SCHEMA), _schema())]
    if local_files:
        for path, letter in git.changed(base, local_files).items():
            listed.append(
                ProgramChange(what="local-file", name=path, mark=_MARKS.get(letter, Mark.CHANGED))
            )
    return tuple(listed)


def of_operations(
    listed: Iterable[ProgramChange], operations: Iterable[Operation]
) -> tuple[ProgramChange, ...]:
    """Return changes of the program, where it is known what becomes of them.

    A file of the joins concerns machines only where it has joins run again.
    """
    joins = any(names.is_part(each.name, names.JOIN) and each.op == "update" for each in operations)
    return tuple(
        replace(each, what="program") if each.what == "join" and not joins else each
        for each in listed
    )


def _files(files: Mapping[str, str]) -> Iterator[ProgramChange]:
    for path, letter in sorted(files.items()):
        if path.startswith("stacks/"):
            continue
        what = (
            "machine-files"
            if _matches(path, MACHINE_FILES)
            else "join"
            if _matches(path, JOIN)
            else "program"
        )
        yield ProgramChange(what=what, name=path, mark=_MARKS.get(letter, Mark.CHANGED))


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(path, pattern) for pattern in patterns)


def _schema() -> str:
    file = ROOT / git.SCHEMA
    return file.read_text() if file.exists() else ""


def defaults(before: str, after: str) -> Iterator[ProgramChange]:
    """Yield the defaults that differ. before, after: texts of docs/stack.schema.json."""
    old, new = dict(_defaults(before)), dict(_defaults(after))
    for name in sorted(old.keys() & new.keys()):
        if old[name] != new[name]:
            yield ProgramChange(
                what="default",
                name=name,
                mark=Mark.CHANGED,
                before=short(old[name]),
                after=short(new[name]),
            )


def _defaults(text: str) -> Iterator[tuple[str, Any]]:
    if not text:
        return
    schema = json.loads(text)
    for record, definition in schema.get("$defs", {}).items():
        for key, setting in definition.get("properties", {}).items():
            yield f"{record}.{key}", setting.get("default")
