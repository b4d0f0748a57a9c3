"""The sentences of a plan, from its records: the same for terminals and for Markdown.

The order is that of importance: a renderer that must cut a plan cuts from the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from .compare import STOPS, Effects, is_replaced, lost_ports
from .model import (
    Action,
    BrokenRule,
    Host,
    IdentityChange,
    Level,
    LiveKind,
    MachineChange,
    Mark,
    Opening,
    OpeningChange,
    OpeningKind,
    Operation,
    Path,
    PathChange,
    Pause,
    Plan,
    ProgramChange,
    Reason,
    ServiceChange,
    ServicePicture,
    Verdict,
    WorkloadChange,
)
from .phrases import Phrase, counted, joined, listed, long_text, phrase
from .picture import OUTSIDE
from .resources import CLUSTER, INSTANCE, RELEASE

REASONS = {
    "access": "how the cluster is reached",
    "address": "its address",
    "capture": "its setting capture: what bypasses the proxy",
    "canonical": "the labels that name its application",
    "cluster": "another cluster",
    "cluster-id": "the cluster's name in the mesh",
    "confirm-within": "its setting confirmWithin",
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
"""Words for keys of reasons (facts.py, compare.py); another key is shown as it is."""

OPERATIONS = {
    "create": "created",
    "update": "updated",
    "replace": "replaced",
    "delete": "deleted",
    "retain": "left in place",
    "read": "read",
    "import": "imported",
}
"""Words for operations, in the order in which they are counted."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A sentence of a section. depth: 0, or 1 for what belongs to the line above it."""

    text: Phrase
    depth: int = 0


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a plan. title: trusted. folded: whether it is read on demand alone."""

    title: str
    lines: tuple[Line, ...]
    folded: bool = False


def verdict(plan: Plan) -> Phrase:
    """Return what the update does in one line."""
    match plan.verdict:
        case Verdict.NOTHING:
            return phrase("Nothing: no resource changes.")
        case Verdict.SAFE:
            text = "Safe: all workloads keep endpoints, and no Service or port is removed."
            unread = " The effect of changed values of Istio's charts is not computed."
            return phrase(text + (unread if any(_chart_values(plan)) else ""))
        case Verdict.PROGRAM if plan.error and plan.error.kind == "base":
            return phrase("Program: the base cannot be read, so the changes are unknown.")
        case Verdict.PROGRAM if any(each.what == "unknown" for each in plan.program):
            return phrase(
                "Program: the program of the base cannot run here, so the changes are unknown."
            )
        case Verdict.PROGRAM:
            return phrase(
                "Program: scripts, units or defaults for machines differ, so machines may restart."
            )
        case Verdict.PAUSES:
            return phrase("Pauses: {}.", joined(_pausing(plan), "; "))
        case Verdict.LEAVES:
            return phrase("Leaves: {}.", joined(_leaving(plan), "; "))
        case Verdict.REFUSED:
            return _refused(plan)


def _pausing(plan: Plan) -> Iterator[Phrase]:
    """Yield what clients cannot reach for a while: workloads and Services."""
    names = [_full_name(each) for each in plan.workloads if each.pause is Pause.ALL]
    services = [_full_name(each) for each in plan.services if is_replaced(each)]
    if Effects.of(plan.operations).cluster:
        have = _have(names, "a workload has")
        yield phrase("the cluster is recreated: {} no endpoint for long", have)
    elif names or not services:
        yield phrase("{} no endpoint for a while", _have(names, "a workload has"))
    if services:
        noun, verb = ("Service", "is") if len(services) == 1 else ("Services", "are")
        yield phrase(f"{noun} {{}} {verb} replaced", listed(services))


def _leaving(plan: Plan) -> Iterator[Phrase]:
    """Yield what leaves for good: machines, workloads, Services, ports of Services."""
    leaving = [each for each in _machines(plan) if each.action is Action.LEAVES]
    if leaving:
        number = sum(each.count for each in leaving)
        verb = "leaves" if number == 1 else "leave"
        names = listed([each.machine for each in leaving])
        yield phrase(f"{{}} {verb} the mesh: {{}}", counted(number, "machine"), names)
    if workloads := [_full_name(each) for each in plan.workloads if each.mark is Mark.REMOVED]:
        yield phrase("{}: {}", _gone(len(workloads), "workload"), listed(workloads))
    gone = [each for each in plan.services if each.mark is Mark.REMOVED]
    if services := [_full_name(each) for each in gone if each.before and not each.before.existing]:
        yield phrase("{}: {}", _gone(len(services), "Service"), listed(services))
    for service in plan.services:
        lost = [str(port) for port in lost_ports(service)]
        if lost and service.after:
            name = _full_name(service)
            yield phrase("Service {} loses {}", name, phrase("port {}", listed(lost)))


def _gone(number: int, noun: str) -> Phrase:
    return phrase(f"{{}} {'is' if number == 1 else 'are'} removed", counted(number, noun))


def _refused(plan: Plan) -> Phrase:
    match plan.error.kind if plan.error else "":
        case "settings":
            return phrase("Refused: the stack file has problems.")
        case "preview":
            return phrase("Refused: the preview failed.")
        case _:
            return phrase("Refused: the update fails before it changes anything.")


def _have(names: Sequence[str], without: str) -> Phrase:
    if not names:
        return phrase(without)
    verb = "has" if len(names) == 1 else "have"
    return phrase(f"{{}} {verb}", listed(names))


def summary(plan: Plan) -> Phrase:
    """Return the numbers of machines and resources that change, or an empty phrase."""
    counts = []
    for action, words in _ACTIONS.items():
        number = sum(each.count for each in _machines(plan) if each.action is action)
        if number:
            verb = words.one if number == 1 else words.many
            counts.append(phrase(f"{{}} {verb}", counted(number, "machine")))
    resources = operations(plan.operations)
    if resources:
        counts.append(phrase("resources: {}", resources))
    return phrase("{}.", joined(counts, "; ")) if counts else phrase("")


def operations(changes: Sequence[Operation]) -> Phrase:
    """Return how many resources each operation has: "3 created, 1 deleted, 2 may be updated"."""
    words = [_operation_word(each) for each in changes]
    order = (*OPERATIONS.values(), *(f"may be {word}" for word in OPERATIONS.values()))
    parts = [phrase(f"{{}} {word}", words.count(word)) for word in order if word in words]
    others = sum(word not in order for word in words)
    return joined([*parts, *([phrase("{} others", others)] if others else [])])


def _operation_word(each: Operation) -> str:
    """Return the word for an operation, "" where there is none."""
    word = OPERATIONS.get(each.op, "")
    return word if each.certain or not word else f"may be {word}"


_LEVELS = {
    Level.FILES: "Level files: the stack file and the program at two commits. State, cluster and "
    "clouds were not read, so the plan lacks what earlier updates did not complete.",
    Level.STATE: "Level state: a preview against the stack's state. Changes by hand are seen only "
    "where the program reads the cluster.",
    Level.LIVE: "Level live: a preview against the stack's state, and the mesh as it is.",
}


def origin(plan: Plan) -> tuple[Phrase, ...]:
    """Return what the plan was computed from, and why not from more."""
    lines = [phrase(_LEVELS[plan.level])]
    if plan.base or plan.head:
        base, head = plan.base[:12] or "none", plan.head[:12] or "this tree"
        changes = " and what is not committed" if plan.head.endswith("+") else ""
        lines.append(phrase(f"Compared: {{}} with {{}}{changes}.", base, head))
    for each in plan.degraded:
        # A higher level has all of the lower one but what differs in the program.
        below = plan.level is not Level.FILES and each.level is Level.FILES
        text = "The program was not" if below else f"Level {each.level.value} is not available"
        lines.append(phrase(f"{text}{' compared' if below else ''}: {{}}", long_text(each.reason)))
    return tuple(lines)


def sections(plan: Plan) -> tuple[Section, ...]:
    """Return the sections between a plan's verdict and its picture, without empty sections."""
    parts = {
        "Cause": _error(plan),
        "What fails": _protected(plan),
        "Workloads": [*_workloads(plan), *_startup_scripts(plan)],
        "Services": _services(plan),
        "Identities": map(_identity, plan.identities),
        "Paths between networks": map(_path, plan.paths),
        "What opens or closes": map(_opening, plan.openings),
        "Istio's charts": _chart_values(plan),
        "Versions": _versions(plan),
        "Cost": _cost(plan),
        "Verification": _verification(plan),
        "The program": map(_program, plan.program),
        "The mesh as it is": _live(plan),
    }
    all_ = (Section(title=title, lines=tuple(lines)) for title, lines in parts.items())
    return tuple(each for each in all_ if each.lines)


