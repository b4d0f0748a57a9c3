"""Joins, proofs and drains under the real engine, by the operator's ssh and a real sshd."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pulumi
import pytest

from components.commands import (
    CommandOptions,
    MachineScript,
    Script,
    local_command,
    machine_command,
    result,
)
from components.local import openssh, over_ssh, scripting
from components.local.cluster_access import ClusterAccess
from components.machines.bundle import Owner
from components.machines.scripts import drain
from components.machines.ssh_key import ssh_key
from tests.support.cli_stack import PROJECT, STACK, Stack
from tests.support.process_watch import ProcessWatch
from tests.support.sshd import Sshd, reserved_port

ANOTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ4PAGoNG2Yn3kXVSPFcGAGiqcXZNkHdHnzAlVnoUhS1"


def target(hop: openssh.Hop, *jumps: openssh.Hop) -> openssh.Target:
    return openssh.Target("m-1", hop, jumps)


def target_of(sshd: Sshd) -> openssh.Target:
    return target(sshd.hop())


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
    pulumi.export("printed", result(command, over_ssh.Result).stdout)


def test_a_join_that_a_login_shell_swallows_fails_and_the_next_update_joins(commands: Stack, swallowing_sshd: Sshd, tmp_path: Path) -> None:
    """As a start-up file of the user's does that ends, or starts another shell."""
    machine, startup = Machine(target_of(swallowing_sshd), tmp_path), swallowing_sshd.log.with_name("startup")
    startup.write_text("exit 0\n")
    output = commands.up(lambda: join(machine), fails=True).output
    assert f"the login shell of {machine.target.hop.user}@127.0.0.1" in output
    assert "did not run the join" in output
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
    with ProcessWatch() as watch:
        commands.up(lambda: join(machine))
    secret = Path(str(machine.target.hop.identity_file)).read_text().splitlines()[3]
    assert commands.files_with(secret) == []
    assert not [line for line in watch.seen if secret.encode() in line]
    stored = commands.resources()["m-1-join"]
    assert stored["inputs"]["create"].endswith("components/local/run.py local/over_ssh.py create")
    assert stored["outputs"]["stdout"] == '{"stdout":"working\\nabc"}' or "ciphertext" in str(stored["outputs"]["stdout"])
    exported = commands.call("stack", "export", "--show-secrets", "--stack", STACK).output
    assert "def run_script" not in exported


def test_the_key_of_a_stack_is_in_one_output_and_one_private_file(commands: Stack, swallowing_sshd: Sshd) -> None:
    def program() -> None:
        key = ssh_key("ssh-key")
        authorised = key.public.apply(lambda public: accepted.write_text(f"{public}\n"))
        machine = pulumi.Output.all(key.file, authorised).apply(lambda values: target(swallowing_sshd.hop(identity_file=values[0])))
        machine_command("m-1-join", MachineScript(target=machine, purpose="join", script="echo abc\n"), pulumi.ResourceOptions())

    accepted = swallowing_sshd.log.with_name("client.pub")
    with ProcessWatch() as watch:
        log = commands.up(program, "--debug").output
    file = Path(os.environ["XDG_STATE_HOME"], "istio-vm-mesh/organization", PROJECT, STACK, "ssh-key")
    canary = file.read_text().splitlines()[2]
    assert file.stat().st_mode & 0o77 == 0
    assert commands.files_with(canary) == [] and canary not in log
    assert not [line for line in watch.seen if canary.encode() in line]
    exported = json.loads(commands.call("stack", "export", "--show-secrets", "--stack", STACK).output)
    holders = [each["urn"].rpartition("::")[2] for each in exported["deployment"]["resources"] if canary in json.dumps(each)]
    assert holders == ["ssh-key"]
    assert canary not in json.dumps([each["inputs"] for each in exported["deployment"]["resources"] if "inputs" in each])
    file.unlink()
    preview = commands.preview(program, "--diff", "--show-sames")
    assert canary not in preview.output and preview.changes() == {"unchanged": 3}
    assert canary in file.read_text(), "a preview writes it, for a computer that does not have it"
    commands.destroy()
    assert not file.exists()


