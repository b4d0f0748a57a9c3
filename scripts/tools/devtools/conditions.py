"""Conditions of what proves a mesh and looks at machines, negated and dropped: `./scripts/mutations --conditions`.

Parsers list them: shfmt's syntax tree for shell, `ast` for Python. Dropped means that an `if`, a
`case` or a comparison always holds, and that an operand of `and`, `or` and `|` is left out. A change that no test
notices needs a reason in `conditions.yaml`, or a test.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from tools import ROOT

from .copies import Copies, copies

_TESTS = "tests/unit/verification"
_OF_SCRIPTS = f"{_TESTS}/scripts"
_OF_PODS = tuple(f"{_OF_SCRIPTS}/test_{name}.py" for name in ("verify_workload", "deployment", "members", "calling_pods"))
_OF_MACHINES = f"{_OF_SCRIPTS}/test_prove_machine.py"
_OF_CALLS = (
    f"{_OF_SCRIPTS}/test_call_service_functions.py",
    f"{_OF_SCRIPTS}/test_call_service.py",
    f"{_OF_SCRIPTS}/test_call_service_real_calls.py",
)
FILES: Mapping[str, Sequence[str]] = {
    "components/verification/scripts/call-service.sh": _OF_CALLS,
    "components/verification/scripts/gateway-stats.sh": (f"{_OF_SCRIPTS}/test_gateway_stats.py",),
    "components/verification/scripts/plaintext-probe.sh": (f"{_OF_SCRIPTS}/test_plaintext_probe.py",),
    "components/verification/scripts/verify_workload.py": _OF_PODS,
    "components/verification/scripts/deployment.py": _OF_PODS,
    "components/verification/scripts/members.py": _OF_PODS,
    "components/verification/scripts/calling_pods.py": _OF_PODS,
    "components/verification/scripts/remove_calling_pods.py": (f"{_OF_SCRIPTS}/test_calling_pods.py",),
    "components/verification/scripts/cluster_objects.py": _OF_PODS,
    "components/verification/scripts/policy_causes.py": (*_OF_PODS, _OF_MACHINES),
    "components/verification/scripts/prove_machine.py": (_OF_MACHINES,),
    "components/verification/evidence.py": (f"{_TESTS}/test_evidence.py",),
    "components/verification/addressing.py": (f"{_TESTS}/test_addressing.py", f"{_OF_SCRIPTS}/test_call_service_real_calls.py"),
    "components/verification/network_policies.py": (f"{_TESTS}/test_network_policies.py", f"{_TESTS}/test_cni_policies.py"),
    **{
        f"components/verification/{name}.py": (f"{_TESTS}/test_{name}.py",)
        for name in ("target", "jobs", "cni_policies", "calico_selectors", "resource_limits")
    },
    "scripts/tools/mesh_status/probe.sh": ("tests/unit/tools/mesh_status/test_probe.py",),
}
"""Files of the verification and of status, each with the tests that must notice a change of it,
quick ones first.
"""
REASONS = Path(__file__).with_name("conditions.yaml")
_FUNCTION = re.compile(rb"^ *(?:def (?=\w+\()|(?=\w+\(\) \{))(\w+)", re.MULTILINE)
_PREDICATE = re.compile(rb"\[ |(are|has|is|was)_")
"""How a command of shell begins whose status is an answer."""
_NEVER = "$'\\1'"
"""A pattern of shell that no text of these scripts matches."""


class Change(NamedTuple):
    """One condition that is negated or dropped.

    file: relative to the checkout. function: the one that has the condition. line: where it begins.
    condition: its text, on one line. how: "negated" or "dropped".
    start, end: the bytes that `text` replaces.
    """

    file: str
    function: str
    line: int
    condition: str
    how: str
    start: int
    end: int
    text: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What names it in `conditions.yaml`."""
        return self.file, self.function, self.condition, self.how

    def applied(self, source: bytes) -> bytes:
        """Return the file's text with the change. Raises SystemExit where the file is another by now."""
        if " ".join(source[self.start : self.end].decode(errors="replace").split()) != self.condition:
            raise SystemExit(f"{self.file} has changed meanwhile: start again")
        return source[: self.start] + self.text.encode() + source[self.end :]


def changes(file: str) -> list[Change]:
    """Return all changes of a file, in the order of its lines."""
    source = (ROOT / file).read_bytes()
    return changes_of(file, source)


