"""`python -m tools.devtools.mutate`, started by `./scripts/mutations`: breaks the program on
purpose, and sees whether a test notices.

Each mutation is one change of one place in a copy of the program. One that no test notices is a
hole in the tests.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tools import ROOT

TESTS = (
    "tests/preview",
    "tests/unit/istio",
    "tests/unit/platforms",
    "tests/unit/test_names.py",
    "tests/unit/machines",
    "tests/unit/verification",
    "tests/unit/config/test_reader.py",
    "tests/unit/config/test_broken.py",
    "tests/unit/config/test_rules.py",
    "tests/unit/test_workflows.py",
    "tests/unit/tools/plan/forge/test_check.py",
    "tests/unit/tools/plan/forge/test_comments.py",
    "tests/unit/tools/plan/test_render_json.py",
    "tests/unit/tools/plan/test_render_markdown.py",
    "tests/unit/tools/plan/test_rules.py",
    "tests/unit/tools/plan/test_untrusted.py",
)
GOLDEN = "the_graph_is_the_one_that_was_reviewed"
"""Golden graphs fail on almost every change and explain little: a rule must fail too."""
FILE = Path(__file__).with_name("mutations.yaml")
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "go", "images")
"""What a copy of this checkout does without."""


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
        description="Breaks a copy of the program in one place after the other and runs the quick tests: each break must turn one red.",
    )
    top.set_defaults(needs_lab=False)
    top.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) // 2), help="how many at once (default: %(default)s)")
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


def noticed(mutation: Mutation | None) -> str:
    """The first test that fails under a mutation, or "" if none does."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        shutil.copytree(ROOT, root, ignore=LEFT_OUT, dirs_exist_ok=True)
        if mutation:
            applied(mutation, root)
        rules = ["-k", f"not {GOLDEN}"]
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider", *rules, *TESTS]
        environment = {**os.environ, "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
        if done.returncode == 0:
            return ""
        failed = [line.split(" ")[1] for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return failed[0].rpartition("/")[2] if failed else "the tests do not run"


def main() -> int:
    arguments = parser().parse_args()
    wanted: Sequence[Mutation] = [
        mutation for mutation in mutations() if not arguments.words or any(word in mutation.what for word in arguments.words)
    ]
    if red := noticed(None):
        print(f"The tests are red without a mutation ({red}): mend that first.", file=sys.stderr)
        return 1
    started, missed = time.monotonic(), 0
    with ThreadPoolExecutor(arguments.jobs) as threads:
        for mutation, test in zip(wanted, threads.map(noticed, wanted), strict=True):
            missed += not test
            print(f"{'noticed' if test else 'MISSED ':7}  {mutation.what}{f'  ({test})' if test else ''}", flush=True)
    print(f"{len(wanted) - missed} of {len(wanted)} noticed, in {time.monotonic() - started:.0f} s")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
