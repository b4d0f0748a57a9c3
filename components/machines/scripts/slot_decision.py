"""Whether a join may stop an agent: the machines of a workload at one moment. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ...manifest import Manifest
from ...names import (
    DISCONNECTED_ANNOTATION,
    JOINED_ANNOTATION_PREFIX,
    MACHINE_LABEL,
    MACHINES_ANNOTATION,
    MAX_UNAVAILABLE_ANNOTATION,
    REGISTRATION_LABEL,
)


@dataclass(frozen=True)
class SlotRequest:
    """The machine whose agent is to be stopped.

    namespace, workload: the workload that it runs.
    machine: the machine's name in the stack.
    registration: the id of its registration.
    entry: the name of the WorkloadEntry of its agent.
    update: the update that runs this process (`update_id.update_id()`).
    stops: the registration of the agent that is to be stopped; "" where it cannot be read. It may
        be an earlier one, with an entry of another name.
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
    joined: the machines of the stack that have been in the mesh; none where the agent's entry has
        lost the label that names its machine. The others' may have, too: slots alone count then.
    healthy: the machines with a Healthy entry of a connected agent.
    holders: the machines whose joins hold a slot.
    serving: whether the agent that is to be stopped has such an entry. Its name may be another
        machine's: of one that was renamed, or whose host another machine gets in this update.
    alone: whether no other agent of the workload has such an entry, whatever has registered it.
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
    Raises ValueError for any other text.
    """
    if max_unavailable.endswith("%"):
        return max(1, int(max_unavailable[:-1]) * machines // 100)
    return max(1, int(max_unavailable))


def situation_of(lease: Manifest, entries: list[Manifest], holders: frozenset[str], request: SlotRequest) -> Situation:
    """Return the machines of a workload.

    lease: the workload's Lease. entries: the workload's WorkloadEntries.
    holders: the machines whose joins hold a slot.
    request: the agent that is to be stopped.
    Raises ValueError where the Lease has no limit that can be read.
    """
    annotations = annotations_of(lease)
    machines = machines_of(lease)
    serving = [each["metadata"] for each in entries if _serves(each)]

    def is_stopped(metadata: Manifest) -> bool:
        is_registration = bool(request.stops) and _labels(metadata).get(REGISTRATION_LABEL) == request.stops
        return metadata["name"] == request.entry or is_registration

    stopped = [metadata for metadata in serving if is_stopped(metadata)]
    is_named = all(MACHINE_LABEL in _labels(metadata) for metadata in stopped)
    joined = (name for name in machines if is_named and JOINED_ANNOTATION_PREFIX + name in annotations)
    return Situation(
        limit=limit_of(annotations.get(MAX_UNAVAILABLE_ANNOTATION, "1"), len(machines)),
        joined=frozenset(joined),
        healthy=frozenset(_labels(metadata).get(MACHINE_LABEL, "") for metadata in serving),
        holders=holders,
        serving=bool(stopped),
        alone=len(stopped) == len(serving),
    )


def _serves(entry: Manifest) -> bool:
    """Return whether an entry's agent is connected, and Healthy.

    Its labels do not matter: Services lead to it without those of this program, too. A person may
    have removed these, or the agent is of an instance group or of another tool.
    """
    conditions = entry.get("status", {}).get("conditions", [])
    healthy = any(each["type"] == "Healthy" and each["status"] == "True" for each in conditions)
    return healthy and DISCONNECTED_ANNOTATION not in annotations_of(entry)


def _labels(metadata: Manifest) -> dict[str, str]:
    return metadata.get("labels") or {}


def annotations_of(thing: Manifest) -> dict[str, str]:
    """Return the annotations of an object."""
    return thing["metadata"].get("annotations") or {}


def machines_of(lease: Manifest) -> list[str]:
    """Return the names of the workload's machines in the stack, from its Lease."""
    return [name for name in annotations_of(lease).get(MACHINES_ANNOTATION, "").split(",") if name]
