"""How a machine leaves the mesh, and which machines may stay behind. The machine and the cluster are small fakes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from components import names
from components.local import cluster_access, openssh, scripting
from components.local.cluster_access import ClusterAccess
from components.local.conversation import Answer
from components.local.openssh import Outcome
from components.local.ssh_log import Reach
from components.machines import entries
from components.machines.bundle import Owner
from components.machines.scripts import drain
from tests.support.fake_cluster import FakeCluster

OWNER = Owner("mesh", "prod", "billing-1", "0123", "shop", "billing")
TARGET = openssh.Target("billing-1", openssh.Hop("192.0.2.7", user="admin"))
LEAVE = drain.Leave(TARGET, required=True)
ENTRY = "billing-192.0.2.7-pods"
PAYLOAD = drain.Payload(ClusterAccess(), OWNER, 2, ENTRY, "192.0.2.7", LEAVE)
GOES_ANYWAY = replace(PAYLOAD, leave=replace(LEAVE, required=False))
LEFT, NOT_JOINED, NOT_OURS = (Outcome(Reach.DONE, 0, f"words\n{end}\n") for end in ("left", "not-joined", "not-ours mesh/other billing-9"))
DEAD = Outcome(Reach.DEAD, 255, reason="Connection refused")
FAILURES = {
    "login refused": Outcome(Reach.LOGIN_REFUSED, 255, reason="Permission denied (publickey)"),
    "another host key": Outcome(Reach.HOST_KEY, 255, reason="Host key verification failed"),
    "bastion": Outcome(Reach.BASTION, 255, reason="jump host b: Permission denied (publickey)"),
    "no such name": Outcome(Reach.UNRESOLVED, 255, reason="Could not resolve hostname"),
    "login shell": Outcome(Reach.NOT_BEGUN, 0),
    "broken": Outcome(Reach.BROKEN, 255, reason="banner exchange"),
    "cut off": Outcome(Reach.CUT_OFF, 255, "", "", "Connection reset"),
    "time is over": Outcome(Reach.TIMED_OUT, scripting.TIMED_OUT),
    "status": Outcome(Reach.FAILED, 3, "", "machine billing-1: no root"),
    "no last line": Outcome(Reach.DONE, 0, "half\n"),
}


RUN_SCRIPT = openssh.run_script


def no_pause(_seconds: float) -> None:
    """Stand in for the pause of a program that has not ended."""


class Machine:
    """A machine whose leave ends in `outcome`; it asks first where that is `left`."""

    outcome = LEFT
    scripts: list[str]

    def __init__(self) -> None:
        self.scripts = []

    def run_script(self, target: openssh.Target, script: str, timeout_s: float, patience_s: float, answer: Answer) -> Outcome:
        self.scripts.append(script)
        if self.outcome is LEFT:
            assert answer("leave", no_pause) == "yes"
        return self.outcome


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    cluster = FakeCluster()
    monkeypatch.setattr(cluster_access, "kubectl", cluster.kubectl)
    cluster.add(ENTRY, "0123")
    return cluster


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(openssh, "run_script", machine.run_script)
    monkeypatch.delenv(drain.FORGET_VARIABLE, raising=False)
    return machine


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    passed: list[float] = []
    monkeypatch.setattr(drain, "sleep", passed.append)
    return passed


def kept_out(cluster: FakeCluster) -> str:
    return str(cluster.entries.get(ENTRY, {}).get("metadata", {}).get("labels", {}).get(names.QUARANTINE_LABEL, ""))


def test_the_entry_is_deleted_and_requests_end_before_the_agent_stops(
    cluster: FakeCluster, machine: Machine, pauses: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.add("billing-192.0.2.8-pods", "89ab")
    drain.run(PAYLOAD)
    assert list(cluster.entries) == ["billing-192.0.2.8-pods"] and pauses == [2]
    assert capsys.readouterr().err == ""
    assert "REGISTRATION=0123" in machine.scripts[0]


def test_a_machine_that_is_busy_keeps_its_entry(cluster: FakeCluster, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its entry is deleted only when the leave asks for that."""

    def run_script(*_words: object, answer: Answer) -> Outcome:
        assert answer("busy YSBqb2lu", no_pause) == "yes" and ENTRY in cluster.entries
        assert answer("leave", no_pause) == "yes" and ENTRY not in cluster.entries
        return LEFT

    monkeypatch.setattr(openssh, "run_script", run_script)
    drain.run(PAYLOAD)


@pytest.mark.parametrize("other", ["none", "not healthy", "disconnected", "of another workload"])
def test_the_pause_of_a_workload_without_another_machine_is_said(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str], other: str
) -> None:
    if other != "none":
        cluster.add("another", "89ab", healthy=other != "not healthy", connected=other != "disconnected")
    if other == "of another workload":
        cluster.entries["another"]["metadata"]["annotations"][names.GROUP_ANNOTATION] = "invoices"
    drain.run(PAYLOAD)
    assert "machine billing-1: no other machine of the workload shop/billing is in the mesh" in capsys.readouterr().err


