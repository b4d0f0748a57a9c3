"""A join ends in the new state or in the old one, repairs what somebody changed, and touches nothing of others."""

from __future__ import annotations

import base64
import fcntl
import re
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import IO

import pytest

from components.machines.bundle import DEADLINE_S, digest, role_files, slower_s
from components.machines.proxy_metadata import DRAIN_S
from components.machines.scripts import machine_lock
from components.names import DISCONNECT_GRACE
from tests.support.envoys import Authority
from tests.support.machine import (
    BUNDLE,
    ISSUED,
    JOIN,
    OWNER,
    PROGRAMS,
    ROOT_CERTIFICATE,
    STAND_INS,
    STATE,
    UNITS,
    FakeMachine,
    bundle,
    full_run,
    package,
    read_only_etc,
    token,
)
from tests.support.scripts import add_program
from tests.support.tiers import some_quick
from tools.mesh_status import read_machines

STEPS = re.findall(r"^ +step (\w+)", JOIN.read_text(), re.MULTILINE)
STOP = STEPS.index("stop")
CHANGE = bundle({"cluster.env": "A='2'\n", "new.env": "new"}, package_url="https://example.com/good-2.deb")
SCRIPTS = [Path(file.path).name for file in role_files("sidecar") if "/scripts/" in file.path]
AS_BEFORE = "; the machine runs as before\n"


@pytest.fixture(scope="module")
def joined_once(tmp_path_factory: pytest.TempPathFactory) -> FakeMachine:
    """A machine that has joined, and has a certificate and a drop-in of its administrator."""
    machine = FakeMachine(tmp_path_factory.mktemp("joined") / "machine").create()
    done = machine.join()
    assert done.stdout.splitlines()[-1:] == [digest(BUNDLE)], done.stderr
    for name in ("key", "cert-chain"):
        (machine.root / STATE / f"etc/certs/{name}.pem").write_text(f"{name} of the agent")
    (machine.root / UNITS / "istio-vm-mesh.service.d/theirs.conf").write_text("[Service]\n")
    package(machine.directory / "served", "good-2.deb", "good-2")
    package(machine.directory / "served", "bad.deb", "never-ready")
    return machine


def failing(name: str, way: str = "fail injected") -> str:
    """Have a step fail after its work; the last one before, since with it the join is complete."""
    order = (f'[ "$1" != {name} ] || {{ {way}; }}', 'real_step "$@"')
    first, second = order if name == STEPS[-1] else order[::-1]
    return f'eval "real_$(declare -f step)"\nstep() {{\n{first}\n{second}\n}}'


def counted() -> str:
    return 'eval "real_$(declare -f step)"\nstep() { real_step "$@"; echo "$STEP $STEP_NAME" >>"$RUN/steps"; }'


@pytest.mark.slow
def test_a_hardened_host_has_the_same_files_after_a_join(fresh: FakeMachine, tmp_path: Path) -> None:
    """Nothing runs below /var and /run (`noexec`), and new files are root's alone (`umask 077`)."""
    usual = FakeMachine(tmp_path / "usual").create()
    assert usual.join().returncode == 0
    places = [fresh.root / "var", fresh.directory / "run"]
    for place in places:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec,mode=755", "none", str(place)], check=True)
    try:
        (fresh.root / "var/lib").mkdir()
        done = fresh.join(text="umask 077")
        assert done.stdout.splitlines()[-1:] == [digest(BUNDLE)], done.stderr
        assert fresh.tree() == usual.tree()
    finally:
        for place in places:
            subprocess.run(["umount", str(place)], check=True)


def test_a_good_run_has_every_step_in_order(machine: FakeMachine) -> None:
    assert machine.join(CHANGE, counted()).returncode == 0
    lines = (machine.directory / "run/steps").read_text().splitlines()
    assert lines == [f"{number} {name}" for number, name in enumerate(STEPS, 1)]


@pytest.mark.parametrize("name", some_quick(STEPS, "check_token", "start_agent"))
def test_a_change_that_fails_at_any_step_leaves_the_old_state(machine: FakeMachine, name: str) -> None:
    before, number = machine.tree(), STEPS.index(name)
    done = machine.join(CHANGE, failing(name), TOKEN=token(sub="system:serviceaccount:shop:other"))
    assert (done.returncode, done.stderr.startswith("machine product-1: injected")) == (1, True), done.stderr
    assert done.stderr.endswith(AS_BEFORE) or number <= STEPS.index("check_fail_closed")
    assert digest(CHANGE) not in done.stdout
    assert machine.tree() == before
    assert machine.active == "good-1"
    if number < STOP:
        assert machine.calls == [], "the agent was not touched"
    else:
        assert machine.calls[-1] == "restart istio-vm-mesh"


