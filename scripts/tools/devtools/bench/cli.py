"""The command line of `./scripts/bench`. Standard library only: the launcher parses it before the virtual environment exists."""

from __future__ import annotations

import argparse

GOOD, BAD, INTERRUPTED = 0, 1, 130
"""Exit codes besides argparse's 2 for a wrong command line, and 3 for a machine that cannot run the lab."""

EPILOG = """\
`lab` and `fleet` bring up a separate stack and take it down again. Run them while the machine does
nothing else.

exit codes: 0 every figure is within its bound, 1 one is not, or a step failed, 2 wrong command
  line, 3 this machine cannot run the lab, 130 interrupted
"""
SIZES = (1, 10, 100, 300)
FLEETS = (100, 300, 1000)
SCALES = (10, 100, 300)


def positive(text: str) -> int:
    """Return a number of at least 1. Raises ArgumentTypeError for other texts."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """Return the parser; `parse_args` gives `command`, `needs_lab` and that command's options."""
    top = argparse.ArgumentParser(
        prog="./scripts/bench",
        description="Measures this program and prints figures with their bounds.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.set_defaults(needs_lab=False)
    commands = top.add_subparsers(dest="command", required=True, metavar="command")
    lab = commands.add_parser(
        "lab", help="times of the lab, of a join beside Istio's manual way, and of many machines (about ten minutes)", epilog=EPILOG
    )
    lab.set_defaults(needs_lab=True)
    lab.add_argument("--machines", type=positive, default=10, help="how many machines join at once (default: %(default)s)")
    lab.add_argument(
        "--rounds", type=positive, default=3, help="how often each way of joining is run; medians count (default: %(default)s)"
    )
    preview = commands.add_parser("preview", help=f"time and memory of a preview against {', '.join(map(str, SIZES))} machines")
    preview.add_argument("--stack", default="lab", help="whose first machine is multiplied (default: %(default)s)")
    fleet = commands.add_parser(
        "fleet", help="istiod with many simulated machines: registration, CPU, memory, push (a few minutes)", epilog=EPILOG
    )
    fleet.set_defaults(needs_lab=True)
    fleet.add_argument(
        "--machines", type=positive, nargs="+", default=list(FLEETS), help="numbers of machines, one after the other (default: %(default)s)"
    )
    scale = commands.add_parser(
        "scale", help="up, preview, plan and status of many machines under the real engine; its providers create nothing (some minutes)"
    )
    scale.add_argument(
        "--machines", type=positive, nargs="+", default=list(SCALES), help="numbers of machines, one after the other (default: %(default)s)"
    )
    scale.add_argument(
        "--rounds",
        type=positive,
        default=3,
        help="how often a plan and its preview are run, by turns; the best counts (default: %(default)s)",
    )
    for command in (lab, preview, fleet, scale):
        command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    one = commands.add_parser("one")
    one.add_argument("stack")
    one.add_argument("machines", type=int)
    return top
