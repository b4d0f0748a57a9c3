"""The subcommands of `./scripts/plan` for forges: each takes the parsed arguments, and returns the
exit code.
"""

from __future__ import annotations

import argparse
import io
import lzma
import os
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from time import monotonic

from .. import render_json, render_markdown
from ..model import Level, Plan, Verdict
from ..render_json import ArtefactError
from ..untrusted import LINE, clean, log_line
from . import check, each
from .comment import LIMIT, Poster
from .errors import ForgeError
from .forge import Forge, Run
from .github import GitHub
from .gitlab import GitLab
from .marker import DRIFT, STACK, Marker, digest, mark
from .settle import Decision, Item, Keep, Remove, Settler

OK, FAILED = 0, 1
MOST_PLANS, MOST_BYTES, MOST_S = 50, 100_000_000, 60.0
"""Of one run: its plans, the bytes of its archives and of what is in them, and seconds for them.

The code of a fork may have made them.
"""
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
)
"""What `zipfile` raises for an archive that a job of a fork made up."""


def each_stack(arguments: argparse.Namespace) -> int:
    """Compute a plan of each stack."""
    names = arguments.stack or each.stacks(arguments.base or "")
    if unfit := [name for name in names if not STACK.fullmatch(name)]:
        return _fail(f"{unfit[0]!r} is no name of a stack: letters, digits and _.- alone")
    computation = each.Computation(base=arguments.base or "", level=Level(arguments.level))
    return each.compute(names, computation, arguments.output)


def post(arguments: argparse.Namespace) -> int:
    """Comment plans on their pull request."""
    forge = _forge(arguments.forge, os.environ)
    runs = forge.runs()
    if not runs:
        print("No open pull request is concerned: nothing is posted.")
        return OK
    account, failed = forge.account(), False
    for run in runs:
        try:
            _post(forge, Poster(forge, account, run), run, arguments.plans)
        except ForgeError as error:
            failed = True
            print(log_line(f"{forge.word}{run.pull}: {error}"), file=sys.stderr)
    return FAILED if failed else OK


def _post(forge: Forge, poster: Poster, run: Run, files: list[Path]) -> None:
    name = f"{forge.word}{run.pull}"
    if run.done or files:
        plans, problems = _plans(
            (path.read_bytes() for path in files) if files else _members(forge, run), run
        )
        for plan in plans:
            print(f"{name}, stack {plan.stack}: {poster.post(plan)}")
        if plans and not problems:
            poster.remove_failure()
        else:
            print(f"{name}, no plan: {poster.post_failure(problems)}")
    for stack in poster.mark_old():
        print(f"{name}, stack {stack}: marked as old")


def _plans(texts: Iterator[bytes], run: Run) -> tuple[list[Plan], tuple[str, ...]]:
    """Return the plans that a run may show, and what is wrong with the others.

    texts: plans as JSON, of which any code of the pull request may be the author.
    """
    plans: dict[str, Plan] = {}
    problems = list[str]()
    try:
        for number, text in enumerate(texts):
            if number == MOST_PLANS:
                problems.append(f"the run has more than {MOST_PLANS} plans")
                break
            try:
                plan = _read(text, run)
            except ArtefactError as error:
                problems += str(error).splitlines()
                continue
            # Of two levels of one run the higher one counts; levels are in order.
            if plan.stack not in plans or list(Level).index(plan.level) > list(Level).index(
                plans[plan.stack].level
            ):
                plans[plan.stack] = plan
    except ArtefactError as error:
        problems += str(error).splitlines()
    return [plans[stack] for stack in sorted(plans)], tuple(problems)


def _read(text: bytes, run: Run) -> Plan:
    plan = render_json.read(text)
    if not STACK.fullmatch(plan.stack):
        raise ArtefactError(f"stack: {clean(plan.stack)} is no name of a stack")
    if run.fork and plan.level is not Level.FILES:
        raise ArtefactError(
            f"level: a fork has no access to what the level {plan.level.value} reads"
        )
    return plan


def _members(forge: Forge, run: Run) -> Iterator[bytes]:
    """Yield the JSON files in the artefacts of a run, none of them unpacked to the disk.

    Raises ArtefactError for what is no archive, and for more than a run may have.
    """
    size, end = 0, monotonic() + MOST_S
    for part in _archived(forge, run):
        size += len(part)
        if size > MOST_BYTES:
            raise ArtefactError(f"the run's artefacts have more than {MOST_BYTES:,} bytes")
        if monotonic() > end:
            raise ArtefactError(f"the run's artefacts take more than {MOST_S:.0f} seconds")
        if not isinstance(part, _Archive):
            yield part