@pytest.mark.slow
@pytest.mark.parametrize("name", some_quick(["provide_package", "stop", "write_files", "start_agent"], "write_files"))
@pytest.mark.parametrize("way", some_quick(["false", "kill -TERM $$", "kill -HUP $$"], "kill -TERM $$"))
def test_an_end_that_nothing_named_is_named_by_its_step(machine: FakeMachine, name: str, way: str) -> None:
    before = machine.tree()
    done = machine.join(CHANGE, failing(name, way))
    reason = "" if way == "false" else " because it was interrupted"
    assert done.stderr == f"machine product-1: the join ended at its step {STEPS.index(name) + 1} ({name}){reason}{AS_BEFORE}"
    assert (machine.tree(), machine.active) == (before, "good-1")


@pytest.mark.slow
@pytest.mark.parametrize("name", some_quick(["check_token", "provide_package", "write_files", "start_agent", "record"], "start_agent"))
def test_a_first_join_that_fails_leaves_nothing(fresh: FakeMachine, name: str) -> None:
    (fresh.root / "etc/unrelated").write_text("theirs")
    before = fresh.tree()
    done = fresh.join(text=failing(name))
    assert done.returncode == 1
    assert fresh.active == ""
    left = {path: shown for path, shown in fresh.tree().items() if not path.endswith("multi-user.target.wants")}
    assert left == before
    assert done.stderr.endswith("; nothing of the join is left on the machine\n") or name == "check_token"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damaged", "place", "cause"),
    [(full_run, "run", "No space left on device"), (read_only_etc, f"root/{UNITS}", "Read-only file system")],
    ids=["full", "read-only"],
)
def test_a_join_changes_nothing_where_run_is_full_or_etc_is_read_only(
    machine: FakeMachine, fresh: FakeMachine, damaged: Callable[[FakeMachine], AbstractContextManager[None]], place: str, cause: str
) -> None:
    package(fresh.directory / "served", "good-2.deb", "good-2")
    for each in (machine, fresh):
        before, active = each.tree(), each.active
        with damaged(each):
            done = each.join(CHANGE)
            assert each.active == active, "the agent that runs goes on"
        assert done.stderr.endswith(
            f"machine product-1: cannot write to {each.directory / place} ({cause}): make room there, or let root write there\n"
        ), done.stderr
        assert (done.returncode, each.tree()) == (1, before)
        assert each.join(CHANGE).returncode == 0, "a later join goes on"


@pytest.mark.slow
def test_an_agent_that_never_gets_ready_is_replaced_by_the_old_one(machine: FakeMachine) -> None:
    before = machine.tree()
    done = machine.join(bundle(package_url="https://example.com/bad.deb"), DEADLINE_S="16")
    assert "the agent is not ready after 1 s" in done.stderr and done.stderr.endswith(AS_BEFORE)
    assert (machine.tree(), machine.active) == (before, "good-1")


@pytest.mark.slow
def test_an_old_state_that_does_not_come_back_is_named(machine: FakeMachine) -> None:
    done = machine.join(CHANGE, failing("write_files", 'touch "$RUN/broken"; fail injected'))
    assert done.stderr == ("machine product-1: injected; what was there before could not be brought back either: run the update again\n")


@pytest.mark.slow
def test_a_join_that_was_killed_is_undone_by_the_next(machine: FakeMachine) -> None:
    """Its package, files and agent of before come back where that one fails too."""
    before = machine.tree()
    killed = machine.join(CHANGE, failing("switch_package", "kill -KILL $$"))
    assert killed.returncode == -9 and machine.tree() != before and machine.active == ""
    done = machine.join(CHANGE, failing("write_files"))
    assert done.stderr.endswith(AS_BEFORE)
    packages = f"{PROGRAMS}/packages/"
    assert {path: shown for path, shown in machine.tree().items() if not path.startswith(packages)} == {
        path: shown for path, shown in before.items() if not path.startswith(packages)
    }
    assert machine.active == "good-1"
    assert machine.join(CHANGE).returncode == 0 and machine.active == "good-2"


TAKES_OVER = bundle(
    {"cluster.env": "A='2'\n"},
    owner=replace(OWNER, stack="test", machine="a", registration="r-7"),
    package_url="https://example.com/good-2.deb",
)
KILLED = ("write_stamp", "deliver_token", "stop", "switch_package", "start_agent", "record")


def without_packages(machine: FakeMachine) -> dict[str, str]:
    return {path: shown for path, shown in machine.tree().items() if not path.startswith(f"{PROGRAMS}/packages/")}


@pytest.mark.slow
@pytest.mark.parametrize("name", KILLED)
def test_a_machine_is_the_first_stacks_after_a_take_over_was_killed(machine: FakeMachine, name: str) -> None:
    """The next join of either stack is asked for the truth, and the first one's certificate is back."""
    before = without_packages(machine)
    assert machine.join(TAKES_OVER, failing(name, "kill -KILL $$")).returncode == -9
    asked = machine.copy(machine.directory.with_name("asked")).join(TAKES_OVER, answers="no")
    assert asked.stdout == "istio-vm-mesh: ask owner mesh prod product-1 r-1 192.0.2.7 shop product\n"
    done = machine.join()
    assert (done.returncode, "ask owner" in done.stdout) == (0, False), done.stderr
    assert without_packages(machine) == before and machine.active == "good-1"


