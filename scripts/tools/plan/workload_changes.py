"""What happens to workloads: pods, settings, and the waves in which agents restart. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import ceil

from .machine_changes import STOPS, Name
from .mesh_model import Host, MeshPicture, WorkloadPicture
from .model import Action, MachineChange, Mark, Pause, PodsChange, Reason, WorkloadChange

RESTART_S = 20
"""Seconds for which one agent is out of the mesh: 11 to deregister, 5 to drain, some to get ready.

Source: docs/machines.md, "Stopping".
"""
REGISTER_S = 25
"""The same where it registers again: istiod deletes the old entry first (`DISCONNECT_GRACE`)."""


def workload_changes(
    before: MeshPicture,
    after: MeshPicture,
    machines: Mapping[Name, list[MachineChange]],
    another_cluster: bool,
) -> Iterator[WorkloadChange]:
    old, new = (
        {(each.namespace, each.name): each for each in mesh.workloads} for mesh in (before, after)
    )
    for name in sorted({*old, *new}):
        was, now, changed = old.get(name), new.get(name), tuple(machines.get(name, ()))
        pods, settings = _pods(was, now), tuple(_settings(was, now))
        mark = Mark.ADDED if was is None else Mark.REMOVED if now is None else Mark.CHANGED
        if mark is Mark.CHANGED and not (changed or pods or settings or another_cluster):
            continue
        workload = now or was
        assert workload is not None
        change = WorkloadChange(
            name=workload.name,
            namespace=workload.namespace,
            mark=mark,
            role=workload.role,
            machines=tuple(sorted(changed, key=lambda each: (each.machine, each.action))),
            pods=pods,
            settings=settings,
        )
        with_waves = _with_waves(change, was, now)
        yield (
            replace(with_waves, pause=Pause.ALL) if another_cluster and was and now else with_waves
        )


def _pods(was: WorkloadPicture | None, now: WorkloadPicture | None) -> PodsChange | None:
    old, new = was.replicas if was else None, now.replicas if now else None
    replaced = bool(was and now and was.pods and now.pods and was.pods != now.pods)
    return PodsChange(before=old, after=new, replaced=replaced) if old != new or replaced else None


def _settings(was: WorkloadPicture | None, now: WorkloadPicture | None) -> Iterator[Reason]:
    if was is None or now is None:
        return
    if was.max_unavailable and now.max_unavailable and was.max_unavailable != now.max_unavailable:
        yield Reason(key="max-unavailable", before=was.max_unavailable, after=now.max_unavailable)
    if was.strict != now.strict:
        yield Reason(key="strict", before=str(was.strict).lower(), after=str(now.strict).lower())
    sizes = {machine.name: machine.count for machine in was.machines if machine.host is Host.GROUP}
    for machine in now.machines:
        if machine.name in sizes and sizes[machine.name] != machine.count:
            yield Reason(
                key="group-size",
                before=f"{machine.name}: {sizes[machine.name]}",
                after=f"{machine.name}: {machine.count}",
            )


def _with_waves(
    change: WorkloadChange, was: WorkloadPicture | None, now: WorkloadPicture | None
) -> WorkloadChange:
    """Return a change with its restarts in waves, and whether the workload pauses meanwhile.

    Joins stop the agents of at most `at_once` machines. What Pulumi does to the machines themselves
    waits for nothing: it deletes all that it replaces, and stops all that it resizes, at once.
    """
    restarted = [
        each for each in change.machines if each.action in (Action.RESTARTS, Action.REGISTERS)
    ]
    in_slots = [each for each in restarted if _takes_slot(each)]
    at_once_anyway = [each for each in change.machines if _is_deleted_first(each) or _stops(each)]
    limit = now.at_once if now else 1
    at_once = min(limit, len(in_slots))
    others = sum(1 for each in in_slots if not _stops(each))
    waves = ceil(len(in_slots) / limit) if in_slots else 0
    longest = REGISTER_S if any(each.action is Action.REGISTERS for each in in_slots) else RESTART_S
    return replace(
        change,
        restarts=len(restarted),
        at_once=at_once,
        waves=waves,
        seconds=waves * longest,
        pause=_pause(was, now, min(limit, others) + sum(each.count for each in at_once_anyway)),
    )


def _stops(change: MachineChange) -> bool:
    """Return whether Pulumi stops the machine itself and starts it again."""
    restarts = change.action in (Action.RESTARTS, Action.REGISTERS)
    return restarts and any(reason.key in STOPS for reason in change.reasons)


def _takes_slot(change: MachineChange) -> bool:
    """Return whether a join stops the agent, besides what Pulumi does to the machine itself."""
    return any(reason.key not in STOPS for reason in change.reasons)


def _is_deleted_first(change: MachineChange) -> bool:
    # An instance group creates the new machines first (platforms/google/instance_group.py).
    replaced = change.action is Action.REPLACED and change.deleted and change.host is not Host.GROUP
    return replaced or change.action is Action.MOVES


def _pause(was: WorkloadPicture | None, now: WorkloadPicture | None, out: int) -> Pause:
    if was is None or now is None:
        return Pause.NONE
    before, after = (sum(machine.count for machine in each.machines) for each in (was, now))
    pods = bool(was.replicas and now.replicas)
    if before == 0:
        return Pause.ALL if was.replicas and not now.replicas and not after else Pause.NONE
    if out < before and after:
        return Pause.NONE
    return Pause.MACHINES if pods else Pause.ALL
