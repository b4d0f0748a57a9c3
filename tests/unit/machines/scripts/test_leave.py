"""A machine leaves only for who joined it, and then nothing of the join is left on it."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.machine import OWNER, PROGRAMS, STATE, UNITS, FakeMachine, bundle, full_run, read_only_etc
from tests.support.scripts import add_program
from tests.support.tiers import some_quick


@pytest.fixture(scope="module")
def joined_once(tmp_path_factory: pytest.TempPathFactory) -> FakeMachine:
    machine = FakeMachine(tmp_path_factory.mktemp("joined") / "machine").create()
    assert machine.join().returncode == 0
    (machine.root / STATE / "etc/certs/key.pem").write_text("a key")
    return machine


def left(machine: FakeMachine) -> list[str]:
    return [path for path in machine.tree() if "istio" in path]


def test_nothing_of_the_join_is_left(machine: FakeMachine) -> None:
    add_program(machine.directory / "bin", "shred", 'cat "$2" >>"$RUN/shredded"; rm "$2"')
    done = machine.leave()
    assert (done.returncode, done.stdout, done.stderr) == (0, "left\n", "")
    assert left(machine) == []
    assert machine.active == ""
    assert "a key" in (machine.directory / "run/shredded").read_text()
    assert not (machine.directory / "run/istio-vm-mesh.lock").exists()


def test_a_second_leave_and_one_of_a_machine_that_never_joined_change_nothing(machine: FakeMachine) -> None:
    machine.leave()
    before = machine.tree()
    done = machine.leave()
    assert (done.returncode, done.stdout, machine.calls, machine.tree()) == (0, "not-joined\n", [], before)


@pytest.mark.slow
def test_a_leave_removes_all_or_nothing_where_etc_is_read_only(machine: FakeMachine) -> None:
    """Units that stayed would start the agent with the next boot."""
    before, active = machine.tree(), machine.active
    with read_only_etc(machine):
        done = machine.leave()
    assert (done.returncode, machine.tree(), machine.active) == (1, before, active)
    assert done.stderr == f"machine product-1: cannot remove anything from {machine.root}/{UNITS}: let root write there\n"
    assert (machine.leave().returncode, left(machine)) == (0, [])


@pytest.mark.slow
def test_a_machine_leaves_where_run_is_full(machine: FakeMachine) -> None:
    with full_run(machine):
        done = machine.leave()
        assert (done.returncode, done.stdout.splitlines()[-1:], left(machine), machine.active) == (0, ["left"], [], ""), done.stderr


WITHOUT_A_STAMP = {
    "the agent runs, the stamp is deleted": "rm $STATE/owner",
    "the agent is stopped, the stamp is deleted": "rm $STATE/owner $RUN/active",
    "the stamp is empty": "truncate --size 0 $STATE/owner",
    "the stamp ends within its first line": "truncate --size 9 $STATE/owner",
    "the stamp ends before its registration": "sed -i '4,$ d' $STATE/owner",
}


def damage(machine: FakeMachine, command: str) -> None:
    subprocess.run(["bash", "-c", command], env={**os.environ, **machine.places()}, check=True)


@pytest.mark.parametrize("command", some_quick(WITHOUT_A_STAMP.values(), WITHOUT_A_STAMP["the stamp is empty"]))
def test_an_agent_without_a_stamp_is_no_machine_that_never_joined(machine: FakeMachine, command: str) -> None:
    """It would register the machine again, now or after a boot, and it may be another stack's."""
    damage(machine, command)
    before = machine.tree()
    for done in (machine.leave(), machine.join()):
        assert (done.returncode, done.stdout, machine.calls, machine.tree()) == (1, "", [], before)
        assert "is missing or cut short, which names the stack that it is of: nothing was changed" in done.stderr


def test_an_agent_whose_files_are_gone_is_joined_again(machine: FakeMachine) -> None:
    """It is of nobody: it has no certificate, no token and no name of a workload any more."""
    before = machine.tree()
    damage(machine, "rm -r $STATE $RUN/active")
    assert machine.join().returncode == 0
    assert before.keys() - machine.tree().keys() == {f"{STATE}/etc/certs/key.pem"}, "which the agent writes"


def test_the_label_of_an_agent_says_whose_it_is_where_the_stamp_does_not(machine: FakeMachine) -> None:
    """So a stamp that somebody deleted is repaired by the next join, and a leave leaves nothing."""
    labelled = bundle({"overrides.env": f"""ISTIO_METAJSON_LABELS='{{"a/registration":"{OWNER.registration}"}}'\n"""})
    assert machine.join(labelled).returncode == 0
    stamp = machine.root / STATE / "owner"
    before = stamp.read_text()
    stamp.unlink()
    another = machine.copy(machine.directory.with_name("another"))
    assert another.leave(replace(OWNER, registration="r-2")).returncode == 1
    assert (machine.join(labelled).returncode, stamp.read_text(), machine.calls) == (0, before, [])
    stamp.write_text("")
    assert (machine.leave().stdout, left(machine)) == ("left\n", [])


def test_units_that_an_administrator_wrote_stay(machine: FakeMachine) -> None:
    """Their names begin as those of this program, and no list of a join has them."""
    theirs = [f"{UNITS}/istio-vm-mesh-backup.{kind}" for kind in ("service", "timer")]
    theirs += [f"{UNITS}/timers.target.wants/istio-vm-mesh-backup.timer", f"{UNITS}/istio-vm-mesh.service.d/theirs.conf"]
    (machine.root / UNITS / "timers.target.wants").mkdir()
    for path in theirs:
        (machine.root / path).write_text("theirs")
    (machine.directory / "run/istio-vm-mesh-backup.pid").write_text("1")
    assert machine.leave().stdout == "left\n"
    assert left(machine) == [f"{UNITS}/istio-vm-mesh-backup.service", theirs[1], f"{UNITS}/istio-vm-mesh.service.d", theirs[3], theirs[2]]
    assert not any("backup" in call for call in machine.calls)
    assert (machine.directory / "run/istio-vm-mesh-backup.pid").exists()