@pytest.mark.slow
@pytest.mark.parametrize("name", KILLED)
def test_a_stack_whose_take_over_was_killed_leaves_the_machine_as_it_was(machine: FakeMachine, name: str) -> None:
    before = without_packages(machine)
    machine.join(TAKES_OVER, failing(name, "kill -KILL $$"))
    done = machine.leave(TAKES_OVER.owner)
    assert (done.returncode, done.stdout) == (0, "not-ours mesh/prod product-1\n"), done.stderr
    assert without_packages(machine) == before and machine.active == "good-1"
    if name in KILLED[:2]:
        assert machine.calls == [], "the agent was not touched"


@pytest.mark.slow
@pytest.mark.parametrize("name", KILLED)
def test_the_first_stack_removes_a_machine_whose_take_over_was_killed(machine: FakeMachine, name: str) -> None:
    machine.join(TAKES_OVER, failing(name, "kill -KILL $$"))
    assert machine.leave().stdout == "left\n"
    drop_ins = f"{UNITS}/istio-vm-mesh.service.d"
    assert [path for path in machine.tree() if "istio" in path] == [drop_ins, f"{drop_ins}/theirs.conf"]
    assert machine.active == ""


@pytest.mark.slow
def test_a_first_join_that_was_killed_is_removed_by_its_stack_alone(fresh: FakeMachine) -> None:
    fresh.join(text=failing("start_agent", "kill -KILL $$"))
    assert fresh.leave(replace(OWNER, stack="test")).stdout == "not-ours mesh/prod product-1\n"
    assert fresh.active == "good-1"
    assert fresh.leave().stdout == "left\n"
    assert not [path for path in fresh.tree() if "istio" in path]


@pytest.mark.slow
def test_a_copy_that_was_removed_by_half_brings_nothing_back(machine: FakeMachine) -> None:
    """What is missing in the copy would count as missing before."""
    copy = f"{machine.root}/{STATE}/before"
    kill = f'if [ "$1 $2" = "-rf {copy}" ] && [ -d {copy}/files ]; then /bin/rm -rf {copy}/files; kill -KILL $PPID; fi'
    add_program(machine.directory / "bin", "rm", f'{kill}\nexec /bin/rm "$@"')
    assert machine.join(CHANGE).returncode == -9
    (machine.directory / "bin/rm").unlink()
    done = machine.join(CHANGE, failing("compare"))
    assert done.stderr.endswith(AS_BEFORE)
    assert (machine.root / STATE / "new.env").read_text() == "new" and machine.active == "good-2"


@pytest.mark.slow
def test_the_copy_of_the_old_state_is_on_the_disk_before_it_counts(machine: FakeMachine) -> None:
    """And the new state before the copy goes: a power cut leaves one of the two."""
    copy = f"{machine.root}/{STATE}/before"
    add_program(
        machine.directory / "bin", "sync", f'[ -e {copy}/complete ] && now=complete || now=begun; printf "$now %s\\n" "$@" >>"$RUN/synced"'
    )
    assert machine.join(CHANGE).returncode == 0
    lines = (machine.directory / "run/synced").read_text().splitlines()
    of_copy, new = f"{copy}/files/{STATE}/cluster.env", f"complete {machine.root}/{STATE}/cluster.env"
    assert lines.index(f"begun {of_copy}") < lines.index(f"complete {copy}/complete") < lines.index(new)
    assert f"complete {machine.root}/{UNITS}" in lines and f"complete {machine.root}/{PROGRAMS}" in lines
    assert [line for line in lines if line.endswith("usr/local/bin/envoy")], "the package, too"


def test_a_change_stops_writes_and_starts_once(machine: FakeMachine) -> None:
    done = machine.join(CHANGE)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, digest(CHANGE)), done.stderr
    assert machine.calls == ["stop istio-vm-mesh", "enable --quiet --no-reload istio-vm-mesh", "restart istio-vm-mesh"]
    assert machine.active == "good-2"
    assert (machine.root / STATE / "new.env").read_text() == "new"
    names = {path.name for path in (machine.root / STATE).iterdir()}
    assert names == {"cluster.env", "etc", "files", "joined", "new.env", "overrides.env", "owner", "var", "written"}
    assert (machine.root / UNITS / "istio-vm-mesh.service.d/theirs.conf").exists()


def test_a_join_waits_for_an_agent_that_stops_slowly(machine: FakeMachine) -> None:
    """Of a mesh whose istiod notices a lost connection late, or whose agents drain for long: the agent of before counts."""
    (machine.root / STATE / "overrides.env").write_text("DISCONNECT_GRACE_S='90'\nDRAIN_S='45'\n")
    noted = 'timeout() { echo "$*" >>"$RUN/limits"; command timeout "$@"; }'
    assert machine.join(CHANGE, noted).returncode == 0
    usual_s = DEADLINE_S * 7 // 100
    limits = (machine.directory / "run/limits").read_text().splitlines()
    assert f"{usual_s + (90 - DISCONNECT_GRACE) + (45 - DRAIN_S)} systemctl stop istio-vm-mesh" in limits