def _protected(plan: Plan) -> Iterator[Line]:
    """Yield a line where Google Cloud refuses to delete the cluster, as the state has it."""
    is_protected = bool(plan.former and plan.former.protected)
    for each in plan.operations:
        if is_protected and each.type == CLUSTER and each.op in ("replace", "delete"):
            text = "Google Cloud refuses to delete {}: set {} to false in an earlier update."
            yield Line(text=phrase(text, each.name, "cluster.deletionProtection"))
            if plan.destroy:
                yield Line(text=phrase("Machines and workloads are gone by then."))


def broken_rules(plan: Plan) -> Section:
    """Return the rules that the update breaks. It stands before the verdict."""
    broken = [each for each in plan.broken if not each.excepted]
    title = "1 rule is broken" if len(broken) == 1 else f"{len(broken)} rules are broken"
    return Section(title=title, lines=tuple(Line(text=rule(each)) for each in broken))


def newly_disabled_rules(plan: Plan) -> Section:
    """Return the rules that the change itself disables. They stand before the verdict too."""
    new = {each.rule: each.excepted for each in plan.broken if each.new}
    title = f"This change disables {'1 rule' if len(new) == 1 else f'{len(new)} rules'}"
    return Section(title=title, lines=tuple(_disabled(plan, new)))


