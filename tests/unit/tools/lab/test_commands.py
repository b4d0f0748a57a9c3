"""The commands: exit codes and last words, and what `down` takes away when Pulumi cannot."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tools import FAILED, INTERRUPTED, OK
from tools.lab import __main__ as commands
from tools.lab import down, locks, paths, pulumi_cli, up
from tools.lab.engine import Engine
from tools.lab.steps import StepError, StepFailedError, quiet


@pytest.fixture(autouse=True)
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ISTIO_VM_MESH_CACHE", str(tmp_path / "cache"))
    for name in ("LAB", "BIN", "STATE", "HOME", "RUN", "LOGS"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    monkeypatch.setattr(commands.signal, "signal", lambda *arguments: None)
    return tmp_path


@pytest.mark.parametrize(
    ("raised", "code", "says"),
    [
        (KeyboardInterrupt(), INTERRUPTED, "run ./scripts/lab up to continue or ./scripts/lab down to remove what there is"),
        (StepFailedError("[ 3/9] x failed"), FAILED, "[ 3/9] x failed"),
        (StepError("another ./scripts/lab works in this checkout"), FAILED, "another ./scripts/lab works"),
    ],
)
def test_what_went_wrong_is_said_and_is_the_exit_code(
    raised: BaseException, code: int, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(stack: str) -> None:
        raise raised

    monkeypatch.setattr(up, "run", run)
    monkeypatch.setattr("sys.argv", ["lab", "up"])
    assert commands.main() == code
    assert says in capsys.readouterr().err


def test_one_command_at_a_time() -> None:
    with locks.checkout_lock(), pytest.raises(StepError, match=r"another \./scripts/lab works in this checkout"), locks.checkout_lock():
        pass
    with locks.checkout_lock():
        pass


def test_the_engine_is_nobodys_to_stop_while_another_checkout_uses_it(lab: Path) -> None:
    with locks.shared_lock(), locks.shared_lock(), locks.exclusive_lock() as alone:
        assert not alone
    with locks.exclusive_lock() as alone:
        assert alone


def test_a_stack_of_another_checkout_is_left_alone(lab: Path) -> None:
    with pytest.raises(StepError, match=r"another checkout has a stack `lab`"):
        up.refuse_foreign_stack(Docker(None), "lab")
    state = paths.STATE / ".pulumi" / "stacks" / pulumi_cli.PROJECT
    state.mkdir(parents=True)
    (state / "lab.json").write_text("{}")
    up.refuse_foreign_stack(Docker(None), "lab")


def test_a_log_is_found_by_number_and_by_name(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    paths.LOGS.mkdir()
    (paths.LOGS / "03-istio-binaries.log").write_text("compiled\n")
    for wanted, code, text in (("3", OK, "compiled\n"), ("binaries", OK, "compiled\n"), ("9", FAILED, "")):
        monkeypatch.setattr("sys.argv", ["lab", "logs", wanted])
        assert commands.main() == code
        assert capsys.readouterr().out == text


class Docker(Engine):
    """An engine that holds two networks of the stack, a machine, and a node that carries no label of the stack."""

    def docker(self, *arguments: str | Path, stdin: bytes | None = None) -> str:
        calls.append(list(map(str, arguments)))
        match arguments:
            case ("network", "ls", *_):
                return "aaa\nbbb"
            case ("ps", *_, "label=istio-vm-mesh.stack=lab"):
                return "machine"
            case ("ps", *_, "network=aaa"):
                return "machine\nnode"
        return ""

    def attempt(self, *arguments: str | Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        calls.append(list(map(str, arguments)))
        return subprocess.CompletedProcess([], 0, b"sha256:image\n", b"")


class Creating(Docker):
    """An engine that still creates the node of a cluster, for two questions more."""

    def attempt(self, *arguments: str | Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        done = super().attempt(*arguments, stdin=stdin)
        done.returncode = int(arguments[0] == "create" and sum(call[0] == "create" for call in calls) < 3)
        return done


calls: list[list[str]] = []


def test_what_pulumi_left_is_removed_by_label_and_network(lab: Path) -> None:
    calls.clear()
    down._remove_containers(quiet("down", lab / "log"), Docker(None), "lab")
    assert calls[-2:] == [["rm", "--force", "--volumes", "machine", "node"], ["network", "rm", "aaa", "bbb"]]


def test_a_node_that_the_engine_still_creates_is_waited_for(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that was killed has asked for it; it is listed only when it is there."""
    monkeypatch.setattr(down.time, "sleep", lambda _: None)
    calls.clear()
    down._remove_containers(quiet("down", lab / "log"), Creating(None), "lab")
    node = "istio-vm-mesh-lab-cluster-control-plane"
    assert [call for call in calls if call[0] == "create"] == 3 * [["create", "--name", node, "sha256:image"]]
    assert calls.index(["rm", "--volumes", node]) < [call[:2] for call in calls].index(["network", "ls"])
    assert f"name=^{node}$" in [call[-1] for call in calls if call[0] == "ps"]


@pytest.mark.parametrize(
    ("cluster", "machine", "local"), [("kind", "docker", True), ("kind", "gce", False), ("gke", "docker", False), (None, "docker", False)]
)
def test_only_a_stack_that_is_all_on_this_machine_is_forgotten(
    lab: Path, monkeypatch: pytest.MonkeyPatch, cluster: str | None, machine: str, local: bool
) -> None:
    monkeypatch.setattr(paths, "ROOT", lab)
    (lab / "stacks").mkdir()
    text = f"config:\n  istio-vm-mesh:machines: {{a: {{platform: {machine}}}}}\n"
    text += f"  istio-vm-mesh:cluster: {{platform: {cluster}}}\n" if cluster else ""
    (lab / "stacks" / "Pulumi.x.yaml").write_text(text)
    state = paths.STATE / ".pulumi" / "stacks" / pulumi_cli.PROJECT
    state.mkdir(parents=True)
    (state / "x.json").write_text("{")
    (state / "other.json").write_text("{}")

    def broken(step: object, stack: str) -> None:
        raise StepError("`pulumi stack` failed")

    monkeypatch.setattr(pulumi_cli, "select", broken)
    if local:
        down._destroy(quiet("down", lab / "log"), "x")
        assert pulumi_cli.stacks() == ["other"]
    else:
        with pytest.raises(StepError):
            down._destroy(quiet("down", lab / "log"), "x")
        assert pulumi_cli.stacks() == ["other", "x"]
