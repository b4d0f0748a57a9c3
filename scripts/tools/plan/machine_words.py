"""The sentences of a plan on workloads and their machines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from .lines import KINDS, Line, full_name, shown
from .machine_changes import STOPS
from .mesh_model import Host
from .model import Action, MachineChange, Pause, Plan, Reason, WorkloadChange
from .phrases import Phrase, counted, joined, listed, phrase
from .resources import INSTANCE

REASONS = {
    "access": "how the cluster is reached",
    "address": "its address",
    "capture": "its setting capture: what bypasses the proxy",
    "canonical": "the labels that name its application",
    "cluster": "another cluster",
    "cluster-id": "the cluster's name in the mesh",
    "confirm-within": "its setting confirmWithin",
    "connect-within": "its setting connectWithin",
    "disk-type": "the type of its disk",
    "fail-closed": "its setting failClosed",
    "firewall": "its setting firewall",
    "forget": "its setting forget",
    "gateway": "the gateway's address",
    "gateway-port": "the gateway's port",
    "grace": "istiod's grace period",
    "group-size": "the least number of machines",
    "host": "the machine itself",
    "image": "its image",
    "join-script": "the script that joins it",
    "labels": "labels",
    "locality": "its locality",
    "machine-files": "scripts and units on the machine",
    "machine-type": "its machine type",
    "max-unavailable": "maxUnavailable",
    "mesh-id": "the mesh's name",
    "name": "its name",
    "network": "its network",
    "out-of-mesh": "its absence from the mesh",
    "package": "Istio's package",
    "ports": "ports",
    "probe": "the probe",
    "proxy": "the proxy's configuration",
    "registered": "what istiod copies at registration",
    "registration": "its registration",
    "role": "the role of its proxy",
    "root-certificate": "the root certificate",
    "root-config-map": "the ConfigMap with the root certificate",
    "rotation": "its setting rotation",
    "service-account": "its service account",
    "setup": "its startup script",
    "ssh": "how it is reached by SSH",
    "strict": "strict mutual TLS",
    "take-over": "its setting takeOver",
    "trust-domain": "the mesh's trust domain",
    "template": "its instance settings",
    "version": "Istio's version",
    "workload": "its workload",
}
"""Words for keys of reasons: those of facts.py, and of machine_changes.py and workload_changes.py.