def disabled_rules(plan: Plan) -> Section:
    """Return the rules that do not hold for the stack, before and after, with their reasons."""
    old = {each.rule: each.excepted for each in plan.broken if each.excepted and not each.new}
    return Section(title="Rules that the stack file disables", lines=tuple(_disabled(plan, old)))


def _disabled(plan: Plan, reasons: Mapping[str, str]) -> Iterator[Line]:
    for key, reason in reasons.items():
        yield Line(text=phrase("{}: {}", key, long_text(reason)))
        excepted = [each for each in plan.broken if each.rule == key and each.excepted]
        yield from (Line(text=rule(each), depth=1) for each in excepted if each.subject)


def rule(broken: BrokenRule) -> Phrase:
    """Return what breaks a rule, and the fix."""
    subject, facts = broken.subject, listed(broken.facts)
    match broken.rule:
        case "publicAddress":
            return phrase("{} has a public address ({}): give it a private one.", subject, facts)
        case "openToWorld":
            return phrase("{} admits the internet ({}): admit the clients' CIDRs.", subject, facts)
        case "plaintext":
            return phrase(
                "{} accepts plaintext by what this stack declares: have the mesh or the namespace "
                "require mutual TLS (STRICT).",
                subject,
            )
        case "deletionProtection":
            return phrase(
                "The cluster of {} can be deleted by an update: set {} to true.",
                subject,
                "cluster.deletionProtection",
            )
        case "allAtOnce":
            return phrase(
                "{} has no endpoint for a while: add a machine or pods, lower {}, or change its "
                "machines in two updates.",
                subject,
                "maxUnavailable",
            )
        case "leaveWithoutDrain":
            return phrase("{} ({}) leaves without a drain: its open requests fail.", subject, facts)
        case "versionSkew":
            return phrase(
                "Proxies and control plane have versions that Istio does not support together "
                "({}): give proxies the control plane's minor version or the one before.",
                facts,
            )
        case "kubernetesVersion":
            return phrase(
                "Istio runs on a version of Kubernetes that it does not support ({}): upgrade "
                "Istio, or the cluster.",
                facts,
            )
        case "sharedIdentity":
            return phrase(
                "{} is the identity of {}: give each a service account of its own.",
                long_text(subject),
                facts,
            )
        case _:
            return phrase("Rule {}: {} ({}).", broken.rule, subject, facts)


