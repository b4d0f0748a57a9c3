"""Slots: how many agents of a workload are stopped at once, over all joins that run anywhere.

A join takes a slot before it stops an agent, and gives it back when its machine answers again. The
slots of a workload are one Lease in its namespace, which the program declares with the workload and
which is deleted with it. Its annotations hold

- `MAX_UNAVAILABLE_ANNOTATION` and `MACHINES_ANNOTATION`, from the stack file: no join has them as
  an input, so a machine that is added changes no other machine's join
- `JOINED_ANNOTATION_PREFIX` and a machine's name, for each machine that has been in the mesh
- `SLOTS_ANNOTATION`: the joins that hold a slot, and the updates that are halted.

Joins write it with the `resourceVersion` that they read, so only one of two writers succeeds. A
join renews its slot while it runs. Clocks of two computers are never compared: a holder is gone
when its record stayed the same for `EXPIRY_S` of the reader's own clock (as in Kubernetes'
client-go, tools/leaderelection).

Kubernetes permissions: `list` workloadentries (networking.istio.io); `list`, `get`, `update` and
`patch` leases (coordination.k8s.io), in the workload's namespace.
"""

from __future__ import annotations

import contextlib
import enum
import json
import random
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from time import gmtime, monotonic, sleep, strftime
from typing import Protocol

from ...local import scripting
from ...manifest import Manifest
from ...names import (
    DISCONNECTED_ANNOTATION,
    GROUP_ANNOTATION,
    JOIN,
    JOINED_ANNOTATION_PREFIX,
    MACHINE_LABEL,
    MACHINES_ANNOTATION,
    MAX_UNAVAILABLE_ANNOTATION,
    REGISTRATION_LABEL,
    SLOTS_ANNOTATION,
    part_name,
    slots_lease_name,
)

LEASES, ENTRIES = "leases.coordination.k8s.io", "workloadentries.networking.istio.io"
RENEWAL_S = 20
"""Seconds from one renewal of a slot to the next."""
EXPIRY_S = 60
"""Seconds without a renewal after which a slot is free again."""
PATIENCE_S = 120
"""Seconds for which a join waits where machines that are out of the mesh take all slots."""
PROGRESS_S = 15
"""Seconds from one message of a join that waits to the next."""
OUTAGE_S = 60
"""Seconds for which an API server that does not answer is tolerated while a slot is taken."""
LOOK_S = (2.0, 3.0)
"""Seconds from one look of a join that waits to the next: at random between these two."""
RETRY_S = (0.05, 0.5)
"""Seconds until a Lease is written again that another writer changed: at random between these."""
ATTEMPTS = 20
"""How often the Lease is written again."""
MARK_S = 15
"""Seconds for which the halt of another update is kept: its joins look within `LOOK_S`."""
CALL_S = 20
"""Seconds for one call of kubectl."""
CAUSE_LENGTH = 300
"""Characters of a cause that the Lease keeps."""


class KubectlCall(Protocol):
    """kubectl for one cluster."""

    def call(self, *words: str, stdin: bytes = b"", timeout_s: float | None = None) -> scripting.Done:
        """Run kubectl, and return how it ended."""


@dataclass(frozen=True)
class SlotRequest:
    """The machine whose agent is to be stopped.

    namespace, workload: the workload that it runs.
    machine: the machine's name in the stack.
    registration: the id of its registration.
    entry: the name of the WorkloadEntry of its agent.
    update: the update that runs this process (`update_id.update_id()`).
    stops: the registration of the agent that is to be stopped, which may be an earlier one with an
        entry of another name; "" where nobody knows.
    """

    namespace: str
    workload: str
    machine: str
    registration: str
    entry: str
    update: str
    stops: str = ""


class Verdict(enum.Enum):
    """What a join does about its slot."""

    TAKE = "takes a slot"
    REPAIR = "takes a slot, whether one is free or not"
    WAIT = "waits"