def test_the_entry_of_a_machine_that_had_left_pauses_nothing(cluster: FakeCluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.entries.clear()
    drain.run(PAYLOAD)
    assert capsys.readouterr().err == ""


def test_a_machine_that_is_shut_down_is_drained_without_a_connection(cluster: FakeCluster, machine: Machine) -> None:
    drain.run(replace(PAYLOAD, leave=None))
    assert cluster.entries == {} and machine.scripts == []


def test_the_entry_of_another_registration_stays(cluster: FakeCluster, machine: Machine, pauses: list[float]) -> None:
    cluster.add(ENTRY, "4567")
    machine.outcome = NOT_OURS
    drain.run(PAYLOAD)
    assert list(cluster.entries) == [ENTRY] and pauses == []


def test_a_machine_that_another_stack_has_by_now_is_named(
    machine: Machine, cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.outcome = NOT_OURS
    drain.run(PAYLOAD)
    assert "machine billing-1 at admin@192.0.2.7 is now mesh/other billing-9: nothing was changed on it" in capsys.readouterr().err


def test_a_machine_that_never_joined_is_no_error(machine: Machine, cluster: FakeCluster) -> None:
    machine.outcome = NOT_JOINED
    drain.run(PAYLOAD)
    assert cluster.entries == {}, "what was left over of the registration"


@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize("outcome", FAILURES.values(), ids=FAILURES)
def test_a_machine_that_lives_and_does_not_leave_is_an_error(
    machine: Machine, cluster: FakeCluster, outcome: Outcome, connected: bool
) -> None:
    """Also where its agent is stopped: it may start again."""
    machine.outcome = outcome
    cluster.add(ENTRY, "0123", connected=connected)
    with pytest.raises(scripting.Failed) as raised:
        drain.run(PAYLOAD)
    message = str(raised.value)
    assert "machine billing-1" in message and outcome.reason in message
    assert "machines.billing-1.forget: true" in message and "ISTIO_VM_MESH_FORGET=billing-1" in message
    assert list(cluster.entries) == [ENTRY] and not kept_out(cluster), "it stays in the mesh as it was"


@pytest.mark.parametrize("outcome", [*FAILURES.values(), DEAD], ids=[*FAILURES, "dead"])
def test_a_machine_that_is_removed_anyway_is_only_reported(
    machine: Machine, cluster: FakeCluster, outcome: Outcome, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.outcome = outcome
    drain.run(GOES_ANYWAY)
    assert cluster.entries == {}
    assert "machine billing-1" in capsys.readouterr().err


def test_a_dead_machine_is_kept_out_and_what_it_still_can_do_is_said(
    machine: Machine, cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.outcome = DEAD
    cluster.add(ENTRY, "0123", connected=False)
    drain.run(PAYLOAD)
    message = capsys.readouterr().err
    assert "machine billing-1 is dead" in message and "Connection refused" in message
    assert "WorkloadEntry shop/billing-192.0.2.7-pods keeps its agent out" in message and "reaches the east-west gateway" in message
    item = cluster.entries[ENTRY]
    assert item["spec"] == {
        "address": "192.0.2.7",
        "labels": {names.QUARANTINE_LABEL: "billing-1"},
        "serviceAccount": names.QUARANTINE_ACCOUNT,
    }
    assert item["metadata"]["ownerReferences"][0]["uid"] == "the-group", "it goes with the WorkloadGroup"


def test_a_machine_whose_agent_stays_connected_is_not_dead(
    machine: Machine, cluster: FakeCluster, pauses: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    """Who runs Pulumi without the way to the machines must not give all of them up."""
    machine.outcome = DEAD
    with pytest.raises(scripting.Failed, match=r"It is not dead.*check the route from here to it.*machines.billing-1.forget: true"):
        drain.run(PAYLOAD)
    assert list(cluster.entries) == [ENTRY] and not kept_out(cluster)
    assert sum(pauses) > 40, "istiod notices after 40 s that a machine is gone"
    assert "machine billing-1 does not answer: waiting" in capsys.readouterr().err


def test_a_connection_that_a_bastion_drops_is_tried_again(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many machines may leave at once, and its sshd takes ten new connections (MaxStartups)."""
    outcomes = iter([FAILURES["broken"], FAILURES["bastion"], LEFT])
    monkeypatch.setattr(openssh, "run_script", RUN_SCRIPT)
    monkeypatch.setattr(openssh._Connection, "run", lambda *_: next(outcomes))
    monkeypatch.setattr(openssh, "sleep", no_pause)
    drain.run(PAYLOAD)
    assert next(outcomes, None) is None


@pytest.mark.parametrize("failures", [1, 2])
def test_a_request_that_fails_once_makes_no_machine_dead(
    machine: Machine, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    """It would be kept out of the mesh although it runs."""
    machine.outcome = DEAD
    cluster.down = "net/http: TLS handshake timeout"
    left = iter(range(failures - 1))

    def answers_again(_seconds: float) -> None:
        if next(left, None) is None:
            cluster.down = ""

    monkeypatch.setattr(drain, "sleep", answers_again)
    with pytest.raises(scripting.Failed, match="It is not dead, because its agent is connected"):
        drain.run(PAYLOAD)
    assert not kept_out(cluster)


def test_istiod_may_take_its_time_to_notice_that_a_machine_is_dead(
    machine: Machine, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.outcome = DEAD
    monkeypatch.setattr(drain, "sleep", lambda _: cluster.add(ENTRY, "0123", connected=False))
    drain.run(PAYLOAD)
    assert kept_out(cluster) == "billing-1"


def test_a_dead_machine_whose_group_is_gone_needs_nothing(
    machine: Machine, cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.outcome, cluster.workload_group = DEAD, None
    cluster.add(ENTRY, "0123", connected=False)
    drain.run(PAYLOAD)
    assert cluster.entries == {}, "an entry stays where its group was deleted without it"
    assert "the WorkloadGroup billing is gone" in capsys.readouterr().err


def test_an_entry_that_a_new_registration_has_is_not_replaced(machine: Machine, cluster: FakeCluster) -> None:
    machine.outcome = DEAD
    cluster.add(ENTRY, "4567")
    drain.run(PAYLOAD)
    assert not kept_out(cluster)


def test_an_entry_that_its_agent_makes_again_is_replaced_all_the_same(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    delete, agent = entries.delete_registered, iter([True, True])

    def and_register(kubectl: FakeCluster, namespace: str, registration: str) -> bool:
        deleted = delete(kubectl, namespace, registration)  # type: ignore[arg-type]
        if next(agent, False):
            cluster.add(ENTRY, registration)
        return deleted

    monkeypatch.setattr(entries, "delete_registered", and_register)
    entries.quarantine(cluster, entries.Quarantine(OWNER, ENTRY, "192.0.2.7", "dead"))  # type: ignore[arg-type]
    assert kept_out(cluster) == "billing-1"


def test_a_dead_machine_that_cannot_be_kept_out_is_an_error(machine: Machine, cluster: FakeCluster) -> None:
    machine.outcome, cluster.down = DEAD, "Unable to connect to the server"
    with pytest.raises(
        scripting.Failed, match=r"is dead.*It cannot be kept out of the mesh either: Unable to connect.*ISTIO_VM_MESH_FORGET"
    ):
        drain.run(PAYLOAD)


def test_a_machine_is_forgotten_where_its_cluster_is_gone_too(cluster: FakeCluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.down = "Unable to connect to the server"
    drain.run(replace(PAYLOAD, leave=replace(LEAVE, forget=True)))
    assert "is forgotten: nothing was changed on it. It cannot be kept out of the mesh either: Unable to connect" in capsys.readouterr().err


def test_an_api_server_that_does_not_answer_holds_up_no_machine_that_leaves(
    cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.down = "Unable to connect to the server"
    drain.run(PAYLOAD)
    assert "was not deleted first; istiod removes it after its grace period: Unable to connect" in capsys.readouterr().err


def test_another_cluster_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(_access: ClusterAccess) -> None:
        raise cluster_access.OtherCluster("leads to another cluster")

    monkeypatch.setattr(cluster_access, "kubectl", other)
    with pytest.raises(scripting.Failed, match="leads to another cluster"):
        drain.run(replace(PAYLOAD, leave=None))


@pytest.mark.parametrize("by", ["setting", "variable"])
def test_a_machine_that_is_forgotten_is_kept_out_without_a_connection(
    machine: Machine, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], by: str
) -> None:
    if by == "variable":
        monkeypatch.setenv(drain.FORGET_VARIABLE, "other, billing-1")
    drain.run(replace(PAYLOAD, leave=replace(LEAVE, forget=by == "setting")))
    assert machine.scripts == [] and kept_out(cluster) == "billing-1"
    assert cluster.entries[ENTRY]["metadata"]["annotations"][names.REASON_ANNOTATION] == "forgotten"
    assert "machine billing-1 is forgotten: nothing was changed on it" in capsys.readouterr().err


def test_a_variable_that_names_other_machines_forgets_none(machine: Machine, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(drain.FORGET_VARIABLE, "billing-11,billing")
    drain.run(PAYLOAD)
    assert len(machine.scripts) == 1
