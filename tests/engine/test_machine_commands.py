"""Joins, proofs and drains under the real engine, by the operator's ssh and a real sshd."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pulumi
import pytest

from components.commands import (
    CommandOptions,
    MachineScript,
    Script,
    local_command,
    machine_command,
    printed,
)
from components.local import openssh, over_ssh, scripting
from components.local.cluster_access import ClusterAccess
from components.machines.scripts import drain
from tests.support.cli_stack import STACK, Stack
from tests.support.sshd import Sshd, reserved_port

ANOTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ4PAGoNG2Yn3kXVSPFcGAGiqcXZNkHdHnzAlVnoUhS1"


def target_of(sshd: Sshd) -> openssh.Target:
    host_key = " ".join(sshd.host_key.split()[:2])
    return openssh.Target("m-1", openssh.Hop("127.0.0.1", sshd.port, sshd.user, sshd.private_key, host_key))


@dataclass(frozen=True)
class Machine:
    """A machine behind an sshd.

    target: how SSH reaches it.
    root: its files; `log` has a line for each join.
    """

    target: openssh.Target
    root: Path

    @property
    def joins(self) -> int:
        log = self.root / "log"
        return len(log.read_text().splitlines()) if log.exists() else 0

    @property
    def script(self) -> str:
        return f"echo joined >>{self.root}/log\necho working\necho abc\n"


@pytest.fixture
def machine(sshd: Sshd, tmp_path: Path) -> Machine:
    return Machine(target_of(sshd), tmp_path)


def join(machine: Machine, last_line: str = "abc") -> None:
    work = MachineScript(target=pulumi.Output.secret(machine.target), purpose="join", script=machine.script, last_line=last_line)
    command = machine_command("m-1-join", work, pulumi.ResourceOptions())
    pulumi.export("printed", printed(command))


def test_a_join_that_a_login_shell_swallows_fails_and_the_next_update_joins(commands: Stack, swallowing_sshd: Sshd, tmp_path: Path) -> None:
    """As a start-up file of the user's does that ends, or starts another shell."""
    machine, startup = Machine(target_of(swallowing_sshd), tmp_path), swallowing_sshd.log.with_name("startup")
    startup.write_text("exit 0\n")
    output = commands.up(lambda: join(machine), fails=True).output
    assert f"the login shell of {machine.target.hop.user}@127.0.0.1" in output
    assert "ran nothing of the join" in output
    assert "m-1-join" not in commands.resources()
    assert machine.joins == 0
    startup.unlink()
    commands.up(lambda: join(machine))
    assert machine.joins == 1
    assert commands.up(lambda: join(machine)).changes() == {"unchanged": 2}
    assert machine.joins == 1


def test_words_of_a_login_shell_without_a_new_line_do_not_hide_the_join(commands: Stack, swallowing_sshd: Sshd, tmp_path: Path) -> None:
    machine, startup = Machine(target_of(swallowing_sshd), tmp_path), swallowing_sshd.log.with_name("startup")
    startup.write_text("printf 'Welcome '\n")
    commands.up(lambda: join(machine))
    assert machine.joins == 1


def test_a_join_without_its_digest_fails_and_is_repeated(commands: Stack, machine: Machine) -> None:
    output = commands.up(lambda: join(machine, "def"), fails=True).output
    assert "ended before its last step" in output
    assert "m-1-join" not in commands.resources()
    commands.up(lambda: join(machine))
    assert machine.joins == 2


def test_nothing_secret_is_readable_and_nothing_of_a_script_is_stored(commands: Stack, machine: Machine) -> None:
    commands.up(lambda: join(machine))
    secret = machine.target.hop.private_key.splitlines()[3]
    assert commands.files_with(secret) == []
    stored = commands.resources()["m-1-join"]
    assert stored["inputs"]["create"].endswith("components/local/run.py local/over_ssh.py create")
    assert stored["outputs"]["stdout"] == '{"stdout": "working\\nabc"}' or "ciphertext" in str(stored["outputs"]["stdout"])
    exported = commands.call("stack", "export", "--show-secrets", "--stack", STACK).output
    assert "def run_script" not in exported


