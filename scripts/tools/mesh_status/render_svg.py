"""The mesh as an SVG for web pages: light and dark, text as text, no scripts, the same for the same mesh."""

from __future__ import annotations

from collections.abc import Iterator
from xml.sax.saxutils import escape

from . import svg_layout
from .model import Health, Mesh
from .svg_layout import MARGIN, WIDTH, Box, Card, Edge

TOP, LEGEND = 56, 40
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
# Classes rather than variables, which not every renderer supports.
LIGHT = {
    "paper": "fill:#ffffff", "network": "fill:#f6f8fa;stroke:#d1d9e0", "cluster": "fill:#eef4fc;stroke:#a9c7ee", "card": "fill:#ffffff;stroke:#d1d9e0",
    "text": "fill:#1f2328", "dim": "fill:#59636e",
    "edge": "stroke:#4a7fc1", "stale": "stroke:#b4bcc5", "arrow": "fill:#4a7fc1", "arrow-stale": "fill:#b4bcc5",
    "healthy": "fill:#1a7f37;stroke:#1a7f37", "unhealthy": "fill:#d1242f;stroke:#d1242f", "missing": "stroke:#d1242f", "unknown": "stroke:#9a6700",
    "word-unhealthy": "fill:#d1242f", "word-missing": "fill:#d1242f", "word-unknown": "fill:#9a6700",
}  # fmt: skip
DARK = {
    "paper": "fill:#0d1117", "network": "fill:#151b23;stroke:#3d444d", "cluster": "fill:#131d2e;stroke:#2f4a73", "card": "fill:#0d1117;stroke:#3d444d",
    "text": "fill:#e6edf3", "dim": "fill:#9198a1",
    "edge": "stroke:#5b8fd6", "stale": "stroke:#545d68", "arrow": "fill:#5b8fd6", "arrow-stale": "fill:#545d68",
    "healthy": "fill:#3fb950;stroke:#3fb950", "unhealthy": "fill:#f85149;stroke:#f85149", "missing": "stroke:#f85149", "unknown": "stroke:#d29922",
    "word-unhealthy": "fill:#f85149", "word-missing": "fill:#f85149", "word-unknown": "fill:#d29922",
}  # fmt: skip
SHAPES = """\
text{font-family:%s;font-size:11px}.title{font-size:20px;font-weight:600}.name{font-size:13px;font-weight:600}
.edge{fill:none;stroke-width:1.4}.through{stroke-dasharray:6 4}.caller{stroke-dasharray:3 3}.missing,.unknown{fill:none;stroke-width:2}
.missing{stroke-dasharray:2 2}"""
HEALTHS: tuple[Health, ...] = ("healthy", "unhealthy", "missing", "unknown")


def draw(mesh: Mesh) -> str:
    """Return the whole document."""
    drawing = svg_layout.arrange(mesh, TOP)
    height = drawing.height + LEGEND
    cards = dict.fromkeys(drawing.cards.values())  # several keys may have one card
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">',
        f"<title>Mesh {escape(mesh.id)} of stack {escape(mesh.stack)}: {mesh.health}</title>",
        f"<style>{_style()}</style>",
        f"<defs>{_marker('arrow')}{_marker('arrow-stale')}</defs>",
        f'<rect class="paper" width="{WIDTH}" height="{height}"/>',
        _text(MARGIN, 34, f"Mesh {mesh.id}", "text title", 400),
        _text(WIDTH - MARGIN, 34, f"stack {mesh.stack} · Istio {mesh.control_plane.version} · {mesh.health}", "dim", 500, "end"),
        *(line for box in drawing.boxes for line in _box(box)),
        *map(_edge, drawing.edges),
        *(line for card in cards for line in _card(card)),
        *_legend(drawing.height + LEGEND / 2),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _style() -> str:
    light, dark = ("".join(f".{name}{{{rules}}}" for name, rules in theme.items()) for theme in (LIGHT, DARK))
    return f"{light}{SHAPES % FONT}@media (prefers-color-scheme:dark){{{dark}}}"


def _text(x: float, y: float, text: str, style: str, width: float, anchor: str = "start") -> str:
    """A line of text, cut to a width in pixels by what its letters take on average."""
    letters = int(width / (10 if "title" in style else 7.2 if "name" in style else 6))
    cut = text if len(text) <= letters else text[: max(letters - 1, 1)] + "…"
    where = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text class="{style}" x="{x:g}" y="{y:g}"{where}>{escape(cut)}</text>'


def _box(box: Box) -> Iterator[str]:
    yield f'<rect class="{box.kind}" x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}" rx="8"/>'
    yield _text(box.x + 14, box.y + 22, box.title, "text name", box.width / 2)
    yield _text(box.x + box.width - 14, box.y + 22, box.detail, "dim", box.width * 0.65, "end")


def _card(card: Card) -> Iterator[str]:
    yield (
        f'<rect class="card{" caller" if card.kind == "caller" else ""}" x="{card.x}" y="{card.y}" width="{card.width}" '
        f'height="{card.height}" rx="{card.height / 2 if card.kind == "caller" else 6:g}"/>'
    )
    if card.health is None:
        yield _text(card.x + card.width / 2, card.y + card.height / 2 + 4, card.title, "dim", card.width - 20, "middle")
        return
    middle = card.y + card.height / 2
    yield _dot(card.x + 16, middle, card.health)
    word = 0 if card.health == "healthy" else 62
    if word:
        yield _text(card.x + card.width - 10, middle - 4, card.health, f"word-{card.health}", word, "end")
    yield _text(card.x + 30, middle - 4, card.title, "text name", card.width - 38 - word)
    yield _text(card.x + 30, middle + 12, card.detail, "dim", card.width - 38)


def _dot(x: float, y: float, health: Health) -> str:
    """Return a sign that differs without colours too: filled, a cross, a broken ring, a ring."""
    if health == "unhealthy":
        return f'<path class="unhealthy" stroke-width="3" d="M{x - 4:g} {y - 4:g}l8 8m0 -8l-8 8"/>'
    return f'<circle class="{health}" cx="{x:g}" cy="{y:g}" r="5"/>'


def _edge(edge: Edge) -> str:
    (x1, y1), (x2, y2) = edge.start, edge.end
    # Straight out of a side and straight into the other; a loop in one column stays close to it.
    reach = 34 if x1 == x2 else max(24, abs(x2 - x1) / 2)
    return _arrow(f"M{x1} {y1}C{x1 + edge.out * reach:g} {y1} {x2 + edge.into * reach:g} {y2} {x2} {y2}", edge.through, edge.stale)


def _arrow(path: str, through: bool = False, stale: bool = False) -> str:
    style = " ".join(["edge", *(["through"] if through else []), *(["stale"] if stale else [])])
    return f'<path class="{style}" d="{path}" marker-end="url(#{"arrow-stale" if stale else "arrow"})"/>'


def _marker(name: str) -> str:
    return (
        f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path class="{name}" d="M0 0.5 8 4 0 7.5z"/></marker>'
    )


def _legend(y: float) -> Iterator[str]:
    x = MARGIN + 8.0
    for health in HEALTHS:
        yield _dot(x, y, health)
        yield _text(x + 12, y + 4, health, "dim", 80)
        x += 92
    for words, through, stale, width in (
        ("verified call", False, False, 130),
        ("through a gateway", True, False, 154),
        ("verified when it was healthy", False, True, 190),
    ):
        yield _arrow(f"M{x:g} {y:g}h34", through, stale)
        yield _text(x + 42, y + 4, words, "dim", width)
        x += width
