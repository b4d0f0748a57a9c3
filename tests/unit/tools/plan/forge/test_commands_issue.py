"""One issue per stack about its drift."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.fake_forge import BOT, PERSON, Fault, Forge
from tests.unit.tools.plan.forge.test_comment import cli_arguments
from tests.unit.tools.plan.samples import EVERYTHING, NOTHING, REFUSED
from tools.plan import render_json
from tools.plan.forge import commands
from tools.plan.forge.marker import DRIFT, Marker, mark
from tools.plan.model import Degraded, Level, LiveFinding, LiveKind, Plan

DRIFTED = replace(EVERYTHING, stack="prod", level=Level.LIVE)
CALM = replace(NOTHING, stack="prod", level=Level.LIVE)
ISSUES = "/issues$"


def issue(name: str, directory: Path, plan: Plan) -> int:
    file = directory / "plan.json"
    file.write_text(render_json.text(plan))
    return commands.COMMANDS["issue"](cli_arguments("issue", str(file), "--forge", name))


def opened(forge: Forge) -> list[object]:
    return [entry["title"] for entry in forge.world.issues if entry["state"] == "open"]


def test_drift_opens_one_issue_edits_it_and_closes_it(
    forge: Forge, name: str, tmp_path: Path
) -> None:
    for findings in range(3):
        finding = LiveFinding(
            kind=LiveKind.DRIFT, subject=f"machine-{findings}", text="was deleted"
        )
        assert issue(name, tmp_path, replace(DRIFTED, live=(finding,))) == 0
        assert opened(forge) == ["Drift of stack prod"]
        [entry] = forge.world.issues
        assert f"machine-{findings}" in str(entry["body"] or entry["description"])
    assert issue(name, tmp_path, replace(DRIFTED, stack="test")) == 0
    assert opened(forge) == ["Drift of stack prod", "Drift of stack test"]
    assert issue(name, tmp_path, CALM) == 0
    assert opened(forge) == ["Drift of stack test"]
    assert issue(name, tmp_path, CALM) == 0
    assert issue(name, tmp_path, DRIFTED) == 0
    assert opened(forge) == ["Drift of stack test", "Drift of stack prod"]


def test_unhealthy_machines_alone_are_drift(forge: Forge, name: str, tmp_path: Path) -> None:
    finding = LiveFinding(kind=LiveKind.UNHEALTHY, subject="product-1", text="does not answer")
    assert issue(name, tmp_path, replace(CALM, live=(finding,))) == 0
    assert opened(forge) == ["Drift of stack prod"]


@pytest.mark.parametrize("plan", [
    replace(REFUSED, stack="prod", level=Level.LIVE),
    replace(CALM, level=Level.STATE, degraded=(Degraded(level=Level.LIVE, reason="kubectl is not on PATH"),)),
])  # fmt: skip
def test_what_was_not_read_neither_opens_nor_closes(
    forge: Forge, name: str, tmp_path: Path, plan: Plan
) -> None:
    issue(name, tmp_path, DRIFTED)
    assert issue(name, tmp_path, plan) == 1
    assert opened(forge) == ["Drift of stack prod"]


def test_the_oldest_of_two_issues_stays_open(forge: Forge, name: str, tmp_path: Path) -> None:
    text = mark(Marker(kind=DRIFT, stack="prod"), "Drift.")

    def entry(number: int, by: dict[str, object]) -> dict[str, object]:
        author = {"user": by, "author": {"id": by["id"], "username": by["login"]}}
        return {
            "id": number,
            "number": number,
            "iid": number,
            "title": str(number),
            "state": "open",
            "body": text,
            "description": text,
            **author,
        }

    forge.world.issues += [
        entry(3, PERSON),
        entry(5, BOT),
        entry(4, BOT),
        {**entry(2, BOT), "pull_request": {}},
    ]
    if name == "gitlab":  # which has merge requests apart
        forge.world.issues.pop()
    assert issue(name, tmp_path, DRIFTED) == 0
    assert opened(forge)[:2] == ["3", "4"] and "5" not in opened(forge)


def test_an_issue_whose_creation_was_reported_as_failed_is_not_created_twice(
    forge: Forge, name: str, tmp_path: Path
) -> None:
    forge.world.faults.append(Fault("POST", ISSUES, 500, done=True))
    assert issue(name, tmp_path, DRIFTED) == 0
    assert len(opened(forge)) == 1


def test_a_token_without_the_right_is_named(
    forge: Forge, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forge.world.faults.append(
        Fault("POST", ISSUES, 403, '{"message": "Resource not accessible by integration"}')
    )
    assert issue(name, tmp_path, DRIFTED) == 1
    assert ("issues: write" if name == "github" else "scope `api`") in capsys.readouterr().err
