"""The generated tables of `docs/google.md`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tools import ROOT

from . import policies, remnants
from .cloud import Cloud

PAGE = ROOT / "docs" / "google.md"
_TABLE = re.compile(r"(<!-- table: ([a-z]+) -->\n).*?(<!-- end of table -->\n)", re.DOTALL)


def page(text: str, stacks: Mapping[str, Cloud]) -> str:
    """Return the text of the page with its tables, each between its marks.

    stacks: the shipped stacks on Google Cloud, by name.
    """
    tables = {"policies": policies.table(stacks), "remnants": remnants.table(stacks)}
    return _TABLE.sub(lambda match: f"{match[1]}{tables[match[2]]}{match[3]}", text)
