"""What Python 3.9 with its library alone lacks, as far as the text of a file shows it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator

NEWER_TYPING = "Concatenate LiteralString Never NotRequired ParamSpec Required Self TypeAlias TypeGuard assert_never override"
NEWER_NAMES = {
    "ExceptionGroup",
    "anext",
    "contextlib.chdir",
    "datetime.UTC",
    "enum.StrEnum",
    "hashlib.file_digest",
    "inspect.get_annotations",
    "itertools.batched",
    "itertools.pairwise",
    "types.NoneType",
    "types.UnionType",
    *(f"typing.{name}" for name in NEWER_TYPING.split()),
    ".add_note",
    ".bit_count",
    ".fromisoformat",  # before 3.11, it refuses the Z that times of Kubernetes end with
    ".hardlink_to",
}
"""Names of the library, and methods, which begin with a dot. Others are only missed where a test runs them by 3.9."""
NEWER_KEYWORDS = {
    "Popen": {"process_group"},
    "TemporaryDirectory": {"delete", "ignore_cleanup_errors"},
    "dataclass": {"kw_only", "slots"},
    "field": {"kw_only"},
    "rmtree": {"onexc"},
    "zip": {"strict"},
}
LIBRARY = sys.stdlib_module_names - {"tomllib"}


def problems(text: str) -> list[str]:
    """Return what a file has that Python 3.9 lacks, by line: `3: zip(strict=)`."""
    try:
        tree = ast.parse(text, feature_version=(3, 9))
    except SyntaxError as error:
        return [f"{error.lineno}: {error.msg}"]
    unread = {id(part) for annotation in _unread_annotations(tree) for part in ast.walk(annotation)}
    lines: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            lines += [(node.lineno, f"import {name}") for name in _modules(node) if name.split(".")[0] not in LIBRARY]
        if isinstance(node, ast.BinOp) and id(node) not in unread and _joins_types(node):
            lines.append((node.lineno, ast.unparse(node)))
        if isinstance(node, ast.Call):
            lines += [(node.lineno, f"{name}({word}=)") for name, word in _keywords(node) if word in NEWER_KEYWORDS.get(name, ())]
        if isinstance(node, (ast.Attribute, ast.ImportFrom, ast.Name)):
            lines += [(node.lineno, name) for name in _names(node) if name in NEWER_NAMES]
    return [f"{number}: {what}" for number, what in sorted(lines)]


def _modules(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [] if node.level else [str(node.module)]


def _names(node: ast.Attribute | ast.ImportFrom | ast.Name) -> list[str]:
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return [f".{node.attr}", f"{ast.unparse(node.value)}.{node.attr}"]


def _keywords(node: ast.Call) -> list[tuple[str, str]]:
    name = ast.unparse(node.func).rpartition(".")[2]
    return [(name, keyword.arg) for keyword in node.keywords if keyword.arg]


def _joins_types(node: ast.BinOp) -> bool:
    """Return whether `|` may join types: no side is a dict or a set, and a side is no constant such as os.O_EXCL."""
    sides = _sides(node)
    if len(sides) == 1 or any(isinstance(side, (ast.Dict, ast.DictComp, ast.Set, ast.SetComp)) for side in sides):
        return False
    return not all(isinstance(side, ast.Attribute) and side.attr.isupper() for side in sides)


def _sides(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return [*_sides(node.left), *_sides(node.right)]
    return [node]


def _unread_annotations(tree: ast.Module) -> Iterator[ast.expr]:
    """Yield the annotations that nothing evaluates."""
    names = {name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for name in _names(node)}
    if "__future__.annotations" not in names:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and "typing.get_type_hints" in names:
            continue
        for annotation in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if annotation:
                yield annotation