def test_a_connection_waits_for_agents_that_stop_slowly() -> None:
    """The agent of before may be of settings that the program does not have any more: 120 s, and 60 s."""
    slow = replace(BUNDLE, grace_s=90, proxy={**BUNDLE.proxy, "terminationDrainDuration": "45s"})
    slowest = replace(BUNDLE, grace_s=120, proxy={**BUNDLE.proxy, "terminationDrainDuration": "60s"})
    before_s = 110 + 55
    assert slower_s(BUNDLE) == before_s
    assert slower_s(slow) == before_s + 2 * 80 + 40, "two agents, and the entry"
    assert DEADLINE_S + slower_s(slowest) <= machine_lock.WAIT_S, "of an update that was killed"


@pytest.mark.slow
def test_the_package_before_stays_and_older_ones_go(machine: FakeMachine) -> None:
    package(machine.directory / "served", "good-3.deb", "good-3")
    before = {path.name for path in (machine.root / PROGRAMS / "packages").iterdir()}
    for number in (2, 3):
        assert machine.join(bundle(package_url=f"https://example.com/good-{number}.deb")).returncode == 0
    after = {path.name for path in (machine.root / PROGRAMS / "packages").iterdir()}
    assert len(after) == 2 and not after & before


def test_a_second_join_changes_nothing_but_the_token(machine: FakeMachine) -> None:
    before, requests = machine.tree(), machine.directory / "run/requests"
    requests.write_text("")
    later = token(iat=ISSUED + 1)
    done = machine.join(TOKEN=later, answers="")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{digest(BUNDLE)}\n", "")
    assert machine.calls == []
    assert "example.com" not in requests.read_text(), "an unchanged package needs no network"
    path = f"{STATE}/var/run/secrets/tokens/istio-token"
    assert machine.tree() == {**before, path: f"100600 {later.encode()!r}"}


DAMAGE = {
    "a file is edited": ("echo more >>$STATE/cluster.env", [f"{STATE}/cluster.env"]),
    "a file is deleted": ("rm $STATE/overrides.env", [f"{STATE}/overrides.env"]),
    "a file has another mode": ("chmod 0666 $STATE/overrides.env", [f"{STATE}/overrides.env"]),
    "a file has another owner": ("chown 1 $STATE/overrides.env", [f"{STATE}/overrides.env"]),
    "a file is a link": ("mv $STATE/cluster.env /tmp/elsewhere.$$; ln -s /tmp/elsewhere.$$ $STATE/cluster.env", [f"{STATE}/cluster.env"]),
    "a unit is edited": ("echo more >>$UNITS/istio-vm-mesh.service", [f"{UNITS}/istio-vm-mesh.service"]),
    "a unit is deleted": ("rm $UNITS/istio-vm-mesh.service", [f"{UNITS}/istio-vm-mesh.service"]),
    "a drop-in is deleted": ("rm $UNITS/istio-vm-mesh.service.d/sidecar.conf", [f"{UNITS}/istio-vm-mesh.service.d/sidecar.conf"]),
    "a script is edited": ("echo more >>$PROGRAMS/scripts/withdraw.sh", [f"{PROGRAMS}/scripts/withdraw.sh"]),
    "the root certificate is another": ("echo other >$CERTS/root-cert.pem", []),
    "a program is edited": ("echo more >>$PROGRAMS/current/usr/local/bin/envoy", [f"{PROGRAMS}/current/usr/local/bin/envoy"]),
    "a program is deleted": ("rm $PROGRAMS/current/usr/local/bin/envoy", [f"{PROGRAMS}/current/usr/local/bin/envoy"]),
    "a program is not executable": (
        "chmod a-x $PROGRAMS/current/usr/local/bin/pilot-agent",
        [f"{PROGRAMS}/current/usr/local/bin/pilot-agent"],
    ),
    "the link is another": ("ln -sfn packages/other $PROGRAMS/current", [f"{PROGRAMS}/current"]),
    "the programs are deleted": (
        "rm -rf $PROGRAMS",
        [f"{PROGRAMS}/current", *(f"{PROGRAMS}/scripts/{name}" for name in SCRIPTS)],
    ),
    "the list of files is forgotten": ("rm $STATE/files", []),
    "what was written is forgotten": ("rm $STATE/written", [f"{STATE}/written"]),
}
"""What somebody does to a machine, and which paths status names. The agent writes the root certificate, too."""


def changed_files(machine: FakeMachine) -> list[str]:
    """Return what status says of a machine's files, below its root."""
    places = machine.places()
    probe = machine.sourced(Path(read_machines.__file__).with_name("probe.sh"))
    shown = probe.run(f"{STAND_INS}\nprint_files", {**places, "PACKAGE": f"{places['PROGRAMS']}/current"})
    assert shown.stderr == ""
    return [path.removeprefix(places["ROOT"]).lstrip("/") for path in read_machines.parse(shown.stdout, 0, 1).files]


