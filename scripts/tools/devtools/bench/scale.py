"""What many machines cost under the real engine: `up`, previews, `./scripts/plan` and `status`.

The CLI, the program with its dynamic providers, and both tools are real, each in a process of its
own. Other providers log and create nothing. kubectl, kind and ssh are stand-ins that answer at
once. So what is measured is Pulumi and this program, without the time of clusters and machines.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from components.config import reader
from components.local import openssh
from components.names import (
    CONNECTED_ANNOTATION,
    DRAIN,
    GROUP_ANNOTATION,
    JOIN,
    REGISTRATION,
    REGISTRATION_LABEL,
    SSH_KEY,
    callers_resource_name,
    is_part,
    part_name,
)
from components.platforms.docker.names import CONTAINER, network_resource_name
from tools import PYTHONPATH, ROOT, VENV
from tools.directories import make_private
from tools.lab import paths, plugins, stacks, up
from tools.lab.stacks import Config
from tools.mesh_status.pulumi import QUIET
from tools.plan import BROKEN, CHANGES
from tools.steps import Display, Step, StepError, Steps, display

from .figures import Figure
from .lab_stack import CHECKOUT
from .preview import grown

STACK = f"bench-scale-{CHECKOUT}"
SCENARIO, WORKLOAD, NETWORK = "lab", "product", "pods"
ACCOUNT = ("shop", "product")
"""Namespace and name of the service account of the scenario's workload."""
CIDR, FIRST_ADDRESS = "172.31.0.0/20", IPv4Address("172.31.1.1")
MOST_GROWTH, MOST_PLAN = 1.25, 1.3
"""How much more processor time one machine more may take among many than among few, and a plan than
its preview alone.
"""
SAMPLE_S = 0.1

_PROGRAMS = {
    "kind": 'echo "apiVersion: v1"',
    "kubectl": """\
case "$*" in
*'get namespace kube-system'*) printf 00000000-0000-0000-0000-000000000000 ;;
*api-resources*) ;;
*'--raw /apis'*) echo '{"groups": []}' ;;
*workloadentries*) cat "$ANSWERS/entries.json" ;;
*--ignore-not-found*) ;;
*) echo '{"kind": "List", "items": []}' ;;
esac""",
    "ssh": f"""\
cat >/dev/null
printf '\\n%s\\n' '{openssh.MARK}'
printf '\\n%s\\n' '{openssh.MARK}' >&2
echo "time=$(date +%s.%N)"
printf '%s\\n' LoadState=loaded ActiveState=active NRestarts=0 up=1000 active=900 ready=200 gateway=yes""",
}
"""What stands in for programs, as POSIX shell."""


@dataclass(frozen=True)
class Cost:
    """What one command took.

    seconds: by the clock. processor_s: of all processes. mb: of all processes, at the peak.
    """

    seconds: float
    processor_s: float
    mb: float


def run(sizes: Sequence[int], rounds: int, as_json: bool) -> list[Figure]:
    """Measure each number of machines, in a state of its own. Raises StepFailedError.

    rounds: how often a preview and the plan of it are run, by turns.
    """
    ordered = sorted(set(sizes))
    steps = Steps("bench", 1 + len(ordered), Display(sys.stderr) if as_json else display(), retry_command="./scripts/bench scale")
    with TemporaryDirectory(prefix="istio-vm-mesh-bench-") as directory, _stack_file():
        binaries = make_private(Path(directory) / "bin")
        home = make_private(Path(directory) / "home")
        with steps.step("Pulumi") as step:
            up.pulumi_alone(step, binaries, home)
        costs: dict[int, dict[str, Cost]] = {}
        for size in ordered:
            with steps.step(f"{size} machines") as step:
                scale = _Scale(size, make_private(Path(directory) / str(size)), binaries, home)
                costs[size] = scale.costs(step, rounds)
    return list(figures(costs))


@contextmanager
def _stack_file() -> Iterator[None]:
    try:
        yield
    finally:
        reader.file_of(STACK).unlink(missing_ok=True)


def figures(costs: Mapping[int, Mapping[str, Cost]]) -> Iterator[Figure]:
    """Return the figures of all sizes. costs: by size and command, the smallest size first.

    Processor time is judged, which depends little on what else the computer does.
    """
    for command in COMMANDS:
        of_command = {size: each[command] for size, each in costs.items()}
        for size, cost in of_command.items():
            yield Figure(what=f"{size} machines: {command}", value=cost.seconds)
            yield Figure(what=f"{size} machines: {command}, of a processor", value=cost.processor_s)
            yield Figure(what=f"{size} machines: {command}, memory at its peak", value=round(cost.mb), unit="MB")
        if command != UP:
            yield from _growth(command, {size: cost.processor_s for size, cost in of_command.items()})
    for size, each in costs.items():
        plan, preview = each[PLAN].processor_s, each[PREVIEW_OF_PLAN].processor_s
        yield Figure(what=f"{size} machines: {PLAN}, of a processor", value=plan, against="preview alone", base=preview, most=MOST_PLAN)


