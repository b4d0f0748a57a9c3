"""Slots: how many agents of a workload are stopped at once, over all joins that run anywhere.

A join takes a slot before it stops an agent, and gives it back when its machine answers again. The
slots of a workload are one Lease in its namespace, which the program declares with the workload and
which is deleted with it. Its annotations hold

- `MAX_UNAVAILABLE_ANNOTATION` and `MACHINES_ANNOTATION`, from the stack file: no join has them as
  an input, so a machine that is added changes no other machine's join
- `JOINED_ANNOTATION_PREFIX` and a machine's name, for each machine that has been in the mesh
- `SLOTS_ANNOTATION`: the joins that hold a slot, and the updates that are halted.

Joins write it with the `resourceVersion` that they read, so only one of two writers succeeds. A
join renews its slot while it runs. Clocks of two computers are never compared. A holder is gone
when its record stayed the same for `EXPIRY_S` by the reader's clock (as in Kubernetes' client-go,
tools/leaderelection).

Kubernetes permissions: `list` workloadentries (networking.istio.io); `list`, `get`, `update` and
`patch` leases (coordination.k8s.io), in the workload's namespace.
"""

from __future__ import annotations

import contextlib
import random
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from time import monotonic, sleep

from ...local import scripting
from ...manifest import Manifest
from ...names import JOIN, JOINED_ANNOTATION_PREFIX, MAX_UNAVAILABLE_ANNOTATION, part_name
from .slot_decision import (
    Situation,
    SlotRequest,
    Verdict,
    annotations_of,
    decide,
    machines_of,
    situation_of,
)
from .slot_lease import (
    EXPIRY_S,
    RETRY_S,
    Change,
    Conflict,
    Halt,
    KubectlCall,
    NoAnswer,
    SlotRecord,
    Slots,
    SlotsLease,
    as_failed,
)

RENEWAL_S = 20
"""Seconds from one renewal of a slot to the next."""
PATIENCE_S = 120
"""Seconds for which a join waits where machines that are out of the mesh take all slots."""
PROGRESS_S = 15
"""Seconds from one message of a join that waits to the next."""
OUTAGE_S = 60
"""Seconds for which an API server that does not answer is tolerated while a slot is taken."""
LOOK_S = (2.0, 3.0)
"""Seconds from one look of a join that waits to the next: at random between these two."""
MARK_S = 15
"""Seconds for which the halt of another update is kept: its joins look within `LOOK_S`."""
CAUSE_LENGTH = 300
"""Characters of a cause that the Lease keeps."""


@contextlib.contextmanager
def slot(
    kubectl: KubectlCall,
    request: SlotRequest,
    report: Callable[[str], None],
    pause: Callable[[float], None] | None = None,
    is_joined: Callable[[], bool] = lambda: True,
) -> Iterator[bool]:
    """Hold a slot of the workload: wait for it, renew it meanwhile, and give it back.

    It gives whether an agent is stopped that alone serves the workload. A machine that is out of
    the mesh waits for nothing. Where the block ends without an exception, a machine that is joined
    then is recorded as one that is in the mesh.

    kubectl: kubectl for the workload's cluster; also called from another thread.
    request: the machine whose agent is to be stopped.
    report: takes one line about the progress.
    pause: passes seconds; what it raises ends the wait. None: `sleep`.
    is_joined: returns, after the block, whether the machine's entry is Healthy, or was before.

    Raises scripting.Failed, with the machine unchanged, where the update is halted or the Lease
    cannot be used. Also where machines that are out of the mesh take all slots for `PATIENCE_S`.
    """
    holder = _Holder(SlotsLease(kubectl, request), report, pause or sleep)
    succeeded = False
    try:
        yield holder.take()
        succeeded = is_joined()
    finally:
        holder.give_back(succeeded)


def halt(kubectl: KubectlCall, request: SlotRequest, cause: str) -> None:
    """Halt the update of the workload: joins that wait for a slot in this update fail untouched.

    To be called within `slot`, after a join failed and was rolled back. A machine that was out of
    the mesh before its join halts nothing.

    cause: one sentence without secrets, for the messages of the other joins.

    Raises scripting.Failed where the Lease cannot be written.
    """

    def mark(slots: Slots) -> Slots | None:
        record = slots.holders.get(request.machine)
        if record is None or record.repairs:
            return None
        mark = Halt(request.machine, cause[:CAUSE_LENGTH])
        return replace(slots, halts={**slots.halts, request.update: mark})

    lease = SlotsLease(kubectl, request)
    with as_failed(f"the update of the workload {lease.workload} was not halted"):
        lease.change(mark)


