"""The commands: exit codes and last words, and what `down` takes away when Pulumi cannot."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from components.local import cluster_access, private_files, scripting, update_id
from components.local.scripting import Done
from components.names import SSH_KEY
from tools import FAILED, INTERRUPTED, OK, ROOT, steps
from tools.lab import down, locks, paths, pulumi_cli, up
from tools.lab.__main__ import main
from tools.lab.engine import Engine
from tools.lab.offline import images
from tools.lab.offline.programs import Tools
from tools.steps import StepError, StepFailedError, quiet


@pytest.fixture(autouse=True)
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ISTIO_VM_MESH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "local"))
    for name in ("LAB", "BIN", "STATE", "HOME", "RUN", "DOCKER_HOST"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    monkeypatch.setattr(steps, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(signal, "signal", lambda *arguments: None)
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
    def run(stack: str, publishers: object) -> None:
        raise raised

    monkeypatch.setattr(up, "run", run)
    monkeypatch.setattr("sys.argv", ["lab", "up"])
    assert main() == code
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stack", "says"),
    [
        ("nowhere", r"there is no stack file .*/stacks/Pulumi\.nowhere\.yaml \(known: .*, lab,"),
        ("labb", r"there is no stack file .*/stacks/Pulumi\.labb\.yaml \(did you mean 'lab'\?\)"),
        ("existing", "the stack existing is of the platform existing.*: run it by Pulumi .*, or choose one such as `lab`"),
        ("single-network", "the stack single-network is of the platform gke"),
        ("broken", "broken: .* is no YAML"),
    ],
)
def test_a_stack_that_is_none_of_the_lab_is_refused_before_anything_is_prepared(
    stack: str, says: str, lab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "stacks", lab / "stacks")
    (lab / "stacks" / "Pulumi.broken.yaml").write_text("config: [")
    monkeypatch.setattr(paths, "ROOT", lab)
    monkeypatch.setattr(up, "prepare", pytest.fail)
    monkeypatch.setattr("sys.argv", ["lab", "up", "--stack", stack])
    assert main() == FAILED
    assert re.search(says, capsys.readouterr().err)


class Empty(Engine):
    """An engine that has nothing of any stack."""

    def docker(self, *arguments: str | Path, stdin: bytes | None = None) -> str:
        return ""


@pytest.mark.parametrize("answering", [None, Empty(None)])
def test_a_stack_that_never_existed_is_not_taken_down(
    answering: Engine | None, lab: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(down.engine, "find", lambda: answering)
    monkeypatch.setattr(down, "Steps", pytest.fail)
    monkeypatch.setattr("sys.argv", ["lab", "down", "--stack", "labb"])
    assert main() == FAILED
    assert "Pulumi.labb.yaml (did you mean 'lab'?)" in capsys.readouterr().err


def test_a_stack_of_which_something_is_left_is_taken_down(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a file, containers, networks or a state."""
    monkeypatch.setattr(down.engine, "find", lambda: Empty(None))
    down.refuse_unknown_stack("lab")
    state = paths.STATE / ".pulumi" / "stacks" / pulumi_cli.PROJECT
    state.mkdir(parents=True)
    (state / "without-a-file.json").write_text("{}")
    down.refuse_unknown_stack("without-a-file")
    monkeypatch.setattr(down.engine, "find", lambda: Docker(None))
    down.refuse_unknown_stack("left")
    monkeypatch.setattr(down.engine, "find", lambda: None)
    monkeypatch.setattr(paths, "docker_host", lambda: "unix:///run/stopped.sock")
    down.refuse_unknown_stack("left-in-a-stopped-engine")


@pytest.mark.parametrize("stack", ["lab", "lab-multi-network", "lab-vm"])
def test_stacks_of_the_lab_are_not_refused(stack: str) -> None:
    up.refuse_other_stack(stack)


