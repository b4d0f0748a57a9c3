"""Computes a plan of the highest level that is available, with the reason where that is lower."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from components import config
from components.config import reader
from components.config.problems import SettingsError
from components.config.rules import Rules

from . import compare, files, git, preview, program, rules, state
from .model import Degraded, Level, Plan, PlanError, Verdict
from .progress import reported
from .resources import mapping, value_at


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to plan.

    stack: its name. level: the highest one to try.
    base: what to compare with; None: the branch that a pull request is for, else the main branch.
    destroy: whether `pulumi destroy` is planned, and not `pulumi up`.
    """

    stack: str
    level: Level = Level.STATE
    base: str | None = None
    destroy: bool = False


def plan(request: Request) -> Plan:
    """Return the plan, with the rules that it breaks."""
    complete = _with_rules(_at_level(request), request.stack)
    if complete.verdict is Verdict.PROGRAM:
        return complete
    return replace(complete, verdict=compare.verdict_of(complete))


def _at_level(request: Request) -> Plan:
    if request.level is Level.FILES:
        return _of_files(request)
    try:
        with reported(f"pulumi previews the stack {request.stack}"):
            plan = state.plan(request.stack, request.destroy)
    except preview.NoPreviewError as error:
        plan = _of_files(request)
        degraded = (Degraded(level=Level.STATE, reason=str(error)), *plan.degraded)
        if error.lines and plan.error is None:
            kind = "refused" if error.refused else "preview"
            plan = replace(plan, error=PlanError(kind=kind, lines=error.lines))
        if error.refused:
            plan = compare.refused(plan)
        return replace(plan, degraded=degraded)
    plan = _with_commits(plan, request)
    if request.level is not Level.LIVE:
        return plan
    from . import live  # what reads machines is needed at this level alone

    try:
        with reported(f"the mesh of the stack {request.stack} is read"):
            return replace(plan, level=Level.LIVE, live=live.findings(request.stack))
    except live.NotLiveError as error:
        return replace(
            plan, degraded=(Degraded(level=Level.LIVE, reason=str(error)), *plan.degraded)
        )


def _of_files(request: Request) -> Plan:
    with reported("the stack files of both commits are compared"):
        return files.plan(request.stack, request.base, request.destroy)


def _with_commits(plan: Plan, request: Request) -> Plan:
    """Return a plan with the commits, and with what differs in the program between them."""
    try:
        plan = replace(plan, head=git.head())
        if request.destroy:
            return plan
        base = git.merge_base(request.base or git.default_base())
        changed = program.of_operations(program.changes(base), plan.operations)
        return replace(plan, base=base, program=changed)
    except git.GitError as error:
        missing = Degraded(level=Level.FILES, reason=str(error))
        return replace(plan, degraded=(*plan.degraded, missing))


def _with_rules(plan: Plan, stack: str) -> Plan:
    if plan.picture is None:
        return plan  # the program did not get through with the stack file, so it is not read here
    try:
        settings = config.load_file(stack).rules
    except SettingsError:
        settings = Rules()
    return replace(plan, broken=rules.broken_rules(plan, settings, _former_reasons(plan, stack)))


def _former_reasons(plan: Plan, stack: str) -> dict[str, str] | None:
    """Return why the stack file disables rules at the base; None where there is no base."""
    if not plan.base:
        return None
    with TemporaryDirectory(prefix="istio-vm-mesh-base-") as directory:
        file = reader.file_of(stack, Path(directory))
        try:
            file.write_text(git.text(plan.base, f"stacks/{file.name}"))
            # As it is: the program of the base may have other settings.
            disabled = value_at(reader.read_file(stack, file.parent), "rules.disabled")
        except (git.GitError, SettingsError):
            return None
    return {str(rule): str(reason) for rule, reason in mapping(disabled).items()}
