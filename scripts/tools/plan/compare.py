"""What an update does to a mesh: two pictures and the operations, compared. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from components import names

from .effects import Effects
from .machine_changes import Name, machine_changes, placed
from .mesh_model import Host, MeshPicture, NetworkPath, Opening, Path, ServicePicture
from .model import (
    Action,
    CostChange,
    IdentityChange,
    Level,
    Mark,
    OpeningChange,
    Operation,
    PathChange,
    Pause,
    Plan,
    PlanError,
    ProgramChange,
    ServiceChange,
    Verdict,
    VerificationPlan,
    VersionsChange,
)
from .skew import while_updating, worst
from .workload_changes import workload_changes


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
        workloads=tuple(workload_changes(before, after, machines, effects.cluster)),
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
    former = {each.machine.name: each for each in placed(before).values()}
    moves = {
        (now.workload[1], former[now.machine.name].machine.network, now.machine.network)
        for now in placed(after).values()
        if now.machine.name in former
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