@pytest.mark.slow
@pytest.mark.parametrize("damage", some_quick(DAMAGE, "a file is edited", "the programs are deleted"))
def test_what_somebody_changed_is_named_by_status_and_repaired_by_a_join(machine: FakeMachine, damage: str) -> None:
    before = machine.tree()
    command, named = DAMAGE[damage]
    assert changed_files(machine) == []
    places = "\n".join(f"{name}={value}" for name, value in machine.places().items())
    subprocess.run(["bash", "-euc", f"{places}\n{command}"], check=True)
    assert sorted(changed_files(machine)) == sorted(named)
    done = machine.join()
    assert (done.returncode, done.stderr) == (0, "")
    assert machine.tree() == before
    assert machine.calls[:1] == ["stop istio-vm-mesh"]
    assert changed_files(machine) == []


@pytest.mark.slow
def test_a_certificate_of_an_account_that_is_forgotten_is_dropped(machine: FakeMachine) -> None:
    (machine.root / STATE / "joined").unlink()
    assert machine.join().returncode == 0
    assert [path.name for path in (machine.root / STATE / "etc/certs").iterdir()] == ["root-cert.pem"]


@pytest.mark.slow
def test_a_unit_that_somebody_disabled_is_enabled_without_a_restart(machine: FakeMachine) -> None:
    wanted = machine.root / UNITS / "multi-user.target.wants/istio-vm-mesh.service"
    wanted.unlink()
    assert changed_files(machine) == ["istio-vm-mesh.service, which is not enabled"]
    assert machine.join().returncode == 0
    assert wanted.is_symlink() and machine.calls == ["enable --quiet istio-vm-mesh"]


@pytest.mark.slow
def test_an_agent_that_somebody_stopped_is_started(machine: FakeMachine) -> None:
    (machine.directory / "run/active").unlink()
    done = machine.join(answers="yes\n")
    assert (done.returncode, machine.active) == (0, "good-1")
    assert done.stdout.count("ask") == 1, "a machine out of the mesh asks to be confirmed alone"


@pytest.mark.slow
def test_a_root_certificate_that_the_agent_wrote_with_others_is_no_difference(machine: FakeMachine) -> None:
    file = machine.root / STATE / "etc/certs/root-cert.pem"
    file.write_text("-----BEGIN CERTIFICATE-----\nYg==\n-----END CERTIFICATE-----\n" + ROOT_CERTIFICATE.strip())
    file.chmod(0o600)
    assert machine.join().returncode == 0
    assert machine.calls == []


@pytest.mark.slow
def test_a_gateways_join_leaves_nothing_of_a_sidecar(machine: FakeMachine) -> None:
    assert machine.join(bundle(role="router")).returncode == 0
    names = {path.name for path in (machine.root / UNITS).rglob("*") if not path.is_dir()}
    assert names == {"istio-vm-mesh.service", "theirs.conf"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("identity", "is_kept"),
    [
        ("spiffe://mesh.example/ns/shop/sa/product", True),
        ("spiffe://former.example/ns/shop/sa/product", False),
        ("spiffe://mesh.example/ns/shop/sa/other", False),
    ],
)
def test_a_join_drops_a_certificate_of_another_identity(machine: FakeMachine, tmp_path: Path, identity: str, is_kept: bool) -> None:
    """The agent would renew it for ever: callers refuse the one of a former trust domain once the mesh has no alias for it."""
    joined = bundle({"cluster.env": "TRUST_DOMAIN='mesh.example'\n"})
    assert machine.join(joined).returncode == 0
    certificates = machine.root / STATE / "etc/certs"
    for file in Authority(tmp_path, "mesh").issue(identity):
        (certificates / ("key.pem" if file.suffix == ".key" else "cert-chain.pem")).write_bytes(file.read_bytes())
    assert machine.join(joined).returncode == 0
    assert [(certificates / name).exists() for name in ("key.pem", "cert-chain.pem")] == [is_kept, is_kept]
    assert ("restart istio-vm-mesh" in machine.calls) is not is_kept


@pytest.mark.slow
def test_a_token_of_another_account_drops_the_certificate(machine: FakeMachine) -> None:
    certificates = machine.root / STATE / "etc/certs"
    assert machine.join(CHANGE).returncode == 0
    assert {path.name for path in certificates.iterdir()} == {"key.pem", "cert-chain.pem", "root-cert.pem"}
    assert machine.join(CHANGE, TOKEN=token(sub="system:serviceaccount:shop:other")).returncode == 0
    assert {path.name for path in certificates.iterdir()} == {"root-cert.pem"}


@pytest.mark.slow
def test_a_changed_registration_waits_for_the_old_entry_to_go(machine: FakeMachine) -> None:
    assert "slept" not in machine.join(CHANGE).stdout
    done = machine.join(replace(CHANGE, registered="another"))
    assert done.stdout.count("slept") == 13
    assert done.stdout.rindex("slept") < done.stdout.index("ask gone\n"), "then it is deleted, if it is still there"
    (machine.directory / "run/istio-vm-mesh-withdrawn").write_text(f"{ISSUED + 3600}\n")
    done = machine.join(replace(CHANGE, registered="another", owner=replace(OWNER, registration="r-2")))
    assert done.stdout.count("slept") == 13, "also where the clock was set back meanwhile"


