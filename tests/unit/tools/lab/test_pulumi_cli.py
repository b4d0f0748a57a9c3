"""What Pulumi prints becomes the step's progress, and its diagnostics the cause of a failure."""

from __future__ import annotations

import io
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.waiting import wait_until
from tools.directories import make_private
from tools.lab import paths, pulumi_cli
from tools.mesh_status.pulumi import explanation
from tools.process import Command
from tools.steps import Display, StepError, Steps, quiet

UPDATE = """\
Updating (lab):

@ updating....
 +  pulumi:pulumi:Stack istio-vm-mesh-lab creating (0s)
 +  command:local:Command cluster creating (0s)
@ updating....
 +  command:local:Command cluster creating (1s) Creating cluster "lab" ...
 +  command:local:Command cluster created (24s) kubeconfig=x
 +- kubernetes:batch/v1:Job probe replacing (0s) [diff: ~spec]
 +- kubernetes:batch/v1:Job probe replaced (0.31s) [diff: ~spec]
 ~  kubernetes:helm.sh/v3:Release istiod updating (0s) [diff: ~values]
 ~  kubernetes:helm.sh/v3:Release istiod **updating failed** [diff: ~values]; error: timed out
Diagnostics:
  kubernetes:helm.sh/v3:Release (istiod):
    error: timed out

Resources:
    + 2 created
"""


def test_progress_is_one_line_per_finished_resource(tmp_path: Path) -> None:
    stream = io.StringIO()
    with Steps("up", 1, Display(stream), tmp_path, retry_command="the same command").step("pulumi up") as step:
        follow = pulumi_cli.Resources(step)
        notes = [note for line in UPDATE.splitlines() if (note := follow(line))]
    assert [line.strip() for line in stream.getvalue().splitlines()[:-1]] == [
        "Command cluster created: 24 s",
        "Job probe replaced: 0.3 s",
        "Release istiod updating failed",
    ]
    assert notes[1] == "0 done; creating Stack istio-vm-mesh-lab, creating Command cluster"
    assert notes[-1] == "3 done; creating Stack istio-vm-mesh-lab"


def test_the_cause_of_a_failure_is_pulumis_diagnostics() -> None:
    assert explanation(UPDATE) == "  kubernetes:helm.sh/v3:Release (istiod):\n    error: timed out"
    assert explanation("error: no stack\n") == "error: no stack"
    assert explanation('Process exited with status 1: running "echo \\"x\\"; sudo":\nwhy\n') == "Process exited with status 1:\nwhy"