@dataclass(frozen=True)
class Situation:
    """The machines of a workload at one moment, by name.

    limit: how many agents may be stopped at once; at least 1.
    joined: the machines of the stack that have been in the mesh.
    healthy: the machines with a Healthy entry of a connected agent.
    holders: the machines whose joins hold a slot.
    serving: whether the agent that is to be stopped has such an entry. Its name may be another
        machine's: of one that was renamed, or whose host another machine gets in this update.
    alone: whether no other agent has such an entry.
    """

    limit: int
    joined: frozenset[str]
    healthy: frozenset[str]
    holders: frozenset[str]
    serving: bool
    alone: bool = False

    def unavailable(self, machine: str) -> frozenset[str]:
        """Return the machines besides `machine` that are out of the mesh and hold no slot."""
        return self.joined - self.healthy - self.holders - {machine}


def decide(situation: Situation, machine: str) -> Verdict:
    """Return what the join of `machine` does before it stops the agent.

    An agent that is out of the mesh counts already, so its join makes nothing worse: it waits for
    nothing. A slot that the machine holds, as after a killed join, is its slot again. Any other
    join needs a free slot. Each machine that is unavailable takes one, whatever the reason.
    """
    if machine in situation.holders:
        return Verdict.TAKE
    if not situation.serving:
        return Verdict.REPAIR
    taken = len(situation.holders) + len(situation.unavailable(machine))
    return Verdict.TAKE if taken < situation.limit else Verdict.WAIT


