"""What the program relies on in the engine and the `command` plugin together, seen in their
source and run against them.
"""

from __future__ import annotations

from pathlib import Path

import pulumi
from pulumi_command import local

from tests.support.cli_stack import STACK, Stack


def test_deleted_with_and_replace_with(commands: Stack, tmp_path: Path) -> None:
    """`deleted_with`: nothing is run for what goes anyway. `replace_with`: what must be made
    again with it, is.
    """
    log = tmp_path / "log"

    def program(trigger: str) -> None:
        machine = local.Command(
            "machine",
            create=f"echo create machine >>{log}",
            delete=f"echo delete machine >>{log}",
            triggers=[trigger],
            opts=pulumi.ResourceOptions(delete_before_replace=True),
        )
        local.Command(
            "joined",
            create=f"echo create joined >>{log}",
            delete=f"echo delete joined >>{log}",
            opts=pulumi.ResourceOptions(deleted_with=machine, replace_with=[machine]),
        )
        local.Command("other", create="true", delete=f"echo delete other >>{log}", opts=pulumi.ResourceOptions(depends_on=machine))

    commands.up(lambda: program("1"))
    assert log.read_text().splitlines() == ["create machine", "create joined"]
    log.write_text("")
    assert commands.preview(lambda: program("2")).changes() == {"replace": 2, "unchanged": 2}
    commands.up(lambda: program("2"))
    lines = log.read_text().splitlines()
    assert lines.index("delete machine") < lines.index("create machine") < lines.index("create joined")
    log.write_text("")
    commands.destroy()
    assert log.read_text().splitlines() == ["delete other", "delete machine"]


def test_a_failed_update_is_tried_again(commands: Stack, tmp_path: Path) -> None:
    """The old inputs stay in the state, so the same change is a change still; a failed deletion
    keeps the resource.
    """
    repaired = tmp_path / "repaired"

    def program(word: str, delete: str) -> None:
        local.Command("it", create=f"echo {word}; test {word} = one || test -e {repaired}", delete=delete)

    commands.up(lambda: program("one", "true"))
    commands.up(lambda: program("two", f"test -e {repaired}"), fails=True)
    assert commands.resources()["it"]["outputs"]["stdout"] == "one"
    repaired.touch()
    assert commands.up(lambda: program("two", f"test -e {repaired}")).changes() == {"updated": 1, "unchanged": 1}
    repaired.unlink()
    commands.call("destroy", "--stack", STACK, "--yes", "--skip-preview", fails=True)
    assert "it" in commands.resources()
    repaired.touch()
    commands.destroy()
    assert commands.resources() == {}
