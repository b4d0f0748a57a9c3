"""The labs of these tests: a copy of the checkout for each worker, and a fixture for each lab. See README.md."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.e2e.scenarios import SCENARIOS
from tests.support.lab import Lab, MultiNetworkLab
from tools import ROOT, VENV, venv

HERE = Path(__file__).parent
BODY_S = 3600
"""Seconds after which the body of a test hangs. Each command and each wait in it has a limit of its own, but the wait for the other lab's calls."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the scenarios, which come before other tests because they take longest.

    Commands and waits of a scenario have limits of their own, so its fixtures need none.
    """
    names = {item: item.path.relative_to(HERE).as_posix() for item in items if HERE in item.path.parents}
    if unlisted := set(names.values()) - set(SCENARIOS):
        raise pytest.UsageError(f"add to SCENARIOS in tests/e2e/scenarios.py: {', '.join(sorted(unlisted))}")
    for item in names:
        item.add_marker(pytest.mark.timeout(BODY_S, func_only=True))
    items[:] = sorted(names, key=lambda item: SCENARIOS.index(names[item])) + [item for item in items if item not in names]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Have the next scenario check the lab after a failed test."""
    report = yield
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, Lab):
                value.damaged = True
    return report


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


@pytest.fixture(scope="package")
def single_network_lab(checkout: Path) -> Iterator[Lab]:
    """The lab with one network; a scenario says which stack it starts from, and the first one brings it up."""
    lab = Lab(checkout)
    lab.configure()
    try:
        yield lab
    finally:
        lab.tear_down()


@pytest.fixture(scope="package")
def multi_network_lab(checkout: Path) -> Iterator[MultiNetworkLab]:
    """The lab with two networks."""
    lab = MultiNetworkLab(checkout)
    lab.configure()
    try:
        yield lab
    finally:
        lab.tear_down()