def _growth(command: str, processor_s: Mapping[int, float]) -> Iterator[Figure]:
    """Return what one machine more costs between two sizes, in ms of a processor."""
    former: tuple[str, float] | None = None
    for (few, less_s), (many, more_s) in pairwise(processor_s.items()):
        between, each_ms = f"{few} to {many}", round((more_s - less_s) / (many - few) * 1000, 1)
        what = f"{command}, of a processor: one machine more, {between}"
        if former is None:
            yield Figure(what=what, value=each_ms, unit="ms")
        else:
            yield Figure(what=what, value=each_ms, unit="ms", against=former[0], base=former[1], most=MOST_GROWTH)
        former = between, each_ms


UP, UP_SAVED_ONCE = "up from nothing", "up, state saved once"
PREVIEW, PREVIEW_OF_PLAN = "preview, no change", "preview, all machines change"
PLAN, STATUS = "plan of that", "status"
COMMANDS = (UP, UP_SAVED_ONCE, PREVIEW, PREVIEW_OF_PLAN, PLAN, STATUS)
SAVE_ONCE = {"PULUMI_SKIP_CHECKPOINTS": "true"}
"""Otherwise Pulumi saves the whole state twice for each operation, where it is in files or a bucket.
That part of `up` grows with the square of the machines, whatever the program does.
"""


