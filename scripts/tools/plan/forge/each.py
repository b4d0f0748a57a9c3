"""Compute the plans of several stacks into files. There is a file also where it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from components.config import reader
from tools import PYTHONPATH, ROOT
from tools.mesh_status import pulumi

from .. import BROKEN, CHANGES, FAILED, NOTHING, render_json
from ..model import Level, Plan, PlanError, Verdict
from ..render_json import ArtefactError
from .marker import STACK


@dataclass(frozen=True, kw_only=True)
class Computation:
    """What is computed. base: the commit to compare with; "": the default. level: what is read."""

    base: str
    level: Level


def stacks(base: str) -> list[str]:
    """Return the stacks with a file here or at `base`, sorted.

    A file whose name is no stack's name is left out: Pulumi cannot use it.
    """
    names = reader.stacks(ROOT / "stacks")
    if base:
        command = ["git", "ls-tree", "-z", "--name-only", "--end-of-options", base, "stacks/"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=False).stdout
        names += [reader.stack_of(Path(os.fsdecode(path)).name) for path in listed.split(b"\0")]
    return sorted(name for name in {*names} if STACK.fullmatch(name))


def compute(names: Sequence[str], computation: Computation, output: Path) -> int:
    """Write `<stack>.json` for each stack; return 3: a rule is broken, 1: one failed, else 0."""
    output.mkdir(parents=True, exist_ok=True)
    codes = set()
    for name in names:
        print(f"{name}: …", file=sys.stderr, flush=True)
        code, text = _compute(name, computation)
        (output / f"{name}.json").write_text(text)
        codes.add(code)
    if BROKEN in codes:
        return BROKEN
    return FAILED if codes - {NOTHING, CHANGES} else NOTHING


def _compute(name: str, computation: Computation) -> tuple[int, str]:
    command = [
        sys.executable,
        "-m",
        "tools.plan",
        "--stack",
        name,
        "--level",
        computation.level,
        "--json",
    ]
    command += ["--base", computation.base] if computation.base else []
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    done = pulumi.run(command, environment, stderr=None)
    try:
        # Also where it is valid: what is written is what `read` takes.
        return done.returncode, render_json.text(render_json.read(done.stdout.encode()))
    except ArtefactError:
        # What it printed last is in the log. It may hold anything, so it is not repeated here.
        line = f"The computation of the plan ended with code {done.returncode}. Its log names why."
        error = PlanError(kind="preview", lines=(line,))
        failed = Plan(stack=name, level=computation.level, verdict=Verdict.REFUSED, error=error)
        return FAILED, render_json.text(failed)
