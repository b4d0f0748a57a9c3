"""The sentences of a plan, from its records: the same for terminals and for Markdown.

The order is that of importance: a renderer that must cut a plan cuts from the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from . import machine_words, mesh_words, service_words
from .compare import is_replaced, lost_ports
from .effects import Effects
from .lines import Line, Section, all_machines, full_name
from .model import Action, Level, Mark, Operation, Pause, Plan, Verdict
from .phrases import Phrase, counted, joined, listed, long_text, phrase
from .resources import CLUSTER

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


def verdict(plan: Plan) -> Phrase:
    """Return what the update does in one line."""
    match plan.verdict:
        case Verdict.NOTHING:
            return phrase("Nothing: no resource changes.")
        case Verdict.SAFE:
            text = "Safe: all workloads keep endpoints, and no Service or port is removed."
            unread = " The effect of changed values of Istio's charts is not computed."
            return phrase(text + (unread if any(mesh_words.chart_values(plan)) else ""))
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
    names = [full_name(each) for each in plan.workloads if each.pause is Pause.ALL]
    services = [full_name(each) for each in plan.services if is_replaced(each)]
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
    leaving = [each for each in all_machines(plan) if each.action is Action.LEAVES]
    if leaving:
        number = sum(each.count for each in leaving)
        verb = "leaves" if number == 1 else "leave"
        names = listed([each.machine for each in leaving])
        yield phrase(f"{{}} {verb} the mesh: {{}}", counted(number, "machine"), names)
    if workloads := [full_name(each) for each in plan.workloads if each.mark is Mark.REMOVED]:
        yield phrase("{}: {}", _gone(len(workloads), "workload"), listed(workloads))
    gone = [each for each in plan.services if each.mark is Mark.REMOVED]
    if services := [full_name(each) for each in gone if each.before and not each.before.existing]:
        yield phrase("{}: {}", _gone(len(services), "Service"), listed(services))
    for service in plan.services:
        lost = [str(port) for port in lost_ports(service)]
        if lost and service.after:
            name = full_name(service)
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
    for action, words in machine_words.ACTIONS.items():
        number = sum(each.count for each in all_machines(plan) if each.action is action)
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
        "Workloads": [*machine_words.workloads(plan), *machine_words.startup_scripts(plan)],
        "Services": service_words.services(plan),
        "Identities": map(mesh_words.identity, plan.identities),
        "Paths between networks": map(mesh_words.path, plan.paths),
        "What opens or closes": map(mesh_words.opening, plan.openings),
        "Istio's charts": mesh_words.chart_values(plan),
        "Versions": mesh_words.versions(plan),
        "Cost": mesh_words.cost(plan),
        "Verification": mesh_words.verification(plan),
        "The program": map(mesh_words.program, plan.program),
        "The mesh as it is": mesh_words.live(plan),
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
