"""The command line of `./scripts/plan`. Standard library only: the launcher parses it before the
virtual environment exists.
"""

from __future__ import annotations

import argparse

from . import FAILED
from .forge.cli import LEVELS, add_commands

EPILOG = """\
Nothing is changed. Pulumi is called with the environment as it is if PULUMI_BACKEND_URL is set
there, else with the lab's where there is one (./scripts/lab env).

levels: files compares the stack file and the program with those at the base; it reads no cloud,
  cluster, state or secret. state previews against the stack's state. live also reads what the
  cluster, the machines and the cloud have. A level that is not available becomes the one below.
exit codes: 0 nothing changes, 2 something does, 3 a rule is broken (which wins), 1 it failed, or
  the update would, 130 interrupted
"""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors do not look like a plan with changes."""

    def exit(self, status: int = 0, message: str | None = None) -> None:  # type: ignore[override]
        super().exit(FAILED if status else 0, message)


def parser() -> argparse.ArgumentParser:
    """Return the parser. What it returns has `stack`, `base`, `destroy`, `level`, `json`,
    `markdown` and `verbose`; or `command`, and the arguments of a command for forges (`forge.cli`).
    """
    top = _Parser(
        prog="./scripts/plan",
        description="Prints what an update will do to the mesh of a stack, before it happens.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--stack", help="the stack (default: the one that Pulumi has selected)")
    top.add_argument(
        "--base",
        metavar="REF",
        help="compare with the commit at which this branch left REF (default: the target of the "
        "pull request, else the main branch)",
    )
    top.add_argument("--destroy", action="store_true", help="what `pulumi destroy` does instead")
    top.add_argument(
        "--level",
        choices=LEVELS,
        default="state",
        help="the highest level to try (default: %(default)s)",
    )
    form = top.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON (docs/plan.schema.json)")
    form.add_argument("--markdown", action="store_true", help="print Markdown, as in a comment")
    top.add_argument("--verbose", action="store_true", help="print the diff of each resource too")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", title="for forges")
    add_commands(commands)  # type: ignore[arg-type]
    top.set_defaults(needs_lab=False, failed=FAILED)
    return top