def test_the_image_of_a_virtual_machine_is_made_for_stacks_that_name_it(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted_by: dict[str, set[str]] = {}
    for stack in ("lab", "lab-vm"):
        monkeypatch.setattr(
            images, "make", lambda *given, stack=stack, **_: wanted_by.update({stack: {each.name for each in given[-1]}}) or []
        )
        images.ensure(quiet("images", lab / "log"), Docker(None), Tools(), up.images_of_machines(stack))
    assert wanted_by["lab"] == {each.name for each in images.IMAGES}
    assert wanted_by["lab-vm"] - wanted_by["lab"] == {images.VIRTUAL_MACHINE.name}


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
    steps.LOGS.mkdir()
    (steps.LOGS / "03-istio-binaries.log").write_text("compiled\n")
    for wanted, code, text in (("3", OK, "compiled\n"), ("binaries", OK, "compiled\n"), ("9", FAILED, "")):
        monkeypatch.setattr("sys.argv", ["lab", "logs", wanted])
        assert main() == code
        assert capsys.readouterr().out == text


def test_where_there_is_no_log_the_command_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for words, code, text in (([], OK, "no logs yet: `./scripts/lab up` writes them\n"), (["3"], FAILED, "no step 3 has a log")):
        monkeypatch.setattr("sys.argv", ["lab", "logs", *words])
        assert main() == code
        assert text in capsys.readouterr().err


class Docker(Engine):
    """An engine that holds two networks of the stack, a machine, and a node that carries no label of the stack."""

    node = "istio-vm-mesh-lab-cluster-control-plane"

    def docker(self, *arguments: str | Path, stdin: bytes | None = None) -> str:
        calls.append(list(map(str, arguments)))
        match arguments:
            case ("network", "ls", *_):
                return "aaa\nbbb"
            case ("ps", *_, "label=istio-vm-mesh.stack=lab"):
                return "machine"
            case ("ps", *_, "name=^istio-vm-mesh-lab-cluster-control-plane$"):
                return "istio-vm-mesh-lab-cluster-control-plane"
            case ("ps", *_, "network=aaa"):
                return f"of-others machine {self.node}"
        return ""

    def attempt(self, *arguments: str | Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        calls.append(list(map(str, arguments)))
        return subprocess.CompletedProcess([], 0, b"sha256:image\n", b"")


class Creating(Docker):
    """An engine that still creates everything, for two questions more each."""

    def docker(self, *arguments: str | Path, stdin: bytes | None = None) -> str:
        listed = super().docker(*arguments, stdin=stdin)
        return "" if str(arguments[-1]).startswith("name=^") else listed

    def attempt(self, *arguments: str | Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        done = super().attempt(*arguments, stdin=stdin)
        done.returncode = int("create" in arguments and calls.count(list(map(str, arguments))) < 3)
        return done


class Listing(Docker):
    """An engine that has created everything, and lists it."""

    def docker(self, *arguments: str | Path, stdin: bytes | None = None) -> str:
        return super().docker(*arguments, stdin=stdin) or "id"


calls: list[list[str]] = []


def test_what_pulumi_left_is_removed_and_a_container_of_others_stays(lab: Path) -> None:
    calls.clear()
    down._remove_containers(quiet("down", lab / "log"), Docker(None), "lab")
    assert [call for call in calls if not {"ls", "ps"} & {*call}] == [
        ["rm", "--force", "--volumes", "istio-vm-mesh-lab-cluster-control-plane", "machine"],
        ["network", "disconnect", "--force", "aaa", "of-others"],
        ["network", "rm", "aaa", "bbb"],
    ]


def test_a_cluster_of_others_that_has_the_name_of_the_labs_stays(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its node is in no network of the stack."""
    monkeypatch.setattr(Docker, "node", "")
    calls.clear()
    down._remove_containers(quiet("down", lab / "log"), Docker(None), "lab")
    assert [call for call in calls if call[0] == "rm"] == [["rm", "--force", "--volumes", "machine"]]


def test_the_key_of_an_up_that_was_killed_goes(lab: Path) -> None:
    """Pulumi's state does not have it. That of a stack with machines elsewhere stays: it may be of another backend."""
    files = [private_files.reference(f"organization/{pulumi_cli.PROJECT}/{stack}", SSH_KEY) for stack in ("lab", "single-network")]
    for file, stack in zip(files, ("lab", "single-network"), strict=True):
        private_files.write(file, "a key")
        down._remove_containers(quiet("down", lab / "log"), Docker(None), stack)
    assert [private_files.path_of(file).exists() for file in files] == [False, True]


def test_a_kept_kubeconfig_goes_with_a_cluster_that_pulumi_does_not_know(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a credential. An `up` that was killed has not stored the cluster."""
    monkeypatch.setattr(update_id, "of_pulumi", lambda: "1 2")
    monkeypatch.setattr(scripting, "check", lambda *_, **__: Done(0, b"apiVersion: v1", b""))
    for stack in ("lab", "other"):
        cluster_access.read_kind_kubeconfig(f"istio-vm-mesh-{stack}-cluster")
    down._remove_containers(quiet("down", lab / "log"), Docker(None), "lab")
    assert [file.name for file in private_files.path_of("state:clusters").iterdir()] == ["kind-istio-vm-mesh-other-cluster.json"]


NODE = "istio-vm-mesh-lab-multi-network-cluster-control-plane"
CONTAINERS = {
    NODE,
    *(f"istio-vm-mesh-lab-multi-network-{name}" for name in ("product-1", "product-2", "product-3", "far-gateway-1", "far-gateway-2")),
}
NETWORKS = {f"istio-vm-mesh-lab-multi-network-{name}" for name in ("pods", "far")}


def wait_for_creation(engine: Engine, monkeypatch: pytest.MonkeyPatch, complete: set[str] | None = None) -> list[list[str]]:
    """Return the calls of docker while `down` waits."""
    monkeypatch.setattr(down.time, "sleep", lambda _: None)
    calls.clear()
    down._wait_for_creation(engine, "lab-multi-network", complete or set())
    return calls


def test_what_the_engine_still_creates_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that was killed has asked for it; it is listed only when it is there."""
    done = wait_for_creation(Creating(None), monkeypatch)
    for name in CONTAINERS:
        assert done.count(["create", "--name", name, "sha256:image"]) == 3
        assert done.count(["rm", "--volumes", name]) == 1
    for name in NETWORKS:
        assert sum(call[:2] == ["network", "create"] and call[-1] == name for call in done) == 3
        assert done.count(["network", "rm", name]) == 1
    assert {call[-1] for call in done if "create" in call} - {"sha256:image"} == NETWORKS


def test_what_the_engine_lists_is_not_created_again(monkeypatch: pytest.MonkeyPatch) -> None:
    done = wait_for_creation(Listing(None), monkeypatch)
    assert {call[-1] for call in done if "--filter" in call} == {f"name=^{name}$" for name in CONTAINERS | NETWORKS}
    assert not [call for call in done if {"create", "rm"} & {*call}]


def test_a_network_of_others_with_its_cidr_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(down, "NETWORK_CREATION_S", 0.0)
    done = wait_for_creation(Creating(None), monkeypatch)
    assert not [call for call in done if call[:2] == ["network", "rm"]]


def test_of_a_stack_whose_file_is_broken_the_node_is_waited_for(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "ROOT", lab)
    done = wait_for_creation(Creating(None), monkeypatch)
    assert {call[2] for call in done if call[0] == "create"} == {NODE}


def test_what_pulumi_created_and_destroyed_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """So an ordinary `down` takes no longer for it."""
    networks, machines = ("network-pods", "network-far"), ("product-1-container", "product-2-container", "far-gateway-1-container")
    done = wait_for_creation(Creating(None), monkeypatch, {"cluster-kind", *networks, *machines})
    assert {call[-1] if "network" in call else call[2] for call in done if "create" in call} == {
        "istio-vm-mesh-lab-multi-network-product-3",
        "istio-vm-mesh-lab-multi-network-far-gateway-2",
    }


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
        assert down._destroy(quiet("down", lab / "log"), "x") == set()
        assert pulumi_cli.stacks() == ["other"]
    else:
        with pytest.raises(StepError):
            down._destroy(quiet("down", lab / "log"), "x")
        assert pulumi_cli.stacks() == ["other", "x"]