def joined(kubectl: KubectlCall, request: SlotRequest) -> None:
    """Record that a machine is in the mesh: from now on it counts as unavailable when it is not.

    To be called by every join that took no slot, once the machine's entry is Healthy, or where it was
    before. Without the record a machine is new: no join waits for it.

    Raises scripting.Failed where the Lease cannot be written.
    """
    with as_failed(f"the machine {request.machine} was not recorded as joined"):
        SlotsLease(kubectl, request).record_joined()


@dataclass(frozen=True)
class Declared:
    """What a workload's Lease has of a machine.

    is_in_stack: whether the stack has the machine in this workload.
    registration: the registration by which it joined last; "" where it has not joined.
    """

    is_in_stack: bool
    registration: str


def declared(kubectl: KubectlCall, request: SlotRequest) -> Declared:
    """Return what the Lease has of a machine. Raises scripting.Failed, and NoLease without one."""
    lease = SlotsLease(kubectl, request)
    with as_failed(f"the machines of the workload {lease.workload} could not be read"):
        read = lease.read()
    joined_by = annotations_of(read).get(JOINED_ANNOTATION_PREFIX + request.machine, "")
    return Declared(request.machine in machines_of(read), joined_by)


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
        """Begin again: no join could renew its slot while the API server did not answer."""
        self._since.clear()


class _Holder:
    """One join's part in the slots."""

    def __init__(self, lease: SlotsLease, report: Callable[[str], None], pause: Callable[[float], None]) -> None:
        self._lease, self._request = lease, lease.request
        self._machine = lease.request.machine
        self._report, self._pause = report, pause
        self._record = SlotRecord(secrets.token_hex(16), self._request.update)
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
            except Conflict:
                silent = None
                self._pause(random.uniform(*RETRY_S))
                continue
            except NoAnswer as error:
                self._ages.forget()
                silent = silent or monotonic()
                if monotonic() - silent >= OUTAGE_S:
                    cause = f"the slots of the workload {self._lease.workload} could not be read for {OUTAGE_S} s: {error}"
                    raise self._failed(cause) from None
                self._progress(f"that cannot be read: {error}")
            self._pause(random.uniform(*LOOK_S))

    def _try(self, lease: Manifest, entries: list[Manifest]) -> Situation | None:
        """Take a slot, and return the situation before; None where the join has to wait."""
        slots = self._living(Slots.of(lease))
        try:
            situation = situation_of(lease, entries, frozenset(slots.holders), self._request)
        except ValueError:
            raise self._failed(
                f"the annotation {MAX_UNAVAILABLE_ANNOTATION} of the Lease {self._lease.name} of the workload {self._lease.workload} "
                "was edited: run `pulumi refresh`, then the update again"
            ) from None
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
                f"{PATIENCE_S} s. Only {situation.limit} may be out of it at a time: join them first "
                f"(pulumi up {targets}), remove them, or raise the workload's maxUnavailable"
            )
        holders = ", ".join(sorted(situation.holders)) or "none"
        out = f"; out of the mesh: {', '.join(unavailable)}" if unavailable else ""
        self._progress(f"({situation.limit} at a time): held by {holders}{out}")

    def _progress(self, text: str) -> None:
        if self._reported is None or monotonic() - self._reported >= PROGRESS_S:
            self._reported = monotonic()
            self._report(f"{self._machine} waits for a slot of workload {self._lease.workload} {text}")

    def _failed(self, cause: str) -> scripting.Failed:
        return scripting.Failed(f"machine {self._machine} was not changed: {cause}")

    def _living(self, slots: Slots) -> Slots:
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
        return Slots(holders, halts)

    def _renew(self) -> None:
        while not self._stop.wait(RENEWAL_S):
            try:
                self._update(self._renewed)
            except (NoAnswer, scripting.Failed) as error:
                self._ages.forget()
                self._report(f"the slot of {self._machine} was not renewed: {error}")

    def _renewed(self, slots: Slots) -> Slots | None:
        """Return the slots with a record that is one renewal older.

        A record that another join took for gone is added again, since the agent may be stopped.
        """
        if self._is_anothers(slots):
            self._stop.set()
            return None
        self._record = replace(self._record, renewal=self._record.renewal + 1)
        return slots.with_holder(self._machine, self._record)

    def _is_anothers(self, slots: Slots) -> bool:
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

        def without_record(slots: Slots) -> Slots | None:
            if self._is_anothers(slots):
                return slots if is_joined else None
            return slots.without_holder(self._machine) if is_joined or self._machine in slots.holders else None

        try:
            self._update(without_record, is_joined)
        except (NoAnswer, scripting.Failed) as error:
            self._report(f"the slot of {self._machine} becomes free after {EXPIRY_S} s: {error}")

    def _update(self, change: Change, is_joined: bool = False) -> None:
        """Change the Lease as this process wrote it last; read it where that is outdated."""
        self._last = self._lease.change(lambda slots: change(self._living(slots)), self._last, is_joined)
