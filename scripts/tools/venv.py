"""The virtual environment `.venv`, from the hash-locked requirements.txt. Standard library only."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tools import ROOT, VENV
from tools.process import Command
from tools.steps import Display, Step, StepError, Steps

REQUIREMENTS = ROOT / "requirements.txt"
STAMP = VENV / ".complete"
"""Written when the environment is complete: what it was made from."""
PYTHON = VENV / "bin" / "python"
Install = Callable[[Step, Sequence[str]], None]
"""Installs packages of Debian on this machine. Raises StepError where it cannot."""


def recipe() -> str:
    """Return what a complete environment is made from: the requirements and this Python."""
    return f"{hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()} {platform.python_version()}"


def complete() -> bool:
    try:
        return STAMP.read_text() == recipe() and PYTHON.exists()
    except OSError:
        return False


def ensure(show: Display, install: Install | None = None) -> Path:
    """Return the Python of a complete environment; make the environment if it is absent, half-made
    or outdated.

    Without `install` nothing else on this machine is changed. Raises StepFailedError where making
    it fails.
    """
    if not complete():
        with Steps("venv", 1, show, retry_command="the same command").step("Python environment") as step:
            _make(step, install)
    return PYTHON


def _make(step: Step, install: Install | None) -> None:
    if not importlib.util.find_spec("ensurepip"):  # Debian has it in a package of its own
        if not install:
            cause = "this Python has no module ensurepip, which Debian has in its package python3-venv"
            raise StepError(cause, "run `apt-get install python3-venv` as root", show_log=False)
        step.note("installing Debian's python3-venv")
        install(step, ["python3-venv"])
    STAMP.unlink(missing_ok=True)
    shutil.rmtree(VENV, ignore_errors=True)
    # Not sys.executable: that may be the Python of the environment being replaced.
    interpreter = getattr(sys, "_base_executable", None) or sys.executable
    step.note("creating .venv")
    step.run([interpreter, "-m", "venv", VENV], hint="install Python's venv module (Debian: apt-get install python3-venv)")
    step.note("installing the packages of requirements.txt")
    options = ["--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--require-hashes"]
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    step.run(
        Command([PYTHON, "-m", "pip", "install", *options, "--requirement", REQUIREMENTS], env=variables),
        progress=_Packages(),
        hint="see to it that pip can download packages (index, proxy and certificates are pip's own settings)",
    )
    if not PYTHON.exists():
        raise StepError(f"{PYTHON} is not there")
    STAMP.write_text(recipe())


class _Packages:
    """Follows pip: how many of the packages it has got, and when it installs them."""

    def __init__(self) -> None:
        self.total = sum("==" in line and not line.startswith("#") for line in REQUIREMENTS.read_text().splitlines())
        self.downloaded = 0

    def __call__(self, line: str) -> str | None:
        if line.startswith("Collecting "):
            self.downloaded += 1
            return f"{self.downloaded}/{self.total} packages"
        return "installing" if line.startswith("Installing collected packages") else None
