"""`python -m tools.devtools.dev`, started by `./scripts/dev`: help for those who change this
project.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .pins import Release

OK, NEWER, UNKNOWN = 0, 1, 3
"""Exit codes besides argparse's 2 for a wrong command line; the last two with `--check` alone."""
EPILOG = """\
exit codes: 0; with --check 1 if a pin has a newer release, 3 if one could not be looked up
pip and Go look releases up, with their own settings of indexes, proxies and certificates.
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser; `parse_args` gives `command`, `json` and `check`."""
    top = argparse.ArgumentParser(prog="./scripts/dev", description="Help for those who change this project.")
    commands = top.add_subparsers(dest="command", required=True, metavar="command")
    versions = commands.add_parser(
        "versions",
        help="which pinned versions have newer releases",
        description="Prints which pinned versions have newer releases in the package registries.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    versions.add_argument("--json", action="store_true", help="print JSON instead of a table")
    versions.add_argument("--check", action="store_true", help="report by the exit code if something is newer")
    top.set_defaults(needs_lab=False)
    return top


def main() -> int:
    """Print what is newer; return the exit code."""
    arguments = parser().parse_args()
    from . import pins

    releases = pins.look_up(pins.pins(), pins.call)
    if arguments.json:
        document = {"pins": [asdict(each) for each in releases], "unseen": list(pins.UNSEEN)}
        print(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        print("\n".join(table(releases)))
        print(
            "\n* has a newer release\n\nNot looked up, because no package registry has them:",
            *(f"- {each}" for each in pins.UNSEEN),
            sep="\n",
        )
    problems = [each for each in releases if each.problem]
    for reason in dict.fromkeys(each.problem for each in problems):
        names = ", ".join(each.pin.name for each in problems if each.problem == reason)
        print(f"not looked up: {names}: {reason}", file=sys.stderr)
    if not arguments.check:
        return OK
    if any(each.is_newer for each in releases):
        return NEWER
    return UNKNOWN if problems else OK


def table(releases: Sequence[Release]) -> list[str]:
    """Return the lines of a table. A star marks a pin that has a newer release."""
    rows = [("", "pin", "pinned", "same minor", "newest", "in")]
    for each in releases:
        newest = each.newest or "?"
        of_minor = each.newest_of_minor if each.newest_of_minor != each.pin.version else ""
        rows.append(("*" if each.is_newer else "", each.pin.name, each.pin.version, of_minor, newest, each.pin.file))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


if __name__ == "__main__":
    sys.exit(main())
