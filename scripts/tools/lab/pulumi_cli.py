"""Calls of the Pulumi CLI on the lab's stack: the program of this checkout, the state in
`.lab/state`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from components.config import reader
from components.names import PROJECT
from components.platforms.docker.names import CLUSTER, docker_name
from tools import VENV, process
from tools.directories import make_private
from tools.mesh_status.pulumi import QUIET, STOP, STOP_GRACE, explanation
from tools.process import Command
from tools.steps import Step, StepError, seconds

from . import paths, repair_helm_releases

MARK = "ISTIO_VM_MESH_LAB"
"""An environment variable of every CLI that the lab starts. It distinguishes a CLI whose `lab` was
killed from one that a user started.
"""


def call(
    step: Step,
    *arguments: str,
    progress: process.Progress | None = None,
    capture: bool = False,
    check: bool = True,
    **environment: str,
) -> process.Completed:
    """Run the CLI on this checkout, with its output in the step's log. Raises StepError with
    Pulumi's diagnostics when it fails.
    """
    variables = paths.environment(**{MARK: str(os.getpid()), "TMPDIR": str(make_private(paths.TMP))}, **environment)
    command = Command([paths.BIN / "pulumi", *arguments], paths.ROOT, variables, capture=capture, stop=STOP, grace=STOP_GRACE)
    try:
        done = step.run(command, progress=progress, check=False)
    except KeyboardInterrupt:
        end_leftovers(step)  # program and plugins end later than the CLI, official plugins after minutes
        raise
    if check and done.code:
        raise StepError(f"`pulumi {arguments[0]}` failed\n{explanation(done.output)}".rstrip(), show_log=capture)
    return done


def require_file(stack: str) -> None:
    """Raise StepError for a stack without a file."""
    directory = paths.ROOT / "stacks"
    if stack not in reader.stacks(directory):
        raise StepError(reader.no_file(stack, directory), show_log=False)


def select(step: Step, stack: str) -> None:
    """Make the stack the selected one, and make it first unless the state has it; end what a
    killed run left in it.
    """
    require_file(stack)
    make_private(paths.STATE)
    make_private(paths.HOME)
    _unlock(step, stack)  # first: a CLI that still works writes the state, which cannot be read meanwhile
    end_leftovers(step)
    call(step, "stack", "select", "--create", "--stack", stack, *QUIET)
    write_environment()


def write_environment() -> None:
    """Leave the variables of the lab where `./scripts/status` finds them
    (`mesh_status.pulumi.environment`).
    """
    variables: dict[str, str | None] = {
        **paths.pulumi_env(),
        "PATH": f"{paths.BIN}{os.pathsep}{VENV / 'bin'}",
        **dict.fromkeys(paths.UNSET),
    }
    (paths.STATE / "environment.json").write_text(json.dumps(variables, indent=1) + "\n")


def end_leftovers(step: Step) -> None:
    """End processes of a `lab` of this checkout that was killed or interrupted, and remove its
    temporary files.

    The processes are the program, plugins, Helm and kind; the CLI is not among them. The caller
    holds this checkout's lock.
    """
    ended: set[int] = set()
    # A process that is killed may have started another one since it was looked for.
    while left := _leftovers() - ended:
        process.kill(sorted(left))
        ended |= left
    if ended:
        step.line(f"ended {len(ended)} processes that a run which was killed or interrupted left")
    shutil.rmtree(paths.TMP, ignore_errors=True)


def _leftovers() -> set[int]:
    """Return the processes that the CLI of a `lab` of this checkout started, and that CLI."""
    home = f"PULUMI_HOME={paths.HOME}".encode()
    left = set()
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            environment = (directory / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # ended meanwhile, or another user's
        if home in environment and any(item.startswith(f"{MARK}=".encode()) for item in environment):
            left.add(int(directory.name))
    return left


def stacks() -> list[str]:
    """Return the stacks that the state holds."""
    return sorted(file.stem for file in (paths.STATE / ".pulumi" / "stacks" / PROJECT).glob("*.json"))


def forget(stack: str) -> None:
    """Remove a stack from the state without Pulumi, whatever is in it."""
    pulumi = paths.STATE / ".pulumi"
    for file in (pulumi / "stacks" / PROJECT).glob(f"{stack}.json*"):
        file.unlink()
    for directory in (pulumi / "locks" / "organization" / PROJECT / stack, pulumi / "history" / PROJECT / stack):
        shutil.rmtree(directory, ignore_errors=True)


def _unlock(step: Step, stack: str) -> None:
    """End what a killed `lab` left running, and remove the locks of dead runs. Raises StepError
    where a user runs a CLI.
    """
    locks = paths.STATE / ".pulumi" / "locks" / "organization" / PROJECT / stack
    if not (files := list(locks.glob("*.json"))):
        return
    for file in files:
        try:
            lock = json.loads(file.read_text())
            pid = int(lock["pid"]) if lock["hostname"] == socket.gethostname() else 0
        except (OSError, ValueError, KeyError):
            continue  # gone meanwhile, or half-written by a run that was killed
        match _owner(pid):
            case "lab":  # which is dead, because this process holds its lock on the checkout
                step.line("a former run was killed: ending its pulumi")
                process.end(pid, STOP, STOP_GRACE)
            case "user":
                raise StepError(f"another pulumi (process {pid}) works on the stack {stack}", "wait for it or end it", show_log=False)
    step.line("a former run was killed: removing its lock")
    call(step, "cancel", "--yes", "--stack", stack, *QUIET)


def _owner(pid: int) -> str | None:
    """Who started the CLI with this process id: "lab", "user", or None where it is no running
    CLI.
    """
    try:
        if Path(f"/proc/{pid}/comm").read_text().strip() != "pulumi":
            return None
        return "lab" if f"{MARK}=".encode() in Path(f"/proc/{pid}/environ").read_bytes() else "user"
    except OSError:
        return None


def up(step: Step, stack: str) -> dict[str, Any]:
    """Run `pulumi up` with one line per resource, and return the stack's outputs.

    Those that are secret are left out. One machine's trouble does not keep the others from joining.
    """
    _drop_pending(step, stack, lambda pending: _repair_releases(step, stack, pending))
    call(step, "up", "--yes", "--skip-preview", "--continue-on-error", "--stack", stack, *QUIET, progress=Resources(step))
    return outputs(step, stack)


def outputs(step: Step, stack: str) -> dict[str, Any]:
    """Return the stack's outputs; a secret one is `[secret]`."""
    values = json.loads(call(step, "stack", "output", "--json", "--stack", stack, *QUIET, capture=True).output)
    return values if isinstance(values, dict) else {}