@pytest.fixture
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state with room for locks, and a CLI that only writes down how it was called."""
    for name in ("BIN", "STATE", "HOME", "RUN"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    paths.BIN.mkdir()
    (paths.BIN / "pulumi").write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/calls\n')
    (paths.BIN / "pulumi").chmod(0o755)
    directory = paths.STATE / ".pulumi/locks/organization/istio-vm-mesh/lab"
    directory.mkdir(parents=True)
    return directory


def _lock(directory: Path, pid: int) -> None:
    (directory / "x.json").write_text(json.dumps({"pid": pid, "hostname": os.uname().nodename}))


def _cli(tmp_path: Path, **environment: str) -> subprocess.Popen[bytes]:
    """A process called `pulumi` that does nothing, in a group of its own."""
    (tmp_path / "pulumi").symlink_to("/bin/sleep")
    process = subprocess.Popen([tmp_path / "pulumi", "600"], start_new_session=True, env=os.environ | environment)
    files = Path(f"/proc/{process.pid}")
    # A program has its name a moment after it was started, and its environment after that.
    wait_until(lambda: (files / "comm").read_text() == "pulumi\n" and (files / "environ").read_bytes())
    return process


def test_the_lock_of_a_dead_run_is_removed(locks: Path, tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    _lock(locks, dead.pid)
    pulumi_cli.select(quiet("up", tmp_path / "log"), "lab")
    assert "cancel --yes --stack lab" in (tmp_path / "calls").read_text()


@pytest.mark.parametrize("pending", [False, True])
def test_a_resource_is_complete_if_no_run_has_begun_to_create_it(locks: Path, tmp_path: Path, pending: bool) -> None:
    resources = [{"urn": f"urn:pulumi:lab::p::t::{name}"} for name in ("one", "two", "three")]
    resources[1]["pendingReplacement"] = True  # type: ignore[assignment]
    deployment: dict[str, object] = {"resources": resources}
    if pending:
        deployment["pending_operations"] = [{"resource": {"urn": "urn:pulumi:lab::p::t::three", "type": "t"}, "type": "creating"}]
    (tmp_path / "export").write_text(json.dumps({"deployment": deployment}))
    (paths.BIN / "pulumi").write_text(f'#!/bin/sh\n[ "$2" != export ] || cat {tmp_path}/export\n')
    assert pulumi_cli.destroy(quiet("down", tmp_path / "log"), "lab") == ({"one"} if pending else {"one", "three"})


def test_a_cli_that_people_run_is_waited_for(locks: Path, tmp_path: Path) -> None:
    running = _cli(tmp_path)
    try:
        _lock(locks, running.pid)
        with pytest.raises(StepError, match=rf"another pulumi \(process {running.pid}\) works on the stack lab"):
            pulumi_cli.select(quiet("up", tmp_path / "log"), "lab")
    finally:
        running.kill()
        running.wait()
    assert not (tmp_path / "calls").exists()  # not even to look at the state that the other one writes


def test_a_cli_whose_lab_was_killed_is_ended(locks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulumi_cli, "STOP_GRACE", 0.2)
    orphan = _cli(tmp_path, **{pulumi_cli.MARK: "1"})
    _lock(locks, orphan.pid)
    pulumi_cli.select(quiet("up", tmp_path / "log"), "lab")
    assert orphan.wait() < 0
    assert "cancel" in (tmp_path / "calls").read_text()


def test_a_stack_without_a_file_is_an_error_that_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"there is no stack file .*/stacks/Pulumi\.nowhere\.yaml \(known: .*lab"):
        pulumi_cli.select(quiet("up", tmp_path / "log"), "nowhere")


def test_what_a_killed_run_left_running_is_ended_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "HOME", tmp_path / "home")
    monkeypatch.setattr(paths, "TMP", tmp_path / "run" / "tmp")
    make_private(paths.TMP)
    (paths.TMP / "kubeconfig").write_text("")
    (tmp_path / "run" / "lock").write_text("")
    ours = {"PATH": os.environ["PATH"], "PULUMI_HOME": str(paths.HOME), pulumi_cli.MARK: "1"}
    left = subprocess.Popen(["sleep", "600"], env=ours)
    others = [
        subprocess.Popen(["sleep", "600"], env={**ours, "PULUMI_HOME": "/another/checkout"}),
        subprocess.Popen(["sleep", "600"], env={name: value for name, value in ours.items() if name != pulumi_cli.MARK}),
    ]
    try:
        wait_until(lambda: left.pid in pulumi_cli._leftovers())
        pulumi_cli.end_leftovers(quiet("leftovers", tmp_path / "log"))
        assert left.wait() == -9
        assert [other.poll() for other in others] == [None, None]
        assert os.listdir(tmp_path / "run") == ["lock"]
    finally:
        for process in [left, *others]:
            process.kill()
            process.wait()


def test_an_interrupted_call_leaves_nothing_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program and the plugins of a CLI end later than the CLI, those of Pulumi's own after minutes."""
    monkeypatch.setattr(paths, "HOME", tmp_path / "home")
    monkeypatch.setattr(paths, "TMP", tmp_path / "run" / "tmp")
    step = quiet("up", tmp_path / "log")
    plugins = []

    def interrupted(command: Command, **_: object) -> None:
        plugins.append(subprocess.Popen(["sleep", "600"], env={"PATH": os.environ["PATH"], **(command.env or {})}))
        # A program has its environment a moment after it was started.
        wait_until(lambda: plugins[0].pid in pulumi_cli._leftovers())
        raise KeyboardInterrupt

    monkeypatch.setattr(step, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pulumi_cli.call(step, "up")
    assert [plugin.wait() for plugin in plugins] == [-9]


def test_what_a_leftover_starts_before_it_is_killed_is_ended_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that cannot be killed is tried once."""
    looks = iter([{1, 2}, {2, 3}, {2}])
    killed: list[int] = []
    monkeypatch.setattr(pulumi_cli, "_leftovers", lambda: next(looks))
    monkeypatch.setattr(pulumi_cli.process, "kill", killed.extend)
    pulumi_cli.end_leftovers(quiet("leftovers", tmp_path / "log"))
    assert killed == [1, 2, 3]