@dataclass(frozen=True)
class _Scale:
    """A stack with so many machines. root: the directory of its state and of all else."""

    size: int
    root: Path
    binaries: Path
    home: Path

    def costs(self, step: Step, rounds: int) -> dict[str, Cost]:
        """Return what each command takes, of one that is run often the least processor time."""
        self._write_programs()
        plugins.replace_by_inert(self.home, self._write("answers.json", json.dumps(self._answers())), self._operations)
        self._declare()
        result: dict[str, Cost] = {}

        def take(name: str, *command: str, codes: Sequence[int] = (0,), variables: Mapping[str, str] | None = None) -> None:
            step.note(name)
            cost = self._measure(*command, codes=codes, variables=variables)
            result[name] = min(cost, result.get(name, cost), key=lambda each: each.processor_s)

        for name, variables in ((UP, None), (UP_SAVED_ONCE, SAVE_ONCE)):
            shutil.rmtree(self._state, ignore_errors=True)
            self._operations.unlink(missing_ok=True)
            self._measure("pulumi", "stack", "init", STACK, *QUIET)
            take(name, "pulumi", "up", "--yes", "--skip-preview", "--stack", STACK, *QUIET, variables=variables)
            self._require_joins()
        self._write("entries.json", json.dumps({"kind": "List", "items": list(self._entries())}))
        take(PREVIEW, "pulumi", "preview", "--expect-no-changes", "--stack", STACK, *QUIET)
        take(STATUS, sys.executable, "-m", "tools.mesh_status", "--stack", STACK, codes=(0, 1))
        self._declare(version="v2")
        plan = (sys.executable, "-m", "tools.plan", "--stack", STACK)
        for _ in range(rounds):
            take(PREVIEW_OF_PLAN, "pulumi", "preview", "--stack", STACK, *QUIET)
            take(PLAN, *plan, codes=(CHANGES, BROKEN))
        return {name: result[name] for name in COMMANDS}

    def _require_joins(self) -> None:
        joins = sum(is_part(line, JOIN) for line in self._operations.read_text().splitlines())
        if joins != self.size:
            raise StepError(f"{joins} of {self.size} machines joined", show_log=False)

    # ---- The stack.

    def _machines(self) -> Iterator[tuple[str, str]]:
        """Return names and addresses."""
        for number in range(self.size):
            yield f"{WORKLOAD}-1-{number + 1}", str(FIRST_ADDRESS + number)

    def _declare(self, version: str = "v1") -> None:
        """Write the stack file. version: a label of the workload, with which machines register."""

        def change(config: Config) -> None:
            stacks.set_cidrs(config, [CIDR])
            config["workloads"][WORKLOAD]["labels"]["version"] = version
            config["mesh"]["package"]["sha256"] = "0" * 64
            config["machines"] = grown(config, self.size)["machines"]

        stacks.write_stack_file(ROOT / "stacks", SCENARIO, STACK, change)

    def _answers(self) -> dict[str, dict[str, Any]]:
        """Return what the providers answer, by name or type."""

        def result(**values: object) -> dict[str, str]:
            return {"stdout": json.dumps(values)}

        answers: dict[str, dict[str, Any]] = {
            "command:local:Command": result(),
            network_resource_name(NETWORK): result(name=NETWORK),
            callers_resource_name(*ACCOUNT): result(pair="calling"),
            "cluster-kind": result(kubeconfig="", address="172.31.0.2"),
            SSH_KEY: result(private="private", public="ssh-ed25519 AAAA"),
            "root-certificate": {"data": {"root-cert.pem": "-----BEGIN CERTIFICATE-----\n"}},
        }
        for name, address in self._machines():
            answers[part_name(name, CONTAINER)] = result(id=name, address=address, host_key="ssh-ed25519 AAAA")
            answers[part_name(name, DRAIN)] = result(host_key="ssh-ed25519 AAAA")
            answers[part_name(name, JOIN)] = result(digest="0123456789abcdef")
        return answers

    def _entries(self) -> Iterator[dict[str, Any]]:
        """Return the WorkloadEntries that istiod has when all machines are joined."""
        resources = stacks.resources_of(self._output("pulumi", "stack", "export", "--stack", STACK, *QUIET))
        for name, address in self._machines():
            registration = resources[part_name(name, REGISTRATION)]
            yield {
                "kind": "WorkloadEntry",
                "metadata": {
                    "name": registration["inputs"]["entry"],
                    "namespace": registration["inputs"]["namespace"],
                    "labels": {REGISTRATION_LABEL: registration["id"]},
                    "annotations": {GROUP_ANNOTATION: WORKLOAD, CONNECTED_ANNOTATION: "2026-01-01T00:00:00Z"},
                },
                "spec": {"address": address, "network": NETWORK},
                "status": {"conditions": [{"type": "Healthy", "status": "True"}]},
            }

    # ---- Its programs.

    @property
    def _state(self) -> Path:
        return self.root / "state"

    @property
    def _operations(self) -> Path:
        return self.root / "operations"

    def _write(self, name: str, text: str) -> Path:
        file = self.root / name
        file.write_text(text)
        return file

    def _write_programs(self) -> None:
        directory = make_private(self.root / "programs")
        for name, text in _PROGRAMS.items():
            file = directory / name
            file.write_text(f"#!/bin/sh\n{text}\n")
            file.chmod(0o700)

    def _environment(self) -> dict[str, str]:
        path = [self.root / "programs", self.binaries, VENV / "bin", os.environ.get("PATH", os.defpath)]
        return {
            **paths.environment(),
            "PATH": os.pathsep.join(map(str, path)),
            "PULUMI_HOME": str(self.home),
            "PULUMI_BACKEND_URL": paths.backend(make_private(self._state)),
            "XDG_STATE_HOME": str(self.root / "xdg-state"),
            "TMPDIR": str(make_private(self.root / "tmp")),
            "ANSWERS": str(self.root),
        }

    def _output(self, *command: str) -> str:
        return subprocess.run(command, cwd=ROOT, env=self._environment(), capture_output=True, text=True, check=True).stdout

    def _measure(self, *command: str, codes: Sequence[int] = (0,), variables: Mapping[str, str] | None = None) -> Cost:
        """Run a command to its end. Raises StepError for an exit code that is not one of `codes`.

        variables: of its environment, beside those of all commands.
        """
        environment = {**self._environment(), **(variables or {})}
        if command[0] == sys.executable:
            environment["PYTHONPATH"] = PYTHONPATH
        begin, output = time.monotonic(), self.root / "output"
        with output.open("w") as log:
            words = ["env", f"PATH={environment['PATH']}", *command]
            process = subprocess.Popen(words, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
            try:
                with _sampled(process.pid) as peak:
                    _, status, usage = os.wait4(process.pid, 0)
            except BaseException:
                process.terminate()  # Pulumi and both tools then end what they started
                process.wait()
                raise
        seconds = time.monotonic() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in codes:
            last = "\n".join(output.read_text(errors="replace").splitlines()[-20:])
            raise StepError(f"`{' '.join(command[:4])}` ended with {process.returncode}:\n{last}", show_log=False)
        return Cost(seconds, usage.ru_utime + usage.ru_stime, max(peak) / 1e6)


@contextmanager
def _sampled(pid: int) -> Iterator[list[int]]:
    """Look at the memory of a process and its descendants during the block. Yields bytes, as seen."""
    seen, ended = [0], threading.Event()

    def look() -> None:
        while not ended.wait(SAMPLE_S):
            seen.append(_memory(pid))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def _memory(pid: int) -> int:
    """Return the resident bytes of a process and its descendants."""
    parents: dict[int, int] = {}
    resident: dict[int, int] = {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            fields = (directory / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        parents[int(directory.name)] = int(fields[1])
        resident[int(directory.name)] = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")

    def descends(each: int) -> bool:
        while each not in (0, pid):
            each = parents.get(each, 0)
        return each == pid

    return sum(size for each, size in resident.items() if descends(each))
