"""`python -m tools.devtools.test_runner`, started by `./scripts/test` in the virtual environment:
runs every check and prints outcomes and times.
"""

from __future__ import annotations

import os
import resource
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

from tools import FAILED, INTERRUPTED, OK, PYTHONPATH, ROOT
from tools.lab import up
from tools.lab.locks import checkout_lock, exclusive_lock, shared_lock
from tools.lab.offline import debian, dockerd
from tools.lab.offline.programs import Tools
from tools.process import accept_sigint
from tools.steps import StepError, StepFailedError, Steps, seconds

from . import runner_cli

PROGRAMS = (
    *("pulumi", "helm", "etcd", "kube-apiserver", "kube-controller-manager", "pilot-agent"),
    "actionlint",
)
"""What the engine tests run for real, and the linter of workflows."""
PROGRAMS_BESIDE_LAB = ("istioctl",)
"""What the lab's tests compare the program with. The lab itself does not need it."""
HOST_PACKAGES = [
    "ca-certificates",
    *("openssh-client", "openssh-server"),
    *("shellcheck", "shfmt", "systemd"),  # systemd: for systemd-analyze
    *("dash", "fish", "tcsh", "zsh"),  # login shells
    *("iproute2", "iptables", "nftables", "procps"),  # the redirection, in network namespaces
]
QUICK_TESTS = ("tests/preview", "tests/repository", "tests/unit", "scripts/tools/standins/tests")
"""Directories whose tests start no engine and no server of Kubernetes or SSH. Those that are marked
`slow` are left out of `--quick`.
"""
FAST_TESTS = ("tests/engine", "tests/plugins", "tests/library", *QUICK_TESTS)
"""Directories of what needs no lab. What takes longest begins first."""
LAB_TESTS = "tests/e2e"
"""The directory of the scenarios of labs. Their tests wait most of the time, and the others run meanwhile."""


QUICK_BUDGET_S = 90
"""Seconds of processors that `--quick` may use: on two of them it is over in less than a minute."""
LISTED = 8
"""How many test files the summary of `--quick` lists."""


class Terminated(KeyboardInterrupt):
    """A signal ended this process alone; after Ctrl-C the terminal signals the children too."""


@dataclass
class Report:
    """A report of pytest: `tests` counts the outcomes, `seconds` sums the time of each test file."""

    tests: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> Report:
        """Read a report in JUnit's format."""
        report = cls()
        for suite in ElementTree.parse(file).iter("testsuite"):
            failed, skipped = int(suite.get("failures", 0)) + int(suite.get("errors", 0)), int(suite.get("skipped", 0))
            report.tests.update(failed=failed, skipped=skipped, passed=int(suite.get("tests", 0)) - failed - skipped)
            for case in suite.iter("testcase"):
                name = _test_file(case.get("classname", ""))
                report.seconds[name] = report.seconds.get(name, 0.0) + float(case.get("time", 0))
        return report


def _test_file(classname: str) -> str:
    """Return the path of a test file from its module's name, which may have a class behind it."""
    parts = classname.split(".")
    files = ["/".join(parts[:count]) + ".py" for count in range(len(parts), 0, -1)]
    return next((file for file in files if (ROOT / file).exists()), classname)


@dataclass
class Stage:
    """One command of the whole run, and how it ended.

    - `code`: its exit code, None while it has not run
    - `took`, `used`: seconds, by the clock and of processors
    """

    title: str
    command: Sequence[str | Path]
    environment: Mapping[str, str] = field(default_factory=dict)
    code: int | None = None
    took: float = 0.0
    used: float = 0.0
    report: Report = field(default_factory=Report)

    def run(self) -> None:
        print(f"\n== {self.title}", flush=True)
        started, used = time.monotonic(), _used_by_children()
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory, "report.xml")
            report = [f"--junitxml={file}"] if "pytest" in self.command else []
            try:
                self.code = _call([*self.command, *report], {**os.environ, **self.environment})
            finally:
                self.took = time.monotonic() - started
                self.used = _used_by_children() - used
                if file.exists():
                    self.report = Report.read(file)

    def outcome(self) -> Counter[str]:
        """Count the tests that passed, failed and were skipped; a command that failed without a
        failed test is one failure.
        """
        return self.report.tests + Counter(failed=1 if self.code and not self.report.tests["failed"] else 0)


