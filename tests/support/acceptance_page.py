"""docs/acceptance.md, from the cases below and the markers `istio_case` of the tests: `python -m tests.support.acceptance_page >docs/acceptance.md`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

COMMAND = ".venv/bin/python -m tests.support.acceptance_page >docs/acceptance.md"
ROOT = Path(__file__).resolve().parents[2]
MARKER = "istio_case"


class Case(NamedTuple):
    """One of Istio's own machine test cases, or of what they leave out.

    requirement: what must hold.
    note: what a test cannot show, and why.
    """

    requirement: str
    note: str = ""


CASES = {
    1: Case("a machine calls pods by every form of a Service's name"),
    2: Case(
        "a machine calls headless Services, and a StatefulSet's pod by its name",
        "By a near machine: no gateway passes on calls to a pod's own address.",
    ),
    4: Case("a pod calls machines over HTTP, HTTP/2, gRPC, TCP and HTTPS"),
    6: Case("a machine is called within 15 s of its agent's start"),
    8: Case("an entry is gone within twice the grace and 2 s of the agent's stop"),
    11: Case("two machines with one address in two networks have an entry each", "Forced by what the proxy announces."),
    14: Case(
        "another service account, another namespace, no token: refused",
        "A group without a service account cannot apply: settings refuse one.",
    ),
    16: Case("labels of group and proxy, and the proxy's network and locality, are in the entry"),
    17: Case(
        "an unhealthy machine is not called, a healthy one is",
        "Entries made beforehand cannot apply: machines register themselves.",
    ),
    19: Case(
        "files equal istioctl's",
        "They differ between networks in the network's name alone. The hosts file cannot apply: it is not touched.",
    ),
    21: Case("mutual TLS is strict; policies by principal allow and deny on a machine"),
    22: Case("every endpoint reaches every endpoint"),
    26: Case("reboot, DNS without istiod, package upgrade while running"),
    27: Case(
        "a wrong clock is named",
        "Containers share this computer's clock, so a container's is set by a fake `date`; the virtual machine has a clock. Expired certificates "
        'and rotated roots: see "What happens when" in [machines.md](machines.md).',
    ),
    28: Case(
        "machines with more than one address register the stack's",
        "`INSTANCE_IP` is always given. The resolver is systemd-resolved in both labs. Both backends of iptables, sudo-rs and SELinux "
        "enforcing cannot apply: the lab's image has one of each; [first-live-run.md](first-live-run.md) is where they are met.",
    ),
    29: Case("leaving leaves nothing"),
    30: Case("the second run changes nothing"),
}

HEAD = """\
# Acceptance

What Istio's own tests require of machines, what they leave out and users trip over, and the tests of this program that show it.
Tests of `IstioCases` run in both labs, with one network and with two.

This page is generated: a test names its cases in the marker `istio_case`. After a change, run
`.venv/bin/python -m tests.support.acceptance_page >docs/acceptance.md`.

| | what must hold | shown by |
|---|---|---|
"""
TAIL = """
The rest of `IstioCases` shows a split by weight between pods and machines, and retries and timeouts with a machine as caller and as server.
It also shows access logs in the journal, and request counters by Service.
"""


def tests_by_case() -> dict[int, list[str]]:
    """Return the tests, as `file::name`, by the number of the case that they show."""
    tests: dict[int, list[str]] = {}
    for file in sorted((ROOT / "tests").rglob("*.py")):
        text = file.read_text()
        for node in ast.walk(ast.parse(text)) if MARKER in text else ():
            if isinstance(node, ast.FunctionDef):
                for number in _numbers(node):
                    tests.setdefault(number, []).append(f"{file.relative_to(ROOT)}::{node.name}")
    return tests


def _numbers(function: ast.FunctionDef) -> Iterator[int]:
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == f"pytest.mark.{MARKER}":
            yield from (ast.literal_eval(argument) for argument in decorator.args)


def page() -> str:
    """Return the text of docs/acceptance.md. Raises ValueError where a case has no test, or a marker no case."""
    tests = tests_by_case()
    if tests.keys() != CASES.keys():
        raise ValueError(f"cases without a test: {sorted(CASES.keys() - tests)}; markers without a case: {sorted(tests.keys() - CASES)}")
    rows = []
    for number, case in CASES.items():
        shown_by = ", ".join(f"`{test}`" for test in tests[number])
        rows.append(f"| {number} | {case.requirement} | {shown_by}{f'. {case.note}' if case.note else ''} |\n")
    return HEAD + "".join(rows) + TAIL


if __name__ == "__main__":
    print(page(), end="")
