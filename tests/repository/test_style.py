"""Rules for names that no linter has."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VAGUE = {"found", "made", "own", "whole", "told", "known", "said"}
"""Names that say nothing about what they hold."""

LONGEST = 80
"""Characters of a test's name."""

MOST_PARAMETERS = 6


DEFINING = (
    *(ast.Name, ast.Attribute, ast.arg, ast.FunctionDef, ast.AsyncFunctionDef),
    *(ast.ExceptHandler, ast.MatchAs, ast.MatchStar, ast.alias),
)
"""The nodes of a syntax tree that can define a name."""


@cache
def modules() -> dict[str, Sequence[ast.AST]]:
    """Parse the Python files of this repository; return their defining nodes by their paths from
    its root.
    """
    files = [ROOT / "__main__.py"]
    for directory in ("components", "scripts", "tests"):
        files += sorted((ROOT / directory).rglob("*.py"))
    return {str(file.relative_to(ROOT)): defining_nodes(ast.parse(file.read_text())) for file in files}


def defining_nodes(tree: ast.AST) -> Sequence[ast.AST]:
    """Return the nodes of a syntax tree that can define a name."""
    return [node for node in ast.walk(tree) if isinstance(node, DEFINING)]


def defined_names(nodes: Iterable[ast.AST]) -> Iterator[tuple[int, str]]:
    """Yield line and name of every variable, parameter, attribute and function that is defined."""
    for node in nodes:
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name
            case ast.arg(arg=name):
                yield node.lineno, name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield node.lineno, name
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                yield node.lineno, name
            case ast.MatchStar(name=str(name)):
                yield node.lineno, name
            case ast.alias(asname=str(name)):
                yield node.lineno, name


def test_names_say_what_they_hold() -> None:
    vague = [f"{path}:{line}: {name}" for path, nodes in modules().items() for line, name in defined_names(nodes) if name in VAGUE]
    assert not vague, "name the thing"


def test_names_do_not_change_on_import() -> None:
    aliases = [
        f"{path}:{node.lineno}: {node.name} as {node.asname}"
        for path, nodes in modules().items()
        for node in nodes
        if isinstance(node, ast.alias) and node.asname
    ]
    assert not aliases, "import what contains it, or rename the other one"


def test_names_of_tests_are_short() -> None:
    long = [
        f"{path}:{line}: {name}"
        for path, nodes in modules().items()
        for line, name in defined_names(nodes)
        if name.startswith("test_") and len(name) > LONGEST
    ]
    assert not long, f"say it in at most {LONGEST} characters"


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Return the names of a function's parameters, without `self` and `cls`."""
    names = [node.arg for node in ast.walk(function.args) if isinstance(node, ast.arg)]
    return [name for name in names if name not in ("self", "cls")]


def test_functions_have_few_parameters() -> None:
    long = [
        f"{path}:{node.lineno}: {node.name}"
        for path, nodes in modules().items()
        for node in nodes
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and len(parameters(node)) > MOST_PARAMETERS
    ]
    assert not long, f"take a record instead of more than {MOST_PARAMETERS} parameters"


def test_every_kind_of_parameter_counts() -> None:
    method = "class Thing:\n    async def call(self, a, /, b, *c, d=0, **e): pass"
    [function] = [node for node in ast.walk(ast.parse(method)) if isinstance(node, ast.AsyncFunctionDef)]
    assert sorted(parameters(function)) == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    "text",
    [
        "made = 1",
        "for made in (): pass",
        "[0 for made in ()]",
        "(made := 1)",
        "thing.made = 1",
        "class Thing:\n    made: int",
        "def call(made): pass",
        "lambda *made: 0",
        "def made(): pass",
        "try: pass\nexcept OSError as made: pass",
        "import os as made",
        "with open('x') as made: pass",
        "match 1:\n    case made: pass",
    ],
)
def test_every_kind_of_definition_is_seen(text: str) -> None:
    assert "made" in {name for _, name in defined_names(defining_nodes(ast.parse(text)))}