@pytest.mark.parametrize(("variable", "waits_s"), [("NO_ENTRY", 0), ("OTHER_ENTRY", 13)])
def test_an_agent_that_istiod_has_not_registered_is_restarted(machine: FakeMachine, variable: str, waits_s: int) -> None:
    """Where another entry has its name, that one must be gone first."""
    before = machine.tree()
    done = machine.join(None, **{variable: "1"})
    assert (done.returncode, done.stdout.count("slept")) == (0, waits_s)
    assert [machine.calls[0], machine.calls[-1]] == ["stop istio-vm-mesh", "restart istio-vm-mesh"]
    assert machine.tree().keys() == before.keys()


@pytest.mark.slow
def test_a_machine_of_a_group_fills_in_its_name_and_address_and_asks_nothing(fresh: FakeMachine) -> None:
    done = fresh.join(MACHINE="product-x7k2", ADDRESS="10.11.0.9", ASK="", answers="")
    assert done.returncode == 0, done.stderr
    assert (fresh.root / STATE / "overrides.env").read_text() == "POD_NAME='product-x7k2'\nINSTANCE_IP='10.11.0.9'\n"
    again = fresh.join(MACHINE="product-x7k2", ADDRESS="10.11.0.9", ASK="", answers="")
    assert (again.stdout.count("ask"), fresh.calls) == (0, [])


# Whose the machine is.


def test_the_stamp_says_who_joined_the_machine(machine: FakeMachine) -> None:
    assert (machine.root / STATE / "owner").read_text() == (
        "project=mesh\nstack=prod\nmachine=product-1\nregistration=r-1\nnamespace=shop\nworkload=product\naddress=192.0.2.7\n"
    )


@pytest.mark.slow
def test_a_machine_of_others_is_taken_over_only_with_a_yes(machine: FakeMachine) -> None:
    other = bundle(owner=replace(OWNER, stack="test", machine="a"))
    before = machine.tree()
    refused = machine.join(other, answers="no it is of mesh/prod\n")
    assert refused.stderr == "machine a: it is of mesh/prod\n"
    assert refused.stdout == "istio-vm-mesh: ask owner mesh prod product-1 r-1 192.0.2.7 shop product\n"
    assert (machine.tree(), machine.calls) == (before, [])
    taken = machine.join(other)
    assert taken.stdout.splitlines()[:2] == [
        "istio-vm-mesh: ask owner mesh prod product-1 r-1 192.0.2.7 shop product",
        "istio-vm-mesh: ask stop shop product r-1",
    ]
    assert "stack=test\nmachine=a\n" in (machine.root / STATE / "owner").read_text()
    assert not (machine.root / STATE / "etc/certs/key.pem").exists(), "the certificate was another mesh's"


@pytest.mark.slow
def test_a_renamed_machine_keeps_its_certificate(machine: FakeMachine) -> None:
    renamed = bundle(owner=replace(OWNER, machine="billing-a", registration="r-9"))
    assert machine.join(renamed).stdout.startswith("istio-vm-mesh: ask owner mesh prod product-1 r-1 192.0.2.7 shop product\n")
    assert (machine.root / STATE / "etc/certs/key.pem").exists()


@pytest.mark.slow
def test_a_machine_of_a_group_is_stamped_with_the_address_that_it_has(fresh: FakeMachine) -> None:
    other = bundle(owner=replace(OWNER, registration=""), address="@ADDRESS@")
    assert fresh.join(other, MACHINE="product-x7k2", ADDRESS="10.11.0.9", ASK="", answers="").returncode == 0
    question = "istio-vm-mesh: ask owner mesh prod product-x7k2 - 10.11.0.9 shop product\n"
    assert fresh.join().stdout.startswith(question)


@pytest.mark.slow
def test_a_machine_that_moves_says_which_agent_is_stopped(machine: FakeMachine) -> None:
    moved = bundle(owner=replace(OWNER, namespace="billing", workload="invoices", registration="r-9"))
    assert "istio-vm-mesh: ask stop shop product r-1\n" in machine.join(moved).stdout


@pytest.mark.slow
def test_a_no_to_the_stop_changes_nothing(machine: FakeMachine) -> None:
    before = machine.tree()
    done = machine.join(CHANGE, answers="no product-2 failed, so this update stops here\n")
    assert done.stderr == f"machine product-1: product-2 failed, so this update stops here{AS_BEFORE}"
    assert (machine.tree(), machine.calls) == (before, [])


@pytest.mark.slow
def test_a_connection_that_ends_before_the_answer_changes_nothing(machine: FakeMachine) -> None:
    before = machine.tree()
    done = machine.join(CHANGE, answers="")
    assert "the connection ended before the request 'stop shop product r-1' was answered" in done.stderr
    assert (machine.tree(), machine.calls) == (before, [])


