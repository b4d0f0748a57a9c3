"""The Lease with the slots of a workload, at the API server.

Joins write it with the `resourceVersion` that they read, so only one of two writers succeeds.
"""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from time import gmtime, sleep, strftime
from typing import Protocol

from ...local import scripting
from ...local.cluster_access import FROM_STDIN
from ...manifest import Manifest
from ...names import GROUP_ANNOTATION, JOINED_ANNOTATION_PREFIX, SLOTS_ANNOTATION, slots_lease_name
from .slot_decision import SlotRequest, annotations_of

LEASES, ENTRIES = "leases.v1.coordination.k8s.io", "workloadentries.v1.networking.istio.io"
"""With their versions, as in `entries`."""
EXPIRY_S = 60
"""Seconds without a renewal after which a slot is free again."""
RETRY_S = (0.05, 0.5)
"""Seconds until a Lease is written again that another writer changed: at random between these."""
ATTEMPTS = 20
"""How often the Lease is written again."""
CALL_S = 20
"""Seconds for one call of kubectl."""


class KubectlCall(Protocol):
    """kubectl for one cluster."""

    def call(self, *words: str, stdin: bytes = b"", timeout_s: float | None = None) -> scripting.Done:
        """Run kubectl, and return how it ended."""


class NoLease(scripting.Failed):
    """The workload has no slots."""


class NoAnswer(Exception):
    """kubectl failed for a reason that may pass; the message is its last words."""


class Conflict(NoAnswer):
    """Another writer was faster."""


@contextlib.contextmanager
def as_failed(purpose: str) -> Iterator[None]:
    """Raise scripting.Failed in place of `NoAnswer`. purpose: what did not succeed."""
    try:
        yield
    except NoAnswer as error:
        raise scripting.Failed(f"{purpose}: {error}: run the update again") from None


@dataclass(frozen=True)
class SlotRecord:
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
class Halt:
    """Why an update is halted: the join of `machine` failed by `cause`."""

    machine: str
    cause: str


@dataclass(frozen=True)
class Slots:
    """The value of `SLOTS_ANNOTATION`.

    holders: by machine. halts: by update.
    """

    holders: Mapping[str, SlotRecord] = field(default_factory=dict)
    halts: Mapping[str, Halt] = field(default_factory=dict)

    @classmethod
    def of(cls, lease: Manifest) -> Slots:
        """Return the slots that a Lease holds.

        Raises scripting.Failed where a person, or another version of this program, wrote them.
        """
        text = annotations_of(lease).get(SLOTS_ANNOTATION) or '{"holders": {}, "halts": {}}'
        try:
            values = json.loads(text)
            return cls(
                {machine: SlotRecord(**record) for machine, record in values["holders"].items()},
                {update: Halt(**mark) for update, mark in values["halts"].items()},
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            metadata = lease["metadata"]
            place, name = metadata.get("namespace", ""), metadata["name"]
            raise scripting.Failed(
                f"the annotation {SLOTS_ANNOTATION} of the Lease {place}/{name} cannot be read ({error}): it was edited, or another "
                "version of this program wrote it. Where no update runs, remove it (kubectl annotate "
                f"leases.coordination.k8s.io {name} --namespace {place} {SLOTS_ANNOTATION}-), and run the update again"
            ) from None

    def with_holder(self, machine: str, record: SlotRecord) -> Slots:
        """Return the slots with one that a machine holds."""
        return replace(self, holders={**self.holders, machine: record})

    def without_holder(self, machine: str) -> Slots:
        """Return the slots without that of a machine."""
        return replace(self, holders={name: record for name, record in self.holders.items() if name != machine})


Change = Callable[[Slots], "Slots | None"]
"""Returns another value of the slots; None to write nothing."""


class SlotsLease:
    """A workload's Lease at the API server. All methods raise scripting.Failed and NoAnswer."""

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
        workload_group = self.request.workload
        entries = [thing for thing in things if annotations_of(thing).get(GROUP_ANNOTATION) == workload_group]
        for thing in things:
            if (thing["kind"], thing["metadata"]["name"]) == ("Lease", self.name):
                return thing, entries
        raise self._missing()

    def write(self, lease: Manifest, slots: Slots, is_joined: bool = False) -> Manifest:
        """Write what joins own of the Lease, and return it as it is then.

        lease: as it was read.
        is_joined: whether to record the machine as one that has been in the mesh.

        Raises Conflict where another writer was faster.
        """
        annotations = {**annotations_of(lease), SLOTS_ANNOTATION: json.dumps(asdict(slots))}
        if is_joined:
            annotations |= self._joined()
        # For `kubectl get leases`. Nothing reads these times: clocks differ.
        spec: Manifest = {"leaseDurationSeconds": EXPIRY_S}
        if slots.holders:
            now = strftime("%Y-%m-%dT%H:%M:%S.000000Z", gmtime())
            spec |= {"holderIdentity": ", ".join(sorted(slots.holders)), "renewTime": now}
        kept = {key: lease[key] for key in ("apiVersion", "kind")}
        text = json.dumps({**kept, "metadata": {**lease["metadata"], "annotations": annotations}, "spec": spec})
        words = ("replace", *FROM_STDIN, "--output", "json")
        written: Manifest = json.loads(self._call("update leases", *words, stdin=text.encode()))
        return written

    def change(self, change: Change, last: Manifest | None = None, is_joined: bool = False) -> Manifest:
        """Change the Lease, and return it as it is then; again where another writer was faster.

        last: the Lease as it was read last; None reads it.
        is_joined: whether to record the machine as one that has been in the mesh.
        """
        for _ in range(ATTEMPTS):
            lease = last or self.read()
            slots = change(Slots.of(lease))
            if slots is None:
                return lease
            try:
                return self.write(lease, slots, is_joined)
            except Conflict:
                last = None
                sleep(random.uniform(*RETRY_S))
        raise NoAnswer(f"other joins changed the Lease {self.name} before this one, {ATTEMPTS} times")

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
                f"not {what}: {reason}. In the namespace {self.request.namespace}, grant list, get, "
                "update and patch on leases (coordination.k8s.io), and list on workloadentries "
                "(networking.istio.io)"
            )
        if "(NotFound)" in done.error and self.name in done.error:
            raise self._missing()
        raise (Conflict if "(Conflict)" in done.error else NoAnswer)(reason)

    def _missing(self) -> NoLease:
        return NoLease(
            f"the Lease {self.request.namespace}/{self.name} of the workload's slots is missing: "
            "run `pulumi refresh`, then the update again"
        )
