"""The command line of `./scripts/live-run`. Standard library only: the launcher parses it before
the virtual environment exists.
"""

from __future__ import annotations

import argparse
from pathlib import Path

AS_EXPECTED, SURPRISE, UNFIT, NOT_DOWN, INTERRUPTED = 0, 1, 3, 4, 130
"""Exit codes besides argparse's 2 for a wrong command line or a missing confirmation."""

EPILOG = """\
exit codes: 0 all rows are as expected, 1 a row failed, 2 wrong command line or not confirmed,
  3 prerequisites are not met, 4 something may be left and costs, 130 interrupted
With 0, 1 and 130 the stack was taken down. With 2 and 3 nothing was created.
Google Cloud is called as the user of gcloud's login, Pulumi with the environment as it is.
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser; its result has `stack`, `check`, `down`, `yes` and `report`."""
    top = argparse.ArgumentParser(
        prog="./scripts/live-run",
        description="Runs the rows of docs/first-live-run.md with a stack on Google Cloud. It checks\n"
        "prerequisites, creates the stack, stops at the first row that fails, and takes everything\n"
        "down. It reports the rows and the cost.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("stack", help="the stack: a file stacks/Pulumi.STACK.yaml")
    only = top.add_mutually_exclusive_group()
    only.add_argument("--check", action="store_true", help="check the prerequisites, and no more")
    only.add_argument("--down", action="store_true", help="take the stack down, and no more")
    top.add_argument("--yes", action="store_true", help="create or delete without a prompt")
    top.add_argument(
        "--report",
        metavar="FILE",
        type=Path,
        help="where the report is written (default: live-run-STACK.md)",
    )
    top.set_defaults(needs_lab=False, failed=UNFIT)
    return top
