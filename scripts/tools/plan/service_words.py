"""The sentences of a plan on Services."""

from __future__ import annotations

from collections.abc import Iterator

from .compare import is_replaced
from .lines import KINDS, Line, full_name, shown
from .mesh_model import ServicePicture
from .model import Plan, ServiceChange
from .phrases import Phrase, counted, joined, phrase
from .service_picture import OUTSIDE


def services(plan: Plan) -> Iterator[Line]:
    for each in plan.services:
        yield Line(text=phrase(f"Service {{}} {KINDS[each.mark]}.", full_name(each)))
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
    return {f"annotation/{fact.key}": shown(fact.value) for fact in each.annotations}


def _callers(each: ServicePicture) -> dict[str, Phrase]:
    return {f"caller/{name}": phrase("may call") for name in each.callers}
