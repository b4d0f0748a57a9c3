"""PYTHONPATH alone decides where modules are found: no file edits Python's module path."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import ROOT

NAMED = re.compile(r"\bsys\.path\b")
PATH = ".".join(("sys", "path"))
EDIT = f"import sys; {PATH}[:0] = ['.']"


def python_files() -> Iterator[Path]:
    yield ROOT / "__main__.py"
    yield from (file for file in (ROOT / "scripts").iterdir() if file.is_file())
    for directory in ("components", "scripts", "tests"):
        yield from (ROOT / directory).rglob("*.py")


def uses(source: str) -> Iterator[int]:
    """Yield the lines that use the module path, also in texts of programs. Docstrings may name it."""
    tree = ast.parse(source)
    texts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="sys"), attr="path"):
                yield node.lineno
            case ast.ImportFrom(module="sys", names=names) if any(each.name == "path" for each in names):
                yield node.lineno
            case ast.Constant(value=str(text)) if id(node) not in texts and NAMED.search(text):
                yield node.lineno


def test_no_file_edits_the_module_path() -> None:
    edits = [f"{file.relative_to(ROOT)}:{line}" for file in python_files() for line in uses(file.read_text())]
    assert not edits, "set PYTHONPATH, or load the package by its file"


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        (EDIT, [1]),
        (f"import sys\n{PATH}.insert(0, 'x')", [2]),
        ("from sys import path", [1]),
        (f"run({EDIT!r})", [1]),
        (f'"""Leaves {PATH} alone."""', []),
        ("sys.path_hooks", []),
    ],
)
def test_an_edit_is_seen_in_code_and_in_texts_of_programs(source: str, lines: list[int]) -> None:
    assert list(uses(source)) == lines
