"""What an update does to a mesh: two pictures and the operations, compared. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil

from components import names
from components.versions import version_in

from . import facts, resources
from .model import (
    Action,
    CostChange,
    Fact,
    Host,
    IdentityChange,
    Level,
    MachineChange,
    MachinePicture,
    Mark,
    MeshPicture,
    NetworkPath,
    Opening,
    OpeningChange,
    Operation,
    Path,
    PathChange,
    Pause,
    Plan,
    PlanError,
    PodsChange,
    ProgramChange,
    Reason,
    ServiceChange,
    ServicePicture,
    Verdict,
    VerificationPlan,
    VersionsChange,
    WorkloadChange,
    WorkloadPicture,
)
from .skew import while_updating, worst

RESTART_S = 20
"""Seconds for which one agent is out of the mesh: 11 to deregister, 5 to drain, some to get ready.

Source: docs/machines.md, "Stopping".
"""
REGISTER_S = 25
"""The same where it registers again: istiod deletes the old entry first (`DISCONNECT_GRACE`)."""

STOPS = ("machine-type", "template")
"""Facts of a Compute Engine machine of which a change stops it and starts it again."""

Name = tuple[str, str]
"""Namespace and name of a workload or a Service."""


@dataclass(frozen=True)
class Placed:
    """A machine and the workload that it runs."""

    workload: Name
    machine: MachinePicture


@dataclass(frozen=True)
class Effects:
    """What the operations say of machines.

    replaced: machines whose hosts are recreated, with the properties that are why.
    joined: those whose joins run.
    out: those that the cluster does not have as connected, so that their joins run.
    unsure: machines of `replaced` for which it depends on what is not known yet.
    cluster: whether the cluster is another one afterwards.
    deleted: the resources that are deleted.
    """

    replaced: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    joined: frozenset[str] = frozenset()
    out: frozenset[str] = frozenset()
    unsure: frozenset[str] = frozenset()
    cluster: bool = False
    deleted: frozenset[str] = frozenset()

    @classmethod
    def of(cls, operations: Iterable[Operation]) -> Effects:
        """Return the effects of operations."""
        replaced: dict[str, tuple[str, ...]] = {}
        joined: set[str] = set()
        updated: set[str] = set()
        unsure: set[str] = set()
        deleted: set[str] = set()
        cluster = False
        for each in operations:
            if each.op == "delete":
                deleted.add(each.name)
            is_host = each.type == resources.INSTANCE or names.is_part(each.name, "container")
            if is_host and each.op == "replace":
                # Inputs of a command say nothing to people.
                replaced[each.parent] = each.why if each.type == resources.INSTANCE else ()
                unsure.update(() if each.certain else (each.parent,))
            if names.is_part(each.name, names.JOIN) and each.op != "delete":
                joined.add(each.parent)
            if (
                names.is_part(each.name, names.REGISTRATION)
                and each.op == "update"
                and not each.diff
            ):
                updated.add(each.parent)
            if each.type == resources.CLUSTER or each.name == "cluster-kind":
                cluster = cluster or each.op in ("replace", "delete")
        return cls(
            replaced,
            frozenset(joined),
            frozenset(updated),
            frozenset(unsure),
            cluster,
            frozenset(deleted),
        )


def compare(
    before: MeshPicture,
    after: MeshPicture,
    operations: Sequence[Operation],
    program: Sequence[ProgramChange] = (),
) -> Plan:
    """Return what an update does; its level, commits and live findings are the caller's.

    before, after: the mesh on both sides.
    operations: what Pulumi does to resources.
    program: what differs in the program itself.
    """
    effects = Effects.of(operations)
    machines = machine_changes(before, after, effects)
    plan = Plan(
        stack=after.stack or before.stack,
        level=Level.FILES,
        verdict=Verdict.NOTHING,
        error=_refusal(before, after),
        workloads=tuple(_workload_changes(before, after, machines, effects.cluster)),
        services=tuple(_service_changes(before, after)),
        identities=tuple(_identity_changes(before, after)),
        paths=tuple(_path_changes(before, after)),
        openings=tuple(_opening_changes(before, after)),
        versions=_versions(before, after),
        cost=_cost(before, after),
        verification=_verification(before, after, operations),
        program=tuple(program),
        operations=tuple(operations),
        picture=after,
        former=before,
    )
    if plan.error:
        return refused(plan)
    return replace(plan, verdict=verdict_of(plan))


def refused(plan: Plan) -> Plan:
    """Return the plan of an update that fails before it changes anything: the cause alone.

    plan: with the cause.
    """
    kept = ("stack", "level", "base", "head", "destroy", "degraded", "error", "program", "former")
    return Plan(verdict=Verdict.REFUSED, **{name: getattr(plan, name) for name in kept})


# ---- Machines.


def machine_changes(
    before: MeshPicture, after: MeshPicture, effects: Effects
) -> Mapping[Name, list[MachineChange]]:
    """Return what happens to machines, by workload.

    A machine that exists is the same one wherever its address is, whatever its name. A machine of
    this program is the same one as long as it has its name and is not recreated.
    """
    old, new = _placed(before), _placed(after)
    names_after = {placed.machine.name: key for key, placed in new.items()}
    names_before = {placed.machine.name: key for key, placed in old.items()}
    changes: dict[Name, list[MachineChange]] = {}
    for key in sorted({*old, *new}):
        was, now = old.get(key), new.get(key)
        if was and now:
            for workload, change in _kept(was, now, effects):
                changes.setdefault(workload, []).append(change)
        elif now:
            former = old.get(names_before.get(now.machine.name, ""))
            change = _joins(
                now, former if former and names_before[now.machine.name] not in new else None
            )
            changes.setdefault(now.workload, []).append(change)
        elif was and not (
            was.machine.name in names_after and names_after[was.machine.name] not in old
        ):
            changes.setdefault(was.workload, []).append(_leaves(was, effects))
    return changes


def _placed(mesh: MeshPicture) -> dict[str, Placed]:
    placed = {}
    for workload in mesh.workloads:
        for machine in workload.machines:
            exists = machine.stays and machine.identity
            key = f"at {machine.identity}" if exists else f"named {machine.name}"
            placed[key] = Placed((workload.namespace, workload.name), machine)
    return placed


def _joins(now: Placed, former: Placed | None) -> MachineChange:
    """Return the change of a machine that enters; `former` had its name, elsewhere."""
    machine = now.machine
    if former is None:
        return MachineChange(
            machine=machine.name,
            network=machine.network,
            action=Action.JOINS,
            host=machine.host,
            count=machine.count,
        )
    reason = Reason(key="address", before=former.machine.identity, after=machine.identity)
    moved = _path(former.workload) if former.workload != now.workload else ""
    return MachineChange(
        machine=machine.name,
        network=machine.network,
        action=Action.REPLACED,
        reasons=(reason,),
        other=moved,
        host=machine.host,
        drained=not former.machine.forgotten,
        deleted=not former.machine.stays,
    )


def _leaves(was: Placed, effects: Effects) -> MachineChange:
    machine = was.machine
    drained = not machine.forgotten and machine.undrained_with not in effects.deleted
    return MachineChange(
        machine=machine.name,
        network=machine.network,
        action=Action.LEAVES,
        host=machine.host,
        reasons=(Reason(key="forget"),) if machine.forgotten else (),
        count=machine.count,
        drained=drained,
        deleted=not machine.stays,
    )


def _kept(was: Placed, now: Placed, effects: Effects) -> Iterator[tuple[Name, MachineChange]]:
    change = _change(was, now, effects)
    moved = was.workload != now.workload
    if change is None:
        return
    if moved:
        yield (
            was.workload,
            replace(
                change, action=Action.MOVES, other=_path(now.workload), network=was.machine.network
            ),
        )
        change = replace(change, other=_path(was.workload))
    yield now.workload, change


def _path(workload: Name) -> str:
    return "/".join(workload)


def _change(was: Placed, now: Placed, effects: Effects) -> MachineChange | None:
    """Return what happens to a machine that is there on both sides; None for nothing."""
    old, new = was.machine, now.machine
    register = tuple(_reasons(old.register, new.register))
    restart = tuple(_reasons(old.restart, new.restart))
    renamed = (Reason(key="name", before=old.name, after=new.name),) if old.name != new.name else ()
    change = MachineChange(
        machine=new.name,
        network=new.network,
        action=Action.REJOINS,
        host=new.host,
        before=old.name if renamed else "",
        count=max(old.count, new.count),
    )
    if new.host is Host.GROUP:
        # `template` differs with every input, so it is a reason where no other fact is one.
        every = (*register, *restart)
        reasons = tuple(each for each in every if each.key != "template") or every
        return (
            replace(change, action=Action.REPLACED, reasons=reasons, deleted=True)
            if reasons
            else None
        )
    if new.forgotten:
        return (
            None
            if old.forgotten
            else replace(
                change, action=Action.FORGOTTEN, drained=False, reasons=(Reason(key="forget"),)
            )
        )
    if _is_another(old, new, effects):
        reasons = tuple(
            reason
            for reason in (*_of_host(restart), *register)
            if reason.key not in ("address", "locality", "registration")
        )
        return replace(
            change,
            action=Action.REPLACED,
            reasons=reasons or _of_properties(effects.replaced.get(new.name, ())),
            deleted=True,
            certain=new.name not in effects.unsure,
        )
    if old.forgotten:
        return replace(
            change, action=Action.REJOINS, reasons=(Reason(key="forget"),), certain=False
        )
    another_cluster = (Reason(key="cluster"),) if effects.cluster else ()
    anew = (*another_cluster, *renamed, *_without(register, "registration" if renamed else ""))
    if anew:
        return replace(change, action=Action.REGISTERS, reasons=(*anew, *restart))
    stops = tuple(reason for reason in restart if reason.key in STOPS)
    if stops or (restart and not _same_digest(old, new)):
        reasons = stops if _same_digest(old, new) else restart
        return replace(change, action=Action.RESTARTS, reasons=reasons)
    if _other_digest(old, new):
        return replace(change, action=Action.RESTARTS, reasons=(Reason(key="machine-files"),))
    changes = tuple(_reasons(old.changes, new.changes))
    if new.name in effects.out:
        return replace(change, reasons=(Reason(key="out-of-mesh"), *changes), certain=False)
    return replace(change, reasons=changes) if changes or new.name in effects.joined else None


def _is_another(old: MachinePicture, new: MachinePicture, effects: Effects) -> bool:
    if new.stays != old.stays or new.host is not old.host:
        return True
    differs = old.identity and new.identity and old.identity != new.identity
    return not new.stays and bool(differs or new.name in effects.replaced)


def _of_properties(paths: Sequence[str]) -> tuple[Reason, ...]:
    """Return why a machine is recreated, by properties of its resource."""
    return tuple(Reason(key=path) for path in paths) or (Reason(key="host"),)


def _of_host(reasons: Sequence[Reason]) -> tuple[Reason, ...]:
    return tuple(reason for reason in reasons if reason.key in (*STOPS, "image", "disk-type"))


def _without(reasons: Sequence[Reason], key: str) -> tuple[Reason, ...]:
    """Return reasons without one, and without the digest of all where others name what differs."""
    named = [reason for reason in reasons if reason.key not in (key, "registered")]
    return tuple(named) or tuple(reason for reason in reasons if reason.key != key)


def _same_digest(old: MachinePicture, new: MachinePicture) -> bool:
    return bool(old.digest) and old.digest == new.digest


def _other_digest(old: MachinePicture, new: MachinePicture) -> bool:
    return bool(old.digest and new.digest) and old.digest != new.digest


def _reasons(before: Sequence[Fact], after: Sequence[Fact]) -> Iterator[Reason]:
    """Yield the facts that differ, those that are on both sides alone."""
    old, new = ({fact.key: fact.value for fact in side} for side in (before, after))
    for key in sorted(old.keys() & new.keys()):
        if old[key] != new[key]:
            was, now = _shown(key, old[key]), _shown(key, new[key])
            yield Reason(key=key, before=was, after=now) if was != now else Reason(key=key)


def _shown(key: str, value: str) -> str:
    if key in facts.HIDDEN:
        return ""
    if resources.is_made_up(value):
        return "assigned by the update"
    return (version_in(value) or value) if key == "version" else value


# ---- Workloads.


def _workload_changes(
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


# ---- Everything else.


def _mark(before: object | None, after: object | None) -> Mark:
    return Mark.ADDED if before is None else Mark.REMOVED if after is None else Mark.CHANGED


def _service_changes(before: MeshPicture, after: MeshPicture) -> Iterator[ServiceChange]:
    old, new = _services(before), _services(after)
    for name in sorted({*old, *new}):
        was, now = old.get(name), new.get(name)
        if was != now:
            yield ServiceChange(
                name=name[1], namespace=name[0], mark=_mark(was, now), before=was, after=now
            )


def _services(mesh: MeshPicture) -> dict[Name, ServicePicture]:
    return {
        (service.namespace, service.name): service
        for each in mesh.workloads
        for service in each.services
    }


def _identity_changes(before: MeshPicture, after: MeshPicture) -> Iterator[IdentityChange]:
    old, new = _identities(before), _identities(after)
    for identity in sorted({*old, *new}):
        was, now = old.get(identity), new.get(identity)
        if was != now:
            yield IdentityChange(
                identity=identity, mark=_mark(was, now), before=was or (), after=now or ()
            )


def _identities(mesh: MeshPicture) -> dict[str, tuple[str, ...]]:
    users: dict[str, list[str]] = {}
    for each in mesh.workloads:
        users.setdefault(each.identity, []).append(f"{each.namespace}/{each.name}")
    return {identity: tuple(sorted(named)) for identity, named in users.items()}


def _path_changes(before: MeshPicture, after: MeshPicture) -> Iterator[PathChange]:
    old, new = _path_map(before.paths), _path_map(after.paths)
    for source, target in sorted({*old, *new}):
        was, now = old.get((source, target)), new.get((source, target))
        if was is not now:
            yield PathChange(source=source, target=target, before=was, after=now)
    # A machine that comes to another network changes the paths to its workload.
    placed = {placed.machine.name: placed for placed in _placed(before).values()}
    moves = {
        (now.workload[1], placed[now.machine.name].machine.network, now.machine.network)
        for now in _placed(after).values()
        if now.machine.name in placed
    }
    for workload, from_network, to_network in sorted(moves):
        if from_network == to_network or not (from_network and to_network):
            continue
        for source in sorted(
            {each.name for each in after.networks} & {each.name for each in before.networks}
        ):
            was, now_path = old.get((source, from_network)), new.get((source, to_network))
            if was is not now_path:
                yield PathChange(
                    source=source, target=to_network, workload=workload, before=was, after=now_path
                )


def _path_map(paths: Iterable[NetworkPath]) -> dict[tuple[str, str], Path]:
    return {(each.source, each.target): each.path for each in paths}


def _opening_changes(before: MeshPicture, after: MeshPicture) -> Iterator[OpeningChange]:
    old, new = _openings(before.openings), _openings(after.openings)
    for key in sorted({*old, *new}):
        was, now = old.get(key), new.get(key)
        opening = now or was
        if was != now and opening:
            yield OpeningChange(
                kind=opening.kind, name=opening.name, mark=_mark(was, now), before=was, after=now
            )


def _openings(openings: Iterable[Opening]) -> dict[tuple[str, str], Opening]:
    return {(each.kind.value, each.name): each for each in openings}


def _versions(before: MeshPicture, after: MeshPicture) -> VersionsChange | None:
    old, new = before.versions, after.versions
    pairs = (
        (old.control_plane, new.control_plane),
        (old.machines, new.machines),
        (old.pods, new.pods),
        (old.kubernetes, new.kubernetes),
    )
    if all(was == now or not (was and now) for was, now in pairs) or not (
        before.workloads and after.workloads
    ):
        return None
    skew = worst(*while_updating(old, new))
    return VersionsChange(before=old, after=new, skew=skew)


def _cost(before: MeshPicture, after: MeshPicture) -> CostChange | None:
    old, new = (round(sum(part.usd for part in mesh.cost), 2) for mesh in (before, after))
    most = [round(sum(part.most for part in mesh.cost), 2) for mesh in (before, after)]
    counts = [{part.item: part.count for part in mesh.cost} for mesh in (before, after)]
    unpriced = {part.item for mesh in (before, after) for part in mesh.cost if not part.usd}
    changed = tuple(sorted(each for each in unpriced if counts[0].get(each) != counts[1].get(each)))
    if old == new and most[0] == most[1] and not changed:
        return None
    return CostChange(
        before=old, after=new, most_before=most[0], most_after=most[1], unpriced=changed
    )


def _verification(
    before: MeshPicture, after: MeshPicture, operations: Sequence[Operation]
) -> VerificationPlan | None:
    ran = {
        each.parent: each.certain
        for each in operations
        if names.is_part(each.name, names.VERIFICATION) and each.op != "delete"
    }
    old, new = _mode(before), _mode(after)
    if not ran and old == new and before.warned == after.warned:
        return None
    return VerificationPlan(
        before=old,
        after=new,
        warned=after.warned if new == "some" else (),
        runs=tuple(sorted(name for name, certain in ran.items() if certain)),
        may_run=tuple(sorted(name for name, certain in ran.items() if not certain)),
    )


def _mode(mesh: MeshPicture) -> str:
    """Return what a failed verification does (`VerificationPlan`)."""
    if not mesh.verified:
        return "none"
    if not mesh.warned:
        return "fail"
    return "warn" if len(mesh.warned) == len(mesh.verified) else "some"


def _refusal(before: MeshPicture, after: MeshPicture) -> PlanError | None:
    """Return that the registrations refuse the update: a workload was renamed under its machines.

    The rule is that of components/machines/registration.py.
    """
    declared = {each.name: each.namespace for each in after.workloads}
    old = {
        machine.name: each
        for each in before.workloads
        for machine in each.machines
        if machine.host is not Host.GROUP
    }
    lines = []
    for workload in after.workloads:
        for machine in workload.machines:
            was = old.get(machine.name)
            if was is None:
                continue
            under = f"under machine {machine.name}"
            if was.name == workload.name and was.namespace != workload.namespace:
                spaces = f"from {was.namespace} to {workload.namespace}"
                lines.append(f"workload {was.name}: its namespace changes {spaces}, {under}")
            elif was.name != workload.name and was.name not in declared:
                lines.append(f"workload {was.name}: gone, or called {workload.name} now, {under}")
    return PlanError(kind="refused", lines=tuple(lines)) if lines else None


def verdict_of(plan: Plan) -> Verdict:
    """Return a plan in one word."""
    changed = plan.operations or plan.workloads or plan.services or plan.openings or plan.paths
    verdict = Verdict.SAFE if changed else Verdict.NOTHING
    if any(
        each.what in ("machine-files", "join", "default", "local-file", "unknown")
        for each in plan.program
    ):
        verdict = Verdict.PROGRAM
    pauses = any(each.pause is Pause.ALL for each in plan.workloads)
    if pauses or any(map(is_replaced, plan.services)):
        verdict = Verdict.PAUSES
    if _leave(plan):
        verdict = Verdict.LEAVES
    return Verdict.REFUSED if plan.error and plan.error.kind in ("settings", "refused") else verdict


def _leave(plan: Plan) -> bool:
    machines = any(
        change.action is Action.LEAVES for each in plan.workloads for change in each.machines
    )
    workloads = any(each.mark is Mark.REMOVED for each in plan.workloads)
    return machines or workloads or any(lost_ports(each) for each in plan.services)


def is_replaced(change: ServiceChange) -> bool:
    """Return whether a Service is deleted and created again: a cluster IP comes or goes."""
    before, after = change.before, change.after
    if before is None or after is None or before.existing or after.existing:
        return False
    return before.headless != after.headless


def lost_ports(change: ServiceChange) -> tuple[int, ...]:
    """Return the ports that clients lose. A Service of others stays, and is not changed."""
    before, after = change.before, change.after
    if before is None or before.existing or (after and after.existing and not after.ports):
        return ()
    kept = {port.port for port in after.ports} if after else set()
    return tuple(port.port for port in before.ports if port.port not in kept)
