"""Copies of the checkout in which tests run on a changed program."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tools import ROOT, VENV, venv


def copy(root: Path) -> None:
    """Copy what git tracks, or would, into a repository of its own. It uses this virtual environment."""
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


def first_failure(output: str) -> str:
    """Return the first test that failed, by pytest's summary; a sentence where it names none."""
    failed = (line.split(" ")[1] for line in output.splitlines() if line.startswith(("FAILED", "ERROR")))
    return next(failed, "the tests do not run")
