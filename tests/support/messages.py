"""The messages of the program, as a reader of its source would quote them.

What differs from run to run is `…` in a quotation, and in the texts here.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from tools import ROOT

VARIABLE = "…"
PLACES = ("components", "scripts/tools")
_GAP = r".{0,400}?"
"""What may stand for `…`: a variable, or words that the quotation leaves out."""
_EXPANSIONS = (r"\$\(\([^()]*\)\)", r"\$\([^()]*\)", r"\$\{[^{}]*\}", r"\$[A-Za-z_]\w*|\$[*@#?0-9]")


@cache
def texts() -> str:
    """Return the texts that the source prints, one a line."""
    files = [file for place in PLACES for file in sorted((ROOT / place).rglob("*")) if "standins" not in file.parts]
    lines = [line for file in files for line in _texts_of(file)]
    return "\n".join(lines)


def _texts_of(file: Path) -> Iterator[str]:
    if file.suffix == ".py":
        yield from python_texts(file.read_text())
    elif file.suffix == ".sh":
        yield from shell_texts(file.read_text())


def python_texts(source: str) -> Iterator[str]:
    """Yield the strings of a module, docstrings left out; each on one line."""
    tree = ast.parse(source)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        match node:
            case ast.JoinedStr():
                yield " ".join(_joined(node).split())
            case ast.Constant(value=str(text)) if id(node) not in docstrings:
                yield " ".join(text.split())


def _joined(node: ast.JoinedStr) -> str:
    return "".join(str(part.value) if isinstance(part, ast.Constant) else VARIABLE for part in node.values)


def shell_texts(source: str) -> Iterator[str]:
    """Yield the lines of a script, comments left out. Words of one command are joined by spaces, as
    `fail` and `echo` print them.
    """
    lines = (line for line in source.splitlines() if not line.lstrip().startswith("#"))
    text = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    for pattern in _EXPANSIONS:
        before = ""
        while before != text:
            before, text = text, re.sub(pattern, VARIABLE, text)
    yield from re.sub(r'" "', " ", text).splitlines()


def is_printed(quotation: str, among: str | None = None) -> bool:
    """Return whether a text of the source has the words of a quotation, in their order.

    quotation: with `…` for what differs.
    among: the texts, one a line; None: those of the program.
    """
    parts = [part.strip() for part in quotation.split(VARIABLE)]
    if max(map(len, parts)) < 10:
        return False  # it would fit anything
    pattern = _GAP.join(map(re.escape, filter(None, parts)))
    return re.search(pattern, texts() if among is None else among) is not None


def quoted(page: str) -> Sequence[str]:
    """Return what a page's tables quote in the column `message`, which is the first one.

    A cell that begins with a word describes its message.
    """
    quotations, in_table = list[str](), False
    for line in page.splitlines():
        if not line.startswith("|"):
            in_table = False
        elif line.startswith("| message |"):
            in_table = True
        elif in_table and line.startswith("| `"):
            quotations += re.findall(r"`([^`]+)`", line.split(" | ")[0])
    return quotations