def test_a_unit_of_an_earlier_version_goes(machine: FakeMachine) -> None:
    """By the list of the join that wrote it."""
    unit = f"{UNITS}/istio-vm-mesh-former.service"
    (machine.root / unit).write_text("ours")
    with (machine.root / STATE / "files").open("a") as files:
        files.write(f"{unit}\n")
    assert (machine.leave().stdout, left(machine)) == ("left\n", [])
    assert "disable --now --quiet istio-vm-mesh-former.service" in machine.calls


@pytest.mark.parametrize("change", [{"project": "a"}, {"stack": "a"}, {"machine": "a"}, {"registration": "r-2"}])
def test_only_who_joined_a_machine_removes_it(machine: FakeMachine, change: dict[str, str]) -> None:
    before = machine.tree()
    done = machine.leave(replace(OWNER, **change))
    assert (done.returncode, done.stdout) == (0, "not-ours mesh/prod product-1\n")
    assert (machine.tree(), machine.active, machine.calls) == (before, "good-1", [])


def test_another_workload_in_the_stamp_is_no_other_owner(machine: FakeMachine) -> None:
    assert machine.leave(replace(OWNER, namespace="a", workload="b")).stdout == "left\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [f"{UNITS}/istio-vm-mesh.service", f"{PROGRAMS}/scripts/redirect.sh", f"{PROGRAMS}/current", f"{STATE}/joined", f"{STATE}/files"],
)
def test_a_part_that_is_missing_is_no_obstacle(machine: FakeMachine, damage: str) -> None:
    (machine.root / damage).unlink()
    (machine.directory / "run/active").unlink()
    assert machine.leave().stdout == "left\n"
    assert left(machine) == []


def test_rules_that_are_left_are_an_error_and_the_next_leave_goes_on(machine: FakeMachine) -> None:
    add_program(machine.directory / "bin", "iptables-save", "echo ':ISTIO_OUTPUT - [0:0]'")
    done = machine.leave()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("machine product-1: rules of the redirection are left") and (machine.root / STATE / "owner").exists()
    add_program(machine.directory / "bin", "iptables-save", "")
    add_program(machine.directory / "bin", "nft", "echo 'tcp dport 15006 accept comment \"istio-vm-mesh\"'")
    assert "rules of the redirection are left" in machine.leave().stderr, "what opened a firewall, too"
    add_program(machine.directory / "bin", "nft", "echo 'tcp dport 22 accept comment \"not istio-vm-mesh\"'")
    assert machine.leave().stdout == "left\n"


def test_a_user_that_is_left_is_an_error_and_the_next_leave_goes_on(machine: FakeMachine) -> None:
    """It may have a process, or another program changes the users."""
    users = machine.directory / "bin"
    add_program(users, "getent", f'[ "$1" != passwd ] || echo istio-proxy:x:996:995::{machine.root}/{STATE}:/usr/sbin/nologin')
    add_program(users, "userdel", 'echo "userdel: user istio-proxy is currently used by process 7" >&2; exit 8')
    done = machine.leave()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("machine product-1: the user istio-proxy is left: userdel: user istio-proxy is currently used")
    add_program(users, "userdel", "")
    assert machine.leave().stdout == "left\n"
    assert left(machine) == []


def test_rules_that_somebody_saved_are_named(machine: FakeMachine) -> None:
    """No file of others is edited, and the machine has left."""
    saved = machine.root / "etc/iptables/rules.v4"
    saved.parent.mkdir()
    saved.write_text(":ISTIO_INBOUND - [0:0]\n")
    text = 'bash() { [ "$(basename "$1") $2" != "redirect.sh saved" ] || echo "$ROOT/etc/iptables/rules.v4"; }'
    done = machine.leave(text=text)
    assert (done.returncode, done.stdout, saved.exists()) == (0, "left\n", True)
    assert f"rules of the redirection are saved in {saved}. With its next boot nothing would answer" in done.stderr


def test_a_key_that_is_a_link_to_a_file_of_others_is_only_unlinked(machine: FakeMachine) -> None:
    key, theirs = machine.root / STATE / "etc/certs/key.pem", machine.root / "etc/theirs"
    theirs.write_text("theirs")
    key.unlink()
    key.symlink_to(theirs)
    assert machine.leave().stdout == "left\n"
    assert theirs.read_text() == "theirs"


@pytest.mark.slow
@pytest.mark.parametrize("created", some_quick([True, False], True))
def test_the_user_goes_only_if_a_join_created_it(tmp_path: Path, created: bool) -> None:
    machine = FakeMachine(tmp_path / "fresh").create()
    add_program(machine.directory / "bin", "userdel", 'echo "$*" >>"$RUN/removed"')
    home = f"{machine.root}/{STATE}" if created else "/var/lib/istio"
    line = f"istio-proxy:x:996:995::{home}:/usr/sbin/nologin"
    add_program(machine.directory / "bin", "getent", f'[ "$1" != passwd ] || echo {line}')
    if created:
        add_program(machine.directory / "bin", "id", 'case $1 in -u) echo 0 ;; *) [ -e "$RUN/user" ] ;; esac')
        add_program(machine.directory / "bin", "useradd", 'echo "$*" >"$RUN/user"')
    assert machine.join().returncode == 0
    assert machine.leave().stdout == "left\n"
    assert (machine.directory / "run/removed").exists() == created
    if created:
        assert f"--home-dir {machine.root}/{STATE} --no-create-home" in (machine.directory / "run/user").read_text()