@pytest.mark.slow
def test_a_machine_that_is_kept_out_is_let_in_right_before_its_agent_starts(machine: FakeMachine) -> None:
    done = machine.join(CHANGE, KEPT_OUT="1")
    assert [line for line in done.stdout.splitlines() if "ask" in line][:-1] == [
        "istio-vm-mesh: ask stop shop product r-1",
        "istio-vm-mesh: ask start",
    ], "and then it is confirmed"
    assert (done.returncode, machine.active) == (0, "good-2")
    assert machine.join(CHANGE, KEPT_OUT="1").stdout.count("ask start") == 1, "also where nothing else differs"
    assert machine.calls[:1] == ["stop istio-vm-mesh"]
    assert "ask start" not in machine.join().stdout


@pytest.mark.slow
def test_a_no_to_the_start_brings_the_agent_of_before_back(machine: FakeMachine) -> None:
    before = machine.tree()
    done = machine.join(CHANGE, answers="yes\nno it is refused\n", KEPT_OUT="1")
    assert done.stderr == f"machine product-1: it is refused{AS_BEFORE}"
    assert (machine.tree(), machine.active) == (before, "good-1")


@pytest.mark.slow
def test_a_connection_that_ends_as_the_machine_is_let_in_does_not_end_its_join(machine: FakeMachine) -> None:
    """Nothing would keep that one out any more."""
    hang_up = 'eval "real_$(declare -f start_agent)"\nstart_agent() { kill -HUP $$; real_start_agent; }'
    assert machine.join(CHANGE, hang_up, answers="yes\n", KEPT_OUT="1").returncode == 0
    assert machine.active == "good-2"


HOLDER = "the join of a from the stack mesh/test (process 7, since then)"


def hold(machine: FakeMachine) -> IO[str]:
    """Take the machine's lock as another join does."""
    lock = (machine.directory / "run/istio-vm-mesh.lock").open("w+")
    lock.write(f"{HOLDER}\n")
    lock.flush()
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


@pytest.mark.slow
def test_two_joins_at_once_the_second_names_the_first(machine: FakeMachine) -> None:
    before = machine.tree()
    with hold(machine):
        done = machine.join(CHANGE, answers=f"yes\nno {HOLDER} still runs\n")
        alone = machine.join(CHANGE, ASK="", answers="")
    holder = base64.b64encode((HOLDER + "\n").encode()).decode()
    question = f"istio-vm-mesh: ask busy {holder}\n"
    assert (done.stdout, done.stderr) == (question * 2, f"machine product-1: {HOLDER} still runs\n")
    assert alone.stderr == f"machine product-1: {HOLDER} is still running on this machine\n"
    assert (machine.tree(), machine.active) == (before, "good-1")


@pytest.mark.slow
@pytest.mark.parametrize("removes", ["", 'rm -f "$RUN/istio-vm-mesh.lock"'], ids=["a join", "a leave, which removes the lock's file"])
def test_a_join_goes_on_when_the_one_of_before_has_ended(machine: FakeMachine, removes: str) -> None:
    """It may be of an update that was killed, and runs on for some seconds."""
    ends = f"""flock() {{
  if [ ! -e "$RUN/tried" ]; then touch "$RUN/tried"; return 1; fi
  if [ ! -e "$RUN/ended" ]; then touch "$RUN/ended"; {removes or "true"}; fi
  command flock "$@"
}}"""
    done = machine.join(CHANGE, ends, answers="yes\n" * 4)
    assert (done.returncode, machine.active) == (0, "good-2"), done.stderr
    (lock,) = (machine.directory / "run").glob("istio-vm-mesh.lock")
    assert lock.read_text().startswith("the join of product-1 ")


# What is of others.

THEIRS = ("etc/certs/key.pem", "etc/certs/cert-chain.pem", "etc/certs/root-cert.pem", "run/secrets/theirs", "etc/istio/mesh",
          "etc/systemd/system/istio.service", "usr/local/bin/envoy", "usr/local/bin/pilot-agent", "var/lib/istio/envoy/cluster.env")  # fmt: skip


@pytest.mark.slow
def test_a_join_and_a_leave_touch_nothing_of_others(fresh: FakeMachine) -> None:
    for name in THEIRS:
        (fresh.root / name).parent.mkdir(parents=True, exist_ok=True)
        (fresh.root / name).write_text("theirs")
    (fresh.root / "run/secrets").chmod(0o700)
    before = fresh.tree()
    assert fresh.join().returncode == 0
    assert {path: shown for path, shown in fresh.tree().items() if path in before} == before
    ours = [path for path in fresh.tree() if path not in before and "istio-vm-mesh" not in path]
    assert ours == ["etc/systemd/system/multi-user.target.wants"]
    assert fresh.leave().stdout == "left\n"
    assert {path for path in fresh.tree() if path not in before} == set(ours)
    assert {path: shown for path, shown in fresh.tree().items() if path in before} == before


# The package.


def provide(machine: FakeMachine, url: str, sha256: str = "", **variables: str) -> tuple[subprocess.CompletedProcess[str], str]:
    """Join with a package, and return what curl was called with, too."""
    requests = machine.directory / "run/requests"
    requests.write_text("")
    done = machine.join(bundle(package_url=url, package_sha256=sha256), **variables)
    return done, requests.read_text()


