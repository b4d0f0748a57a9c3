"""Times in a real mesh: the lab's, a machine's join beside Istio's documented manual way and beside the agent alone, and many machines' at once.

The joins that are compared are of workloads that are not verified: Istio's way proves nothing, and the calling pods start beside a join.

"Healthy" is the condition of the WorkloadEntry, seen by a watch; a join begins when its command starts. All of it happens on one computer, so all times
are of one clock.
"""

from __future__ import annotations

import copy
import shlex
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.machines.bundle import CERTIFICATES, UNIT
from components.names import DEFAULT_CLUSTER_ID, JOIN, part_name
from tools.directories import make_private
from tools.lab import paths, pulumi_cli, up
from tools.lab.offline import packages
from tools.lab.offline.programs import Tools
from tools.mesh_status.pulumi import QUIET, STOP
from tools.process import Command
from tools.steps import Display, Step, StepError, Steps, display

from .figures import Figure
from .lab_stack import CHECKOUT, Config, LabStack

HERE = Path(__file__).parent
PACKAGE = f"http://host.docker.internal:{packages.PORT}{packages.PATH}"
FIRST, OTHER = "product", "billing"
"""The two workloads; each has a machine from the start."""
PER_MACHINE, SSH_CONNECTIONS = 6, 3
"""docs/design.md: resources and SSH connections a machine."""
PROOF_S = 4.0
"""Seconds that the proof of one machine more may take after its join."""
TO_AGENT_ALONE, TO_ONE = 1.5, 2.5
"""How much longer than the agent's own start a join may take, and an update that adds many machines than one that adds one."""


@dataclass
class Mesh(LabStack):
    """A stack of its own in this checkout, with two workloads. is_verified: whether an update proves that they answer."""

    stack: str = f"bench-{CHECKOUT}"
    more: int = 0
    is_verified: bool = True
    rotations: Counter[str] = field(default_factory=Counter)

    def grow(self, machines: int) -> None:
        """Declare so many more machines, half of them of either workload."""
        self.more += machines
        self.declare()

    def rotate(self, machines: Iterable[str]) -> None:
        """Declare that these machines join again."""
        self.rotations.update(machines)
        self.declare()

    def declare(self) -> None:
        self.configure(self._change)

    def _change(self, config: Config) -> None:
        other = copy.deepcopy(config["workloads"][FIRST])
        other |= {"labels": {"app": OTHER}, "services": {OTHER: {"ports": {"http": 80}}}}
        config["workloads"][OTHER] = other
        if not self.is_verified:
            for workload in config["workloads"].values():
                workload["verify"] = {"mode": "none"}
        machine = config["machines"].pop(f"{FIRST}-1")
        for name in (f"{FIRST}-1", f"{OTHER}-1", *self.added()):
            config["machines"][name] = {**machine, "workload": name.partition("-")[0], "rotation": self.rotations[name]}

    def added(self) -> list[str]:
        """Return the names of the machines that came after the first two."""
        return [f"{(FIRST, OTHER)[number % 2]}-{2 + number // 2}" for number in range(self.more)]