class _Archive(bytes):
    """An archive, beside the files in it."""


def _archived(forge: Forge, run: Run) -> Iterator[bytes]:
    """Yield each archive, and then the JSON files in it."""
    for archive in forge.archives(run):
        yield _Archive(archive)
        try:
            with zipfile.ZipFile(io.BytesIO(archive)) as opened:
                for member in opened.infolist():
                    if member.filename.endswith(".json"):
                        with opened.open(member) as stream:
                            # One byte more than may be, so that what is too long is refused.
                            yield stream.read(render_json.MOST_BYTES + 1)
        except _UNREADABLE as error:
            raise ArtefactError(
                f"an artefact is no zip archive with plans: {clean(str(error), LINE)}"
            ) from error


def reviewed(arguments: argparse.Namespace) -> int:
    """Fetch the plan that was reviewed before a merge."""
    forge, stack = _forge(arguments.forge, os.environ), arguments.stack
    for run in forge.reviewed(stack):
        plans, problems = _plans(_members(forge, run), run)
        for problem in problems:
            print(log_line(problem), file=sys.stderr)
        for plan in plans:
            if plan.stack == stack and plan.level is not Level.FILES:
                arguments.output.write_text(render_json.text(plan))
                print(f"{stack}: reviewed in {forge.word}{run.pull} at {run.head}, {run.url}")
                return OK
    return _fail(
        f"{stack}: no plan of the level state was computed for what was merged. A pull request "
        "of a fork has none: push its commits to a branch here, and open a pull request of that"
    )


def check_plan(arguments: argparse.Namespace) -> int:
    """Fail if a plan has something that the reviewed one has not."""
    before, now = _load(arguments.reviewed), _load(arguments.now)
    news = check.news(before, now)
    if not news:
        print(f"{now.stack}: nothing is new against what was reviewed.")
        return OK
    for line in news:
        print(log_line(f"new: {line}"), file=sys.stderr)
    return _fail(
        f"{now.stack}: {len(news)} new against what was reviewed. Open a pull request for a review "
        "of the plan as it is now"
    )


def issue(arguments: argparse.Namespace) -> int:
    """Open, edit or close the issue about a stack's drift."""
    plan = _load(arguments.plan)
    if plan.error:
        lines = "; ".join(plan.error.lines)
        return _fail(f"{plan.stack}: the plan failed, so its issue stays as it is: {lines}")
    drifted = plan.verdict is not Verdict.NOTHING or bool(plan.live or plan.operations)
    if plan.level is not Level.LIVE and not drifted:
        reasons = "; ".join(degraded.reason for degraded in plan.degraded)
        return _fail(
            f"{plan.stack}: the world was not read, so its issue stays as it is: {reasons}"
        )
    forge = _forge(arguments.forge, os.environ)
    # `head` is of the default branch, and means nothing: the issue is about now.
    text = render_markdown.text(replace(plan, head=""), limit=LIMIT - 2_000)
    body = mark(Marker(kind=DRIFT, stack=plan.stack, level=plan.level, digest=digest(text)), text)
    settler = Settler(forge.client, forge.issues(f"Drift of stack {plan.stack}"), forge.account())

    def decide(item: Item | None) -> Decision:
        return body if drifted else Remove() if item else Keep()

    done = settler.settle((DRIFT, plan.stack), decide).replace("removed", "closed")
    print(f"{plan.stack}: {'drift' if drifted else 'no drift'}, its issue: {done}")
    return OK


COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "each": each_stack,
    "post": lambda arguments: _guarded(post, arguments),
    "reviewed": lambda arguments: _guarded(reviewed, arguments),
    "check": lambda arguments: _guarded(check_plan, arguments),
    "issue": lambda arguments: _guarded(issue, arguments),
}


def _guarded(command: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    try:
        return command(arguments)
    except (ForgeError, ArtefactError, OSError) as error:
        return _fail(str(error))


def _load(path: Path) -> Plan:
    try:
        text = path.read_bytes()
    except OSError as error:
        reason = f"{path} cannot be read ({error.strerror})"
        raise ArtefactError(f"{reason}: `./scripts/plan --json` prints plans") from error
    plan = render_json.read(text)
    if not STACK.fullmatch(plan.stack):
        raise ArtefactError(f"{path}: its stack has no name that Pulumi takes")
    return plan


def _forge(name: str, environment: Mapping[str, str]) -> Forge:
    return GitHub(environment) if name == "github" else GitLab(environment)


def _fail(text: str) -> int:
    for line in text.splitlines():
        print(log_line(line), file=sys.stderr)
    return FAILED
