"""`python -m tools.devtools.mutate`, started by `./scripts/mutations`: breaks the program on
purpose, and checks that a test fails.

Each mutation is one change of one place in a copy of the program, and names the test that must
notice it. With `--conditions` the changes are those of conditions.py.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tools import ROOT

FILE = Path(__file__).with_name("mutations.yaml")


class Mutation(NamedTuple):
    """A change of a file: `before`, which must be there once, becomes `after`.

    test: the test that must notice it, as pytest names it; all its cases.
    """

    what: str
    file: str
    before: str
    after: str
    test: str


def mutations() -> list[Mutation]:
    """Read the mutations from the file."""
    import yaml

    return [Mutation(**each) for group in yaml.safe_load(FILE.read_text()).values() for each in group]


def parser() -> argparse.ArgumentParser:
    """Return the command line; standard library only, like everything at the top of this file."""
    top = argparse.ArgumentParser(
        prog="./scripts/mutations",
        description="Breaks a copy of the program in one place after the other, and runs the test that must notice it.",
        epilog="exit codes: 0 all are noticed, 1 one is not or nothing was tried, 2 wrong command line",
    )
    top.set_defaults(needs_lab=False)
    top.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) // 2), help="how many at once (default: %(default)s)")
    top.add_argument(
        "--conditions",
        action="store_true",
        help="negate and leave out each condition of what proves a mesh and looks at machines instead; words are in file:line:",
    )
    top.add_argument("words", nargs="*", metavar="word", help="only mutations with one of these words in their description")
    return top


def mutated(mutation: Mutation) -> bytes:
    """Return the file's text with the change. Raises SystemExit where the place is not there, or
    there more than once.
    """
    text = (ROOT / mutation.file).read_text()
    if text.count(mutation.before) != 1:
        sys.exit(
            f"{mutation.file} has {text.count(mutation.before)} times what to change for '{mutation.what}': mend {FILE.relative_to(ROOT)}"
        )
    return text.replace(mutation.before, mutation.after).encode()


def main() -> int:
    arguments = parser().parse_args()
    if arguments.conditions:
        from . import conditions

        return conditions.run(arguments.jobs, arguments.words)
    wanted = [mutation for mutation in mutations() if not arguments.words or any(word in mutation.what for word in arguments.words)]
    if not wanted:
        print(f"No mutation has one of these words: {' '.join(arguments.words)}. {FILE.relative_to(ROOT)} has them all.", file=sys.stderr)
        return 1
    from .copies import copies
    from .test_runner import prepare

    started, missed = time.monotonic(), 0
    with copies(arguments.jobs, prepare(with_lab=False)) as free, ThreadPoolExecutor(arguments.jobs) as threads:

        def is_noticed(mutation: Mutation) -> bool:
            with free.one() as copy, copy.changed(mutation.file, mutated(mutation)):
                return copy.first_failure(mutation.test).partition("[")[0] == mutation.test

        with free.one() as copy:
            if red := copy.first_failure(*dict.fromkeys(mutation.test for mutation in wanted)):
                sys.exit(f"{red} is red without a mutation: mend that first.")
        for mutation, noticed in zip(wanted, threads.map(is_noticed, wanted), strict=True):
            missed += not noticed
            print(f"{'noticed' if noticed else 'MISSED ':7}  {mutation.what}{'' if noticed else f'  ({mutation.test})'}", flush=True)
    minutes = (time.monotonic() - started) / 60
    print(f"{len(wanted)} mutations: {len(wanted) - missed} noticed, {missed} missed, in {minutes:.1f} min")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
