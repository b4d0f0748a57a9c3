"""`python -m tools.devtools.mutate`, started by `./scripts/mutations`: breaks the program on
purpose, and sees whether a test notices.

Each mutation is one change of one place in a copy of the program. One that no test notices is a
hole in the tests. With `--conditions` the changes are those of conditions.py.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import NamedTuple, TypeAlias

from tools import ROOT

from .trial import copy, first_failure

GOLDEN = "the_graph_is_the_one_that_was_reviewed"
"""Golden graphs fail on almost every change and explain little: a rule must fail too."""
THIS = "tests/unit/tools/devtools/test_mutate.py"
"""Fails under every mutation, because that changes the place that it looks for."""
FILE = Path(__file__).with_name("mutations.yaml")


PASSED, NONE_SELECTED = 0, 5
"""Exit codes of pytest."""
Arguments: TypeAlias = "tuple[str, ...]"


class Mutation(NamedTuple):
    """A change of a file: `before`, which must be there once, becomes `after`."""

    what: str
    file: str
    before: str
    after: str


def mutations() -> list[Mutation]:
    """Read the mutations from the file."""
    import yaml

    return [Mutation(**each) for group in yaml.safe_load(FILE.read_text()).values() for each in group]


def parser() -> argparse.ArgumentParser:
    """The command line; standard library only, like everything at the top of this file."""
    top = argparse.ArgumentParser(
        prog="./scripts/mutations",
        description="Breaks a copy of the program in one place after the other. Each time it runs the tests without the lab, the nearest "
        "first. One of them must fail.",
    )
    top.set_defaults(needs_lab=False)
    top.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) // 2), help="how many at once (default: %(default)s)")
    top.add_argument(
        "--conditions",
        action="store_true",
        help="negate and leave out each condition of what proves a mesh instead; words are in file:line:",
    )
    top.add_argument("words", nargs="*", metavar="word", help="only mutations with one of these words in their description")
    return top


def applied(mutation: Mutation, root: Path) -> None:
    """Make the change below `root`. Raises SystemExit where the place is not there, or there
    more than once.
    """
    file = root / mutation.file
    text = file.read_text()
    if text.count(mutation.before) != 1:
        sys.exit(
            f"{mutation.file} has {text.count(mutation.before)} times what to change for '{mutation.what}': mend {FILE.relative_to(ROOT)}"
        )
    file.write_text(text.replace(mutation.before, mutation.after))


def nearest(file: str) -> str:
    """Return the unit tests that mirror a file of the program; "" if there are none.

    They are a directory, or a file where the program's file is a module at the top.
    """
    path = Path(*(part for part in Path(file).parts if part not in ("components", "scripts")))
    if path.parent == Path("."):
        mirror = Path("tests/unit", f"test_{path.stem}.py")
        return str(mirror) if (ROOT / mirror).exists() else ""
    directories = [Path("tests/unit", parent) for parent in path.parents if parent != Path(".")]
    return next((str(directory) for directory in directories if (ROOT / directory).is_dir()), "")


class Tests:
    """The tests of a copy, from those that are near to those that take long.

    - `copies`: of the program, as many as mutations are tried at once
    - `environment`: by which engine tests find their tools
    """

    def __init__(self, copies: Iterable[Path], environment: Mapping[str, str]) -> None:
        from .test_runner import FAST_TESTS, QUICK_TESTS

        self._copies: SimpleQueue[Path] = SimpleQueue()
        for root in copies:
            self._copies.put(root)
        self._environment = {**os.environ, **environment, "PYTHONPATH": ""}
        # A copy keeps its bytecode: Python compiles again what is of another time than that.
        self._environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self._quick: Arguments = ("-m", "not slow", *QUICK_TESTS)
        self._all: Arguments = ("--numprocesses=3", *FAST_TESTS)
        self._lock = Lock()
        self._red: dict[Arguments, str] = {}

    def noticed(self, mutation: Mutation) -> str:
        """Return the first test that fails under a mutation, or "" if none does.

        Raises SystemExit where tests fail without it.
        """
        near = nearest(mutation.file)
        first: Sequence[Arguments] = [("-m", "not slow", near)] if near else []
        arguments, failed = self._quick, ""
        root = self._copies.get()
        try:
            applied(mutation, root)
            for arguments in (*first, self._quick, self._all):
                failed = self._failed(root, arguments)
                if failed:
                    break
            shutil.copy2(ROOT / mutation.file, root / mutation.file)
            if failed:
                self._check(root, self._all if arguments is self._all else self._quick)
        finally:
            self._copies.put(root)
        return failed

    def _check(self, root: Path, arguments: Arguments) -> None:
        """Fail where tests fail in a copy without a mutation. They run once."""
        with self._lock:
            if arguments not in self._red:
                self._red[arguments] = self._failed(root, arguments)
            if red := self._red[arguments]:
                sys.exit(f"The tests are red without a mutation ({red}): mend that first.")

    def _failed(self, root: Path, arguments: Arguments) -> str:
        """Return the first test that fails in a copy, or ""."""
        options = ["-x", "-q", "--tb=no", "-p", "no:cacheprovider", "-k", f"not {GOLDEN}", f"--ignore={THIS}"]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *arguments], cwd=root, env=self._environment, capture_output=True, text=True
        )
        if done.returncode in (PASSED, NONE_SELECTED):
            return ""
        return first_failure(done.stdout).rpartition("/")[2]


def main() -> int:
    arguments = parser().parse_args()
    if arguments.conditions:
        from . import conditions

        return conditions.run(arguments.jobs, arguments.words)
    wanted: Sequence[Mutation] = [
        mutation for mutation in mutations() if not arguments.words or any(word in mutation.what for word in arguments.words)
    ]
    if not wanted:
        print(f"No mutation has one of these words: {' '.join(arguments.words)}. {FILE.relative_to(ROOT)} has them all.", file=sys.stderr)
        return 1
    from .test_runner import prepare

    started, missed = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(arguments.jobs) as threads:
        copies = [Path(directory, str(number)) for number in range(arguments.jobs)]
        for root in copies:
            copy(root)
        tests = Tests(copies, prepare(with_lab=False))
        for mutation, test in zip(wanted, threads.map(tests.noticed, wanted), strict=True):
            missed += not test
            print(f"{'noticed' if test else 'MISSED ':7}  {mutation.what}{f'  ({test})' if test else ''}", flush=True)
    print(f"{len(wanted) - missed} of {len(wanted)} noticed, in {time.monotonic() - started:.0f} s")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
