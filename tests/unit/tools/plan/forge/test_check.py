"""What is new against the plan that was reviewed stops an update."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.tools.plan.forge.test_comment import cli_arguments
from tests.unit.tools.plan.samples import EVERYTHING, NOTHING, REFUSED
from tools.plan import render_json
from tools.plan.forge import commands
from tools.plan.forge.check import news
from tools.plan.model import (
    Action,
    Level,
    MachineChange,
    Mark,
    Operation,
    Plan,
    Reason,
    Verdict,
    WorkloadChange,
)

REVIEWED = replace(EVERYTHING, level=Level.STATE)
EMPTY = replace(NOTHING, stack=REVIEWED.stack, level=Level.STATE)
RECORDS = [
    field.name for field in fields(Plan)
    if isinstance(getattr(REVIEWED, field.name), tuple) and field.name not in ("degraded",)
]  # fmt: skip


def changed(plan: Plan, field: str, value: object) -> Plan:
    """Return a plan with another value of a field, which only the test knows by name."""
    values: dict[str, Any] = {field: value}
    return replace(plan, **values)


def test_the_same_plan_has_nothing_new() -> None:
    assert news(REVIEWED, replace(REVIEWED, head="f" * 40, base="e" * 40)) == ()


def test_the_sample_has_every_kind_of_record() -> None:
    assert {"operations", "workloads", "services", "openings", "identities", "paths"} <= set(
        RECORDS
    )
    assert all(getattr(REVIEWED, name) for name in RECORDS)


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_that_was_not_reviewed_is_new(name: str) -> None:
    reviewed = changed(REVIEWED, name, ())
    assert any(line.startswith(f"{name}: ") for line in news(reviewed, REVIEWED))
    assert news(REVIEWED, reviewed) == ()


@pytest.mark.parametrize("name", ["versions", "verification"])
def test_a_value_that_was_not_reviewed_is_new(name: str) -> None:
    assert len(news(changed(REVIEWED, name, None), REVIEWED)) == 1


def test_a_second_operation_of_a_kind_is_new() -> None:
    operation = Operation(op="create", type="t", name="n")
    twice = replace(REVIEWED, operations=(*REVIEWED.operations, operation, operation))
    once = replace(REVIEWED, operations=(*REVIEWED.operations, operation))
    assert len(news(once, twice)) == 1


def workload(*names: str, **more: object) -> Plan:
    machines = tuple(
        MachineChange(machine=name, network="far", action=Action.RESTARTS) for name in names
    )
    change = WorkloadChange(
        name="product", namespace="shop", mark=Mark.CHANGED, machines=machines, restarts=len(names), at_once=1,
        waves=len(names), seconds=9 * len(names), **more,  # type: ignore[arg-type]
    )  # fmt: skip
    return replace(EMPTY, verdict=Verdict.SAFE, workloads=(change,))


def test_fewer_machines_than_reviewed_are_no_news() -> None:
    assert news(workload("a", "b", "c"), workload("b")) == ()


def test_another_machine_or_another_setting_is_new() -> None:
    assert "machine d" in "".join(news(workload("a", "b"), workload("a", "d")))
    settings = (Reason(key="maxUnavailable", before="1", after="5"),)
    assert len(news(workload("a"), workload("a", settings=settings))) == 1


def test_a_worse_verdict_is_new() -> None:
    assert len(news(workload("a"), replace(workload("a"), verdict=Verdict.PAUSES))) == 1
    assert news(replace(workload("a"), verdict=Verdict.PAUSES), workload("a")) == ()


def token(*reasons: Reason, operation: Operation) -> Plan:
    machine = MachineChange(machine="a", network="far", action=Action.REJOINS, reasons=reasons)
    change = WorkloadChange(
        name="product", namespace="shop", mark=Mark.CHANGED, machines=(machine,)
    )
    return replace(EMPTY, workloads=(change,), operations=(operation,))


ROTATION = Reason(key="rotation", before="1", after="2")
JOIN = Operation(
    op="update",
    type="command:local:Command",
    name="a-join",
    parent="a",
    keys=("stdin.create.changes",),
)


def test_a_token_that_is_minted_anew_is_no_news() -> None:
    assert news(EMPTY, token(ROTATION, operation=JOIN)) == ()


@pytest.mark.parametrize(("reasons", "operation", "number"), [
    ((ROTATION, Reason(key="version")), JOIN, 2),
    ((), JOIN, 2),
    ((ROTATION,), replace(JOIN, op="replace"), 1),
    ((ROTATION,), replace(JOIN, keys=("stdin.create.changes", "environment.SCRIPT_DIGEST")), 1),
    ((ROTATION,), replace(JOIN, keys=()), 1),
    ((ROTATION,), replace(JOIN, parent="b"), 1),
])  # fmt: skip
def test_a_token_excuses_nothing_else(
    reasons: tuple[Reason, ...], operation: Operation, number: int
) -> None:
    assert len(news(EMPTY, token(*reasons, operation=operation))) == number


@pytest.mark.parametrize("change", [
    {"level": Level.FILES},
    {"stack": "another"},
    {"destroy": True},
    {"error": REFUSED.error},
])  # fmt: skip
def test_plans_that_cannot_be_compared_stop(change: dict[str, object]) -> None:
    other = replace(REVIEWED, **change)  # type: ignore[arg-type]
    assert len(news(REVIEWED, other)) == 1
    assert len(news(other, REVIEWED)) == 1


def test_the_command_names_what_is_new(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "reviewed.json", tmp_path / "now.json"]
    for file, plan in zip(files, (EMPTY, REVIEWED), strict=True):
        file.write_text(render_json.text(plan))
    assert commands.COMMANDS["check"](cli_arguments("check", str(files[0]), str(files[0]))) == 0
    assert commands.COMMANDS["check"](cli_arguments("check", *map(str, files))) == 1
    error = capsys.readouterr().err
    assert all(operation.name in error for operation in REVIEWED.operations)


def test_what_is_no_plan_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "plan.json"
    for text in ("", "{}", "[" * 100_000):
        file.write_text(text)
        assert commands.COMMANDS["check"](cli_arguments("check", str(file), str(file))) == 1
    assert (
        commands.COMMANDS["check"](cli_arguments("check", str(file), str(tmp_path / "absent.json")))
        == 1
    )
    absent = str(tmp_path / "absent.json")
    capsys.readouterr()
    assert commands.COMMANDS["check"](cli_arguments("check", absent, absent)) == 1
    assert f"{absent} cannot be read (No such file or directory)" in capsys.readouterr().err