# Workloads


@dataclass(frozen=True)
class _Verbs:
    """What one machine does, and what several do."""

    one: str
    many: str


_ACTIONS = {
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

_OF_GROUP = {**_ACTIONS, Action.REPLACED: _Verbs("replaces all its machines", "")}
"""The same for an instance group, which is one machine in the records."""

_KINDS = {
    Mark.ADDED: "is added",
    Mark.REMOVED: "is removed",
    Mark.CHANGED: "changes",
    Mark.SAME: "stays",
}


def _machines(plan: Plan) -> Iterator[MachineChange]:
    for workload in plan.workloads:
        yield from workload.machines


def _full_name(each: WorkloadChange | ServiceChange) -> str:
    return f"{each.namespace}/{each.name}"


def _workloads(plan: Plan) -> Iterator[Line]:
    for each in plan.workloads:
        kind = "Network gateway" if each.role == "router" else "Workload"
        yield Line(text=phrase(f"{kind} {{}} {_KINDS[each.mark]}.", _full_name(each)))
        yield from (Line(text=text, depth=1) for text in _workload(each))


def _workload(each: WorkloadChange) -> Iterator[Phrase]:
    groups: dict[MachineChange, list[MachineChange]] = {}
    for machine in each.machines:
        groups.setdefault(_kind(machine), []).append(machine)
    order = list(_ACTIONS)
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


def _startup_scripts(plan: Plan) -> Iterator[Line]:
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
        names, verbs = listed([machine.machine for machine in machines]), _ACTIONS
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
        return phrase("{} ({} → {})", word, _text(each.before), _text(each.after))
    return word


def _text(text: str) -> Phrase:
    return phrase("{}", text) if text else phrase("none")


def _replicas(number: int | None) -> Phrase:
    return phrase("none") if number is None else phrase("{}", number)


def _duration(seconds: int) -> Phrase:
    if seconds < 120:
        return counted(seconds, "second")
    return counted(round(seconds / 60), "minute")


# Services


def _services(plan: Plan) -> Iterator[Line]:
    for each in plan.services:
        yield Line(text=phrase(f"Service {{}} {_KINDS[each.mark]}.", _full_name(each)))
        yield from (Line(text=text, depth=1) for text in _service(each))


def _service(each: ServiceChange) -> Iterator[Phrase]:
    before, after = each.before, each.after
    yield from _ownership(before, after)
    if is_replaced(each):
        yield phrase("It is deleted and created again, because its cluster IP comes or goes.")
    if after and after.headless and not (before and before.headless):
        yield phrase("It is headless: the cluster's DNS gives clients its pods alone.")
    # What others set of a Service is not known in a plan of files.
    sides = [side for side in (before, after) if side]
    of_others = any(side.existing for side in sides)
    ports = (_ports,) if not of_others or all(side.ports for side in sides) else ()
    for of in (_endpoints, *ports, _callers, *(() if of_others else (_annotations,))):
        old, new = (of(side) if side else {} for side in (before, after))
        for name in sorted({*old, *new}):
            if old.get(name) != new.get(name):
                yield _change(name, old.get(name), new.get(name))


def _ownership(before: ServicePicture | None, after: ServicePicture | None) -> Iterator[Phrase]:
    """Yield what becomes of a Service of others, and of one that is given to others."""
    if after and after.existing and not (before and before.existing):
        yield phrase(
            "It belongs to others: the update uses it, and neither changes nor deletes it."
        )
    elif before and before.existing and not after:
        yield phrase("It belongs to others, so it stays in the cluster.")
    elif before and before.existing and after and not after.existing:
        yield phrase("It belonged to others. The program owns it from now on.")


def _change(name: str, before: Phrase | None, after: Phrase | None) -> Phrase:
    """Return how a part of a Service changes. name: after its kind and a slash, untrusted."""
    kind, _, rest = name.partition("/")
    old, new = before or phrase("none"), after or phrase("none")
    of = {
        "endpoints": phrase("Endpoints in network {}", rest),
        "port": phrase("Port {}", rest),
        "annotation": phrase("Annotation {}", rest),
        "caller": phrase("Clients outside of the mesh, in plaintext")
        if rest == OUTSIDE
        else phrase("Clients in network {}", rest),
    }[kind]
    return phrase("{}: {} → {}.", of, old, new)


def _endpoints(each: ServicePicture) -> dict[str, Phrase]:
    counts = {
        where.network: [
            counted(number, noun)
            for number, noun in ((where.pods, "pod"), (where.machines, "machine"))
            if number
        ]
        for where in each.endpoints
    }
    return {f"endpoints/{network}": joined(parts) for network, parts in counts.items() if parts}


def _ports(each: ServicePicture) -> dict[str, Phrase]:
    return {
        f"port/{port.name}": phrase(
            f"{port.port:d} to {port.target:d} of the endpoints{{}}",
            phrase(" as {}", port.protocol) if port.protocol else phrase(""),
        )
        for port in each.ports
    }


def _annotations(each: ServicePicture) -> dict[str, Phrase]:
    return {f"annotation/{fact.key}": _text(fact.value) for fact in each.annotations}


def _callers(each: ServicePicture) -> dict[str, Phrase]:
    return {f"caller/{name}": phrase("may call") for name in each.callers}


# The mesh


def _identity(each: IdentityChange) -> Line:
    name, before, after = long_text(each.identity), listed(each.before), listed(each.after)
    match each.mark:
        case Mark.ADDED:
            return Line(text=phrase("{} is added: {}.", name, after))
        case Mark.REMOVED:
            return Line(text=phrase("{} is removed: {}.", name, before))
        case _:
            return Line(text=phrase("{} changes: {} → {}.", name, before, after))


_PATHS = {Path.DIRECT: "direct", Path.GATEWAY: "through a gateway", Path.NONE: "no path"}


def _path(each: PathChange) -> Line:
    before = _PATHS[each.before] if each.before else "no such networks"
    after = _PATHS[each.after] if each.after else "no such networks"
    text = phrase(f"From network {{}} to {{}}: {before} → {after}.", each.source, each.target)
    # Its machines came to the network; the path of the networks is what it was.
    return Line(text=phrase("Workload {}. {}", each.workload, text) if each.workload else text)


_OPENINGS = {
    OpeningKind.FIREWALL: "Firewall rule",
    OpeningKind.LOAD_BALANCER: "Load balancer",
    OpeningKind.PUBLIC_ADDRESS: "Public address",
    OpeningKind.GATEWAY: "Gateway",
}


def _opening(each: OpeningChange) -> Line:
    if each.kind is OpeningKind.MUTUAL_TLS:
        before, after = (_mode_of(side) for side in (each.before, each.after))
        return Line(text=phrase("Mutual TLS of {}: {} → {}.", each.name, before, after))
    name = phrase(f"{_OPENINGS[each.kind]} {{}}", each.name)
    if each.before and each.after:
        before, after = _admitted(each.before), _admitted(each.after)
        return Line(text=phrase("{} changes: {} → {}.", name, before, after))
    if each.after:
        return Line(text=phrase("{} opens: {}.", name, _admitted(each.after)))
    return Line(
        text=phrase(
            "{} closes: {}.",
            name,
            _admitted(each.before or Opening(kind=each.kind, name=each.name)),
        )
    )


def _mode_of(each: Opening | None) -> Phrase:
    return phrase("{}", each.mode) if each and each.mode else phrase("as the mesh has it")


def _admitted(each: Opening) -> Phrase:
    """Return what an opening lets in."""
    is_internal = each.kind is OpeningKind.LOAD_BALANCER and each.mode == "internal"
    any_source = "addresses of its networks" if is_internal else "any source"
    parts = [listed(each.sources) if each.sources else phrase(any_source)]
    if each.to:
        parts.append(phrase("to {}", each.to))
    if each.ports:
        parts.append(phrase("on {}", listed(each.ports)))
    if each.world:
        parts.append(phrase("that is the whole internet"))
    elif each.kind is OpeningKind.LOAD_BALANCER and each.sources != ("nodes",):
        place = "at an internal address" if is_internal else "at an address that may be public"
        parts.append(phrase(place))
    return joined(parts)


_READ_VALUES = ("values.global.tag", "values.service")
"""Values of charts of which other sections say what they do: the version, and what is opened."""


def _chart_values(plan: Plan) -> Iterator[Line]:
    """Yield the charts whose other values change: MeshConfig, resources, replicas, and so on."""
    for each in plan.operations:
        keys = [key for key in each.keys if key.startswith("values.")]
        keys = [key for key in keys if not key.startswith(_READ_VALUES)]
        if each.type == RELEASE and each.op == "update" and keys:
            text = "Release {} gets other values, and its pods may be replaced: {}."
            yield Line(text=phrase(text, each.name, listed(keys)))


def _versions(plan: Plan) -> Iterator[Line]:
    if plan.versions is None:
        return
    before, after = plan.versions.before, plan.versions.after
    names = ("control_plane", "Control plane"), ("machines", "Proxies of machines")
    for field, words in (*names, ("pods", "Proxies of new pods"), ("kubernetes", "Kubernetes")):
        old, new = getattr(before, field), getattr(after, field)
        is_read = field != "kubernetes" or (old and new)
        if old != new and is_read:
            yield Line(text=phrase(f"{words}: {{}} → {{}}.", _text(old), _text(new)))
    match plan.versions.skew:
        case None:
            yield Line(text=phrase("Skew: unknown, because a version is unknown."))
        case 0:
            yield Line(text=phrase("Skew: proxies have the control plane's minor version."))
        case int(skew) if skew > 0:
            text = "Skew: proxies are up to {} behind the control plane."
            yield Line(text=phrase(text, counted(skew, "minor version")))
        case int(skew):
            text = "Skew: proxies are up to {} ahead of the control plane."
            yield Line(text=phrase(text, counted(-skew, "minor version")))


def _cost(plan: Plan) -> Iterator[Line]:
    if (cost := plan.cost) is None:
        return
    start = _dollars(cost.before, cost.after, bool(cost.unpriced))
    if cost.unpriced:
        unpriced = listed(cost.unpriced)
        yield Line(text=phrase("{} without {}, whose prices are unknown.", start, unpriced))
    elif cost.before != cost.after:
        yield Line(text=phrase("{}, at list prices, as the stack starts.", start))
    if (cost.most_before, cost.most_after) != (cost.before, cost.after):
        most = _dollars(cost.most_before, cost.most_after, bool(cost.unpriced))
        text = "At most {}, with all nodes and machines that autoscalers may add."
        yield Line(text=phrase(text, most))


def _dollars(before: float, after: float, without_difference: bool) -> Phrase:
    """Return two monthly costs. The difference is that of the numbers shown."""
    old, new = round(before), round(after)
    text = phrase("US$ {} → {} a month", old, new)
    if without_difference:
        return text
    sign, number = "+" if after > before else "-", abs(new - old)
    less = "by less than 1" if before != after else "as before"
    difference = phrase(f"{sign}{{}}", number) if number else phrase(less)
    return phrase("{} ({})", text, difference)


_MODES = {
    "fail": "a failure fails the update",
    "warn": "a failure is a warning",
    "some": "a failure fails the update, or is a warning",
    "none": "verification does not run",
}


def _verification(plan: Plan) -> Iterator[Line]:
    if (each := plan.verification) is None:
        return
    if each.before != each.after:
        before, after = _mode(each.before), _mode(each.after)
        yield Line(text=phrase("Mode: {} → {}.", before, after))
    if each.after == "none":
        yield Line(text=phrase("The update verifies nothing."))
    elif each.runs:
        text = "The update verifies {}; {}."
        yield Line(text=phrase(text, listed(each.runs), _mode(each.after)))
    if each.warned:
        yield Line(text=phrase("A failure of {} is a warning.", listed(each.warned)))
    if each.may_run and each.after != "none":
        text = "It also verifies {} if values that are still unknown change."
        yield Line(text=phrase(text, listed(each.may_run)))


def _mode(mode: str) -> Phrase:
    return phrase(_MODES[mode]) if mode in _MODES else _text(mode)


_FILES = {
    "machine-files": "File on machines",
    "join": "File of joins",
    "program": "File of the program",
    "local-file": "Local file",
}


def _program(each: ProgramChange) -> Line:
    if each.what == "unknown":
        return Line(text=phrase("The base cannot run here, so its differences are unknown."))
    if each.what == "default":
        before, after = _text(each.before), _text(each.after)
        return Line(text=phrase("Default of {}: {} → {}.", each.name, before, after))
    kind = _FILES.get(each.what, "File")
    return Line(text=phrase(f"{kind}: {{}} {_KINDS[each.mark]}.", each.name))


_LIVE = {
    LiveKind.DRIFT: "Drift",
    LiveKind.UNHEALTHY: "Unhealthy",
    LiveKind.CERTIFICATE: "Certificate",
}


def _live(plan: Plan) -> Iterator[Line]:
    for each in plan.live:
        yield Line(
            text=phrase(f"{_LIVE[each.kind]}: {{}}: {{}}", each.subject, long_text(each.text))
        )


def _error(plan: Plan) -> Iterator[Line]:
    for line in plan.error.lines if plan.error else ():
        yield Line(text=long_text(line.strip()))


# Resources


def destroyed(plan: Plan) -> tuple[Line, ...]:
    """Return each resource whose deletion or replacement a user would miss."""
    return tuple(_operation(each) for each in plan.operations if each.destructive)


def resources(plan: Plan) -> tuple[Line, ...]:
    """Return every resource that changes, by operation; deletions first."""
    order = ("delete", "replace", "retain", "update", "create")
    rank = {op: index for index, op in enumerate(order)}
    changes = sorted(plan.operations, key=lambda each: rank.get(each.op, len(rank)))
    return tuple(map(_operation, changes))


def _operation(each: Operation) -> Line:
    trusted = _operation_word(each)
    word = phrase(trusted) if trusted else phrase("{}", each.op)
    text = phrase("{} {}: {}", each.name, phrase("({})", each.type), word)
    if each.keys:
        text = phrase("{}, {} changed", text, listed(each.keys))
    if each.why:
        text = phrase("{}, because of {}", text, listed(each.why))
    return Line(text=text)


def diff(plan: Plan) -> tuple[str, ...]:
    """Return the lines of all differences, not trusted: each resource, then its properties."""
    lines = []
    for each in plan.operations:
        if each.diff:
            lines += [
                f"{each.op} {each.type} {each.name}",
                *(f"  {line}" for line in each.diff.splitlines()),
            ]
    return tuple(lines)
