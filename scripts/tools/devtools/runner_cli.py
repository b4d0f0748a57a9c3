"""The command line of `./scripts/test`. Standard library only: the launcher parses it before the
virtual environment exists.
"""

from __future__ import annotations

import argparse

EPILOG = """\
With CI=true in the environment a skipped test is a failure.

exit codes: 0 all passed, 1 something failed, 2 wrong command line, 3 this machine cannot run the
  lab, 130 interrupted
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of `./scripts/test`; `parse_args` gives `needs_lab`."""
    top = argparse.ArgumentParser(
        prog="./scripts/test",
        description="Runs every check of this project: style, types, unit, graph and engine tests, and those of\n"
        "the lab from nothing to a verified mesh and down.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument(
        "--quick",
        dest="needs_lab",
        action="store_false",
        help="style, types, tests of parts and of graphs, in less than a minute once its tools are built",
    )
    return top
