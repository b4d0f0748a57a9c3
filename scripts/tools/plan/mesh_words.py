"""The sentences of a plan on identities, paths, openings, versions, cost and verification."""

from __future__ import annotations

from collections.abc import Iterator

from .lines import KINDS, Line, shown
from .mesh_model import Opening, OpeningKind, Path
from .model import IdentityChange, LiveKind, Mark, OpeningChange, PathChange, Plan, ProgramChange
from .phrases import Phrase, counted, joined, listed, long_text, phrase
from .resources import RELEASE


def identity(each: IdentityChange) -> Line:
    name, before, after = long_text(each.identity), listed(each.before), listed(each.after)
    match each.mark:
        case Mark.ADDED:
            return Line(text=phrase("{} is added: {}.", name, after))
        case Mark.REMOVED:
            return Line(text=phrase("{} is removed: {}.", name, before))
        case _:
            return Line(text=phrase("{} changes: {} → {}.", name, before, after))


_PATHS = {Path.DIRECT: "direct", Path.GATEWAY: "through a gateway", Path.NONE: "no path"}


def path(each: PathChange) -> Line:
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


def opening(each: OpeningChange) -> Line:
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


def chart_values(plan: Plan) -> Iterator[Line]:
    """Yield the charts whose other values change: MeshConfig, resources, replicas, and so on."""
    for each in plan.operations:
        keys = [key for key in each.keys if key.startswith("values.")]
        keys = [key for key in keys if not key.startswith(_READ_VALUES)]
        if each.type == RELEASE and each.op == "update" and keys:
            text = "Release {} gets other values, and its pods may be replaced: {}."
            yield Line(text=phrase(text, each.name, listed(keys)))


def versions(plan: Plan) -> Iterator[Line]:
    if plan.versions is None:
        return
    before, after = plan.versions.before, plan.versions.after
    names = ("control_plane", "Control plane"), ("machines", "Proxies of machines")
    for field, words in (*names, ("pods", "Proxies of new pods"), ("kubernetes", "Kubernetes")):
        old, new = getattr(before, field), getattr(after, field)
        is_read = field != "kubernetes" or (old and new)
        if old != new and is_read:
            yield Line(text=phrase(f"{words}: {{}} → {{}}.", shown(old), shown(new)))
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


def cost(plan: Plan) -> Iterator[Line]:
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


def verification(plan: Plan) -> Iterator[Line]:
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
    return phrase(_MODES[mode]) if mode in _MODES else shown(mode)


_FILES = {
    "machine-files": "File on machines",
    "join": "File of joins",
    "program": "File of the program",
    "local-file": "Local file",
}


def program(each: ProgramChange) -> Line:
    if each.what == "unknown":
        return Line(text=phrase("The base cannot run here, so its differences are unknown."))
    if each.what == "default":
        before, after = shown(each.before), shown(each.after)
        return Line(text=phrase("Default of {}: {} → {}.", each.name, before, after))
    kind = _FILES.get(each.what, "File")
    return Line(text=phrase(f"{kind}: {{}} {KINDS[each.mark]}.", each.name))


_LIVE = {
    LiveKind.DRIFT: "Drift",
    LiveKind.UNHEALTHY: "Unhealthy",
    LiveKind.CERTIFICATE: "Certificate",
}


def live(plan: Plan) -> Iterator[Line]:
    for each in plan.live:
        yield Line(
            text=phrase(f"{_LIVE[each.kind]}: {{}}: {{}}", each.subject, long_text(each.text))
        )
