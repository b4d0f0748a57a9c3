"""Runs tests of a checkout again and again, each time in a child of this process. Started by
copies.py, in the directory of the checkout.

Large libraries stay imported, which takes most of the time of a short run. The checkout's own
modules are never imported here, so a child has them as they are then. Each line of standard input is
a list of pytest's arguments, in JSON. The line of output for it is an `Outcome`.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TypedDict

import pytest

LIBRARIES = (
    *("pydantic", "yaml", "pulumi.automation", "pulumi.dynamic", "pulumi_command.local"),
    *(f"pulumi_gcp.{name}" for name in ("compute", "container", "dns", "projects", "serviceaccount")),
    "pulumi_kubernetes",
)
"""What most tests import."""


class Outcome(TypedDict):
    """How a run ended. status: pytest's exit code. failed: the first test that failed, or ""."""

    status: int
    failed: str


class _First:
    """A plugin of pytest: it keeps the name of the first test, or of the file, that fails."""

    failed = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._see(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._see(report)

    def _see(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid


def _run(arguments: Sequence[str]) -> Outcome:
    first = _First()
    status = pytest.main(list(arguments), plugins=[first])
    return Outcome(status=int(status), failed=first.failed)


def _run_in_child(arguments: Sequence[str]) -> Outcome:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        outcome = json.dumps(_run(arguments))
        with open(writing, "w") as pipe:
            pipe.write(outcome)
        os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    with suppress(ProcessLookupError):  # what a loop without an end has started
        os.killpg(child, signal.SIGKILL)
    return json.loads(text) if text else Outcome(status=pytest.ExitCode.TESTS_FAILED, failed="")


def main() -> None:
    """Answer each line until there is none."""
    for name in LIBRARIES:
        dir(importlib.import_module(name))  # Pulumi's modules are loaded once they are looked at
    for line in sys.stdin:
        print(json.dumps(_run_in_child(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