Another key is shown as it is.
"""


@dataclass(frozen=True)
class _Verbs:
    """What one machine does, and what several do."""

    one: str
    many: str


ACTIONS = {
    Action.LEAVES: _Verbs("leaves the mesh", "leave the mesh"),
    Action.FORGOTTEN: _Verbs("is given up", "are given up"),
    Action.MOVES: _Verbs("moves to another workload", "move to another workload"),
    Action.REPLACED: _Verbs("is replaced by another", "are replaced by others"),
    Action.REGISTERS: _Verbs("restarts and registers again", "restart and register again"),
    Action.RESTARTS: _Verbs("restarts its agent", "restart their agents"),
    Action.REJOINS: _Verbs("runs its join again", "run their joins again"),
    Action.JOINS: _Verbs("joins", "join"),
}
"""What machines do, the most important first."""

_OF_GROUP = {**ACTIONS, Action.REPLACED: _Verbs("replaces all its machines", "")}
"""The same for an instance group, which is one machine in the records."""


def workloads(plan: Plan) -> Iterator[Line]:
    for each in plan.workloads:
        kind = "Network gateway" if each.role == "router" else "Workload"
        yield Line(text=phrase(f"{kind} {{}} {KINDS[each.mark]}.", full_name(each)))
        yield from (Line(text=text, depth=1) for text in _workload(each))


def _workload(each: WorkloadChange) -> Iterator[Phrase]:
    groups: dict[MachineChange, list[MachineChange]] = {}
    for machine in each.machines:
        groups.setdefault(_kind(machine), []).append(machine)
    order = list(ACTIONS)
    for kind in sorted(groups, key=lambda kind: order.index(kind.action)):
        yield _machines_of_kind(kind, groups[kind])
    if each.waves:
        yield phrase(
            "At most {} stopped at once, in {}: about {} in all.",
            phrase(f"{{}} {'is' if each.at_once == 1 else 'are'}", counted(each.at_once, "agent")),
            counted(each.waves, "wave"),
            _duration(each.seconds),
        )
    if each.pause is Pause.ALL:
        yield phrase("It has no endpoint for a while.")
    elif each.pause is Pause.MACHINES:
        yield phrase("None of its machines answers for a while; its pods do.")
    if pods := each.pods:
        if pods.before != pods.after:
            yield phrase("Pods: {} → {}.", _replicas(pods.before), _replicas(pods.after))
        if pods.replaced:
            yield phrase("All its pods are replaced, one after another.")
    for setting in each.settings:
        yield phrase("Setting {}.", _reason(setting))


def startup_scripts(plan: Plan) -> Iterator[Line]:
    """Yield the machines on Compute Engine that get another startup script, and stay."""
    for each in plan.operations:
        changed = "metadata.startup-script" in each.keys
        if each.type == INSTANCE and each.op == "update" and changed:
            text = "Machine {} gets another startup script, and runs it when it starts again."
            yield Line(text=phrase(text, each.parent))


def _kind(each: MachineChange) -> MachineChange:
    """Return a change without what only one machine has, so that machines of a kind are equal."""
    reasons = tuple(
        Reason(key=reason.key) if reason.key in _ONE_EACH else reason for reason in _causes(each)
    )
    name = each.machine if each.host is Host.GROUP else ""
    return replace(each, machine=name, reasons=reasons)


def _causes(each: MachineChange) -> tuple[Reason, ...]:
    """Return the reasons of a change, without those that follow from others."""
    causes = tuple(reason for reason in each.reasons if reason.key not in _DERIVED)
    return causes or each.reasons


_DERIVED = frozenset({"canonical", "registered", "template"})
"""Reasons that follow from others, where there are others."""

_ONE_EACH = frozenset({"address", "name"})
"""Reasons whose values differ from machine to machine."""


def _machines_of_kind(kind: MachineChange, machines: Sequence[MachineChange]) -> Phrase:
    one = len(machines) == 1
    if kind.host is Host.GROUP:
        size = phrase("at least {}", counted(kind.count, "machine"))
        who, names, verbs = phrase("Instance group {}, {},", kind.machine, size), None, _OF_GROUP
    else:
        who = counted(len(machines), "machine")
        names, verbs = listed([machine.machine for machine in machines]), ACTIONS
    verb = verbs[kind.action].one if one else verbs[kind.action].many
    text = phrase(f"{{}} in network {{}} {verb}", who, kind.network)
    if names:
        text = phrase("{}: {}", text, names)
    if kind.before:
        text = phrase("{}, until now {}", text, kind.before)
    if kind.other:
        way = "to" if kind.action is Action.MOVES else "from"
        text = phrase(f"{{}}, {way} workload {{}}", text, kind.other)
    if reasons := _causes(machines[0]) if one else kind.reasons:
        text = phrase("{}, because of {}", text, joined(map(_reason, reasons)))
    return phrase("{}.{}", text, phrase("".join(_consequences(kind, one=one))))


def _consequences(kind: MachineChange, *, one: bool) -> Iterator[str]:
    """Yield further sentences on machines of a kind, each with a space before it."""
    it, is_, ones = ("It", "is", "one") if one else ("They", "are", "ones")
    group = kind.host is Host.GROUP
    match kind.action:
        case Action.LEAVES:
            yield f" {it} {is_} drained first." if kind.drained else f" {it} {is_} not drained."
            if kind.deleted:
                itself = "The machine itself is" if one else "The machines themselves are"
                yield " Its machines are deleted." if group else f" {itself} deleted."
        case Action.REPLACED if group:
            yield " It replaces a few at a time, and new ones join first."
        case Action.REPLACED:
            drained = "drained and " if kind.drained else "not drained, and "
            yield (
                f" The former {ones} {is_} {drained}deleted first."
                if kind.deleted
                else (f" The former {ones} {'leaves' if one else 'leave'} afterwards.")
            )
        case Action.RESTARTS if any(reason.key in STOPS for reason in kind.reasons):
            machines = "The machine itself stops" if one else "The machines themselves stop"
            yield f" {machines} and start{'s' if one else ''} again."
        case Action.REJOINS:
            yield " The join stops an agent only where the machine differs."
        case Action.FORGOTTEN:
            yield f" Nothing connects to {'it' if one else 'them'} any more."
    if not kind.certain:
        does, it = ("does", "the machine") if one else ("do", "the machines")
        yield f" Whether {'it' if one else 'they'} {does} depends on {it}."


def _reason(each: Reason) -> Phrase:
    word = phrase(REASONS[each.key]) if each.key in REASONS else phrase("{}", each.key)
    if each.before or each.after:
        return phrase("{} ({} → {})", word, shown(each.before), shown(each.after))
    return word


def _replicas(number: int | None) -> Phrase:
    return phrase("none") if number is None else phrase("{}", number)


def _duration(seconds: int) -> Phrase:
    if seconds < 120:
        return counted(seconds, "second")
    return counted(round(seconds / 60), "minute")
