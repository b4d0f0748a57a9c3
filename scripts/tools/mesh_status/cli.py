"""The command line of `./scripts/status`. Standard library only: the launcher parses it before the virtual environment exists."""

from __future__ import annotations

import argparse
from pathlib import Path

HEALTHY, NOT_HEALTHY, UNREADABLE, INTERRUPTED = 0, 1, 3, 130
"""Exit codes besides argparse's 2 for a wrong command line."""

EPILOG = """\
Nothing is changed; --verify runs Pulumi on the verification's resources alone. Pulumi is called
with the environment as it is if PULUMI_BACKEND_URL is set there, else with the lab's where there is
one (./scripts/lab env).

exit codes: 0 all healthy, 1 something is not (or --verify failed), 2 wrong command line,
  3 the stack cannot be read, 130 interrupted
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser; `parse_args` gives `stack` (None for the selected one), `json`, `svg` and `verify`."""
    top = argparse.ArgumentParser(
        prog="./scripts/status",
        description="Prints what is in the mesh of a stack, its health, and fixes for what is not healthy.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--stack", help="the stack (default: the one that Pulumi has selected)")
    top.add_argument("--json", action="store_true", help="print JSON instead of a table")
    top.add_argument("--svg", metavar="FILE", type=Path, help="draw the mesh into this file too")
    top.add_argument("--verify", action="store_true", help="verify the mesh first, as an update with changes does (10 to 60 seconds)")
    top.set_defaults(needs_lab=False, failed=UNREADABLE)
    return top
