"""The rows of a live run, from docs/first-live-run.yaml: for the script and for the document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tools import ROOT

FILE = ROOT / "docs" / "first-live-run.yaml"


@dataclass(frozen=True, kw_only=True)
class Row:
    """What only a live run shows.

    shows: what it is. look: what to look for.
    run: a command of bash; "" for none. by: the name of a row that shows this one as well.
    hand: what a person does. One of the three is given.
    fails: whether the command must fail. expect, refuse: what its output must and must not match.
    name: by which other rows refer to it. stacks: those that it is for; all where it is empty.
    """

    shows: str
    look: str
    run: str = ""
    by: str = ""
    hand: str = ""
    fails: bool = False
    expect: Sequence[str] = ()
    refuse: Sequence[str] = ()
    name: str = ""
    stacks: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Raise ValueError for a row that is not of exactly one kind."""
        if sum(map(bool, (self.run, self.by, self.hand))) != 1:
            raise ValueError(f"{self.shows!r} must have one of `run`, `by` and `hand`")


@dataclass(frozen=True, kw_only=True)
class Role:
    """A role of IAM that the user needs. permissions: some of it, which show that it is there."""

    role: str
    permissions: Sequence[str]
    stacks: Sequence[str] = ()


@dataclass(frozen=True)
class LiveRun:
    """What a live run consists of.

    apis: the APIs that must be enabled. roles: the user's.
    rows: in their order. down: those that take the stack down.
    leftovers: commands that print the same before and after.
    """

    apis: tuple[str, ...]
    roles: tuple[Role, ...]
    rows: tuple[Row, ...]
    down: tuple[Row, ...]
    leftovers: tuple[str, ...]


def read(stack: str = "", file: Path = FILE) -> LiveRun:
    """Return what is for a stack; everything where none is given."""
    data: Mapping[str, Any] = yaml.safe_load(file.read_text())

    def is_wanted(each: Row | Role) -> bool:
        return not stack or not each.stacks or stack in each.stacks

    return LiveRun(
        apis=tuple(data["apis"]),
        roles=tuple(filter(is_wanted, (Role(**each) for each in data["roles"]))),
        rows=tuple(filter(is_wanted, (Row(**each) for each in data["rows"]))),
        down=tuple(filter(is_wanted, (Row(**each) for each in data["down"]))),
        leftovers=tuple(data["leftovers"]),
    )
