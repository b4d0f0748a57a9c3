"""The subcommands of `./scripts/plan` for forges. Standard library only, as every command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

FORGES = ("github", "gitlab")
LEVELS = ("files", "state", "live")


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommands; what is parsed has `command`, for `commands.run`."""
    each = commands.add_parser(
        "each", help="compute a plan of each stack into a directory, for a job"
    )
    each.add_argument("--base", help="the commit to compare with")
    each.add_argument(
        "--level", choices=LEVELS, default=LEVELS[0], help="what is read (default: %(default)s)"
    )
    each.add_argument(
        "--stack",
        action="append",
        help="this stack alone; may be repeated (default: all stack files)",
    )
    each.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="where <stack>.json is written"
    )

    post = commands.add_parser(
        "post", help="comment plans on their pull request: one comment for each stack"
    )
    post.add_argument(
        "plans",
        nargs="*",
        type=Path,
        metavar="PLAN",
        help="a plan as JSON (default: the artefacts of the run)",
    )

    reviewed = commands.add_parser(
        "reviewed", help="fetch the plan that was reviewed before a merge"
    )
    reviewed.add_argument("--stack", required=True, help="the stack")
    reviewed.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="where it is written"
    )

    check = commands.add_parser(
        "check",
        help="fail if a plan has something that the reviewed one has not; tokens may be new",
    )
    check.add_argument("reviewed", type=Path, help="the reviewed plan as JSON")
    check.add_argument("now", type=Path, help="the plan of now as JSON")

    issue = commands.add_parser("issue", help="open, edit or close the issue about a stack's drift")
    issue.add_argument("plan", type=Path, help="a plan of the level live as JSON")

    for command in (post, reviewed, issue):
        command.add_argument(
            "--forge",
            choices=FORGES,
            required=True,
            help="its token is in GITHUB_TOKEN or GITLAB_TOKEN",
        )


def run_command(arguments: argparse.Namespace) -> int:
    """Run a subcommand; return the exit code."""
    from . import commands

    command: Callable[[argparse.Namespace], int] = commands.COMMANDS[arguments.command]
    return command(arguments)
