"""For every test: where CI is set, nothing may be skipped."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator
from typing import Any

import pytest


def _refuse(report: pytest.TestReport | pytest.CollectReport) -> Any:
    """Turn a skip into a failure; an expected failure is none."""
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"nothing may be skipped where CI is set: {reason}"
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _refuse((yield))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _refuse((yield))


@pytest.fixture(autouse=True)
def _garbage_is_collected() -> Generator[None]:
    """The program turns this off for its process, which ends with it; this one goes on."""
    yield
    gc.enable()
