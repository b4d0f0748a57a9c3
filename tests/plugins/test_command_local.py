"""`command:local:Command` on the real engine."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pulumi
import pytest
from pulumi_command import local, remote

from components import continue_on_error
from tests.support.cli_stack import Stack
from tests.support.waiting import wait_until
from tools.standins.command import Command
from tools.standins.provider import Request

CANARY = "canary-6f1d9"


def test_life_of_a_command(commands: Stack, tmp_path: Path) -> None:
    log = tmp_path / "log"

    def program(word: str, trigger: str) -> None:
        say = f"echo $PULUMI_COMMAND_STDOUT >> {log}; echo {word}"
        local.Command("rerun", create=say)
        local.Command("updated", create="echo created", update=f"echo updated {word}", environment={"WORD": word})
        local.Command(
            "triggered",
            create=f"echo create {trigger} >> {log}; echo {trigger}",
            delete=f"echo delete $PULUMI_COMMAND_STDOUT >> {log}",
            triggers=[trigger],
        )
        pulumi.export("updated", pulumi.Output.all(local.Command("first", create="printf 'a\n\n'; printf b >&2").stdout))

    def one() -> None:
        program("one", "1")

    def two() -> None:
        program("two", "2")

    preview = commands.preview(one)
    assert preview.changes() == {"create": 5}
    assert not log.exists(), "a preview must not run commands"
    assert "[unknown]" in preview.output

    commands.up(one)
    outputs = {name: resource["outputs"] for name, resource in commands.resources().items()}
    assert (outputs["first"]["stdout"], outputs["first"]["stderr"]) == ("a\n", "b"), "one trailing newline goes"
    assert outputs["updated"]["stdout"] == "created"
    assert log.read_text().split("\n")[:-1] == ["create 1", ""] or log.read_text().split("\n")[:-1] == ["", "create 1"]

    assert commands.up(one).changes() == {"unchanged": 5}
    assert commands.refresh().changes() == {"unchanged": 5}

    log.write_text("")
    preview = commands.preview(two)
    assert preview.changes() == {"update": 2, "replace": 1, "changes": 3, "unchanged": 2}
    commands.up(two)
    outputs = {name: resource["outputs"] for name, resource in commands.resources().items()}
    assert outputs["updated"]["stdout"] == "updated two"
    assert outputs["rerun"]["stdout"] == "two"
    lines = log.read_text().splitlines()
    assert "one" in lines, "the last output is handed on"
    assert lines.index("create 2") < lines.index("delete 1"), "create comes before delete in a replacement"

    log.write_text("")
    commands.destroy()
    assert log.read_text() == "delete 2\n"


def test_secrets_stay_secret(commands: Stack) -> None:
    def program() -> None:
        secret = pulumi.Output.secret(CANARY)
        command = local.Command(
            "secret",
            create="cat; echo $CANARY",
            stdin=secret,
            environment={"CANARY": secret, "OPEN": "open"},
            triggers=[secret],
            logging=local.Logging.NONE,
            opts=pulumi.ResourceOptions(additional_secret_outputs=["stdout"]),
        )
        pulumi.export("stdout", command.stdout)
        pulumi.export("environment", command.environment)

    results = [
        commands.preview(program, "--diff"),
        commands.preview(program, "--json"),
        commands.up(program, "--diff"),
        commands.preview(program, "--diff", "--refresh"),
    ]
    assert [CANARY in result.output for result in results] == [False] * 4
    assert commands.files_with(CANARY) == []
    assert "[secret]" in results[0].output
    outputs = commands.resources()["secret"]["outputs"]
    assert outputs["environment"]["OPEN"] == "open"
    assert outputs["stderr"] == ""


def test_a_failed_command_leaves_nothing_and_the_next_up_finishes(commands: Stack, tmp_path: Path) -> None:
    repaired = tmp_path / "repaired"

    def program() -> None:
        local.Command("fails", create=f"echo on its way; echo in trouble >&2; test -e {repaired} || exit 3")
        local.Command("works", create="true")

    failed = commands.up(program, fails=True)
    assert f'exit status 3: running "echo on its way; echo in trouble >&2; test -e {repaired} || exit 3":' in failed.output
    assert "on its way\n" in failed.output
    assert "in trouble\n" in failed.output
    assert list(commands.resources()) == ["works"]
    repaired.touch()
    assert commands.up(program).changes() == {"created": 1, "unchanged": 2}

    def worse() -> None:
        local.Command("fails", create="exit 4")
        local.Command("works", create="true")

    commands.up(worse, fails=True)
    assert commands.resources()["fails"]["outputs"]["stdout"] == "on its way", "a failed update keeps the old state"


def test_output_is_shown_while_the_command_runs(commands: Stack, tmp_path: Path) -> None:
    go_on = tmp_path / "go-on"

    def program() -> None:
        local.Command("streams", create=f"echo started; while ! test -e {go_on}; do sleep 0.05; done; echo ended")
        local.Command("quiet", create="echo not-to-be-seen", logging=local.Logging.NONE)
        local.Command("errors", create="echo unseen-stdout; echo seen-stderr >&2", logging=local.Logging.STDERR)

    with commands.updating(program) as process:
        assert process.stdout
        seen = ""
        for line in process.stdout:
            seen += line
            if "streams" in line and "started" in line:
                go_on.touch()
        assert process.wait() == 0, seen
    assert "ended" in seen
    assert "seen-stderr" in seen
    assert "not-to-be-seen" not in seen
    assert "unseen-stdout" not in seen


@pytest.mark.standin  # the official plugin hangs after a line of more than 64 kB, unless it logs nothing
def test_a_very_long_line(commands: Stack) -> None:
    def program() -> None:
        for logging in local.Logging:
            local.Command(logging.value, create="head -c 200000 /dev/zero | tr '\\0' x", logging=logging)

    commands.up(program)
    lengths = {name: len(resource["outputs"]["stdout"]) for name, resource in commands.resources().items()}
    assert lengths == {logging.value: 200_000 for logging in local.Logging}


def test_interpreter_directory_and_environment(commands: Stack, tmp_path: Path) -> None:
    def program() -> None:
        local.Command("directory", create="pwd", dir=str(tmp_path))
        local.Command(
            "interpreter", create="import os; print(os.environ['WORD'])", interpreter=["python3", "-c"], environment={"WORD": "w"}
        )
        local.Command("input", create="tr a-z A-Z", stdin="shout")
        local.Command("clean", create="echo ${PYTHONPATH-unset}")

    commands.up(program)
    outputs = {name: resource["outputs"]["stdout"] for name, resource in commands.resources().items()}
    assert outputs == {"directory": str(tmp_path), "interpreter": "w", "input": "SHOUT", "clean": "unset"}

    def nowhere() -> None:
        local.Command("directory", create="pwd", dir=str(tmp_path / "nowhere"))

    output = commands.up(nowhere, fails=True).output
    assert "no such file or directory" in output.lower() and f"{tmp_path}/nowhere" in output


@pytest.mark.standin
def test_a_command_ends_when_its_time_is_over(commands: Stack) -> None:
    def program() -> None:
        local.Command("slow", create="sleep 60", opts=pulumi.ResourceOptions(custom_timeouts=pulumi.CustomTimeouts(create="1s")))

    assert 'timed out after 1 s: running "sleep 60"' in commands.up(program, fails=True).output


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"assetPaths": ["x"]}, "assetPaths"),
        ({"archivePaths": ["x"]}, "archivePaths"),
        ({"logging": "loud"}, "must be one of stdoutAndStderr, stdout, stderr, none"),
    ],
)
def test_unsupported_inputs_are_refused_by_name(inputs: dict[str, Any], message: str) -> None:
    request = Request("urn", "command:local:Command", "refused", inputs={"create": "true", **inputs})
    (failure,) = Command().check(request).failures
    assert message in f"{failure.property} {failure.reason}"


@pytest.mark.standin
def test_a_refused_input_is_an_error_of_the_preview(commands: Stack) -> None:
    refused = commands.preview(lambda: local.Command("refused", create="true", asset_paths=["x"]), fails=True)
    assert "assetPaths" in refused.output


@pytest.mark.standin
def test_other_resources_and_functions_are_refused_by_name(commands: Stack) -> None:
    def over_ssh() -> None:
        remote.Command("refused", connection=remote.ConnectionArgs(host="localhost", password="x"), create="true")

    def function() -> None:
        local.run(command="true")

    assert "does not implement command:remote:Command" in commands.preview(over_ssh, fails=True).output
    assert "does not implement command:local:run" in commands.preview(function, fails=True).output


@pytest.mark.standin
def test_interrupting_ends_the_command(commands: Stack, tmp_path: Path) -> None:
    pid = tmp_path / "pid"

    def program() -> None:
        local.Command("slow", create=f"echo $$ > {pid}.new; mv {pid}.new {pid}; sleep 60")

    with commands.updating(program) as process:
        wait_until(pid.exists)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate()
    assert process.returncode != 0
    assert "interrupted" in output
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    assert commands.resources() == {}
    assert (
        json.loads((commands.root / "state/.pulumi/stacks/test/lab.json").read_text())["checkpoint"]["latest"].get("pending_operations", [])
        == []
    )


def test_a_failed_command_stops_its_dependents_alone(commands: Stack) -> None:
    """With `--continue-on-error`; the program of this project goes on where the SDK's would end,
    and nothing that is left out is deleted.
    """

    def program(word: str) -> None:
        continue_on_error.install()
        slow = local.Command("slow", create=f"sleep 1; echo {word}")
        local.Command("after slow", create="true", stdin=slow.stdout)
        failing = local.Command("failing", create=f"test {word} != wrong")
        local.Command("after failing", create="true", opts=pulumi.ResourceOptions(depends_on=[failing]))

    def right() -> None:
        program("right")

    def wrong() -> None:
        program("wrong")

    everything = {"slow", "after slow", "failing", "after failing"}
    result = commands.up(wrong, "--continue-on-error", fails=True)
    assert set(commands.resources()) == {"slow", "after slow"}
    assert "exit status 1" in result.output and "Traceback" not in result.output
    commands.up(right, "--continue-on-error")
    assert set(commands.resources()) == everything
    commands.up(wrong, "--continue-on-error", fails=True)
    assert set(commands.resources()) == everything
    assert commands.resources()["after slow"]["inputs"]["stdin"] == "wrong"
