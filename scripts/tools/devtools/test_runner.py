"""`python -m tools.devtools.test_runner`, started by `./scripts/test` in the virtual environment: runs every check, then says what passed in which time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from xml.etree import ElementTree

from tools import FAILED, INTERRUPTED, OK
from tools.lab import paths, up
from tools.lab.locks import checkout_lock, exclusive_lock, shared_lock
from tools.lab.offline import debian, dockerd
from tools.lab.offline.programs import Tools
from tools.lab.process import restore_sigint
from tools.lab.steps import StepError, StepFailedError, Steps, seconds

from . import runner_cli

TOOLS = ("pulumi", "helm", "etcd", "kube-apiserver", "kube-controller-manager")
"""What the engine tests run for real."""
HOST_PACKAGES = ["ca-certificates", "openssh-client", "openssh-server"]


class Terminated(KeyboardInterrupt):
    """Somebody asked this process alone to end; after Ctrl-C the terminal tells the children too."""


@dataclass
class Part:
    """One command of the whole run, and how it ended."""

    title: str
    module: str
    arguments: Sequence[str | Path]
    environment: Mapping[str, str] = field(default_factory=dict)
    code: int | None = None
    took: float = 0.0
    tests: Counter[str] = field(default_factory=Counter)

    def run(self) -> None:
        print(f"\n== {self.title}", flush=True)
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as directory:
            report = Path(directory, "report.xml")
            more = [f"--junitxml={report}"] if self.module == "pytest" else []
            try:
                self.code = _call([sys.executable, "-m", self.module, *self.arguments, *more], {**os.environ, **self.environment})
            finally:
                self.took = time.monotonic() - started
                if report.exists():
                    self.tests = _count(report)

    def outcome(self) -> Counter[str]:
        """How many tests passed, failed and were skipped; a command that failed without a failed test is one failure."""
        return self.tests + Counter(failed=1 if self.code and not self.tests["failed"] else 0)


def main() -> int:
    os.environ.pop("PYTHONPATH", None)  # the launcher's
    arguments = runner_cli.parser().parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _terminate)
    os.chdir(paths.ROOT)
    started = time.monotonic()
    parts: list[Part] = []
    try:
        parts += _parts(_prepare(arguments.needs_lab), arguments.needs_lab)
        for part in parts:
            part.run()
        if arguments.needs_lab:
            with exclusive_lock() as alone:
                if alone:
                    dockerd.stop()  # unless somebody's containers run in it
    except (StepError, StepFailedError) as error:
        print(error, file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        _summary(parts, time.monotonic() - started)
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED
    _summary(parts, time.monotonic() - started)
    return FAILED if any(part.code for part in parts) else OK


def _prepare(with_lab: bool) -> dict[str, str]:
    """Get what the tests need, the lab's tools and images too if wanted; returns the variables by which engine tests find theirs."""
    steps = Steps("test", 2 + with_lab * up.PREPARATIONS, retry_command="./scripts/test")
    if with_lab:
        with checkout_lock(), shared_lock():
            up.prepare(steps)
    with steps.step("sshd") as step:
        debian.ensure(step, HOST_PACKAGES)
    with steps.step("tools of the tests") as step:
        tools = Tools()
        found = tools.programs(step, *TOOLS)
        tools.directory(step, "pulumi-python")
    directories = dict.fromkeys(str(tool.path.parent) for tool in found.values())
    return {"PULUMI_CLI": str(found["pulumi"].path), "LAB_TOOLS": os.pathsep.join(directories)}


def _parts(environment: Mapping[str, str], with_lab: bool) -> list[Part]:
    fast = [*(f"tests/{directory}" for directory in ("engine", "preview", "unit")), "scripts/tools/standins/tests"]  # the longest first
    selection = [] if with_lab else ["-m", "not slow"]
    parts = [
        Part("ruff check", "ruff", ["check", "."]),
        Part("ruff format", "ruff", ["format", "--check", "."]),
        Part("mypy", "mypy", []),
        Part("unit, preview and engine tests", "pytest", ["--numprocesses=2", "--dist=worksteal", *selection, *fast], environment),
    ]
    return [*parts, Part("the lab", "pytest", ["--verbosity=1", "--numprocesses=2", "--durations=12", "tests/lab"])] if with_lab else parts


def _call(command: Sequence[str | Path], environment: Mapping[str, str]) -> int:
    """Run a command on this terminal to its end; when interrupted, only after it has put things in order."""
    with subprocess.Popen(command, env=environment, preexec_fn=restore_sigint) as process:
        try:
            return process.wait()
        except KeyboardInterrupt as interrupt:
            if isinstance(interrupt, Terminated):
                process.send_signal(signal.SIGINT)
            process.wait()
            raise


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _count(report: Path) -> Counter[str]:
    """The tests of a report in JUnit's format, by outcome."""
    total: Counter[str] = Counter()
    for suite in ElementTree.parse(report).iter("testsuite"):
        failed, skipped = int(suite.get("failures", 0)) + int(suite.get("errors", 0)), int(suite.get("skipped", 0))
        total.update(failed=failed, skipped=skipped, passed=int(suite.get("tests", 0)) - failed - skipped)
    return total


def _summary(parts: Sequence[Part], took: float) -> None:
    print()
    total: Counter[str] = Counter()
    for part in parts:
        if part.code is None:
            print(f"{part.title:30}  {'not run':>12}")
            continue
        total += part.outcome()
        print(f"{part.title:30}  {seconds(part.took):>12}  {'failed' if part.code else 'passed'}")
    said = ", ".join(f"{total[what]} {what}" for what in ("failed", "passed", "skipped") if total[what]) or "nothing ran"
    print(f" {said} in {seconds(took)} ".center(80, "="), flush=True)


if __name__ == "__main__":
    sys.exit(main())