@dataclass
class Watch:
    """Follows the entries of the namespace. `born` and `healthy` are when each was first seen, and first seen Healthy, by name and uid."""

    born: dict[tuple[str, str], float] = field(default_factory=dict)
    healthy: dict[tuple[str, str], float] = field(default_factory=dict)

    @contextmanager
    def following(self, mesh: Mesh) -> Iterator[Watch]:
        text = '{.metadata.name} {.metadata.uid} {.status.conditions[?(@.type=="Healthy")].status}{"\\n"}'
        with mesh.watching(self.read, "--namespace", "shop", "--output", f"jsonpath={text}"):
            yield self

    def read(self, lines: Iterable[str]) -> None:
        """Take in what kubectl prints: name, uid and status, a line for each change."""
        for line in lines:
            name, uid, *status = line.split()
            self.born.setdefault((name, uid), time.time())
            if status == ["True"]:
                self.healthy.setdefault((name, uid), time.time())

    def wait(self, entries: Sequence[str], since: float, seconds: float = 120) -> float:
        """When the last of these entries was Healthy that were made after `since`. Raises StepError when that takes too long."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            healthy_at = {name: at for (name, uid), at in list(self.healthy.items()) if self.born[name, uid] > since}
            if set(entries) <= set(healthy_at):
                return max(healthy_at[name] for name in entries)
            time.sleep(0.02)
        raise StepError(f"not Healthy within {seconds:.0f} s: {', '.join(sorted(set(entries) - set(healthy_at)))}")


def run(machines: int, rounds: int, as_json: bool) -> list[Figure]:
    """Measure everything, in a stack that is made for it and removed again. Raises StepFailedError."""
    mesh = Mesh()
    steps = Steps("bench", up.PREPARATIONS + 9 + rounds, Display(sys.stderr) if as_json else display(), retry_command="./scripts/bench lab")
    with mesh.temporary(steps):
        with steps.step("istioctl") as step:
            Tools().link(step, "istioctl")
        return list(_figures(mesh, steps, machines, rounds))


def _figures(mesh: Mesh, steps: Steps, machines: int, rounds: int) -> Iterator[Figure]:
    mesh.declare()
    with steps.step("lab up, from nothing") as step:
        cold_up = _timed(lambda: _lab(step, mesh, "up"))
    yield Figure(what="lab up from nothing, with warm caches (two machines)", value=cold_up)
    with steps.step("lab up, with nothing to do") as step:
        nothing = min(_timed(lambda: _lab(step, mesh, "up")) for _ in range(2))
    yield Figure(what="lab up with nothing to do", value=nothing, against="lab up", base=cold_up)
    mesh.prepare()
    _verify(steps, mesh, False)
    taken: dict[str, list[float]] = {}
    for number in range(rounds):
        with steps.step(f"a machine joins: round {number + 1} of {rounds}") as step, Watch().following(mesh) as watch:
            for what, seconds in _round(step, mesh, watch):
                taken.setdefault(what, []).append(seconds)
    middle = {what: statistics.median(values) for what, values in taken.items()}
    alone = middle["agent alone"]
    yield Figure(what="agent start → Healthy, of an agent alone", value=alone)
    yield Figure(what="join → Healthy by our join", value=middle["ours"], against="an agent alone", base=alone, most=TO_AGENT_ALONE)
    yield Figure(what="join → Healthy by our join", value=middle["ours"], against="Istio's manual way", base=middle["manual"], most=1.0)
    # Ours checks what it installs, which takes longer the larger the package is.
    what = "the same with the package's installation"
    yield Figure(what=what, value=middle["ours, package"], against="Istio's manual way", base=middle["manual, package"])
    _verify(steps, mesh, True)
    with steps.step("one machine is added") as step:
        added = _added(step, mesh, 1)
        one = added.whole_s
    what = "from the end of its join to the end: the proof"
    yield Figure(what=what, value=added.proof_s, against="`pulumi up` of one machine", base=one)
    yield Figure(what="the proof of one machine more, in seconds", value=added.proof_s, most=PROOF_S)
    yield from _budget(mesh)
    with steps.step(f"{machines} machines are added") as step:
        many = _added(step, mesh, machines).whole_s
    yield Figure(what=f"pulumi up that creates and adds {machines} machines", value=many, against="one machine", base=one, most=TO_ONE)
    names = mesh.added()[-machines:]
    what = "of that, processor time of these machines"
    yield Figure(what=what, value=sum(_processor_s(mesh, name) for name in names))
    with steps.step(f"{machines} machines join at once") as step, Watch().following(mesh) as watch:
        start = _agent_alone(step, mesh, watch, names)
        joined = _joined(step, mesh, watch, names)
    yield Figure(what=f"{machines} agents' start → last Healthy, those agents alone", value=start, against="one agent", base=alone)
    what = f"first join → last Healthy of {machines} machines"
    yield Figure(what=what, value=joined, against="those agents alone", base=start)
    yield Figure(what=what, value=joined, against="one machine", base=middle["ours"])
    with steps.step("lab down") as step:
        yield Figure(what="lab down", value=_timed(lambda: _lab(step, mesh, "down")))


def _verify(steps: Steps, mesh: Mesh, is_verified: bool) -> None:
    """Declare whether updates verify the workloads, so that the next one has nothing else to do."""
    with steps.step("updates verify" if is_verified else "updates verify nothing") as step:
        mesh.is_verified = is_verified
        mesh.declare()
        _lab(step, mesh, "up")


def _processor_s(mesh: Mesh, machine: str) -> float:
    """Return the seconds of a processor that a machine has used since it was made: its boot, its join with the package, its agent."""
    version_1, version_2 = "cat /sys/fs/cgroup/cpuacct/cpuacct.usage", "sed -n 's/^usage_usec \\(.*\\)/\\1000/p' /sys/fs/cgroup/cpu.stat"
    return int(mesh.inside(machine, f"{version_1} 2>/dev/null || {version_2}")) / 1e9


def _round(step: Step, mesh: Mesh, watch: Watch) -> Iterator[tuple[str, float]]:
    """The same machine joins in every way, each time from nothing."""
    name = f"{FIRST}-1"
    entry = mesh.entry(name)
    for purge in ("yes", ""):
        label = ", package" if purge else ""
        step.note(f"by hand{label}")
        _reset(mesh, name, purge)
        _gone(mesh, [entry])
        yield f"manual{label}", _by_hand(mesh, watch, name, entry, purge)
        step.note(f"by `pulumi up`{label}")
        _reset(mesh, name, purge)
        _gone(mesh, [entry])
        mesh.rotate([name])
        yield f"ours{label}", _up(step, watch, mesh, [name]).joins_s
    yield "agent alone", _agent_alone(step, mesh, watch, [name])


def _agent_alone(step: Step, mesh: Mesh, watch: Watch, names: Sequence[str]) -> float:
    """The agents of machines that have everything but a certificate start, all at once."""
    step.note("the agent alone")
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: mesh.inside(name, f"systemctl stop {UNIT} && cd {CERTIFICATES} && rm -f key.pem cert-chain.pem"), names))
        entries = [mesh.entry(name) for name in names]
        _gone(mesh, entries)
        since = min(map(float, pool.map(lambda name: mesh.inside(name, f"date +%s.%N && systemctl start {UNIT}"), names)))
        return watch.wait(entries, since) - since


def _by_hand(mesh: Mesh, watch: Watch, name: str, entry: str, install: str) -> float:
    work = make_private(mesh.private / "manual")
    (work / "group.yaml").write_text(mesh.kubectl("get", "workloadgroup", FIRST, "--output", "yaml"))
    variables = {
        "WORK": work,
        "CLUSTER_ID": DEFAULT_CLUSTER_ID,
        "GATEWAY": mesh.outputs()["gateway"],
        "PACKAGE_URL": PACKAGE,
        "INSTALL": install,
    }
    options, host = mesh.ssh_options(name)
    script = "".join(f"{key}={shlex.quote(str(value))}\n" for key, value in {**variables, "HOST": host}.items())
    script += f"SSH_OPTIONS=({shlex.join(options)})\n" + (HERE / "manual.sh").read_text()
    since = time.time()
    mesh.run("bash", "-s", stdin=script)
    return watch.wait([entry], since) - since


def _reset(mesh: Mesh, name: str, purge: str) -> None:
    mesh.inside(name, f"PURGE={purge} PACKAGE_URL={PACKAGE}\n" + (HERE / "reset.sh").read_text())


def _gone(mesh: Mesh, entries: Sequence[str]) -> None:
    mesh.kubectl("wait", "--for=delete", *(f"workloadentry/{entry}" for entry in entries), "--timeout=60s")
    time.sleep(2)  # what the end of a connection leaves istiod and the proxies to do is not part of a join


@dataclass(frozen=True)
class Update:
    """Seconds of a `pulumi up` in which machines join.

    whole_s: of all of it. joins_s: from the first join to the last Healthy entry. proof_s: from the end of the last join to the end.
    """

    whole_s: float
    joins_s: float
    proof_s: float


def _up(step: Step, watch: Watch, mesh: Mesh, machines: Sequence[str]) -> Update:
    """Run `pulumi up`, in which `machines` join."""
    joins: list[float] = []
    ends: list[float] = []

    def progress(line: str) -> str | None:
        if any(f" {part_name(name, JOIN)} " in line for name in machines):
            if " creating " in line or " updating " in line:
                joins.append(time.time())
            elif " created " in line or " updated " in line:
                ends.append(time.time())
        return shown(line)

    shown = pulumi_cli.Resources(step)
    started = time.time()
    pulumi_cli.call(step, "up", "--yes", "--skip-preview", "--stack", mesh.stack, *QUIET, progress=progress)
    duration = time.time() - started
    mesh.forget()
    healthy_at = watch.wait([mesh.entry(name) for name in machines], started)
    return Update(duration, healthy_at - joins[0], started + duration - max(ends, default=started))


def _added(step: Step, mesh: Mesh, count: int) -> Update:
    before = mesh.added()
    mesh.grow(count)
    with Watch().following(mesh) as watch:
        return _up(step, watch, mesh, mesh.added()[len(before) :])


def _joined(step: Step, mesh: Mesh, watch: Watch, machines: Sequence[str]) -> float:
    """Machines that have the package join, all at once."""
    step.note("each out of the mesh first")
    with ThreadPoolExecutor(len(machines)) as pool:
        list(pool.map(lambda name: _reset(mesh, name, ""), machines))
    _gone(mesh, [mesh.entry(name) for name in machines])
    mesh.rotate(machines)
    return _up(step, watch, mesh, machines).joins_s


def _budget(mesh: Mesh) -> Iterator[Figure]:
    """Yield what one machine has in Pulumi, and how many SSH connections it had.

    The machine is one that was added just now, so sshd has logged nothing else.
    """
    name = mesh.added()[-1]
    resources = [
        each for each in mesh.resources().values() if f"Machine::{name}" in each["urn"] or f"Machine::{name}" in each.get("parent", "")
    ]
    yield Figure(what="Pulumi resources a machine", value=len(resources), unit="", most=PER_MACHINE)
    log = mesh.inside(name, "journalctl --unit ssh --no-pager --output cat")
    yield Figure(what="SSH connections a machine, by sshd's log", value=log.count("Accepted publickey"), unit="", most=SSH_CONNECTIONS)


def _lab(step: Step, mesh: Mesh, command: str) -> None:
    arguments: list[str | Path] = [paths.ROOT / "scripts" / "lab", command, "--stack", mesh.stack]
    step.run(Command(arguments, stop=STOP, grace=30), progress=str.strip)
    mesh.forget()


def _timed(what: Callable[[], Any]) -> float:
    started = time.monotonic()
    what()
    return time.monotonic() - started