def test_a_changed_script_joins_again_and_deletes_and_replaces_nothing(
    commands: Stack, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands.up(lambda: join(machine))
    monkeypatch.setattr("components.commands.digest", lambda module: "another")
    assert commands.preview(lambda: join(machine)).changes() == {"update": 1, "unchanged": 1}
    commands.up(lambda: join(machine))
    assert machine.joins == 2


def test_a_changed_script_of_a_drain_runs_nothing(commands: Stack, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def program() -> None:
        leave = drain.Leave(machine.target, f"echo left >>{machine.root}/log\n", required=True)
        payload = drain.Payload(ClusterAccess(), "shop", "entry", 0, leave)
        local_command(
            "m-1-drain",
            None,
            pulumi.ResourceOptions(delete_before_replace=True),
            delete=Script(drain, pulumi.Output.secret(payload)),
            options=CommandOptions(triggers=["one machine"]),
        )

    commands.up(program)
    monkeypatch.setattr("components.commands.digest", lambda module: "another")
    assert commands.up(program).changes() == {"unchanged": 2}
    assert machine.joins == 0
    commands.destroy()
    assert (machine.root / "log").read_text() == "left\n"


def leave(target: openssh.Target, script: str) -> None:
    drain.leave(drain.Leave(target, script, required=True))


def test_a_failure_on_the_machine_is_a_failure(sshd: Sshd, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(scripting.Failed, match=r"machine m-1 did not leave the mesh \(status 3\)"):
        leave(target_of(sshd), "echo why >&2; exit 3\n")
    assert "why" in capsys.readouterr().err


def test_a_dead_machine_and_another_one_in_its_place_are_let_go(sshd: Sshd, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = target_of(sshd)
    with reserved_port() as dead:
        for changes in ({"port": dead}, {"host_key": ANOTHER_KEY}):
            leave(replace(target, hop=replace(target.hop, **changes)), f"touch {tmp_path}/left\n")
            assert "machine m-1 was not reached" in capsys.readouterr().err
    assert not (tmp_path / "left").exists()


def test_a_machine_behind_a_bastion_is_reached_with_both_keys_pinned(sshd: Sshd) -> None:
    target = target_of(sshd)
    work = over_ssh.Payload(replace(target, bastion=target.hop), "proof", "echo here\n", 60, 0)
    assert over_ssh.run(work).stdout == "here"
    wrong = replace(target, bastion=replace(target.hop, host_key=ANOTHER_KEY))
    with pytest.raises(scripting.Failed, match=r"Host key verification failed(?s:.*)host key mismatch: .* through 127.0.0.1"):
        over_ssh.run(replace(work, target=wrong))


def test_one_script_is_one_connection_and_its_key_on_no_command_line(sshd: Sshd) -> None:
    before = sshd.log.read_text().count("Accepted publickey")
    work = over_ssh.Payload(target_of(sshd), "proof", "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '\n", 60, 0)
    processes = over_ssh.run(work).stdout
    assert "ssh -F" in processes and "PRIVATE KEY" not in processes
    assert sshd.log.read_text().count("Accepted publickey") - before == 1


def test_a_machine_on_port_22_has_its_key_pinned_too(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSH looks up the key of port 22 by another name than that of any other port, unless it has an alias.

    The client is the real one. It takes the server's standard input and output for the connection, because a port below 1024 needs root.
    """
    ssh, server = shutil.which("ssh"), shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    client = tmp_path / "ssh"
    client.write_text(f"#!/bin/sh\nexec {ssh} -o 'ProxyCommand={server} -i -f {sshd.log.parent}/config' \"$@\"\n")
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    target = target_of(sshd)
    target = replace(target, hop=replace(target.hop, port=22))
    assert over_ssh.run(over_ssh.Payload(target, "proof", "echo here\n", 60, 0)).stdout == "here"
    wrong = replace(target, hop=replace(target.hop, host_key=ANOTHER_KEY))
    with pytest.raises(scripting.Failed, match="Host key verification failed"):
        over_ssh.run(over_ssh.Payload(wrong, "proof", "echo here\n", 60, 0))
