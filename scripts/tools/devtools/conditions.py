"""`python -m tools.devtools.conditions`: whether tests notice each condition of what proves a mesh.

Parsers list the conditions: shfmt's syntax tree for shell, `ast` for Python. Each is negated, and
dropped: an `if` holds always, an operand of `and` and `or` is left out. A change that no test
notices is a survivor. It needs a reason in `conditions.yaml`, or a test.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from tools import ROOT
from tools.devtools.mutate import LEFT_OUT

FILES = (
    "components/verification/scripts/call-service.sh",
    "components/verification/scripts/gateway-stats.sh",
    "components/verification/scripts/plaintext-probe.sh",
    "components/verification/evidence.py",
    "components/verification/addressing.py",
)
TESTS = (
    "tests/unit/verification/test_evidence.py",
    "tests/unit/verification/test_addressing.py",
    "tests/unit/verification/test_call_service.py",
    "tests/unit/verification/test_real_calls.py",
)
REASONS = Path(__file__).with_name("conditions.yaml")


class Change(NamedTuple):
    """One condition that is negated or dropped.

    file: relative to the checkout. line: where it begins. condition: its text, on one line.
    how: "negated" or "dropped". start, end: the bytes that `text` replaces.
    """

    file: str
    line: int
    condition: str
    how: str
    start: int
    end: int
    text: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.file, self.condition, self.how


def changes(file: str) -> list[Change]:
    """Return all changes of a file, in the order of its lines."""
    source = (ROOT / file).read_bytes()
    listed = _of_python(file, source) if file.endswith(".py") else _of_shell(file, source)
    return sorted(set(listed), key=lambda change: (change.start, change.end, change.how))


def _change(file: str, source: bytes, span: tuple[int, int], how: str, text: str) -> Change:
    start, end = span
    condition = " ".join(source[start:end].decode().split())
    return Change(file, source.count(b"\n", 0, start) + 1, condition, how, start, end, text)


def _of_python(file: str, source: bytes) -> Iterator[Change]:
    lines = source.splitlines(keepends=True)
    before = [0]
    for line in lines:
        before.append(before[-1] + len(line))

    def span(node: ast.expr) -> tuple[int, int]:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return before[node.lineno - 1] + node.col_offset, before[node.end_lineno - 1] + node.end_col_offset

    for node in ast.walk(ast.parse(source)):
        tests: list[tuple[ast.expr, str]] = []
        if isinstance(node, ast.If | ast.IfExp | ast.While):
            tests = [(node.test, "True")]
        elif isinstance(node, ast.comprehension):
            tests = [(test, "True") for test in node.ifs]
        elif isinstance(node, ast.BoolOp):
            tests = [(value, str(isinstance(node.op, ast.And))) for value in node.values]
        for test, dropped in tests:
            start, end = span(test)
            yield _change(file, source, (start, end), "negated", f"(not ({source[start:end].decode()}))")
            yield _change(file, source, (start, end), "dropped", f"({dropped})")


def _of_shell(file: str, source: bytes) -> Iterator[Change]:
    done = subprocess.run(["shfmt", "-tojson"], input=source, capture_output=True, check=True)
    for node in _nodes(json.loads(done.stdout)):
        if node.get("Cond") and isinstance(node["Cond"], list):  # if, elif, while and until
            start, end = node["Cond"][0]["Pos"]["Offset"], _end(node["Cond"][-1])
            yield from _both(file, source, (start, end), "true")
        if node.get("Type") == "BinaryCmd":
            first, second = node["X"], node["Y"]
            operator = source[_end(first) : second["Pos"]["Offset"]].decode()
            for each in (first, second) if "&&" in operator or "||" in operator else ():
                span = each["Pos"]["Offset"], _end(each)
                yield from _both(file, source, span, "true" if "&&" in operator else "false")


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)


def _end(statement: dict[str, Any]) -> int:
    return int(statement["End"]["Offset"])


def _both(file: str, source: bytes, span: tuple[int, int], dropped: str) -> Iterator[Change]:
    text = source[span[0] : span[1]].decode().rstrip().rstrip(";")
    span = span[0], span[0] + len(text.encode())
    # In a subshell nothing that a condition assigns would stay.
    yield _change(file, source, span, "negated", f"! {{ {text}; }}")
    yield _change(file, source, span, "dropped", dropped)


def is_noticed(change: Change | None, tests: Sequence[str] = TESTS) -> bool:
    """Return whether a test fails in a copy of this checkout with the change."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        shutil.copytree(ROOT, root, ignore=LEFT_OUT, dirs_exist_ok=True)
        if change:
            source = (root / change.file).read_bytes()
            (root / change.file).write_bytes(source[: change.start] + change.text.encode() + source[change.end :])
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-n0", "--tb=no", "-p", "no:cacheprovider", *tests]
        environment = {**os.environ, "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(command, cwd=root, env=environment, capture_output=True).returncode != 0


def reasons() -> dict[tuple[str, str, str], str]:
    """Read why some changes need not be noticed: by file, condition and how it is changed."""
    import yaml

    entries = yaml.safe_load(REASONS.read_text()) or []
    return {(each["file"], each["condition"], each["how"]): each["reason"] for each in entries}


_WORDS = {
    (True, False): "noticed",
    (False, False): "SURVIVED",
    (False, True): "explained",
    (True, True): "NOTICED, though a reason says otherwise",
}
"""By whether a test has noticed a change, and whether it has a reason."""


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    top = argparse.ArgumentParser(prog="python -m tools.devtools.conditions", description=__doc__.partition("\n")[0])
    top.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) // 2), help="how many at once (default: %(default)s)")
    top.add_argument("--list", action="store_true", help="print the changes, and run nothing")
    top.add_argument("files", nargs="*", default=FILES, help="files with these conditions (default: all that verify)")
    return top


def main() -> int:
    arguments = parser().parse_args()
    every = [change for file in arguments.files for change in changes(file)]
    if arguments.list:
        for change in every:
            print(f"{change.file}:{change.line}: {change.how}: {change.condition}")
        return 0
    if is_noticed(None):
        print("The tests are red without a change: mend that first.", file=sys.stderr)
        return 1
    explained, unexplained, stale = reasons(), 0, 0
    with ThreadPoolExecutor(arguments.jobs) as threads:
        for change, noticed in zip(every, threads.map(is_noticed, every), strict=True):
            has_reason = change.key in explained
            word = _WORDS[noticed, has_reason]
            unexplained += not noticed and not has_reason
            stale += noticed and has_reason
            print(f"{word}  {change.file}:{change.line}: {change.how}: {change.condition}", flush=True)
    print(f"{len(every)} changes; {unexplained} survived without a reason, {stale} reasons are out of date")
    return 1 if unexplained or stale else 0


if __name__ == "__main__":
    sys.exit(main())