def changes_of(file: str, source: bytes) -> list[Change]:
    """Return all changes of a text; the file's name states its language."""
    listed = _of_python(source) if file.endswith(".py") else _of_shell(source)
    result = set()
    for start, end, how, text in listed:
        condition = " ".join(source[start:end].decode().split())
        functions = [match[1] for match in _FUNCTION.finditer(source, 0, start)]
        function = functions[-1].decode() if functions else ""
        result.add(Change(file, function, source.count(b"\n", 0, start) + 1, condition, how, start, end, text))
    return sorted(result, key=lambda change: (change.start, change.end, change.how))


def reasons() -> dict[tuple[str, str, str, str], str]:
    """Return why some changes need not be noticed, by their keys."""
    import yaml

    explained = yaml.safe_load(REASONS.read_text())
    return {(file, each["in"], each["condition"], each["how"]): each["reason"] for file, some in explained.items() for each in some}


def run(jobs: int, words: Sequence[str]) -> int:
    """Make the changes at places (`file:line:`) with one of the words, and print those that are missed.

    jobs: how many at once. Each change goes to stderr when its tests have ended. Returns 1 where a change is missed, or a reason is out of date.
    """
    every = [change for file in FILES for change in changes(file)]
    wanted = [each for each in every if not words or any(word in f"{each.file}:{each.line}:" for word in words)]
    if not wanted:
        print(f"No condition is at one of these places: {' '.join(words)}. They are in {', '.join(FILES)}.", file=sys.stderr)
        return 1
    started, explained, counts, wrong = time.monotonic(), reasons(), Counter[str](), list[str]()
    print(f"{len(wanted)} changes; first their tests without one …", file=sys.stderr, flush=True)
    with copies(jobs, {}) as free, ThreadPoolExecutor(jobs) as threads:
        with free.one() as copy:
            if red := copy.first_failure(*dict.fromkeys(test for each in wanted for test in FILES[each.file])):
                sys.exit(f"{red} is red without a change: mend that first.")
        runner = _Runner(free)
        for number, (change, is_noticed) in enumerate(zip(wanted, threads.map(runner.is_noticed, wanted), strict=True), 1):
            word = _WORDS[is_noticed, change.key in explained]
            counts[word] += 1
            line = f"{word:9}  {change.file}:{change.line}: {change.how}: {change.condition}"
            print(f"{number}/{len(wanted)}  {line}", file=sys.stderr, flush=True)
            if word in _WRONG:
                wrong.append(line)
    print(*wrong, sep="\n", end="\n" * bool(wrong))
    minutes = (time.monotonic() - started) / 60
    print(f"{len(wanted)} changes: {', '.join(f'{counts[word]} {word}' for word in _WORDS.values())}, in {minutes:.1f} min")
    return 1 if wrong else 0


_WORDS = {
    (True, False): "noticed",
    (False, True): "explained",
    (False, False): "MISSED",
    (True, True): "NOTICED AGAINST ITS REASON",
}
"""By whether a test has noticed a change, and whether it has a reason."""
_WRONG = ("MISSED", "NOTICED AGAINST ITS REASON")
_LIKELY = 8
"""How many cases that noticed other changes are run before all."""
_PATIENCE_S = 60
"""Seconds of one test: a changed condition may make a loop without an end."""


class _Runner:
    """Runs the tests of changes in copies of the checkout. Tests that noticed changes run first."""

    def __init__(self, free: Copies) -> None:
        self._free = free
        self._recent: dict[str, None] = {}

    def is_noticed(self, change: Change) -> bool:
        tests = FILES[change.file]
        with self._free.one() as copy, copy.changed(change.file, change.applied((ROOT / change.file).read_bytes())):
            likely = [test for test in reversed(self._recent) if test.startswith(tuple(tests))][:_LIKELY]
            for some in filter(None, [likely, *([test] for test in tests)]):
                if failed := copy.first_failure(f"--timeout={_PATIENCE_S}", *some):
                    self._recent.pop(failed, None)
                    if "::" in failed:
                        self._recent[failed] = None
                    return True
            return False


_Edit = tuple[int, int, str, str]
"""The first byte, the end, how, and the text instead."""


def _of_python(source: bytes) -> Iterator[_Edit]:
    before = [0]
    for line in source.splitlines(keepends=True):
        before.append(before[-1] + len(line))
    spans = set[tuple[int, int]]()
    for test, dropped in _tests(ast.parse(source)):
        assert test.end_lineno and test.end_col_offset
        start, end = before[test.lineno - 1] + test.col_offset, before[test.end_lineno - 1] + test.end_col_offset
        text, neutral = source[start:end].decode(), dropped or "True"
        if dropped or (start, end) not in spans:
            yield start, end, "negated", f"(not ({text}))"
            if text != neutral:
                yield start, end, "dropped", f"({neutral})"
        spans.add((start, end))