@pytest.mark.slow
def test_https_never_becomes_http(fresh: FakeMachine) -> None:
    _, requests = provide(fresh, "https://example.com/good-1.deb")
    downloads = [line for line in requests.splitlines() if "example.com" in line]
    assert len(downloads) == 2
    assert all(line.startswith("--disable ") and "--proto =https --proto-redir =https" in line for line in downloads)


@pytest.mark.slow
def test_http_needs_a_digest_that_the_stack_names(fresh: FakeMachine) -> None:
    done, requests = provide(fresh, "http://example.com/good-1.deb")
    assert "proves nothing without TLS: set mesh.package.sha256" in done.stderr and "example.com" not in requests
    sha256 = (fresh.directory / "served/good-1.deb.sha256").read_text()[:64]
    done, _ = provide(fresh, "http://example.com/good-1.deb", sha256)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_credentials_of_the_packages_server_are_on_no_command_line(fresh: FakeMachine) -> None:
    done, requests = provide(fresh, "https://example.com/good-1.deb", PACKAGE_CREDENTIALS='me:p"a\\ss')
    assert done.returncode == 0 and "p" in requests and 'p"a' not in requests
    credentials = fresh.directory / "run/credentials"
    assert credentials.read_text() == 'user = "me:p\\"a\\\\ss"\n' * 2
    assert not [path for path, shown in fresh.tree().items() if "a\\ss" in shown]
    credentials.unlink()
    sha256 = package(fresh.directory / "served", "good-2.deb", "good-2")
    done, requests = provide(fresh, "http://example.com/good-2.deb", sha256, PACKAGE_CREDENTIALS="me:secret")
    assert done.returncode == 0 and "http://example.com/good-2.deb" in requests
    assert credentials.read_text() == "", "they would be readable on the way"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("programs", "cause"),
    [
        ({"envoy": "echo 'GLIBC_2.38 not found' >&2; exit 1"}, "envoy of the package from https://example.com/other.deb does not run on this machine: GLIBC_2.38 not found"),
        ({"agent": "exit 126"}, "pilot-agent of the package from https://example.com/other.deb does not run on this machine"),
        ({"envoy": "exit 124"}, "envoy of the package from https://example.com/other.deb does not run on this machine: it did not end within "),
    ],
)  # fmt: skip
def test_a_package_whose_programs_do_not_run_stops_nothing(machine: FakeMachine, programs: dict[str, str], cause: str) -> None:
    package(machine.directory / "served", "other.deb", "good", **programs)
    before = machine.tree()
    done, _ = provide(machine, "https://example.com/other.deb")
    assert cause in done.stderr and done.stderr.endswith(AS_BEFORE)
    assert (machine.tree(), machine.calls) == (before, [])


@pytest.mark.slow
def test_a_package_that_is_another_than_its_digest_is_not_unpacked(machine: FakeMachine) -> None:
    before = machine.tree()
    done, _ = provide(machine, "https://example.com/good-2.deb", "0" * 64)
    assert f"instead of {'0' * 64}: nothing was installed" in done.stderr
    assert (machine.tree(), machine.calls) == (before, [])


@pytest.mark.slow
def test_what_is_no_package_is_named(machine: FakeMachine) -> None:
    (machine.directory / "served/other.deb").write_text("!<arch>\nnot a package")
    digest_ = subprocess.run(["sha256sum"], input=b"!<arch>\nnot a package", capture_output=True, check=True).stdout.decode()[:64]
    done, _ = provide(machine, "https://example.com/other.deb", digest_)
    assert "the package from https://example.com/other.deb cannot be unpacked: " in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("with_cpio", [True, False])
def test_an_rpm_is_unpacked_without_a_package_manager(machine: FakeMachine, with_cpio: bool) -> None:
    """With stand-ins for rpm's programs, which take the content from a tar."""
    served = machine.directory / "served"
    content = subprocess.run(
        ["tar", "--create", "--gzip", "--directory", str(served / "content-good-2.deb"), "usr", "var"], capture_output=True, check=True
    ).stdout
    (served / "good.rpm").write_bytes(b"\xed\xab\xee\xdb" + content)
    programs = machine.directory / "bin"
    add_program(programs, "rpm2archive", "tail -c +5")
    add_program(programs, "rpm2cpio", 'tail -c +5 "$1"')
    if with_cpio:
        add_program(programs, "cpio", "tar --extract --gzip")
    sha256 = subprocess.run(["sha256sum", str(served / "good.rpm")], capture_output=True, check=True).stdout.decode()[:64]
    done, _ = provide(machine, "https://example.com/good.rpm", sha256)
    assert (done.returncode, machine.active) == (0, "good-2"), done.stderr


# Time.


def test_every_wait_has_a_share_of_one_deadline() -> None:
    """The seconds that are no share are those of the gateway, the old entry, and an agent that runs.

    A package's programs take what the download left, or a share each.
    """
    shares = [int(share) for share in re.findall(r"\$\(share (\d+)\)", JOIN.read_text())]
    shares.append(1)  # of the second program
    assert sum(shares) * DEADLINE_S / 100 + 5 + DISCONNECT_GRACE + 3 + 5 < DEADLINE_S
