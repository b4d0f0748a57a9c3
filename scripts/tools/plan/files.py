"""The level FILES: both sides described by their programs, without cloud, cluster or state."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from components.config import reader
from tools import PYTHONPATH, ROOT, interruption

from . import differences, git, picture, program
from .compare import compare
from .mesh_model import MeshPicture
from .model import Degraded, Level, Mark, Plan, PlanError, ProgramChange, Verdict
from .resources import Resource

TIMEOUT_S = 120
"""Seconds for the descriptions: fifty times what they take."""
PASSED_ON = ("LANG", "LC_ALL", "SYSTEMROOT", "TMPDIR")
"""Variables that a description gets, besides its own PATH and HOME. None holds a credential."""


class DescriptionError(Exception):
    """A program could not be run: its last words."""


@dataclass(frozen=True)
class Description:
    """What a program declares for a stack.

    problems: why it refuses the stack file; then nothing else is there.
    machine_files: digests of what machines get, by role and path.
    local_files: paths that the stack file names.
    """

    resources: tuple[Resource, ...] = ()
    machine_files: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    local_files: tuple[str, ...] = ()

    def mesh(self, stack: str) -> MeshPicture:
        """Return its mesh."""
        return picture.decode(stack, self.resources, self.machine_files)


Side = Description | DescriptionError


def describe(stack: str, *checkouts: Path) -> list[Side]:
    """Run the programs of checkouts under mocks, in processes that have nothing of this one's.

    Returns for each what it declares, or why there is nothing.
    """
    command = [sys.executable, "-m", "tools.plan.describe", "--stack", stack]
    with tempfile.TemporaryDirectory(prefix="istio-vm-mesh-plan-") as name:
        directory = Path(name)
        process: subprocess.Popen[bytes] | None = None
        with (directory / "log").open("wb") as log, contextlib.ExitStack() as started:
            try:
                with interruption.postponed():
                    process = started.enter_context(
                        subprocess.Popen(
                            [*command, "--output", name, *map(str, checkouts)],
                            env=_environment(directory),
                            cwd=directory,
                            stdin=subprocess.DEVNULL,
                            stdout=log,
                            stderr=log,
                            start_new_session=True,  # its children end with it
                        )
                    )
                process.wait(TIMEOUT_S)
                late = ""
            except subprocess.TimeoutExpired:
                late = f"the program did not end within {TIMEOUT_S} seconds"
            finally:
                if process:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
        return [_read(directory, number, late) for number in range(len(checkouts))]


def _read(directory: Path, number: int, late: str) -> Side:
    """Return what the program of a checkout declares. late: why it may have written nothing."""
    with contextlib.suppress(FileNotFoundError):
        return decode((directory / f"{number}.json").read_text())
    logs = (directory / f"{number}.log", directory / "log")
    texts = [log.read_text(errors="replace") for log in logs if log.exists()]
    words = [line.strip() for text in texts for line in text.splitlines() if line.strip()]
    return DescriptionError(late or (words[-1] if words else "it ended without a description"))


def _environment(private: Path) -> dict[str, str]:
    """Return variables without credentials, and with an `ssh` that nothing calls.

    The program refuses machines where ssh is not on PATH; nothing is connected to here.
    """
    programs = private / "programs"
    programs.mkdir()
    ssh = programs / "ssh"
    ssh.write_text("#!/bin/sh\nexit 1\n")
    ssh.chmod(0o700)
    return {
        **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
        "PATH": os.pathsep.join([str(programs), os.defpath]),
        "HOME": str(private),
        "PYTHONPATH": PYTHONPATH.split(os.pathsep)[0],
    }


def decode(text: str) -> Description:
    """Return a description from the JSON that `describe` writes."""
    values = json.loads(text)
    return Description(
        resources=tuple(
            Resource(**{**each, "ignored": tuple(each["ignored"])})
            for each in values.get("resources", ())
        ),
        machine_files=values.get("machine_files", {}),
        problems=tuple(values.get("problems", ())),
        local_files=tuple(values.get("local_files", ())),
    )


def plan(stack: str, base: str | None, destroy: bool) -> Plan:
    """Return the plan of a stack file against the merge base with `base` (None: the default).

    destroy: against nothing: what `pulumi destroy` removes of what the stack file declares.
    """
    if destroy:
        [declared] = describe(stack, ROOT)
        return replace(_destroyed(stack, declared), head=_head())
    with tempfile.TemporaryDirectory(prefix="istio-vm-mesh-base-") as directory:
        root = Path(directory)
        try:
            commit = git.merge_base(base or git.default_base())
            git.extract(commit, root)
        except git.GitError as error:
            [after] = describe(stack, ROOT)
            return _without_base(stack, after, str(error))
        # A stack that has no file there has nothing.
        exists = reader.file_of(stack, root / "stacks").exists()
        after, *others = describe(stack, ROOT, *([root] if exists else []))
    before = others[0] if others else Description()
    named = after.local_files if isinstance(after, Description) else ()
    changed = program.changes(commit, tuple(path for path in named if _is_inside(path)))
    return replace(compared(stack, before, after, changed), base=commit, head=_head())


def _head() -> str:
    try:
        return git.head()
    except git.GitError:
        return ""


def _without_base(stack: str, after: Side, reason: str) -> Plan:
    """Return the plan of a checkout that can be compared with nothing: its mesh, and why."""
    if isinstance(after, DescriptionError) or after.problems:
        return _refused(stack, after)
    error = PlanError(kind="base", lines=(reason,))
    picture_now = after.mesh(stack)
    return Plan(
        stack=stack, level=Level.FILES, verdict=Verdict.PROGRAM, error=error, picture=picture_now
    )


def _is_inside(path: str) -> bool:
    return not Path(path).is_absolute() and not path.startswith(("~", "..")) and ":" not in path


def _destroyed(stack: str, before: Side) -> Plan:
    if isinstance(before, DescriptionError) or before.problems:
        return _refused(stack, before)
    operations = differences.operations(before.resources, ())
    plan = compare(before.mesh(stack), MeshPicture(stack=stack), operations)
    return replace(plan, destroy=True)


def _refused(stack: str, side: Side) -> Plan:
    kind, lines = (
        ("program", (str(side),))
        if isinstance(side, DescriptionError)
        else ("settings", side.problems)
    )
    error = PlanError(kind=kind, lines=lines)
    return Plan(stack=stack, level=Level.FILES, verdict=Verdict.REFUSED, error=error)


def compared(
    stack: str,
    before: Side,
    after: Side,
    changed: tuple[ProgramChange, ...] = (),
) -> Plan:
    """Return the plan of two descriptions, or of the failures of them.

    changed: what differs in the program.
    """
    if isinstance(after, DescriptionError) or after.problems:
        former = (
            before.mesh(stack) if isinstance(before, Description) and not before.problems else None
        )
        return replace(_refused(stack, after), program=changed, former=former)
    if isinstance(before, DescriptionError) or before.problems:
        cause = str(before) if isinstance(before, DescriptionError) else "; ".join(before.problems)
        reason = f"the program of the base cannot run here: {cause}"
        return Plan(
            stack=stack,
            level=Level.FILES,
            verdict=Verdict.PROGRAM,
            degraded=(Degraded(level=Level.FILES, reason=reason),),
            program=(ProgramChange(what="unknown", name="base", mark=Mark.CHANGED), *changed),
            picture=after.mesh(stack),
        )
    operations = differences.operations(before.resources, after.resources)
    listed = program.of_operations(changed, operations)
    return compare(before.mesh(stack), after.mesh(stack), operations, listed)
