"""The lab's own container engine: what its runtime changes, how it is configured, and what it takes back when it ends."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.waiting import wait_until
from tools.lab import engine, paths
from tools.lab.offline import dockerd, host_cleanup, runc_wrapper

# As in a sandbox: everything that the kernel knows but CAP_SYS_RESOURCE (24).
STATUS = "Name:\tpython3\nCapBnd:\t000001fffeffffff\n"


def test_missing_capabilities_are_named() -> None:
    assert runc_wrapper.missing(STATUS, last=40) == ["CAP_SYS_RESOURCE"]
    assert runc_wrapper.missing("CapBnd:\t000001ffffffffff\n", last=40) == []
    assert runc_wrapper.missing("CapBnd:\t0000003fffffffff\n", last=40) == ["CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE"]
    assert runc_wrapper.missing("CapBnd:\t0000003fffffffff\n", last=37) == []


def test_the_table_of_capabilities_is_the_kernels() -> None:
    assert runc_wrapper.CAPABILITIES[0] == "CAP_CHOWN"
    assert runc_wrapper.CAPABILITIES[21] == "CAP_SYS_ADMIN"
    assert runc_wrapper.CAPABILITIES[40] == "CAP_CHECKPOINT_RESTORE"


class Runc:
    """The wrapper around a runc that only writes down how it was called."""

    def __init__(self, directory: Path) -> None:
        self.calls = directory / "calls"
        runc = directory / "runc"
        runc.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {self.calls}\nexit 7\n')
        self.wrapper = directory / "wrapper"
        self.wrapper.write_text(runc_wrapper.wrapper(["CAP_SYS_RESOURCE", "CAP_BPF"], str(runc)))
        for file in (runc, self.wrapper):
            file.chmod(0o755)

    def __call__(self, *arguments: str, cwd: Path | None = None) -> None:
        done = subprocess.run([self.wrapper, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (7, "")
        assert self.calls.read_text().splitlines() == list(arguments)


@pytest.fixture
def runc(tmp_path: Path) -> Runc:
    return Runc(tmp_path)


def _process(*sets: list[str]) -> dict[str, object]:
    names = ("bounding", "effective", "inheritable", "permitted", "ambient")
    return {
        "args": ["sh", "-c", 'echo "CAP_BPF" and "capabilities":{"bounding":["CAP_SYS_RESOURCE"]}', "CAP_SYS_RESOURCE"],
        "capabilities": dict(zip(names, sets, strict=False)),
        "noNewPrivileges": False,
    }


BEFORE: tuple[list[str], ...] = (
    ["CAP_CHOWN", "CAP_SYS_RESOURCE", "CAP_KILL", "CAP_BPF"],
    ["CAP_SYS_RESOURCE"],
    [],
    ["CAP_BPF", "CAP_SYS_RESOURCE", "CAP_FOWNER"],
)
AFTER: tuple[list[str], ...] = (["CAP_CHOWN", "CAP_KILL"], [], [], ["CAP_FOWNER"])


@pytest.mark.parametrize("bundle", ["--bundle {}", "--bundle={}", "-b {}", ""])
@pytest.mark.parametrize("command", ["create", "run"])
def test_a_container_is_made_without_the_missing_capabilities(runc: Runc, tmp_path: Path, command: str, bundle: str) -> None:
    config = tmp_path / "bundle" / "config.json"
    config.parent.mkdir()
    config.write_text(json.dumps({"ociVersion": "1.0", "process": _process(*BEFORE), "root": {}}, separators=(",", ":")))
    where = bundle.format(config.parent).split()
    runc("--root", "/x", "--log-format", "json", command, *where, "--pid-file", "/y", "id", cwd=None if where else config.parent)
    assert json.loads(config.read_text()) == {"ociVersion": "1.0", "process": _process(*AFTER), "root": {}}


def test_a_command_in_a_container_is_run_without_the_missing_capabilities(runc: Runc, tmp_path: Path) -> None:
    process = tmp_path / "process"
    process.write_text(json.dumps(_process(*BEFORE), separators=(",", ":")))
    runc("--root", "/x", "exec", "--process", str(process), "--detach", "id")
    assert json.loads(process.read_text()) == _process(*AFTER)


def test_other_commands_change_nothing(runc: Runc, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"process":{"capabilities":{"bounding":["CAP_BPF"]}}}')
    for command in ("state", "kill", "delete"):
        runc("--root", "/x", command, "id", cwd=tmp_path)
    assert "CAP_BPF" in config.read_text()


def test_the_own_engine_keeps_to_its_directories(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ISTIO_VM_MESH_CACHE", str(tmp_path))
    plain = dockerd._configuration(None)
    assert plain["data-root"] == str(tmp_path / "istio-vm-mesh" / "docker")
    assert all(str(plain[name]).startswith("/run/istio-vm-mesh/") for name in ("exec-root", "pidfile"))
    assert plain["hosts"] == [engine.HOST]
    assert "default-runtime" not in plain
    wrapped = dockerd._configuration(tmp_path / "runc")
    assert wrapped["runtimes"] == {wrapped["default-runtime"]: {"path": str(tmp_path / "runc")}}


def test_the_engines_address_is_kept_for_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(paths, "RUN", tmp_path)
    monkeypatch.setattr(paths, "DOCKER_HOST", tmp_path / "docker-host")
    monkeypatch.setattr(engine.Engine, "docker", lambda *arguments: "20.10")
    for host, kept in ((engine.HOST, engine.HOST), (None, None)):
        monkeypatch.setattr(engine, "find", lambda host=host: engine.Engine(host))
        dockerd.ensure(dockerd.quiet("engine", tmp_path / "log"))
        assert paths.docker_host() == kept


@pytest.mark.parametrize("version", [1, 2])
def test_containers_weigh_more_than_one_process_beside_them(version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where processes outside of any control group are the neighbours of one, as in version 1."""
    monkeypatch.setattr(host_cleanup, "CONTROL_GROUPS", tmp_path)
    if version == 1:
        (tmp_path / "cpu").mkdir()
    for _ in range(2):
        dockerd._set_weight()
    weights = {file.relative_to(tmp_path).as_posix(): int(file.read_text()) for file in tmp_path.rglob("*") if file.is_file()}
    assert weights == ({f"cpu/{dockerd.CGROUP}/cpu.shares": 4096} if version == 1 else {})


