"""A join that nothing confirms is taken back, whatever becomes of its connection, of its process and of its machine."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from components.machines.bundle import digest, role_files
from tests.support.machine import CONFIRM, CONFIRMATION, JOIN, OWNER, PROGRAMS, STATE, UNDO, UNITS, FakeMachine, bundle, package
from tests.support.scripts import COMPONENTS
from tests.support.tiers import some_quick
from tests.support.waiting import wait_until

CHANGE = bundle({"cluster.env": "A='2'\n", "new.env": "new"}, package_url="https://example.com/good-2.deb")
PACKAGES = f"{PROGRAMS}/packages/"
STEPS = re.findall(r"^ +step (\w+)", JOIN.read_text(), re.MULTILINE)
GUARDED = STEPS[STEPS.index("arm") : STEPS.index("complete")]


@pytest.fixture(scope="module")
def joined_once(tmp_path_factory: pytest.TempPathFactory) -> FakeMachine:
    machine = FakeMachine(tmp_path_factory.mktemp("joined") / "machine").create()
    done = machine.join()
    assert done.returncode == 0, done.stderr
    package(machine.directory / "served", "good-2.deb", "good-2")
    return machine


def at(question: str, action: str) -> str:
    """Have the join do something in place of a question."""
    return f'eval "before_$(declare -f ask)"\nask() {{ if [ "$1" = {question} ]; then {action}; else before_ask "$@"; fi; }}'


def killed_after(name: str) -> str:
    return f'eval "real_$(declare -f step)"\nstep() {{ real_step "$@"; [ "$1" != {name} ] || kill -KILL $$; }}'


def without_packages(machine: FakeMachine) -> dict[str, str]:
    return {path: shown for path, shown in machine.tree().items() if not path.startswith(PACKAGES)}


def test_a_join_asks_to_be_confirmed_after_the_agent_has_started(machine: FakeMachine) -> None:
    done = machine.join(CHANGE)
    assert re.fullmatch(r"istio-vm-mesh: ask confirm \d+\.\d+", done.stdout.splitlines()[-2]), done.stdout
    calls = (machine.directory / "run/calls").read_text().splitlines()
    assert calls.index("restart istio-vm-mesh-undo") < calls.index("restart istio-vm-mesh")
    assert not (machine.root / STATE / "before").exists()


@pytest.mark.slow
def test_a_join_that_restarts_nothing_needs_no_second_connection(machine: FakeMachine) -> None:
    done = machine.join()
    assert (done.returncode, "confirm" in done.stdout) == (0, False)


@pytest.mark.slow
def test_a_gateway_redirects_nothing_so_nothing_confirms_it(fresh: FakeMachine) -> None:
    done = fresh.join(bundle(role="router"))
    assert (done.returncode, "confirm" in done.stdout) == (0, False), done.stderr
    assert not [path for path in fresh.tree() if "undo" in path]


@pytest.mark.parametrize(
    "answer", some_quick(["no SSH failed", "", "yes"], "no SSH failed"), ids=["no", "none", "yes by the first connection alone"]
)
def test_a_join_that_is_not_confirmed_brings_the_agent_of_before_back(machine: FakeMachine, answer: str) -> None:
    before = machine.tree()
    alone = at("confirm", 'real_ask "$@"')
    done = machine.join(CHANGE, alone, answers=f"yes\n{answer}\n" if answer else "yes\n")
    expected = {
        "no SSH failed": "SSH failed",
        "": "the connection ended before the request 'confirm",
        "yes": "no second SSH connection came to this machine within 1 s",
    }
    assert (done.returncode, expected[answer] in done.stderr) == (1, True), done.stderr
    assert done.stderr.endswith("; the machine runs as before\n")
    assert (machine.tree(), machine.active) == (before, "good-1")


@pytest.mark.slow
def test_a_first_join_that_is_not_confirmed_leaves_nothing(fresh: FakeMachine) -> None:
    done = fresh.join(text=at("confirm", 'real_ask "$@"'), answers="no SSH failed\n")
    assert done.stderr == "machine product-1: SSH failed; nothing of the join is left on the machine\n"
    assert (fresh.mesh_paths(), fresh.active) == ([], "")


@pytest.mark.slow
def test_a_join_that_is_killed_while_it_waits_is_taken_back_at_once(machine: FakeMachine) -> None:
    """As with its session, by systemd-logind, or with the sshd that it came by."""
    machine.with_systemd()
    before = without_packages(machine)
    assert machine.join(CHANGE, at("confirm", "kill -KILL $$")).returncode == -9
    wait_until(lambda: "took back" in (machine.directory / "run/undo.log").read_text())
    assert (without_packages(machine), machine.active) == (before, "good-1")
    assert (machine.directory / "run/undo.log").read_text() == "machine product-1: took back a join that nothing confirmed\n"


@pytest.mark.slow
def test_a_first_join_that_is_killed_while_it_waits_is_removed(fresh: FakeMachine) -> None:
    fresh.with_systemd()
    assert fresh.join(text=at("confirm", "kill -KILL $$")).returncode == -9
    wait_until(lambda: "took back" in (fresh.directory / "run/undo.log").read_text())
    assert (fresh.mesh_paths(), fresh.active) == ([], "")


@pytest.mark.slow
def test_a_join_that_hangs_is_ended_and_taken_back(machine: FakeMachine) -> None:
    machine.with_systemd()
    before = without_packages(machine)
    short = 'share() { if [ "$1" = 40 ]; then echo 0; else echo 60; fi; }'
    done = machine.join(CHANGE, f"{at('confirm', 'kill -STOP $$')}\n{short}")
    assert done.returncode == -9
    wait_until(lambda: "took back" in (machine.directory / "run/undo.log").read_text())
    assert (without_packages(machine), machine.active) == (before, "good-1")


@pytest.mark.slow
@pytest.mark.parametrize("name", some_quick(GUARDED, "start_agent"))
def test_a_boot_takes_back_a_join_that_was_not_confirmed(machine: FakeMachine, name: str) -> None:
    before = without_packages(machine)
    machine.join(CHANGE, killed_after(name))
    if name != "arm":
        (machine.directory / "run/active").write_text("good-2")  # enabled, so it has started again
    done = machine.undo()
    assert (done.returncode, done.stdout) == (0, "machine product-1: took back a join that nothing confirmed\n"), done.stderr
    assert (without_packages(machine), machine.active) == (before, "good-1")
    again = machine.undo()
    assert (again.returncode, again.stdout, without_packages(machine)) == (0, "", before)


@pytest.mark.slow
def test_a_boot_takes_back_a_first_join(fresh: FakeMachine) -> None:
    fresh.join(text=killed_after("start_agent"))
    assert fresh.undo().returncode == 0
    assert (fresh.mesh_paths(), fresh.active) == ([], "")


def test_a_boot_after_a_join_that_completed_changes_nothing(machine: FakeMachine) -> None:
    before = machine.tree()
    assert (machine.undo().returncode, machine.tree()) == (0, before)


@pytest.mark.slow
def test_a_copy_that_was_removed_by_half_is_not_taken_back(machine: FakeMachine) -> None:
    """Its join was confirmed, and a power cut came while it removed the copy."""
    machine.join(CHANGE, killed_after("confirm"))
    (machine.root / STATE / "before/complete").unlink()
    assert (machine.undo().stdout, machine.active) == ("", "good-2")


@pytest.mark.slow
def test_a_join_that_is_run_again_meanwhile_names_the_first(machine: FakeMachine) -> None:
    machine.with_systemd()
    again = machine.directory / "again"
    run = f'bash -s <"{again}" >"{again}.out" 2>&1 3<&- 9>&- || true'
    again.write_text(f"{machine.script(CONFIRMATION, JOIN)}MACHINE=product-1\nASK=\ntake_lock join\n")
    done = machine.join(CHANGE, at("confirm", f'{run}; rm "$BEFORE"/unconfirmed.*'))
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, digest(CHANGE)), done.stderr
    assert "the join of product-1 from the stack mesh/prod" in Path(f"{again}.out").read_text()


@pytest.mark.slow
def test_the_next_join_succeeds_whether_or_not_the_killed_one_is_taken_back(machine: FakeMachine) -> None:
    machine.join(CHANGE, at("confirm", "kill -KILL $$"))
    machine.with_systemd()
    done = machine.join(CHANGE)
    assert (done.returncode, machine.active) == (0, "good-2"), done.stderr
    assert machine.undo().stdout == "" and machine.active == "good-2"


@pytest.mark.slow
def test_what_takes_a_join_back_is_named_to_a_join_that_comes_meanwhile(machine: FakeMachine) -> None:
    machine.join(CHANGE, killed_after("start_agent"))
    held = machine.script(UNDO, text='undo_killed_join() { cat "$RUN/istio-vm-mesh.lock" >"$RUN/seen"; }')
    (machine.directory / "undo").write_text(f"{held}main\n")
    machine.sourced().run(f'bash "{machine.directory}/undo"')
    assert (machine.directory / "run/seen").read_text().startswith("what takes the join of product-1 back (process ")


def confirm(machine: FakeMachine, nonce: str) -> tuple[int, str, str]:
    done = machine.sourced(CONFIRM).run("clean_environment() { :; }\nmain", {**machine.places(), "MACHINE": "product-1", "NONCE": nonce})
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_a_confirmation_counts_once_and_a_late_one_is_refused_by_name(machine: FakeMachine) -> None:
    machine.join(CHANGE, at("confirm", 'touch "$BEFORE/unconfirmed.7.8"; kill -KILL $$'))
    late = "machine product-1: no join waits here for this connection: it came too late, and the join was taken back"
    status, _, error = confirm(machine, "7.9")
    assert (status, error.startswith(late)) == (1, True)
    assert confirm(machine, "7.8") == (0, "confirmed\n", "")
    status, _, error = confirm(machine, "7.8")
    assert (status, error.startswith(late)) == (1, True)


@pytest.mark.slow
def test_an_agent_that_the_cluster_would_let_in_again_stays_stopped(machine: FakeMachine) -> None:
    """Nothing keeps it out any more, and the computer that runs Pulumi is gone."""
    alone = at("confirm", 'real_ask "$@"')
    done = machine.join(CHANGE, alone, answers="yes\nyes\n", KEPT_OUT="1")
    assert done.returncode == 1 and done.stderr.endswith("; the machine is as before\n"), done.stderr
    assert machine.active == ""


@pytest.mark.slow
def test_another_stacks_machine_is_the_first_stacks_after_its_join_was_taken_back(machine: FakeMachine) -> None:
    machine.with_systemd()
    before = without_packages(machine)
    machine.join(replace(CHANGE, owner=replace(OWNER, stack="test", machine="a")), at("confirm", "kill -KILL $$"))
    wait_until(lambda: "took back" in (machine.directory / "run/undo.log").read_text())
    assert (without_packages(machine), machine.active) == (before, "good-1")


def test_the_unit_runs_where_a_join_is_armed_and_with_the_agent_at_a_boot() -> None:
    units = COMPONENTS / "machines" / "units"
    undo = (units / "istio-vm-mesh-undo.service").read_text()
    assert f"\nConditionPathExists=/{STATE}/before/armed\n" in undo and "[Install]" not in undo
    assert re.search(r"^Wants=.*\bistio-vm-mesh-undo\.service$", (units / "istio-vm-mesh.service.d/sidecar.conf").read_text(), re.MULTILINE)
    assert f"{UNITS}/istio-vm-mesh-undo.service" in [path.path.lstrip("/") for path in role_files("sidecar")]
