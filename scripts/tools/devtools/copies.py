"""Copies of the checkout, in which tests run while something is changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

from tools import ROOT, VENV, venv

_SERVER = Path(__file__).with_name("warm_pytest.py")
_PASSED, _FAILED, _INTERRUPTED = 0, 1, 2
"""Exit codes of pytest; the last one where a test file cannot be imported."""


class Copy:
    """A copy of what git tracks, or would, in a repository of its own, and the process that tests it.

    environment: by which engine tests find their tools. A copy uses this virtual environment.
    """

    def __init__(self, root: Path, environment: Mapping[str, str]) -> None:
        self.root = root
        listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
        for name in filter(None, names):
            if (ROOT / name).exists():  # not removed since the last commit
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, root / name, follow_symlinks=False)
        for command in (["git", "init", "--quiet"], ["git", "add", "--all"]):
            subprocess.run(command, cwd=root, check=True)
        if venv.complete():
            (root / VENV.name).symlink_to(VENV)
        self._changes = 0
        variables = {**os.environ, **environment, "PYTHONPATH": ""}
        variables.pop("PYTHONDONTWRITEBYTECODE", None)  # what is not changed is compiled once
        words = [sys.executable, "-P", str(_SERVER)]
        self._process = subprocess.Popen(words, cwd=root, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    @contextmanager
    def changed(self, file: str, source: bytes) -> Iterator[None]:
        """Give a file another text for a while."""
        path = self.root / file
        path.write_bytes(source)
        # Python compiles again what is of another time. Two changes may be of one second.
        self._changes += 1
        os.utime(path, (self._changes, self._changes))
        try:
            yield
        finally:
            shutil.copy2(ROOT / file, path)

    def first_failure(self, *tests: str) -> str:
        """Return the first of some tests that fails, or the file that cannot be imported; "" if none.

        tests: pytest's arguments. Raises SystemExit where it runs no test.
        """
        assert self._process.stdin and self._process.stdout
        options = ["-x", "-q", "-n0", "--tb=no", "-p", "no:cacheprovider"]
        print(json.dumps([*options, *tests]), file=self._process.stdin, flush=True)
        outcome = json.loads(self._process.stdout.readline())
        if outcome["status"] not in (_PASSED, _FAILED, _INTERRUPTED):
            sys.exit(f"pytest {' '.join(tests)} ended with {outcome['status']} in {self.root}")
        return str(outcome["failed"]) or ("the tests do not run" if outcome["status"] else "")


class Copies:
    """Some copies, each for one user at a time."""

    def __init__(self, copies: list[Copy]) -> None:
        self._free: SimpleQueue[Copy] = SimpleQueue()
        for copy in copies:
            self._free.put(copy)

    @contextmanager
    def one(self) -> Iterator[Copy]:
        """Yield a copy that nothing else uses meanwhile."""
        copy = self._free.get()
        try:
            yield copy
        finally:
            self._free.put(copy)


@contextmanager
def copies(count: int, environment: Mapping[str, str]) -> Iterator[Copies]:
    """Yield copies, and remove them."""
    with tempfile.TemporaryDirectory() as directory:
        listed = [Copy(Path(directory, str(number)), environment) for number in range(count)]
        try:
            yield Copies(listed)
        finally:
            for copy in listed:
                copy.close()
