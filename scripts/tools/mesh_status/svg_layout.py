"""Where everything of the drawing goes: boxes, cards and edges with coordinates, from the mesh alone, so that the same mesh gives the same drawing.

It has three columns: the cluster (or another network's gateways), the workloads, the machines. A
call goes from its caller to the workload that it called, and from there to what answered. So there
are as many edges as callers and endpoints, not their product.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

from .model import Endpoint, Gateway, Health, Mesh, Network, Workload, worst_health

WIDTH = 1000
MARGIN, PAD, GAP = 16, 16, 10
HEAD = 34
"""Height of a box's heading."""
CARD, CHIP, HUB = 44, 28, 56
"""Heights."""
LEFT, MIDDLE, RIGHT = (32, 340), (436, 176), (684, 284)
"""Where the columns begin, and how wide they are."""
SHOWN = 8
"""Cards of one workload in one column; the others share one more, those that are not healthy before all."""


@dataclass(frozen=True)
class Box:
    """A network or the cluster."""

    kind: Literal["network", "cluster"]
    x: int
    y: int
    width: int
    height: int
    title: str
    detail: str = ""


@dataclass(frozen=True)
class Card:
    """A thing with a name. `health` is None for what only calls."""

    kind: Literal["card", "workload", "caller"]
    x: int
    y: int
    width: int
    height: int
    title: str
    detail: str = ""
    health: Health | None = None


@dataclass(frozen=True)
class Edge:
    """From one card's side to another's: `out` and `into` are 1 for a right side and -1 for a left one.

    `through`: by way of a gateway; `stale`: one of the two is not healthy any more.
    """

    start: tuple[int, int]
    end: tuple[int, int]
    out: int
    into: int
    through: bool
    stale: bool


@dataclass
class Drawing:
    """Everything with its place; heights follow from it."""

    height: int = 0
    boxes: list[Box] = field(default_factory=list)
    cards: dict[str, Card] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)


Item = tuple[list[str], Card]
"""A card that is not placed yet, and the keys by which edges find it."""


def arrange(mesh: Mesh, top: int) -> Drawing:
    """Place everything below `top`."""
    drawing = Drawing()
    workloads = [each for each in mesh.workloads if not each.is_gateway]
    y = top
    for network in mesh.networks:
        box = y + HEAD
        machines = _machines(workloads, network.name)
        if network.name == mesh.network:
            inside = [*_control_plane(mesh), *_pods(workloads), *_callers(mesh)]
            inner = _stack(drawing, LEFT[0] + PAD, box + HEAD, LEFT[1] - 2 * PAD, inside)
            drawing.boxes.append(Box("cluster", LEFT[0], box, LEFT[1], inner + PAD - box, "Cluster", mesh.cluster))
            left = inner + PAD
            hubs = box + sum(HUB + GAP for _ in workloads)
        else:
            left, hubs = _stack(drawing, *_column(LEFT, box), _gateways(mesh, network)), box
        right = _stack(drawing, *_column(RIGHT, box), machines)
        bottom = max(left, right, hubs, box + CARD) + PAD
        title = f"Network {network.name}"
        drawing.boxes.insert(0, Box("network", MARGIN, y, WIDTH - 2 * MARGIN, bottom - y, title, ", ".join(network.ranges)))
        y = bottom + MARGIN
    wires = _wires(mesh)
    first = next(box for box in drawing.boxes if box.kind == "cluster")
    _place_workloads(drawing, workloads, wires, first.y)
    drawing.edges = _edges(drawing, wires)
    drawing.height = y
    return drawing


def _column(column: tuple[int, int], y: int) -> tuple[int, int, int]:
    return column[0], y, column[1]


def _stack(drawing: Drawing, x: int, y: int, width: int, items: Iterable[Item]) -> int:
    """Place cards below each other; returns where the last ends."""
    for keys, card in items:
        placed = Card(card.kind, x, y, width, card.height, card.title, card.detail, card.health)
        drawing.cards.update(dict.fromkeys(keys, placed))
        y += card.height + GAP
    return y - GAP


def _card(key: str, title: str, detail: str, health: Health) -> Item:
    return [key], Card("card", 0, 0, 0, CARD, title, detail, health)


def _control_plane(mesh: Mesh) -> list[Item]:
    plane = mesh.control_plane
    items = [_card("istiod", f"istiod {plane.version}", f"control plane, {plane.ready} of {plane.pods} ready", plane.health)]
    network = next(network for network in mesh.networks if network.name == mesh.network)
    if gateway := network.gateway:
        items.append(_card(f"gateway/{network.name}", gateway.name, f"east-west gateway, {' '.join(gateway.addresses)}", gateway.health))
    return items


def _pods(workloads: Sequence[Workload]) -> list[Item]:
    return [item for each in workloads for item in _shortened([end for end in each.endpoints if end.kind == "pod"])]


def _machines(workloads: Sequence[Workload], network: str) -> list[Item]:
    machines = [[end for end in each.endpoints if end.kind == "machine" and end.network == network] for each in workloads]
    return [item for endpoints in machines for item in _shortened(endpoints)]


def _gateways(mesh: Mesh, network: Network) -> list[Item]:
    """A network's gateways, one card a machine."""
    gateway_workloads = [each for each in mesh.workloads if network.gateway and each.name == network.gateway.workload]
    return [_card(_key(end), end.name, f"gateway, {_detail(end)}", end.health) for each in gateway_workloads for end in each.endpoints]


