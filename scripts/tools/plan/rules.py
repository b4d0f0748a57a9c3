"""Hold a plan to the rules of its stack.

The rules and their exceptions are in `components/config/rules.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network

from components.config.rules import Rules
from components.versions import unsupported_kubernetes

from .mesh_model import MeshPicture, OpeningKind
from .model import Action, BrokenRule, Mark, Pause, Plan, WorkloadChange
from .skew import MOST_BEHIND, skew_of, while_updating

_OPEN = (OpeningKind.FIREWALL, OpeningKind.LOAD_BALANCER)
"""What admits addresses; mutual TLS and Istio's gateways admit identities."""

_LARGEST = {4: 8, 6: 16}
"""By IP version: the shortest prefix that is not the whole internet."""


def broken_rules(
    plan: Plan, rules: Rules, former: Mapping[str, str] | None = None
) -> tuple[BrokenRule, ...]:
    """Return what breaks a rule: the mesh after the update, and the update itself.

    plan: with its picture; without one only the update is looked at. rules: of the stack file.
    former: the reasons by rule that the stack file has at the base; None where it is not known.

    Broken rules that the stack file disables have its reason. A disabled rule that nothing breaks
    is returned without a subject, because its exception is shown too.
    """
    reasons = rules.disabled.model_dump(by_alias=True)
    broken = list(_broken(plan))
    result = [replace(each, excepted=reasons[each.rule] or "") for each in broken]
    used = {each.rule for each in broken}
    for name, reason in reasons.items():
        if reason and name not in used:
            result.append(BrokenRule(rule=name, subject="", excepted=reason))
    if former is not None:
        result = [
            replace(each, new=bool(each.excepted) and former.get(each.rule) != each.excepted)
            for each in result
        ]
    return tuple(sorted(result, key=lambda each: (bool(each.excepted), not each.new)))


def fails(broken: Iterable[BrokenRule]) -> bool:
    """Return whether a rule is broken that the stack file does not disable."""
    return any(not each.excepted for each in broken)


def _broken(plan: Plan) -> Iterator[BrokenRule]:
    if plan.picture is not None and not plan.destroy:
        yield from _in_picture(plan.picture)
    yield from _all_at_once(plan)
    for workload in plan.workloads if not plan.destroy else ():
        yield from _without_drain(workload)
    yield from _version_skew(plan)
    yield from _kubernetes_version(plan)


def _in_picture(mesh: MeshPicture) -> Iterator[BrokenRule]:
    for workload in mesh.workloads:
        for machine in workload.machines:
            if _is_public(machine.address):
                yield BrokenRule(
                    rule="publicAddress", subject=machine.name, facts=(machine.address,)
                )
    for opening in mesh.openings:
        if opening.kind is OpeningKind.PUBLIC_ADDRESS:
            yield BrokenRule(
                rule="publicAddress",
                subject=opening.name,
                facts=(opening.to or opening.kind.value,),
            )
        elif opening.kind in _OPEN and (opening.world or admits_internet(opening.sources)):
            facts = (*opening.sources, *opening.ports)
            yield BrokenRule(rule="openToWorld", subject=opening.name, facts=facts)
    for workload in mesh.workloads:
        if not workload.strict:
            subject = f"{workload.namespace}/{workload.name}"
            yield BrokenRule(rule="plaintext", subject=subject)
    for opening in mesh.openings:
        if opening.kind is OpeningKind.MUTUAL_TLS and opening.mode in ("PERMISSIVE", "DISABLE"):
            yield BrokenRule(rule="plaintext", subject=opening.name, facts=(opening.mode,))
    if mesh.protected is False:
        yield BrokenRule(rule="deletionProtection", subject=mesh.stack)
    users: dict[str, list[str]] = {}
    for workload in mesh.workloads:
        users.setdefault(workload.identity, []).append(f"{workload.namespace}/{workload.name}")
    for identity, names in users.items():
        if len(names) > 1:
            yield BrokenRule(rule="sharedIdentity", subject=identity, facts=tuple(sorted(names)))


def _is_public(address: str) -> bool:
    try:
        return ip_address(address).is_global
    except ValueError:
        return False  # a name, or not known yet


def admits_internet(cidrs: Iterable[str]) -> bool:
    """Return whether CIDRs admit more than an organisation has: more than a /8 (IPv6: a /16).

    cidrs: texts, taken together; what is no CIDR admits nothing.
    """
    networks = [each for text in cidrs if (each := _network(text))]
    collapsed: list[IPv4Network | IPv6Network] = [
        *collapse_addresses(each for each in networks if isinstance(each, IPv4Network)),
        *collapse_addresses(each for each in networks if isinstance(each, IPv6Network)),
    ]
    return any(
        each.prefixlen < _LARGEST[each.version] and not each.is_private for each in collapsed
    )


def _network(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


def _all_at_once(plan: Plan) -> Iterator[BrokenRule]:
    """Yield workloads that stay and have no endpoint for a while, or none any more."""
    after = {
        (each.namespace, each.name): each
        for each in (plan.picture.workloads if plan.picture else ())
    }
    for workload in plan.workloads:
        if workload.mark is not Mark.CHANGED:
            continue  # a workload that is new, or removed on purpose
        stays = after.get((workload.namespace, workload.name))
        emptied = (
            stays is not None
            and not stays.machines
            and not stays.replicas
            and any(machine.action in _GOES for machine in workload.machines)
        )
        if workload.pause is Pause.ALL or emptied:
            subject = f"{workload.namespace}/{workload.name}"
            yield BrokenRule(rule="allAtOnce", subject=subject)


_GOES = (Action.LEAVES, Action.MOVES)


def _without_drain(workload: WorkloadChange) -> Iterator[BrokenRule]:
    for machine in workload.machines:
        if machine.action in (Action.LEAVES, Action.MOVES, Action.REPLACED) and not machine.drained:
            subject = f"{workload.namespace}/{workload.name}"
            yield BrokenRule(
                rule="leaveWithoutDrain", subject=machine.machine, facts=(subject, machine.network)
            )


def _version_skew(plan: Plan) -> Iterator[BrokenRule]:
    """Yield what Istio does not support: after the update, and while proxies have not restarted."""
    sides = [plan.picture.versions] if plan.picture and not plan.destroy else []
    if plan.versions is not None:
        sides += while_updating(plan.versions.before, plan.versions.after)
    skews = {skew: each for each in reversed(sides) if (skew := skew_of(each)) is not None}
    for skew, versions in skews.items():
        if not 0 <= skew <= MOST_BEHIND:
            shown = {
                "control plane": versions.control_plane,
                "machines": versions.machines,
                "pods": versions.pods,
            }
            facts = tuple(f"{name} {version}" for name, version in shown.items() if version)
            yield BrokenRule(rule="versionSkew", subject=plan.stack, facts=facts)


def _kubernetes_version(plan: Plan) -> Iterator[BrokenRule]:
    """Yield a pair of versions that Istio does not support, as it is after the update."""
    if plan.picture is None or plan.destroy:
        return
    versions = plan.picture.versions
    if supported := unsupported_kubernetes(versions.control_plane, versions.kubernetes):
        facts = (f"Kubernetes {versions.kubernetes}", supported)
        yield BrokenRule(rule="kubernetesVersion", subject=plan.stack, facts=facts)
