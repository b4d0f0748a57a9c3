"""The rows of a live run as they are written: for the script and for the document."""

from __future__ import annotations

import re
import subprocess

import pytest

from tools import costs
from tools.live_run import page, rows
from tools.live_run.rows import Row

STACKS = [name for name, _ in costs.stacks()]
EVERY = rows.read()
WITH_COMMANDS = [row for row in (*EVERY.rows, *EVERY.down) if row.run]


@pytest.mark.parametrize("stack", STACKS)
def test_a_stack_is_previewed_created_compared_and_destroyed_in_this_order(stack: str) -> None:
    live_run = rows.read(stack)
    commands = [row.run for row in (*live_run.rows, *live_run.down) if row.run]
    wanted = ["pulumi preview", "pulumi up", "--expect-no-changes", "pulumi refresh", "deletionProtection"]
    positions = [next(i for i, command in enumerate(commands) if part in command) for part in wanted]
    assert positions == sorted(positions)
    assert "pulumi destroy" in commands[-1]


def test_nothing_but_a_protected_destroy_is_deleted_before_the_end() -> None:
    deleting = [row.name for row in EVERY.rows if "destroy" in row.run]
    assert deleting == ["protected"]
    assert all(row.fails for row in EVERY.rows if row.name == "protected")


@pytest.mark.parametrize("stack", STACKS)
def test_a_row_that_another_one_shows_comes_after_it(stack: str) -> None:
    named: set[str] = set()
    for row in rows.read(stack).rows:
        assert not row.by or row.by in named, row.shows
        named.add(row.name)


def test_stacks_of_rows_and_roles_exist() -> None:
    of_rows = {stack for row in (*EVERY.rows, *EVERY.down) for stack in row.stacks}
    of_roles = {stack for role in EVERY.roles for stack in role.stacks}
    assert of_rows | of_roles == set(STACKS)


def test_every_command_can_be_parsed_and_has_variables_that_there_are() -> None:
    given = {"STACK", "PROJECT", "REGION", "ZONE", "CLUSTER", "LOCATION", "KUBECONFIG"}
    for command in [*(row.run for row in WITH_COMMANDS), *EVERY.leftovers]:
        subprocess.run(["bash", "-n", "-c", command], check=True)
        assigned = set(re.findall(r"^\s*(?:for )?(\w+)(?:=| in )", command, re.MULTILINE))
        assert set(re.findall(r"\$\{?(\w+)", command)) <= given | assigned, command


def test_every_pattern_can_be_compiled() -> None:
    for row in WITH_COMMANDS:
        for pattern in (*row.expect, *row.refuse):
            re.compile(pattern)


def test_a_row_must_be_of_one_kind() -> None:
    with pytest.raises(ValueError, match="must have one of"):
        Row(shows="it", look="for it")
    with pytest.raises(ValueError, match="must have one of"):
        Row(shows="it", look="for it", run="true", hand="look")


def test_the_document_has_every_row_once() -> None:
    text = page.PAGE.read_text()
    for row in (*EVERY.rows, *EVERY.down):
        assert text.count(f"| {row.shows} |") == max(1, len(row.stacks)), row.shows


def test_a_document_without_a_change_of_a_row_is_reported() -> None:
    text = page.PAGE.read_text()
    stale = text.replace("| 12 to 20 minutes |", "| an hour |")
    assert stale != text and page.page(stale) == text
