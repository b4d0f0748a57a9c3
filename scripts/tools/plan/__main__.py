"""`python -m tools.plan`, started by `./scripts/plan` in the virtual environment."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys

from components.config import reader
from tools.mesh_status import pulumi

from . import (
    BROKEN,
    CHANGES,
    FAILED,
    INTERRUPTED,
    NOTHING,
    cli,
    levels,
    render_json,
    render_markdown,
    render_text,
    rules,
)
from .forge.cli import run_command
from .model import Level, Plan, Verdict


def main(arguments: list[str] | None = None) -> int:
    """Print a plan, or run a command for forges; return the exit code."""
    os.environ.pop("PYTHONPATH", None)  # the launcher's; it is not meant for programs called here
    options = cli.parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run_command(options) if options.command else _plan(options)
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return INTERRUPTED


def _plan(options: argparse.Namespace) -> int:
    stack = options.stack or _selected()
    if stack is None:
        names = ", ".join(reader.stacks())
        print(f"no stack is selected: give one with --stack ({names})", file=sys.stderr)
        return FAILED
    request = levels.Request(
        stack=stack, level=Level(options.level), base=options.base, destroy=options.destroy
    )
    plan = levels.plan(request)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # whatever the locale: forges read nothing else
    try:
        _show(plan, options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code(plan)


def _selected() -> str | None:
    """Return the stack that Pulumi has selected, or the only one with a file."""
    stacks = reader.stacks()
    if len(stacks) == 1:
        return stacks[0]
    try:
        return pulumi.call(pulumi.environment(), "stack", "--show-name").strip() or None
    except pulumi.StackError:
        return None


def _show(plan: Plan, options: argparse.Namespace) -> None:
    if options.json:
        print(render_json.text(plan))
    elif options.markdown:
        print(render_markdown.text(plan))
    else:
        render_text.show(plan, verbose=options.verbose)


def code(plan: Plan) -> int:
    """Return the exit code of a plan."""
    if rules.fails(plan.broken):
        return BROKEN
    if plan.error:
        return FAILED
    return NOTHING if plan.verdict is Verdict.NOTHING else CHANGES


if __name__ == "__main__":
    sys.exit(main())
