"""The saved state under the real CLI, as the lab stores it. A killed CLI leaves the old state or
the new one, never half of one."""

from __future__ import annotations

import pulumi

from tests.support.cli_stack import PROJECT, STACK, Stack


def test_a_state_is_replaced_in_one_step(stack: Stack) -> None:
    """Who has the old file open goes on reading the old state: it is not written to, a new file takes its place."""
    stack.up(lambda: pulumi.export("said", "before"))
    files = stack.root / "state" / ".pulumi" / "stacks" / PROJECT
    with (files / f"{STACK}.json").open() as old:
        stack.up(lambda: pulumi.export("said", "after"))
        held = old.read()
    assert '"before"' in held and '"after"' not in held
    assert '"after"' in (files / f"{STACK}.json").read_text()


def test_no_file_of_the_state_is_written_in_place(stack: Stack) -> None:
    """Besides the state there is the one before it, written in the same way. What a killed CLI left of a new one does no harm."""
    stack.up(lambda: pulumi.export("said", "before"))
    files = stack.root / "state" / ".pulumi" / "stacks" / PROJECT
    assert sorted(file.name for file in files.iterdir()) == [f"{STACK}.json", f"{STACK}.json.bak"]
    (files / f"{STACK}.json.18c2a.tmp").write_text('{"version": 3, "check')
    stack.up(lambda: pulumi.export("said", "after"))
    assert "after" in stack.call("stack", "output", "said", "--stack", STACK).output