def test_an_engine_is_started_where_its_weight_cannot_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No container runs there, and `_start` shows the log of dockerd, which has the reason."""
    monkeypatch.setattr(host_cleanup, "CONTROL_GROUPS", tmp_path)
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / dockerd.CGROUP).touch()  # neither to be created nor to be written into, also by root
    dockerd._set_weight()


SAVED = """\
# Generated by iptables-save
*filter
:INPUT ACCEPT [10:20]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
-A INPUT -p tcp -m comment --comment "for docker" -j ACCEPT
-A FORWARD -j DOCKER-USER
-A FORWARD -o br-bcfdf6c98b65 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i br-lan -o eth0 -j ACCEPT
-A DOCKER -d 172.18.0.2/32 ! -i br-bcfdf6c98b65 -o br-bcfdf6c98b65 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-USER -j RETURN
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -s 172.18.0.2/32 -d 172.18.0.2/32 -p tcp -m tcp --dport 80 -j MASQUERADE
-A POSTROUTING -s 10.0.0.0/8 -o eth0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
COMMIT
"""


def test_only_dockers_rules_are_removed() -> None:
    assert host_cleanup.removal_of_rules(SAVED, "ACCEPT") == (
        "*filter\n"
        ":FORWARD ACCEPT [0:0]\n"
        "-D FORWARD -j DOCKER-USER\n"
        "-D FORWARD -o br-bcfdf6c98b65 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n"
        "-D FORWARD -i docker0 ! -o docker0 -j ACCEPT\n"
        "-F DOCKER\n-F DOCKER-USER\n-X DOCKER\n-X DOCKER-USER\n"
        "COMMIT\n"
        "*nat\n"
        "-D PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n"
        "-D POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE\n"
        "-D POSTROUTING -s 172.18.0.2/32 -d 172.18.0.2/32 -p tcp -m tcp --dport 80 -j MASQUERADE\n"
        "-F DOCKER\n-X DOCKER\n"
        "COMMIT\n"
    )


@pytest.mark.parametrize("before", [True, False])
def test_rules_and_bridges_stay_while_another_engine_has_some(before: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was there before the lab's, or that was started since."""
    file = tmp_path / "before.json"
    file.write_text(json.dumps({"forwarding": "0", "policy": "ACCEPT", "bridges": [], "docker": before}))
    changes: list[object] = []
    monkeypatch.setattr(host_cleanup, "FORWARDING", tmp_path / "ip_forward")
    monkeypatch.setattr(host_cleanup, "processes", lambda program, _argument: [] if before else [42] * (program == "dockerd"))
    monkeypatch.setattr(host_cleanup.subprocess, "run", lambda *words, **_: changes.append(words))
    host_cleanup.restore(file, "no-such-group")
    assert changes == [] and not host_cleanup.FORWARDING.exists()


def test_processes_are_found_by_program_and_argument(tmp_path: Path) -> None:
    program = str(tmp_path / "sleep")  # no other process has it on its command line
    Path(program).symlink_to("/bin/sleep")
    with subprocess.Popen([program, "600"]) as sleeper:
        try:
            # A program has its command line a moment after it was started.
            wait_until(lambda: host_cleanup.processes("sleep", program) == [sleeper.pid])
            assert host_cleanup.processes("sleep", f"{program}0") == host_cleanup.processes("cat", program) == []
            assert host_cleanup.alive(sleeper.pid)
        finally:
            sleeper.kill()
    assert not host_cleanup.alive(sleeper.pid)
