"""The command line of `./scripts/lab`. Standard library only: the launcher parses it before the
virtual environment exists.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from . import paths

FIRST, OFFICIAL, OFFLINE = "official first", "official", "offline"
"""Where the lab gets what this machine does not have: from its publisher where that answers, else
built; from its publisher alone; built alone.
"""
EPILOG = """\
Parts that this machine does not have are downloaded from their publishers. Each server gets one
request, and has three seconds to answer. What they do not provide is built from package registries.
A command that is run again continues where the last run ended. What is built is kept in a cache,
the directory istio-vm-mesh in ISTIO_VM_MESH_CACHE, XDG_CACHE_HOME or ~/.cache.

exit codes: 0 done, 1 a step failed, 2 wrong command line, 3 this machine cannot run the lab,
  130 interrupted
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of `./scripts/lab`; `parse_args` gives `command`, `needs_lab` and that
    command's options.
    """
    top = argparse.ArgumentParser(
        prog="./scripts/lab",
        description="Brings up a Kubernetes cluster and machines in one Istio mesh on this Linux machine.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.set_defaults(needs_lab=False)
    commands = top.add_subparsers(dest="command", required=True, metavar="command")
    up = commands.add_parser("up", help="prepare this machine, then `pulumi up`, and show what is in the mesh")
    up.set_defaults(needs_lab=True)
    down = commands.add_parser("down", help="`pulumi destroy`, and remove everything of the lab but its caches")
    for command in (up, down):
        command.add_argument("--stack", default=paths.STACK, help="the stack, a file stacks/Pulumi.<stack>.yaml (default: %(default)s)")
    down.add_argument("--purge", action="store_true", help="remove the caches too (built programs, images): the next `up` starts cold")
    tools = commands.add_parser("tools", help="list the tools in use, with their versions and where they are from")
    for command in (up, tools):
        _add_sources(command)
    tools.add_argument("names", nargs="*", metavar="name", help="get these now and print where they are")
    commands.add_parser("env", help='print the environment as export lines, for eval "$(./scripts/lab env)" and pulumi by hand')
    logs = commands.add_parser("logs", help="list the logs of the last runs, or print one")
    logs.add_argument("step", nargs="?", help="a step's number or a part of its name")
    return top


def _add_sources(command: argparse.ArgumentParser) -> None:
    group = command.add_mutually_exclusive_group()
    choices = {
        OFFLINE: ("--offline", "do not contact publishers: build what is not there from package registries"),
        OFFICIAL: ("--official", "build no part that has a publisher: one that cannot be downloaded is an error"),
    }
    for value, (option, text) in choices.items():
        group.add_argument(option, dest="sources", action="store_const", const=value, help=text)
    command.set_defaults(sources=FIRST)


def stack_option(stack: str) -> str:
    """Return what to write behind a command for it to be about this stack."""
    return "" if stack == paths.STACK else f" --stack {stack}"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what `parser` makes of arguments; None: of this process's."""
    return parser().parse_args(arguments)