def _tests(tree: ast.Module) -> Iterator[tuple[ast.expr, str]]:
    """Yield the conditions of a module, and what stands for one that is dropped.

    Comparisons that are no condition themselves, as of a function that returns one, are last, with "".
    """
    comparisons: list[tuple[ast.expr, str]] = []
    for node in ast.walk(tree):
        match node:
            case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test):
                yield test, "True"
            case ast.comprehension(ifs=tests):
                yield from ((test, "True") for test in tests)
            case ast.BoolOp(op=operator, values=tests):
                yield from ((test, str(isinstance(operator, ast.And))) for test in tests)
            case ast.Compare():
                comparisons.append((node, ""))
    yield from comparisons


def _of_shell(source: bytes) -> Iterator[_Edit]:
    done = subprocess.run(["shfmt", "--to-json"], input=source, capture_output=True, check=True)
    yield from _Shell(source).edits(json.loads(done.stdout))


class _Shell:
    """Conditions of a shell script: nodes of shfmt's tree (mvdan.cc/sh/v3/syntax)."""

    def __init__(self, source: bytes) -> None:
        self._source = source

    def edits(self, node: Any, is_condition: bool = False) -> Iterator[_Edit]:
        """Yield the changes of a node and all below. is_condition: its status decides something."""
        if isinstance(node, list):
            for each in node:
                yield from self.edits(each)
            return
        if not isinstance(node, dict):
            return
        kind = node.get("Type", "")
        if "Cond" in node and isinstance(node["Cond"], list) and node["Cond"]:  # if, elif, while, until
            yield from self._both(node["Cond"][0], node["Cond"][-1], "true")
            yield from self.edits(node["Cond"][-1], is_condition=True)
            yield from self.edits([value for key, value in node.items() if key != "Cond"])
            return
        if "Cmd" in node and isinstance(node["Cmd"], dict):  # a statement
            if not is_condition and self._is_test(node["Cmd"]):  # the status of a function
                yield from self._both(node, node, "true")
            yield from self.edits(node["Cmd"], is_condition)
            yield from self.edits([value for key, value in node.items() if key != "Cmd"])
            return
        if kind in ("BinaryCmd", "BinaryArithm", "BinaryTest") and self._operator(node) in ("&&", "||"):
            neutral = "true" if self._operator(node) == "&&" else "false"
            for side in ("X", "Y"):
                if side == "X" or is_condition or kind != "BinaryCmd" or self._is_test(node[side]["Cmd"]):
                    yield from self._both(node[side], node[side], neutral, kind)
                    yield from self.edits(node[side], is_condition=True)
                else:  # what is done then
                    yield from self.edits(node[side])
            return
        if kind == "CaseClause":
            for item in node["Items"]:
                yield from self._of_case(item["Patterns"])
        yield from self.edits(list(node.values()))

    def _of_case(self, patterns: Sequence[Mapping[str, Any]]) -> Iterator[_Edit]:
        start, end = _start(patterns[0]), _end(patterns[-1])
        yield start, end, "negated", _NEVER
        if self._source[start:end] != b"*":
            yield start, end, "dropped", "*"
        for each in patterns if len(patterns) > 1 else ():
            yield _start(each), _end(each), "dropped", _NEVER

    def _both(self, first: Any, last: Any, neutral: str, kind: str = "BinaryCmd") -> Iterator[_Edit]:
        start, end = _start(first), _end(last)
        text = self._source[start:end].decode().rstrip().rstrip(";")
        end = start + len(text.encode())
        negated, constant = {
            # In a subshell nothing that a condition assigns would stay.
            "BinaryCmd": (f"! {{ {text}; }}", neutral),
            "BinaryTest": (f"! ( {text} )", {"true": "-z ''", "false": "-n ''"}[neutral]),
            "BinaryArithm": (f"!({text})", str(int(neutral == "true"))),
        }[kind]
        yield start, end, "negated", negated
        if text != ":":
            yield start, end, "dropped", constant

    def _operator(self, node: Mapping[str, Any]) -> str:
        return self._source[node["OpPos"]["Offset"] :][:2].decode()

    def _is_test(self, command: Mapping[str, Any]) -> bool:
        words = command.get("Args") if command["Type"] == "CallExpr" else None
        is_call = bool(words and _PREDICATE.match(self._source, _start(words[0])))
        return is_call or command["Type"] in ("TestClause", "ArithmCmd")


def _start(node: Mapping[str, Any]) -> int:
    return int(node["Pos"]["Offset"])


def _end(node: Mapping[str, Any]) -> int:
    return int(node["End"]["Offset"])
