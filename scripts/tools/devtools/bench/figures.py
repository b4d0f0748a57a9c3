"""Figures with what they are compared to, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure: `value` in `unit`; `base`, if there is one, is what `against` measured in the same run. `most` is what the ratio of the
    two, or the value where there is no base, may be at most.
    """

    what: str
    value: float
    unit: str = "s"
    against: str = ""
    base: float | None = None
    most: float | None = None

    @property
    def ratio(self) -> float | None:
        return None if self.base is None else self.value / self.base

    @property
    def good(self) -> bool:
        judged = self.value if self.ratio is None else self.ratio
        return self.most is None or judged <= self.most


def show(figures: Sequence[Figure], as_json: bool) -> bool:
    """Print them; whether all are good."""
    good = all(figure.good for figure in figures)
    if as_json:
        print(json.dumps({"figures": [{**vars(each), "ratio": each.ratio, "good": each.good} for each in figures], "good": good}))
        return good
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("", "measured", "against", "ratio", "at most", ""):
        table.add_column(column, justify="right" if column in ("measured", "ratio", "at most") else "left", overflow="fold")
    for each in figures:
        against = "" if each.base is None else f"{each.against}, {_text(each.base, each.unit)}"
        ratio = "" if each.ratio is None else f"{each.ratio:.2f}"
        most = "" if each.most is None else f"{each.most:g}"
        table.add_row(each.what, _text(each.value, each.unit), against, ratio, most, "" if each.good else "too much")
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 140
    console.print(table)
    return good


def _text(value: float, unit: str) -> str:
    return f"{value:.1f} s" if unit == "s" else f"{value:g}{' ' if unit else ''}{unit}"