def destroy(step: Step, stack: str) -> set[str]:
    """Run `pulumi destroy` with one line per resource. Then the stack itself goes (its stack file
    stays).

    Returns the names of the resources that were complete. Runs that were killed or interrupted may
    have begun others.
    """
    complete = _drop_pending(step, stack)
    # What was in a cluster that is gone is gone with it.
    call(
        step, "destroy", "--yes", "--skip-preview", "--stack", stack, *QUIET, progress=Resources(step), PULUMI_K8S_DELETE_UNREACHABLE="true"
    )
    call(step, "stack", "rm", "--yes", "--preserve-config", "--stack", stack, *QUIET)
    return complete


def _drop_pending(step: Step, stack: str, before: Callable[[list[dict[str, Any]]], None] | None = None) -> set[str]:
    """Remove the operations that a killed run had begun from the state. Pulumi would prompt for
    them.

    before: cleans up what they left, and runs first.

    Returns the names of the resources that are complete.

    The program's scripts and its Kubernetes provider can create all resources of the lab again over
    what a killed run left. For Helm's releases that is not possible.
    """
    exported = json.loads(call(step, "stack", "export", "--stack", stack, *QUIET, capture=True).output)
    pending = exported["deployment"].pop("pending_operations", None) or []
    begun = {_name(operation["resource"]) for operation in pending}
    resources = exported["deployment"].get("resources") or []
    complete = {_name(resource) for resource in resources if not resource.get("pendingReplacement")} - begun
    if not pending:
        return complete
    step.line("a former run was killed: its unfinished operations are done again")
    if before:
        before(pending)
    with _private("deployment.json", json.dumps(exported)) as file:
        call(step, "stack", "import", "--stack", stack, "--file", str(file), *QUIET)
    return complete


def _name(resource: dict[str, Any]) -> str:
    return str(resource["urn"]).rpartition("::")[2]


def _repair_releases(step: Step, stack: str, pending: list[dict[str, Any]]) -> None:
    if not any(operation["resource"]["type"] == repair_helm_releases.TYPE for operation in pending):
        return
    command = [str(paths.BIN / "kind"), "get", "kubeconfig", "--name", docker_name(stack, CLUSTER)]
    answer = step.run(Command(command, env=paths.environment(), capture=True), check=False)
    if answer.code == 0:  # without a cluster there are no releases either
        with _private("kubeconfig", answer.output) as file:
            repair_helm_releases.repair(step, pending, file)


@contextlib.contextmanager
def _private(name: str, text: str) -> Iterator[Path]:
    """A file that only its owner can read, for as long as it is needed."""
    file = paths.RUN / name
    make_private(paths.RUN)
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as opened:
            opened.write(text)
        yield file
    finally:
        file.unlink(missing_ok=True)


class Resources:
    """Follows the lines of an update: `+  <type> <name> creating (0s)`, then `created (1.2s)`."""

    LINE = re.compile(r"^\s*\S{1,2}\s+(?P<type>\S+:\S+)\s+(?P<name>\S+)\s+(?P<what>\*\*[\w ]+\*\*|\w+)(?: \((?P<seconds>[\d.]+)s\))?")

    def __init__(self, step: Step) -> None:
        self.step = step
        self.running: dict[str, str] = {}
        self.count = 0

    def __call__(self, line: str) -> str | None:
        if not (match := self.LINE.match(line)):
            return None
        kind, name, what = match["type"].rsplit(":", 1)[-1], match["name"], match["what"].strip("* ")
        if what.split()[0].endswith("ing") and "failed" not in what:
            self.running[f"{kind} {name}"] = what
        else:
            self.count += 1
            self.running.pop(f"{kind} {name}", None)
            self.step.line(f"{kind} {name} {what}" + (f": {seconds(float(match['seconds']))}" if match["seconds"] else ""))
        now = ", ".join(f"{what} {resource}" for resource, what in list(self.running.items())[-2:])
        return f"{self.count} done; {now}" if now else f"{self.count} done"