def test_a_changed_script_joins_again_and_deletes_and_replaces_nothing(
    commands: Stack, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands.up(lambda: join(machine))
    monkeypatch.setattr("components.commands.digest", lambda module: "another")
    assert commands.preview(lambda: join(machine)).changes() == {"update": 1, "unchanged": 1}
    commands.up(lambda: join(machine))
    assert machine.joins == 2


OWNER = Owner("test", "lab", "m-1", "0123", "shop", "product")


def test_a_changed_script_of_a_drain_runs_nothing(commands: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def program() -> None:
        payload = drain.Payload(ClusterAccess(path=str(tmp_path / "nowhere")), OWNER, 0)
        local_command(
            "m-1-drain",
            None,
            pulumi.ResourceOptions(delete_before_replace=True),
            delete=Script(drain, payload),
            options=CommandOptions(triggers=["one machine"]),
        )

    commands.up(program)
    monkeypatch.setattr("components.commands.digest", lambda module: "another")
    assert commands.up(program).changes() == {"unchanged": 2}
    assert "the WorkloadEntry of machine m-1 was not deleted first" in commands.destroy().output


@pytest.fixture
def leave(monkeypatch: pytest.MonkeyPatch) -> Callable[[openssh.Target, str], None]:
    """Have a machine leave by a script of the test's; what was to be kept out is reported."""

    def run(target: openssh.Target, script: str) -> None:
        monkeypatch.setattr(drain, "leave_script", lambda owner: script)
        how = drain.Leave(target, required=True)
        drain.leave(drain.Payload(ClusterAccess(), OWNER, 0, "entry", "192.0.2.7", how), how)

    monkeypatch.setattr(drain.shell, "run_as_root", lambda text, _limit: text)
    monkeypatch.setattr(drain, "give_up", lambda payload, cause, reason: drain.report(cause))
    monkeypatch.setattr(drain, "LEAVE_PATIENCE_S", 0)
    monkeypatch.setattr(drain, "drain", lambda payload: drain.report("drained"))
    return run


def test_a_machine_is_drained_while_its_script_waits(
    sshd: Sshd, leave: Callable[[openssh.Target, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    leave(target_of(sshd), "main() { echo 'istio-vm-mesh: ask leave'; read -r answer; echo $answer >&2; echo left; }; main; exit\n")
    assert capsys.readouterr().err.split() == ["drained", "yes"]


def test_a_failure_on_the_machine_is_a_failure(
    sshd: Sshd, leave: Callable[[openssh.Target, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(scripting.Failed, match=r"machine m-1 did not leave the mesh \(status 3\)"):
        leave(target_of(sshd), "echo why >&2; exit 3\n")
    assert "why" in capsys.readouterr().err


def test_a_dead_machine_is_let_go_and_every_refusal_is_an_error(
    sshd: Sshd,
    swallowing_sshd: Sshd,
    tmp_path: Path,
    leave: Callable[[openssh.Target, str], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = f"touch {tmp_path}/left; exit\n"
    with reserved_port() as dead:
        leave(target(sshd.hop(port=dead)), script)
        assert "machine m-1 is dead" in capsys.readouterr().err
        refusals = {
            "host key mismatch": target(sshd.hop(host_key=ANOTHER_KEY)),
            "refused the login": target(sshd.hop(identity_file=str(swallowing_sshd.identity_file))),
            "jump host 127.0.0.1: Connection refused": target(sshd.hop(), sshd.hop(port=dead)),
            "Could not resolve hostname": target(sshd.hop(host="nowhere.invalid")),
        }
        for reason, refusing in refusals.items():
            with pytest.raises(scripting.Failed, match=reason):
                leave(refusing, script)
    assert not (tmp_path / "left").exists()
