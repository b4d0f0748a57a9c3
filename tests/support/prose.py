"""Sentences of this repository: of documents, docstrings, comments and messages."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools import ROOT

CODE = "`…`"
"""In place of code and of values: it counts as one word."""

_ITEM = re.compile(r"\s*(?:[-*]|\d+\.|[\w`, ]{1,60}:)\s")
"""How an item of a list begins, in a document or in a docstring."""
_END = re.compile(r"(?<=[.!?])[\"')*_]*\s+")
_SHELL = re.compile(r"\s*#(?!!)\s?(.*)")


@dataclass(frozen=True)
class Sentence:
    """A sentence. place: `path:line` of the text that it is in, from the root of the repository."""

    place: str
    text: str

    @property
    def words(self) -> int:
        """The number of its words."""
        return sum(bool(re.search(r"[\w…]", word)) for word in self.text.split())


def sentences(place: str, text: str) -> Iterator[Sentence]:
    """Yield the sentences of one paragraph."""
    text = re.sub(r"!?\[([^]]*)\]\([^)]*\)", r"\1", text)
    text = " ".join(re.sub(r"`[^`]*`", CODE, text).split())
    yield from (Sentence(place, each) for each in _END.split(text) if each)


def of_document(name: str, text: str) -> Iterator[Sentence]:
    """Yield the sentences of a Markdown file: paragraphs, items, and the parts of tables' cells.

    Code blocks, comments and links are left out.
    """
    text = re.sub(r"```.*?```|<!--.*?-->", lambda block: "\n" * block[0].count("\n"), text, flags=re.DOTALL)
    lines = enumerate(text.splitlines(), 1)
    for number, lines_of_one in _paragraphs((number, line) for number, line in lines if not line.lstrip().startswith("|")):
        yield from sentences(f"{name}:{number}", re.sub(r"^(?:[-*>]|\d+\.|#+) ", "", lines_of_one))
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("|"):
            for part in re.split(r"(?<!\\)\||; ", line):
                yield from sentences(f"{name}:{number}", part)


def _paragraphs(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Yield each paragraph and each item of a list, with the number of its first line."""
    first, block = 0, list[str]()
    for number, line in (*lines, (0, "")):
        if block and (not line.strip() or _ITEM.match(line) or line.startswith("#")):
            yield first, " ".join(block)
            block = []
        if line.strip():
            first = first if block else number
            block.append(line.strip())


def of_python(name: str, source: str, *, with_messages: bool) -> Iterator[Sentence]:
    """Yield the sentences of a module: docstrings and comments, and messages where they are wanted."""
    nodes = list(ast.walk(ast.parse(source)))
    docstrings = [node.value for node in nodes if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]
    for node in docstrings:
        if isinstance(node.value, str):
            yield from _of_lines(name, node.lineno, node.value.splitlines())
    yield from _of_comments(name, _python_comments(source, nodes))
    if with_messages:
        hidden = {id(node) for node in docstrings}
        for line, text in _strings(nodes, hidden):
            for part in text.split("\n"):
                yield from sentences(f"{name}:{line}", part)


def _of_lines(name: str, first: int, lines: Iterable[str]) -> Iterator[Sentence]:
    for number, text in _paragraphs(enumerate(lines, first)):
        yield from sentences(f"{name}:{number}", text)


def _strings(nodes: Sequence[ast.AST], hidden: set[int]) -> Iterator[tuple[int, str]]:
    """Yield the strings of a module with their lines. Values in them are `CODE`."""
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            hidden.update(map(id, node.values))
            yield node.lineno, "".join(str(part.value) if isinstance(part, ast.Constant) else CODE for part in node.values)
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in hidden:
            yield node.lineno, node.value


def _python_comments(source: str, nodes: Sequence[ast.AST]) -> Iterator[tuple[int, str]]:
    """Yield the comments of a module with their lines: they begin with the first `#` in no string.

    The module `tokenize` takes seven times as long, for all files together a second.
    """
    lines = source.encode().splitlines()  # a syntax tree counts columns in bytes
    hashes = {number: line.index(b"#") for number, line in enumerate(lines, 1) if b"#" in line}
    strings = [
        node
        for node in nodes
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str | bytes))
    ]
    for node in sorted(strings, key=lambda node: (node.lineno, node.col_offset)):
        for number in range(node.lineno, (node.end_lineno or 0) + 1):
            start = node.col_offset if number == node.lineno else 0
            end = node.end_col_offset if number == node.end_lineno else len(lines[number - 1])
            if start <= hashes.get(number, -1) < (end or 0):
                hashes[number] = lines[number - 1].find(b"#", end)
    for number, column in sorted(hashes.items()):
        if column >= 0:
            yield number, lines[number - 1][column + 1 :].decode().strip()


def _of_comments(name: str, comments: Iterable[tuple[int, str]]) -> Iterator[Sentence]:
    """Yield the sentences of comments. Comments in lines that follow each other are one."""
    last, lines = 0, list[tuple[int, str]]()
    for number, text in comments:
        if lines and number != last + 1:
            lines.append((0, ""))
        lines.append((number, text))
        last = number
    for number, text in _paragraphs(lines):
        yield from sentences(f"{name}:{number}", text)


def of_shell(name: str, source: str) -> Iterator[Sentence]:
    """Yield the sentences of a script's comments."""
    lines = ((number, _SHELL.match(line)) for number, line in enumerate(source.splitlines(), 1))
    yield from _of_comments(name, ((number, comment[1]) for number, comment in lines if comment))


def of_repository() -> Iterator[Sentence]:
    """Yield all sentences that a user or a developer reads."""
    for file in _files("*.md", "", "docs", "scripts", "tests", ".github", ".gitlab"):
        yield from of_document(str(file.relative_to(ROOT)), file.read_text())
    for file in _files("*.py", "components", "scripts", "tests"):
        path = file.relative_to(ROOT)
        yield from of_python(str(path), file.read_text(), with_messages=path.parts[0] != "tests")
    for file in _files("*.sh", "components", "scripts"):
        yield from of_shell(str(file.relative_to(ROOT)), file.read_text())


def _files(pattern: str, *places: str) -> Iterator[Path]:
    for place in places:
        yield from sorted((ROOT / place).rglob(pattern) if place else ROOT.glob(pattern))
