"""How a plan differs from what an update did, in all but machines and operations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import ceil
from typing import Any

from tests.support.noting_mesh import Pods, Seen, Service
from tests.support.noting_world import STOPPED, World
from tools.plan.mesh_model import ServicePicture, Versions
from tools.plan.model import Mark, Plan


def differences(plan: Plan, before: Seen, after: Seen, world: World) -> dict[str, tuple[Any, Any]]:
    """Return what the plan says and what happened, by what differs; empty where the plan is true."""
    of_others = {f"{each.namespace}/{each.name}" for each in plan.services for side in (each.before, each.after) if side and side.existing}
    versions = _planned_versions(plan)
    pairs = {
        "services": (
            _without_what_others_set(_planned_services(plan), of_others),
            _without_what_others_set(_changed(before.services, after.services), of_others),
        ),
        "pods": (_planned_pods(plan), dict(_changed_pods(before.pods, after.pods))),
        "identities": (
            _planned_identities(plan),
            dict.fromkeys(after.identities - before.identities, Mark.ADDED)
            | dict.fromkeys(before.identities - after.identities, Mark.REMOVED),
        ),
        "paths": (_planned_paths(plan), _changed(before.paths, after.paths)),
        "openings": (
            {(each.kind.value, each.name): each.mark for each in plan.openings},
            {key: _mark(*sides) for key, sides in _changed(before.openings, after.openings).items()},
        ),
        "versions": (versions, _changed_versions(*(_known(each.versions, versions) for each in (before, after)))),
        "restarts": (
            {f"{each.namespace}/{each.name}": (each.restarts, each.at_once, each.waves) for each in plan.workloads if each.restarts},
            _restarts(after, world),
        ),
    }
    return {what: pair for what, pair in pairs.items() if pair[0] != pair[1]}


def _without_what_others_set(
    services: Mapping[str, tuple[Service | None, Service | None]], of_others: set[str]
) -> dict[str, tuple[Service | None, Service | None]]:
    """Return changes of Services without what stack files do not say of those of others."""

    def stripped(name: str, side: Service | None) -> Service | None:
        return replace(side, annotations={}, ports={}) if side and name in of_others else side

    pairs = {name: (stripped(name, was), stripped(name, now)) for name, (was, now) in services.items()}
    return {name: (was, now) for name, (was, now) in pairs.items() if was != now}


def _known(versions: tuple[str, str], planned: tuple[tuple[str, str], tuple[str, str]] | None) -> tuple[str, str]:
    """Return versions without that of a control plane of others, which stack files do not say."""
    return ("", versions[1]) if planned and not planned[0][0] else versions


def _changed(before: Mapping[Any, Any], after: Mapping[Any, Any]) -> dict[Any, tuple[Any, Any]]:
    """Return what differs on two sides, None where it is on one alone."""
    sides = {key: (before.get(key), after.get(key)) for key in {*before, *after}}
    return {key: (was, now) for key, (was, now) in sides.items() if was != now}


def _mark(was: object | None, now: object | None) -> Mark:
    return Mark.ADDED if was is None else Mark.REMOVED if now is None else Mark.CHANGED


def _planned_services(plan: Plan) -> dict[str, tuple[Service | None, Service | None]]:
    return {f"{each.namespace}/{each.name}": (_service(each.before), _service(each.after)) for each in plan.services}


def _service(planned: ServicePicture | None) -> Service | None:
    if planned is None:
        return None
    endpoints = {each.network: (each.pods, each.machines) for each in planned.endpoints if each.pods or each.machines}
    ports = {port.name: (port.port, port.target) for port in planned.ports}
    return Service(ports, endpoints, frozenset(planned.callers), {each.key: each.value for each in planned.annotations})


def _planned_pods(plan: Plan) -> dict[str, tuple[int | None, int | None, bool]]:
    return {
        f"{each.namespace}/{each.name}": (each.pods.before, each.pods.after, each.pods.replaced) for each in plan.workloads if each.pods
    }


def _changed_pods(before: Mapping[str, Pods], after: Mapping[str, Pods]) -> Iterator[tuple[str, tuple[int | None, int | None, bool]]]:
    for key, (was, now) in _changed(before, after).items():
        replaced = bool(was and now and was.template != now.template)
        yield key, (was and was.replicas, now and now.replicas, replaced)


def _planned_identities(plan: Plan) -> dict[str, Mark]:
    """Return the marks of identities that appear or go, as `<namespace>/<service account>`."""
    marks: dict[str, Mark] = {}
    for each in plan.identities:
        namespace, _, account = each.identity.partition("/ns/")[2].partition("/sa/")
        if each.mark is not Mark.CHANGED:
            marks[f"{namespace}/{account}"] = each.mark
    return marks


def _planned_paths(plan: Plan) -> dict[tuple[str, str], tuple[str | None, str | None]]:
    return {
        (each.source, each.target): (each.before and each.before.value, each.after and each.after.value)
        for each in plan.paths
        if not each.workload
    }


def _planned_versions(plan: Plan) -> tuple[tuple[str, str], tuple[str, str]] | None:
    sides: tuple[Versions, ...] = (plan.versions.before, plan.versions.after) if plan.versions else ()
    return tuple((each.control_plane, each.machines) for each in sides) or None  # type: ignore[return-value]


def _changed_versions(before: tuple[str, str], after: tuple[str, str]) -> tuple[tuple[str, str], tuple[str, str]] | None:
    """Return the versions where one changes that is known on both sides."""
    differs = any(was and now and was != now for was, now in zip(before, after, strict=True))
    return (before, after) if differs else None


def _restarts(after: Seen, world: World) -> dict[str, tuple[int, int, int]]:
    """Return how many agents restarted, how many at once, and in how many waves, by workload.

    What its cloud stops takes no slot, unless its join restarts it too.
    """
    workloads = {entry.machine: entry.workload for entry in world.entries.values()}
    stopped = {machine for machine, event in world.events if event == STOPPED}
    joined = {machine for machine, event in world.events if event in ("restarts", "registers")}
    in_slots = Counter(workloads[machine] for machine in joined)
    every = Counter(workloads[machine] for machine in joined | stopped)
    return {
        name: (count, min(after.limits[name], in_slots[name]), ceil(in_slots[name] / after.limits[name])) for name, count in every.items()
    }
