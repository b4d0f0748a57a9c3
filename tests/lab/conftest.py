"""The one lab of these tests: a copy of the checkout, brought up from nothing by `./scripts/lab up` and taken down at the end."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.lab.environment import Lab
from tools import ROOT, VENV, venv

COLD = 75 * 60
"""Seconds in which everything is built and up where no cache helps."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test waits for clusters and machines longer than others; making a lab has limits of its own."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(300, func_only=True))


class SideBySide(LoadScopeScheduling):
    """Both labs are up at once: each has a worker of its own, which runs its tests in their order."""

    def _split_scope(self, nodeid: str) -> str:
        return "networks" if "networks" in nodeid else "lab"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> SideBySide:
    return SideBySide(config, log)


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what git tracks, or would; with a link to this checkout's virtual environment where that is complete."""
    root = tmp_path_factory.mktemp("lab") / "istio-vm-mesh"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).exists():  # not removed since the last commit
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name, follow_symlinks=False)
    if venv.complete():
        (root / ".venv").symlink_to(VENV)
    return root


@pytest.fixture(scope="session")
def lab(checkout: Path) -> Iterator[Lab]:
    """The lab, up. It starts from nothing: what a killed run left of the stack goes first."""
    lab = Lab(checkout)
    lab.lab("down")
    lab.configure()
    try:
        lab.output = lab.up(timeout=COLD)
        lab.prepare()
        yield lab
    finally:
        lab.leave()
