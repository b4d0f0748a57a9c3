"""The level FILES: both sides described by their programs, without cloud, cluster or state."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from tools import PYTHONPATH, ROOT

from . import git, picture, program, resources
from .compare import compare
from .model import Degraded, Level, Mark, MeshPicture, Plan, PlanError, ProgramChange, Verdict
from .resources import Resource

TIMEOUT_S = 120
"""Seconds for one description: a hundred times what it takes."""
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


def start(root: Path, stack: str, contexts: ExitStack) -> subprocess.Popen[str]:
    """Start the program of a checkout under mocks, in a process that has nothing of this one's.

    contexts: the process, which `ended` waits for, ends with them.
    """
    private = contexts.enter_context(tempfile.TemporaryDirectory(prefix="istio-vm-mesh-plan-"))
    process = contexts.enter_context(
        subprocess.Popen(
            [sys.executable, "-m", "tools.plan.describe", "--root", str(root), "--stack", stack],
            env=_environment(Path(private), root),
            cwd=private,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
    )
    contexts.callback(_end, process)
    return process


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


def ended(process: subprocess.Popen[str]) -> Description | DescriptionError:
    """Return what a program printed that was started, or why there is nothing."""
    try:
        output, messages = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return DescriptionError(f"the program did not end within {TIMEOUT_S} seconds")
    lines = output.splitlines()
    if process.returncode or not lines:
        words = [line.strip() for line in messages.splitlines() if line.strip()]
        return DescriptionError(
            words[-1] if words else f"it ended with status {process.returncode}"
        )
    try:
        return decode(lines[-1])
    except (
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
    ) as error:  # a program that prints something else
        return DescriptionError(f"the description has another form than expected: {error!r}")


def _environment(private: Path, root: Path) -> dict[str, str]:
    """Return variables without credentials, and with an `ssh` that nothing calls.

    The program refuses machines where ssh is not on PATH; nothing is connected to here.
    """
    programs = private / "programs"
    programs.mkdir()
    ssh = programs / "ssh"
    ssh.write_text("#!/bin/sh\nexit 1\n")
    ssh.chmod(0o700)
    tools = PYTHONPATH.split(os.pathsep)[0]
    return {
        **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
        "PATH": os.pathsep.join([str(programs), os.defpath]),
        "HOME": str(private),
        "XDG_STATE_HOME": str(private / "state"),
        "PYTHONPATH": os.pathsep.join([tools, str(root)]),
    }


def decode(text: str) -> Description:
    """Return a description from the line that `describe` prints."""
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
    with ExitStack() as contexts:
        here = start(ROOT, stack, contexts)
        if destroy:
            return replace(_destroyed(stack, ended(here)), head=_head())
        try:
            commit = git.merge_base(base or git.default_base())
            root = contexts.enter_context(tempfile.TemporaryDirectory(prefix="istio-vm-mesh-base-"))
            git.extract(commit, Path(root))
        except git.GitError as error:
            return _without_base(stack, ended(here), str(error))
        # A stack that has no file there has nothing.
        exists = (Path(root) / "stacks" / f"Pulumi.{stack}.yaml").exists()
        there = start(Path(root), stack, contexts) if exists else None
        head, after = _head(), ended(here)
        before = ended(there) if there else Description()
        named = after.local_files if isinstance(after, Description) else ()
        changed = program.changes(commit, tuple(path for path in named if _is_inside(path)))
        return replace(compared(stack, before, after, changed), base=commit, head=head)


def _head() -> str:
    try:
        return git.head()
    except git.GitError:
        return ""


def _without_base(stack: str, after: Description | DescriptionError, reason: str) -> Plan:
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


def _destroyed(stack: str, before: Description | DescriptionError) -> Plan:
    if isinstance(before, DescriptionError) or before.problems:
        return _refused(stack, before)
    operations = resources.operations(before.resources, ())
    plan = compare(before.mesh(stack), MeshPicture(stack=stack), operations)
    return replace(plan, destroy=True)


def _refused(stack: str, side: Description | DescriptionError) -> Plan:
    kind, lines = (
        ("program", (str(side),))
        if isinstance(side, DescriptionError)
        else ("settings", side.problems)
    )
    error = PlanError(kind=kind, lines=lines)
    return Plan(stack=stack, level=Level.FILES, verdict=Verdict.REFUSED, error=error)


def compared(
    stack: str,
    before: Description | DescriptionError,
    after: Description | DescriptionError,
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
    operations = resources.operations(before.resources, after.resources)
    listed = program.of_operations(changed, operations)
    return compare(before.mesh(stack), after.mesh(stack), operations, listed)