def _used_by_children() -> float:
    """Return the seconds of processors that processes used which this one has waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def python(module: str, *arguments: str | Path) -> list[str | Path]:
    """Return the command that runs a module in this interpreter."""
    return [sys.executable, "-m", module, *arguments]


def main() -> int:
    os.environ.pop("PYTHONPATH", None)  # the launcher's
    # Without bytecode, each worker and each program of a test compiles everything again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    arguments = runner_cli.parser().parse_args()
    accept_sigint()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _terminate)
    os.chdir(ROOT)
    started = time.monotonic()
    stages: list[Stage] = []
    try:
        stages += _stages(prepare(arguments.needs_lab), arguments.needs_lab)
        for stage in stages:
            stage.run()
        if arguments.needs_lab:
            with exclusive_lock() as alone:
                if alone:
                    dockerd.stop()  # unless containers of another lab run in it
    except (StepError, StepFailedError) as error:
        print(error, file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        _summary(stages, time.monotonic() - started)
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED
    if not arguments.needs_lab:
        _budget(stages)
    _summary(stages, time.monotonic() - started)
    return FAILED if any(stage.code for stage in stages) else OK


def prepare(with_lab: bool) -> dict[str, str]:
    """Get what the tests need, the lab's tools and images too if wanted; returns the variables by
    which engine tests find the tools.
    """
    steps = Steps("test", 2 + with_lab * up.PREPARATIONS, retry_command="./scripts/test")
    if with_lab:
        with checkout_lock(), shared_lock():
            up.prepare(steps)
    with steps.step("sshd, shells and linters") as step:
        debian.ensure(step, HOST_PACKAGES)
    with steps.step("tools of the tests") as step:
        tools = Tools()
        programs = tools.programs(step, *PROGRAMS, *(PROGRAMS_BESIDE_LAB if with_lab else ()))
        tools.directory(step, "pulumi-python")
        programs["envoy"] = tools.envoy(step)
    directories = dict.fromkeys(str(tool.path.parent) for tool in programs.values())
    return {"PULUMI_CLI": str(programs["pulumi"].path), "LAB_TOOLS": os.pathsep.join(directories)}


def _stages(environment: Mapping[str, str], with_lab: bool) -> list[Stage]:
    # Each worker imports and collects everything. Two of four have a lab each. Quick tests wait for
    # a third of the time, as for programs that they start, so two workers leave a processor idle.
    everything = ["--verbosity=1", "--numprocesses=4", "--durations=12", LAB_TESTS, *FAST_TESTS]
    quick = ["--numprocesses=3", "-m", "not slow", *QUICK_TESTS]
    lint_imports = Path(sys.executable).with_name("lint-imports")
    return [
        Stage("ruff check", python("ruff", "check", ".")),
        Stage("ruff format", python("ruff", "format", "--check", ".")),
        Stage("imports", [lint_imports, "--no-cache", "--no-logo"], {"PYTHONPATH": PYTHONPATH}),
        Stage("mypy", python("mypy")),
        Stage("tests" if with_lab else "quick tests", python("pytest", *(everything if with_lab else quick)), environment),
    ]


def _call(command: Sequence[str | Path], environment: Mapping[str, str]) -> int:
    """Run a command on this terminal to its end; when interrupted, only after it has put things in
    order.
    """
    with subprocess.Popen(command, env=environment) as process:
        try:
            return process.wait()
        except KeyboardInterrupt as interrupt:
            if isinstance(interrupt, Terminated):
                process.send_signal(signal.SIGINT)
            process.wait()
            raise


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _budget(stages: Sequence[Stage]) -> None:
    """Print the quick stage's longest test files, and whether it uses more than it may. No test
    fails for its time: that depends on the machine.
    """
    seconds_by_file = {file: spent for stage in stages for file, spent in stage.report.seconds.items()}
    used = sum(stage.used for stage in stages)
    print(f"\nThe longest test files, of {seconds(used)} of processors:")
    for file in sorted(seconds_by_file, key=lambda file: -seconds_by_file[file])[:LISTED]:
        print(f"  {file:60}  {seconds(seconds_by_file[file]):>12}")
    if used > QUICK_BUDGET_S:
        print(f"--quick may use {QUICK_BUDGET_S} s: make these cheaper, or mark what is not a file's main case `slow` (CONTRIBUTING.md).")


def _summary(stages: Sequence[Stage], took: float) -> None:
    print()
    total: Counter[str] = Counter()
    for stage in stages:
        if stage.code is None:
            print(f"{stage.title:30}  {'not run':>12}")
            continue
        total += stage.outcome()
        print(f"{stage.title:30}  {seconds(stage.took):>12}  {'failed' if stage.code else 'passed'}")
        for file, spent in sorted(stage.report.seconds.items()):
            if file.startswith(LAB_TESTS):
                print(f"  {file:60}  {seconds(spent):>12}")
    outcomes = ", ".join(f"{total[what]} {what}" for what in ("failed", "passed", "skipped") if total[what]) or "nothing ran"
    print(f" {outcomes} in {seconds(took)} ".center(80, "="), flush=True)


if __name__ == "__main__":
    sys.exit(main())