def limit_of(max_unavailable: str, machines: int) -> int:
    """Return how many agents may be stopped at once.

    max_unavailable: a number, or a percentage such as "25%" of the machines, rounded down.
    machines: how many machines the workload has in the stack.
    """
    if max_unavailable.endswith("%"):
        return max(1, int(max_unavailable[:-1]) * machines // 100)
    return max(1, int(max_unavailable))


def situation_of(lease: Manifest, entries: list[Manifest], holders: frozenset[str], request: SlotRequest) -> Situation:
    """Return the machines of a workload.

    lease: the workload's Lease. entries: the workload's WorkloadEntries.
    holders: the machines whose joins hold a slot.
    request: the agent that is to be stopped.
    """
    annotations = _annotations(lease)
    machines = _machines(lease)
    serving = [each["metadata"] for each in entries if _serves(each)]

    def is_stopped(metadata: Manifest) -> bool:
        return metadata["name"] == request.entry or metadata["labels"][REGISTRATION_LABEL] == (request.stops or None)

    stopped = [metadata for metadata in serving if is_stopped(metadata)]
    return Situation(
        limit=limit_of(annotations.get(MAX_UNAVAILABLE_ANNOTATION, "1"), len(machines)),
        joined=frozenset(name for name in machines if JOINED_ANNOTATION_PREFIX + name in annotations),
        healthy=frozenset(metadata["labels"].get(MACHINE_LABEL, "") for metadata in serving),
        holders=holders,
        serving=bool(stopped),
        alone=len(stopped) == len(serving),
    )


def _serves(entry: Manifest) -> bool:
    """Return whether an entry is of a machine of this program, connected and Healthy."""
    ours = REGISTRATION_LABEL in (entry["metadata"].get("labels") or {})
    conditions = entry.get("status", {}).get("conditions", [])
    healthy = any(each["type"] == "Healthy" and each["status"] == "True" for each in conditions)
    return ours and healthy and DISCONNECTED_ANNOTATION not in _annotations(entry)


@contextlib.contextmanager
def slot(
    kubectl: KubectlCall,
    request: SlotRequest,
    report: Callable[[str], None],
    pause: Callable[[float], None] | None = None,
) -> Iterator[bool]:
    """Hold a slot of the workload: wait for it, renew it meanwhile, and give it back.

    It gives whether an agent is stopped that alone serves the workload. A machine that is out of
    the mesh waits for nothing. Where the block ends without an exception, the machine is recorded
    as one that is in the mesh.

    kubectl: kubectl for the workload's cluster; also called from another thread.
    request: the machine whose agent is to be stopped.
    report: takes one line about the progress.
    pause: passes seconds; what it raises ends the wait. None: `sleep`.

    Raises scripting.Failed, the machine untouched: where the update is halted, where machines that
    are out of the mesh take all slots for `PATIENCE_S`, and where the Lease cannot be used.
    """
    holder = _Holder(_Lease(kubectl, request), report, pause or sleep)
    succeeded = False
    try:
        yield holder.take()
        succeeded = True
    finally:
        holder.give_back(succeeded)


def halt(kubectl: KubectlCall, request: SlotRequest, cause: str) -> None:
    """Halt the update of the workload: joins that wait for a slot in this update fail untouched.

    To be called within `slot`, after a join failed and was rolled back. A machine that was out of
    the mesh before its join halts nothing.

    cause: one sentence without secrets, for the messages of the other joins.

    Raises scripting.Failed where the Lease cannot be written.
    """

    def mark(slots: _Slots) -> _Slots | None:
        record = slots.holders.get(request.machine)
        if record is None or record.repairs:
            return None
        mark = _Halt(request.machine, cause[:CAUSE_LENGTH])
        return replace(slots, halts={**slots.halts, request.update: mark})

    lease = _Lease(kubectl, request)
    with _as_failed(f"the update of the workload {lease.workload} was not halted"):
        lease.change(mark)


def joined(kubectl: KubectlCall, request: SlotRequest) -> None:
    """Record that a machine is in the mesh: from now on it counts as unavailable when it is not.

    To be called by every join that took no slot, once the machine's entry is Healthy. Without the
    record a machine is new: no join waits for it.

    Raises scripting.Failed where the Lease cannot be written.
    """
    with _as_failed(f"the machine {request.machine} was not recorded as joined"):
        _Lease(kubectl, request).record_joined()


@dataclass(frozen=True)
class Declared:
    """What a workload's Lease says of a machine.

    is_in_stack: whether the stack has the machine in this workload.
    registration: the registration by which it joined last; "" where it has not joined.
    """

    is_in_stack: bool
    registration: str


def declared(kubectl: KubectlCall, request: SlotRequest) -> Declared:
    """Return what the Lease says of a machine. Raises scripting.Failed, and NoLease without one."""
    lease = _Lease(kubectl, request)
    with _as_failed(f"the machines of the workload {lease.workload} could not be read"):
        read = lease.read()
    joined_by = _annotations(read).get(JOINED_ANNOTATION_PREFIX + request.machine, "")
    return Declared(request.machine in _machines(read), joined_by)


class NoLease(scripting.Failed):
    """The workload has no slots."""


class _NoAnswer(Exception):
    """kubectl failed for a reason that may pass; the message is its last words."""


class _Conflict(_NoAnswer):
    """Another writer was faster."""


@contextlib.contextmanager
def _as_failed(purpose: str) -> Iterator[None]:
    try:
        yield
    except _NoAnswer as error:
        raise scripting.Failed(f"{purpose}: {error}: run the update again") from None


@dataclass(frozen=True)
class _Record:
    """Who holds a slot.

    process: another one for each process. update: its update.
    repairs: whether the machine was out of the mesh when the slot was taken.
    renewal: counts up.
    """

    process: str
    update: str
    repairs: bool = False
    renewal: int = 0


@dataclass(frozen=True)
class _Halt:
    """Why an update is halted: the join of `machine` failed by `cause`."""

    machine: str
    cause: str


@dataclass(frozen=True)
class _Slots:
    """The value of `SLOTS_ANNOTATION`.

    holders: by machine. halts: by update.
    """

    holders: Mapping[str, _Record] = field(default_factory=dict)
    halts: Mapping[str, _Halt] = field(default_factory=dict)

    @classmethod
    def of(cls, lease: Manifest) -> _Slots:
        values = json.loads(_annotations(lease).get(SLOTS_ANNOTATION) or '{"holders": {}, "halts": {}}')
        return cls(
            {machine: _Record(**record) for machine, record in values["holders"].items()},
            {update: _Halt(**mark) for update, mark in values["halts"].items()},
        )

    def with_holder(self, machine: str, record: _Record) -> _Slots:
        return replace(self, holders={**self.holders, machine: record})

    def without_holder(self, machine: str) -> _Slots:
        return replace(self, holders={name: record for name, record in self.holders.items() if name != machine})


_Change = Callable[[_Slots], "_Slots | None"]
"""Returns another value of the slots; None to write nothing."""


def _annotations(thing: Manifest) -> dict[str, str]:
    return thing["metadata"].get("annotations") or {}


def _machines(lease: Manifest) -> list[str]:
    """Return the names of the workload's machines in the stack."""
    return [name for name in _annotations(lease).get(MACHINES_ANNOTATION, "").split(",") if name]


class _Lease:
    """A workload's Lease at the API server. All methods raise scripting.Failed and _NoAnswer."""

    def __init__(self, kubectl: KubectlCall, request: SlotRequest) -> None:
        self.request = request
        self.name = slots_lease_name(request.workload)
        self.workload = f"{request.namespace}/{request.workload}"
        self._kubectl = kubectl

    def read(self) -> Manifest:
        """Return the Lease."""
        lease: Manifest = json.loads(self._call("get leases", "get", LEASES, self.name, "--output", "json"))
        return lease

    def read_all(self) -> tuple[Manifest, list[Manifest]]:
        """Return the Lease and the workload's entries, by one call."""
        what = "list leases or workloadentries"
        things = json.loads(self._call(what, "get", f"{LEASES},{ENTRIES}", "--output", "json"))["items"]
        group = self.request.workload
        entries = [thing for thing in things if _annotations(thing).get(GROUP_ANNOTATION) == group]
        for thing in things:
            if (thing["kind"], thing["metadata"]["name"]) == ("Lease", self.name):
                return thing, entries
        raise self._missing()

    def write(self, lease: Manifest, slots: _Slots, is_joined: bool = False) -> Manifest:
        """Write what joins own of the Lease, and return it as it is then.

        lease: as it was read.
        is_joined: whether to record the machine as one that has been in the mesh.

        Raises _Conflict where another writer was faster.
        """
        annotations = {**_annotations(lease), SLOTS_ANNOTATION: json.dumps(asdict(slots))}
        if is_joined:
            annotations |= self._joined()
        # For `kubectl get leases`. Nothing reads these times: clocks differ.
        spec: Manifest = {"leaseDurationSeconds": EXPIRY_S}
        if slots.holders:
            now = strftime("%Y-%m-%dT%H:%M:%S.000000Z", gmtime())
            spec |= {"holderIdentity": ", ".join(sorted(slots.holders)), "renewTime": now}
        kept = {key: lease[key] for key in ("apiVersion", "kind")}
        text = json.dumps({**kept, "metadata": {**lease["metadata"], "annotations": annotations}, "spec": spec})
        words = ("replace", "--filename", "-", "--validate=ignore", "--output", "json")
        written: Manifest = json.loads(self._call("update leases", *words, stdin=text.encode()))
        return written

    def change(self, change: _Change, last: Manifest | None = None, is_joined: bool = False) -> Manifest:
        """Change the Lease, and return it as it is then; again where another writer was faster.

        last: the Lease as it was read last; None reads it.
        is_joined: whether to record the machine as one that has been in the mesh.
        """
        for _ in range(ATTEMPTS):
            lease = last or self.read()
            slots = change(_Slots.of(lease))
            if slots is None:
                return lease
            try:
                return self.write(lease, slots, is_joined)
            except _Conflict:
                last = None
                sleep(random.uniform(*RETRY_S))
        raise _NoAnswer(f"{ATTEMPTS} others were faster in writing the Lease {self.name}")

    def record_joined(self) -> None:
        """Add the machine to those that have been in the mesh."""
        patch = json.dumps({"metadata": {"annotations": self._joined()}})
        words = ("patch", LEASES, self.name, "--type", "merge", "--patch", patch, "--output", "name")
        self._call("patch leases", *words)

    def _joined(self) -> dict[str, str]:
        return {JOINED_ANNOTATION_PREFIX + self.request.machine: self.request.registration}

    def _call(self, what: str, *words: str, stdin: bytes = b"") -> str:
        """Run kubectl. what: the right that it needs."""
        options = ("--namespace", self.request.namespace, f"--request-timeout={CALL_S - 5}s")
        done = self._kubectl.call(*words, *options, stdin=stdin, timeout_s=CALL_S)
        if done.status == 0:
            return done.text
        reason = scripting.last_words(done.error) or f"kubectl ended with status {done.status}"
        if "(Forbidden)" in done.error:
            raise scripting.Failed(
                f"the slots of the workload {self.workload} cannot be used, because kubectl may "
                f"not {what}: grant the verbs list, get, update and patch on leases "
                "(coordination.k8s.io) and list on workloadentries (networking.istio.io) in the "
                f"namespace {self.request.namespace}: {reason}"
            )
        if "(NotFound)" in done.error and self.name in done.error:
            raise self._missing()
        raise (_Conflict if "(Conflict)" in done.error else _NoAnswer)(reason)

    def _missing(self) -> NoLease:
        return NoLease(
            f"the Lease {self.request.namespace}/{self.name} of the workload's slots is missing: "
            "run `pulumi refresh`, then the update again"
        )


class _Ages:
    """For how long values have stayed the same, by this process's own clock."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[object, float]] = {}

    def age_s(self, key: str, value: object) -> float:
        """Return for how many seconds `key` has had this value, as far as this process saw it."""
        now = monotonic()
        if key not in self._since or self._since[key][0] != value:
            self._since[key] = (value, now)
        return now - self._since[key][1]

    def forget(self) -> None:
        """Begin anew: nobody could renew anything while the API server did not answer."""
        self._since.clear()


class _Holder:
    """One join's part in the slots."""

    def __init__(self, lease: _Lease, report: Callable[[str], None], pause: Callable[[float], None]) -> None:
        self._lease, self._request = lease, lease.request
        self._machine = lease.request.machine
        self._report, self._pause = report, pause
        self._record = _Record(uuid.uuid4().hex, self._request.update)
        self._ages = _Ages()
        self._reported: float | None = None
        self._may_hold = False
        self._stop = threading.Event()
        self._renewal = threading.Thread(target=self._renew, daemon=True)
        self._last: Manifest | None = None

    def take(self) -> bool:
        """Take a slot; return whether it is for the one agent that serves. Raises scripting.Failed."""
        silent: float | None = None
        while True:
            try:
                situation = self._try(*self._lease.read_all())
                if situation:
                    return situation.serving and situation.alone
                silent = None
            except _Conflict:
                silent = None
                self._pause(random.uniform(*RETRY_S))
                continue
            except _NoAnswer as error:
                self._ages.forget()
                silent = silent or monotonic()
                if monotonic() - silent >= OUTAGE_S:
                    cause = f"the slots of the workload {self._lease.workload} could not be read for {OUTAGE_S} s: {error}"
                    raise self._failed(cause) from None
                self._progress(f"that cannot be read: {error}")
            self._pause(random.uniform(*LOOK_S))

    def _try(self, lease: Manifest, entries: list[Manifest]) -> Situation | None:
        """Take a slot, and return the situation before; None where the join has to wait."""
        slots = self._living(_Slots.of(lease))
        situation = situation_of(lease, entries, frozenset(slots.holders), self._request)
        verdict = decide(situation, self._machine)
        if verdict is not Verdict.REPAIR and self._request.update in slots.halts:
            mark = slots.halts[self._request.update]
            cause = f"because the join of machine {mark.machine} failed: {mark.cause}"
            raise self._failed(f"the update of the workload {self._lease.workload} is halted, {cause}")
        if verdict is Verdict.WAIT:
            self._wait(situation)
            return None
        before = slots.holders.get(self._machine)
        repairs = before.repairs if before else verdict is Verdict.REPAIR
        self._record = replace(self._record, repairs=repairs)
        self._may_hold = True
        self._last = self._lease.write(lease, slots.with_holder(self._machine, self._record), not repairs)
        self._renewal.start()
        return situation

    def _wait(self, situation: Situation) -> None:
        """Report what is waited for. Raises scripting.Failed where nothing will change by itself."""
        unavailable = sorted(situation.unavailable(self._machine))
        blocked = len(unavailable) >= situation.limit
        if self._ages.age_s("blocked", blocked) >= PATIENCE_S and blocked:
            targets = " ".join(f"--target '**{part_name(name, JOIN)}'" for name in unavailable)
            raise self._failed(
                f"{', '.join(unavailable)} of the workload {self._lease.workload} stayed out of the mesh for "
                f"{PATIENCE_S} s, and only {situation.limit} may be out of it at a time: join them first "
                f"(pulumi up {targets}), remove them from the stack file, or raise the workload's maxUnavailable"
            )
        holders = ", ".join(sorted(situation.holders)) or "none"
        out = f"; out of the mesh: {', '.join(unavailable)}" if unavailable else ""
        self._progress(f"({situation.limit} at a time): held by {holders}{out}")

    def _progress(self, text: str) -> None:
        if self._reported is None or monotonic() - self._reported >= PROGRESS_S:
            self._reported = monotonic()
            self._report(f"{self._machine} waits for a slot of workload {self._lease.workload} {text}")

    def _failed(self, cause: str) -> scripting.Failed:
        return scripting.Failed(f"machine {self._machine} was not touched: {cause}")

    def _living(self, slots: _Slots) -> _Slots:
        """Return the slots without holders that are gone, and without marks of earlier updates."""
        holders = {
            name: record
            for name, record in slots.holders.items()
            if self._ages.age_s(f"holder {name}", record) < EXPIRY_S or name == self._machine
        }
        halts = {
            name: mark
            for name, mark in slots.halts.items()
            if self._ages.age_s(f"halt {name}", mark) < MARK_S or name == self._request.update
        }
        return _Slots(holders, halts)

    def _renew(self) -> None:
        while not self._stop.wait(RENEWAL_S):
            try:
                self._update(self._renewed)
            except (_NoAnswer, scripting.Failed) as error:
                self._ages.forget()
                self._report(f"the slot of {self._machine} was not renewed: {error}")

    def _renewed(self, slots: _Slots) -> _Slots | None:
        """Return the slots with a record that is one renewal older.

        A record that another join took for gone is added again, since the agent may be stopped.
        """
        if self._is_anothers(slots):
            self._stop.set()
            return None
        self._record = replace(self._record, renewal=self._record.renewal + 1)
        return slots.with_holder(self._machine, self._record)

    def _is_anothers(self, slots: _Slots) -> bool:
        """Return whether a later process joins the same machine, and holds its slot."""
        record = slots.holders.get(self._machine)
        return record is not None and record.process != self._record.process

    def give_back(self, is_joined: bool) -> None:
        """Free the slot, where this process holds one. A failure is reported: slots expire.

        is_joined: whether to record the machine as one that has been in the mesh, also where its
            slot expired meanwhile.
        """
        self._stop.set()
        if self._renewal.is_alive():
            self._renewal.join()
        if not self._may_hold:
            return

        def without_record(slots: _Slots) -> _Slots | None:
            if self._is_anothers(slots):
                return slots if is_joined else None
            return slots.without_holder(self._machine) if is_joined or self._machine in slots.holders else None

        try:
            self._update(without_record, is_joined)
        except (_NoAnswer, scripting.Failed) as error:
            self._report(f"the slot of {self._machine} becomes free after {EXPIRY_S} s: {error}")

    def _update(self, change: _Change, is_joined: bool = False) -> None:
        """Change the Lease as this process wrote it last; read it where that is outdated."""
        self._last = self._lease.change(lambda slots: change(self._living(slots)), self._last, is_joined)