def _callers(mesh: Mesh) -> list[Item]:
    names = sorted({call.caller for call in mesh.calls if not call.caller.startswith("machine ")})
    return [([f"caller/{name}"], Card("caller", 0, 0, 0, CHIP, name)) for name in names]


def _shortened(endpoints: Sequence[Endpoint]) -> list[Item]:
    """A card for each endpoint, or for the worst of many and one for all others."""
    ordered = list(endpoints)
    if len(ordered) > SHOWN:
        ordered.sort(key=lambda end: end.health == "healthy")
    items = [_card(_key(end), end.name, _detail(end), end.health) for end in ordered[:SHOWN]]
    if more := ordered[SHOWN:]:
        counted = ", ".join(f"{len(list(group))} {health}" for health, group in groupby(sorted(end.health for end in more)))
        card = Card("card", 0, 0, 0, CARD, f"{len(more)} more", counted, worst_health(end.health for end in more))
        items.append(([_key(end) for end in more], card))
    return items


def _key(endpoint: Endpoint) -> str:
    return f"{endpoint.kind}/{endpoint.name}"


def _detail(endpoint: Endpoint) -> str:
    return " · ".join(part for part in (endpoint.address, endpoint.agent) if part)


Wire = tuple[str, str, bool]
"""From and to, by the cards' keys, and whether it leads through a gateway."""


def _wires(mesh: Mesh) -> list[Wire]:
    """The edges by the evidence: caller to workload, workload to what answered, and gateway to what it passed calls on to."""
    things = {end.address: _key(end) for each in mesh.workloads for end in each.endpoints}
    things |= {address: f"gateway/{each.name}" for each in mesh.networks if (gateway := each.gateway) for address in _own(gateway)}
    named = {end.name: _key(end) for each in mesh.workloads for end in each.endpoints}
    owners = {host: f"workload/{each.name}" for each in mesh.workloads for host in each.services}
    wires: set[Wire] = set()
    for call in mesh.calls:
        workload, answered = owners.get(_host(call.service), ""), things.get(_address(call.endpoint), "")
        caller = named.get(call.caller.removeprefix("machine "), f"caller/{call.caller}")
        wires |= {(caller, workload, False), (workload, answered, call.path != "direct")}
    wires |= {(named.get(each.gateway, ""), things.get(_address(each.endpoint), ""), True) for each in mesh.gateway_traffic}
    return sorted(wires)


def _own(gateway: Gateway) -> tuple[str, ...]:
    """Addresses of a gateway that is drawn as one; machines are drawn each."""
    return gateway.addresses if gateway.kind == "pods" else ()


def _host(service: str) -> str:
    return service.partition(".svc.")[0]


def _address(endpoint: str) -> str:
    return endpoint.rpartition(":")[0]


def _place_workloads(drawing: Drawing, workloads: Sequence[Workload], wires: Sequence[Wire], top: int) -> None:
    """In the middle column, each as high as what it is connected to, without overlaps."""

    def height(workload: Workload) -> float:
        key = f"workload/{workload.name}"
        near = [drawing.cards[end] for wire in wires if key in wire for end in wire[:2] if end != key and end in drawing.cards]
        return sum(card.y + card.height / 2 for card in near) / len(near) if near else top

    # Not below the network of the pods, where gateways of other networks may be.
    limit = max(box.y + box.height for box in drawing.boxes if box.kind == "cluster")
    y = top
    ordered = sorted(workloads, key=lambda each: (height(each), each.name))
    for number, workload in enumerate(ordered):
        below = (len(ordered) - number) * (HUB + GAP) - GAP
        y = max(y, min(round(height(workload) - HUB / 2), limit - below))
        services = ", ".join(f"{host}:{'/'.join(map(str, ports))}" for host, ports in workload.services.items())
        card = Card("workload", MIDDLE[0], y, MIDDLE[1], HUB, workload.name, services or "no Service", workload.health)
        drawing.cards[f"workload/{workload.name}"] = card
        y += HUB + GAP


def _edges(drawing: Drawing, wires: Sequence[Wire]) -> list[Edge]:
    """Edges with their ends spread over the sides of the cards, in the order of what is at their other ends."""
    drawn = sorted({(start, end, through) for start, end, through in wires if {start, end} <= drawing.cards.keys()})
    drawn = [wire for wire in drawn if drawing.cards[wire[0]] is not drawing.cards[wire[1]]]
    sides: dict[tuple[Card, int], list[tuple[float, int, int]]] = {}
    ends: list[list[tuple[Card, int]]] = []
    for number, (start, end, _) in enumerate(drawn):
        one, other = drawing.cards[start], drawing.cards[end]
        ends.append([(one, _side(one, other)), (other, _side(other, one))])
        for which, (card, far) in enumerate(((one, other), (other, one))):
            sides.setdefault((card, _side(card, far)), []).append((far.y + far.height / 2, number, which))
    ports: dict[tuple[int, int], tuple[int, int]] = {}
    for (card, side), ends_here in sides.items():
        for place, (_, number, which) in enumerate(sorted(ends_here), 1):
            y = card.y + round(card.height * place / (len(ends_here) + 1))
            ports[number, which] = (card.x + (card.width if side > 0 else 0), y)
    edges = []
    for number, (_, _, through) in enumerate(drawn):
        (one, out), (other, into) = ends[number]
        stale = any(card.kind == "card" and card.health != "healthy" for card in (one, other))
        edges.append(Edge(ports[number, 0], ports[number, 1], out, into, through, stale))
    return edges


def _side(card: Card, other: Card) -> int:
    """The side of a card from which edges to another one start: towards it, and to the right in the same column."""
    return -1 if other.x < card.x else 1
