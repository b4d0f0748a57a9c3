"""How a machine is joined from the computer that runs Pulumi: its token, the questions of its script, and the wait for its entry."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from components import names
from components.local import cluster_access, openssh, scripting
from components.local.cluster_access import ClusterAccess
from components.local.conversation import Answer, Ended, Pause
from components.local.openssh import Outcome
from components.local.ssh_log import Reach
from components.machines import entries
from components.machines.bundle import WAIT_LIMIT_S, Bundle, Owner, digest, with_root_certificate
from components.machines.entries import Quarantine
from components.machines.files import configuration_files
from components.machines.scripts import join_machine, machine_lock, slots
from components.machines.scripts.slot_decision import SlotRequest
from components.machines.scripts.slot_lease import NoLease
from components.machines.scripts.slots import Declared
from tests.support.fake_cluster import ROOT_TEXT, WORKLOAD_GROUP, FakeCluster

OWNER = Owner("mesh", "prod", "billing-1", "0123", "shop", "billing")
PROXY = {
    "readinessProbe": {"httpGet": {"port": 8080}},
    "discoveryAddress": "istiod.istio-system.svc:15012",
    "proxyMetadata": {
        "POD_NAMESPACE": "shop",
        "SERVICE_ACCOUNT": "billing-account",
        "ISTIO_META_NETWORK": "pods",
        "ISTIO_META_WORKLOAD_NAME": "product",
        "ISTIO_METAJSON_LABELS": "{}",
    },
}
BUNDLE = Bundle(OWNER, PROXY, "192.0.2.7", "192.0.2.250", "https://example.com/{package}", "{}")
TARGET = openssh.Target("billing-1", openssh.Hop("192.0.2.7", user="admin"))
ENTRY = "billing-192.0.2.7-pods"
ROOT_SHA256 = hashlib.sha256(ROOT_TEXT.encode()).hexdigest()
PAYLOAD = join_machine.Payload(ClusterAccess(), TARGET, BUNDLE, ROOT_SHA256, 10)
DIGEST = digest(with_root_certificate(replace(BUNDLE, files=configuration_files(BUNDLE)), ROOT_TEXT))
DONE = Outcome(Reach.DONE, 0, f"words\n{DIGEST}\n")
ROLLED_BACK = Outcome(Reach.FAILED, 1, "", "machine billing-1: the agent is not ready; the machine runs as before")


class Machine:
    """A machine whose script asks `questions`, then registers it, and ends in `outcome`."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster, self.outcome = cluster, DONE
        self.questions: list[str] = []
        self.answers: list[str] = []
        self.attempts = 1
        self.script, self.connected_s = "", 60.0
        self.registers: Callable[[], None] = lambda: cluster.add(ENTRY, "0123")
        self.second = Outcome(Reach.DONE, 0, "confirmed\n")
        self.confirmations: list[tuple[str, tuple[float, ...], bool]] = []

    def pause(self, seconds: float) -> None:
        """Let the connection be lost after some seconds."""
        self.connected_s -= seconds
        if self.connected_s < 0:
            raise Ended

    def run_script(
        self,
        _target: openssh.Target,
        script: str | Callable[[], str],
        *times: float,
        answer: Answer | None = None,
        new_connection: bool = False,
    ) -> Outcome:
        if isinstance(script, str):
            self.confirmations.append((script, times, new_connection))
            return self.second
        assert answer
        for _ in range(self.attempts):
            self.script = script()
        for question in self.questions:
            try:
                self.answers.append(answer(question, self.pause))
            except Ended:
                return Outcome(Reach.CUT_OFF, 255)
            if self.answers[-1] != "yes":
                return Outcome(Reach.FAILED, 1, "", f"machine billing-1: {self.answers[-1].removeprefix('no ')}")
        if self.outcome is DONE:
            self.registers()
        return self.outcome


class Slots:
    """The slots of workloads. `log` says what happened to them. without: workloads that have none.

    alone: `<namespace>/<workload>` of those that one agent serves.
    stack: by which registration a machine of the stack joined, by `<namespace>/<workload> <machine>`.
    """

    def __init__(self) -> None:
        self.log: list[str] = []
        self.requests: list[SlotRequest] = []
        self.refusal = ""
        self.wait_s = 0.0
        self.alone: set[str] = set()
        self.on_take: Callable[[], None] = lambda: None
        self.without: set[str] = set()
        self.stack: dict[str, str] = {}

    @contextmanager
    def slot(self, _kubectl: object, request: SlotRequest, _report: object, pause: Pause, is_joined: Callable[[], bool]) -> Iterator[bool]:
        pause(self.wait_s)
        if self.refusal:
            raise scripting.Failed(self.refusal)
        if request.workload in self.without:
            raise NoLease(f"no Lease of {request.workload}")
        self.requests.append(request)
        self.log.append(f"take {request.machine}")
        self.on_take()
        try:
            yield f"{request.namespace}/{request.workload}" in self.alone
            if is_joined():
                self.log.append(f"joined {request.machine}")
        finally:
            self.log.append("give back")

    def halt(self, _kubectl: object, _request: SlotRequest, cause: str) -> None:
        self.log.append(f"halt: {cause}")

    def declared(self, _kubectl: object, request: SlotRequest) -> Declared:
        if self.refusal:
            raise scripting.Failed(self.refusal)
        if request.workload in self.without:
            raise NoLease(f"no Lease of {request.workload}")
        joined_by = self.stack.get(f"{request.namespace}/{request.workload} {request.machine}")
        return Declared(joined_by is not None, joined_by or "")

    def joined(self, _kubectl: object, request: SlotRequest) -> None:
        self.log.append(f"joined {request.machine}")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    cluster = FakeCluster()
    monkeypatch.setattr(cluster_access, "unchecked_kubectl", cluster.kubectl)
    for limit in ("ENTRY_TIMEOUT_S", "PROBE_TIMEOUT_S", "PAUSE_S"):
        monkeypatch.setattr(join_machine, limit, 0)
    return cluster


@pytest.fixture
def machine(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(cluster)
    monkeypatch.setattr(openssh, "run_script", machine.run_script)
    return machine


@pytest.fixture(autouse=True)
def held(monkeypatch: pytest.MonkeyPatch) -> Slots:
    held = Slots()
    for name in ("slot", "halt", "joined", "declared"):
        monkeypatch.setattr(slots, name, getattr(held, name))
    return held


def test_the_token_is_minted_by_the_join_for_istiod_alone(machine: Machine, cluster: FakeCluster) -> None:
    result = join_machine.run(PAYLOAD)
    assert result == join_machine.Result(DIGEST)
    assert "create token billing-account --namespace shop --audience istio-ca --duration 18000s" in cluster.calls
    assert "TOKEN=the-token\n" in machine.script


def test_a_token_outlives_the_wait_for_a_slot() -> None:
    """The agent reads it only afterwards."""
    assert join_machine.TOKEN_LIFETIME_S > WAIT_LIMIT_S + join_machine.TIMEOUT_S


def test_a_machine_without_a_token_runs_nothing(machine: Machine, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    call = cluster.call

    def refusing(*words: str, **options: Any) -> scripting.Done:
        return scripting.Done(1, b"", b"Forbidden") if "token" in words else call(*words, **options)

    monkeypatch.setattr(cluster, "call", refusing)
    with pytest.raises(scripting.Failed, match="machine billing-1: no token of the service account shop/billing-account: Forbidden"):
        join_machine.run(PAYLOAD)
    assert machine.script == ""


def test_a_machine_that_boots_for_long_needs_one_token(machine: Machine, cluster: FakeCluster) -> None:
    machine.attempts = 3
    join_machine.run(PAYLOAD)
    assert len([call for call in cluster.calls if "create token" in call]) == 1


def test_credentials_of_the_packages_server_come_from_the_environment(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(join_machine.CREDENTIALS_VARIABLE, "me:secret")
    join_machine.run(PAYLOAD)
    assert "PACKAGE_CREDENTIALS=me:secret\n" in machine.script


def test_a_root_certificate_that_changed_meanwhile_is_not_delivered(machine: Machine, cluster: FakeCluster) -> None:
    cluster.root = "another"
    with pytest.raises(scripting.Failed, match="the mesh's root certificate changed while this update ran"):
        join_machine.run(PAYLOAD)
    assert machine.script == ""


def test_a_mesh_without_a_root_certificate_is_named(machine: Machine, cluster: FakeCluster) -> None:
    cluster.root = ""
    with pytest.raises(scripting.Failed, match="no root certificate of the mesh: there is no ConfigMap istio-system/istio-ca-root-cert"):
        join_machine.run(PAYLOAD)
    assert machine.script == ""


@pytest.mark.parametrize(
    ("stamp", "take_over", "answer"),
    [
        ("mesh prod billing-9 4567", "", "yes"),
        ("mesh prod billing-9 -", "", "yes"),
        ("mesh other billing-9 4567", "mesh/other", "yes"),
        ("mesh other billing-9 4567", "mesh/third", "no this is the machine billing-9 of the stack mesh/other"),
        ("theirs prod billing-9 4567", "", "no this is the machine billing-9 of the stack theirs/prod"),
    ],
)
def test_a_machine_of_another_stack_is_taken_over_only_by_name(machine: Machine, stamp: str, take_over: str, answer: str) -> None:
    machine.questions = [f"owner {stamp} 192.0.2.7 shop billing"]
    payload = replace(PAYLOAD, take_over=take_over)
    if answer == "yes":
        join_machine.run(payload)
    else:
        with pytest.raises(scripting.Failed, match=answer.removeprefix("no ")):
            join_machine.run(payload)
    assert machine.answers[0].startswith(answer)


@pytest.mark.parametrize("question", ["coffee", "owner", "owner mesh prod"])
def test_a_question_of_another_version_is_answered_by_no(machine: Machine, question: str) -> None:
    machine.questions = [question]
    with pytest.raises(scripting.Failed, match=f"the request {question.split()[0]} is of another version of this program"):
        join_machine.run(PAYLOAD)


def test_what_a_join_changes_of_a_host_is_in_one_list(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.questions = [f"changes {base64.b64encode(b'first thing').decode()}", f"changes {base64.b64encode(bytes([255])).decode()}"]
    join_machine.run(PAYLOAD)
    assert machine.answers == ["yes", "yes"]
    assert "machine billing-1: this host, from now on:\n  - first thing\n" in capsys.readouterr().err


BUSY = f"busy {base64.b64encode(b'the join of billing-9 (process 7)').decode()}"


def test_a_join_waits_for_the_one_that_runs_on_its_machine(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    """An update that was killed leaves it behind for some seconds."""
    machine.questions = [BUSY] * 3
    join_machine.run(PAYLOAD)
    assert (machine.answers, machine.connected_s) == (["yes"] * 3, 57)
    assert capsys.readouterr().err.count("machine billing-1: waiting until the join of billing-9 (process 7) has ended") == 1


def test_the_wait_for_another_join_has_an_end(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter((0.0, machine_lock.WAIT_S - 1.0, machine_lock.WAIT_S + 1.0))
    monkeypatch.setattr(machine_lock, "monotonic", lambda: next(times))
    machine.questions = [BUSY] * 4
    with pytest.raises(scripting.Failed, match=r"the join of billing-9 \(process 7\) still runs on this machine: run the update again"):
        join_machine.run(PAYLOAD)
    assert [answer[:3] for answer in machine.answers] == ["yes", "yes", "no "]


STAMPED = "owner mesh prod billing-9 4567 198.51.100.7 shop invoices"
"""The question of a host that another machine of the stack joined, by another address."""


@pytest.mark.parametrize("joined_by", ["4567", ""], ids=["joined", "its first join has not ended"])
def test_one_host_by_two_addresses_is_refused_with_both_names(machine: Machine, held: Slots, joined_by: str) -> None:
    """Each update would give the host to one of them and then to the other."""
    machine.questions, held.stack["shop/invoices billing-9"] = [STAMPED], joined_by
    message = (
        "this is the machine billing-9 of this stack, which joined it by the address 198.51.100.7: billing-1 and billing-9 are one host"
    )
    with pytest.raises(scripting.Failed, match=message):
        join_machine.run(PAYLOAD)
    assert "nothing was changed" in machine.answers[0] and held.log == []


@pytest.mark.parametrize(
    ("question", "stack"),
    [
        (STAMPED, {}),
        (STAMPED, {"shop/invoices billing-9": "of-its-new-host"}),
        (STAMPED.replace("198.51.100.7", "192.0.2.7"), {"shop/invoices billing-9": "4567"}),
        (STAMPED.replace("198.51.100.7", "-"), {"shop/invoices billing-9": "4567"}),
        (STAMPED.replace("billing-9", "billing-1"), {"shop/invoices billing-1": "4567"}),
    ],
    ids=["renamed", "it is another host by now", "they swap their hosts", "a stamp without an address", "its own"],
)
def test_a_host_that_changed_its_name_is_joined(
    machine: Machine, held: Slots, question: str, stack: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    machine.questions, held.stack = [question], stack
    join_machine.run(PAYLOAD)
    line = "machine billing-1: its host was the machine billing-9 of this stack until now\n"
    assert capsys.readouterr().err == ("" if "billing-9" not in question else line)


def test_an_entry_of_before_that_istiod_has_left_is_deleted(
    machine: Machine, cluster: FakeCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another istiod would take it over with its old labels, ports and network."""
    cluster.add(ENTRY, "0123")
    machine.questions = ["gone"]
    join_machine.run(PAYLOAD)
    assert machine.answers == ["yes"] and f"delete {entries.KIND} --selector {names.REGISTRATION_LABEL}=0123" in "\n".join(cluster.calls)
    assert "istiod had left its WorkloadEntry of before, which is deleted now" in capsys.readouterr().err


def test_an_entry_that_istiod_has_deleted_is_no_news(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.questions = ["gone"]
    join_machine.run(PAYLOAD)
    assert (machine.answers, capsys.readouterr().err) == (["yes"], "")


def test_the_entry_of_the_host_that_a_disk_was_copied_from_stays(machine: Machine, held: Slots, cluster: FakeCluster) -> None:
    cluster.add("billing-192.0.2.9-pods", "4567")
    machine.questions, held.stack["shop/invoices billing-9"] = [STAMPED, "gone"], "4567"
    join_machine.run(replace(PAYLOAD, take_over="mesh/prod"))
    assert "billing-192.0.2.9-pods" in cluster.entries


def test_an_entry_of_before_that_cannot_be_deleted_fails_the_join(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bool:
        raise scripting.Failed("forbidden")

    monkeypatch.setattr(entries, "delete_registered", refuse)
    machine.questions = ["gone"]
    with pytest.raises(scripting.Failed, match="its WorkloadEntry of before was not deleted: forbidden"):
        join_machine.run(PAYLOAD)


def test_the_copy_of_a_machines_disk_is_joined_where_the_stack_file_says_so(machine: Machine, held: Slots) -> None:
    machine.questions, held.stack["shop/invoices billing-9"] = [STAMPED], "4567"
    join_machine.run(replace(PAYLOAD, take_over="mesh/prod"))


def test_the_last_machine_of_a_workload_is_not_in_the_stack_without_its_slots(machine: Machine, held: Slots) -> None:
    machine.questions, held.without, held.stack = [STAMPED], {"invoices"}, {"shop/invoices billing-9": "4567"}
    join_machine.run(PAYLOAD)


def test_a_host_that_may_be_another_machine_of_the_stack_is_not_joined(machine: Machine, held: Slots) -> None:
    machine.questions, held.refusal = [STAMPED], "kubectl may not get leases"
    with pytest.raises(scripting.Failed, match="kubectl may not get leases"):
        join_machine.run(PAYLOAD)


def test_a_slot_is_held_until_the_entry_is_healthy(
    machine: Machine, held: Slots, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.questions = ["stop"]
    read = cluster.call

    def call(*words: str, **options: Any) -> scripting.Done:
        if "get" in words:
            held.log.append("look")
            cluster.add(ENTRY, "0123", healthy=held.log[-2:] == ["look", "look"])
        return read(*words, **options)

    cluster.call = call  # type: ignore[method-assign]
    monkeypatch.setattr(join_machine, "PROBE_TIMEOUT_S", 60)
    join_machine.run(PAYLOAD)
    assert held.log[-5:] == ["take billing-1", "look", "look", "joined billing-1", "give back"]


def test_a_machine_that_moves_waits_for_a_slot_of_the_workload_that_it_leaves(machine: Machine, held: Slots) -> None:
    """First for that one: in the new workload it serves nothing yet, so there it waits for nothing."""
    machine.questions, machine.outcome = ["stop store catalog of-before"], ROLLED_BACK
    with pytest.raises(scripting.Failed):
        join_machine.run(PAYLOAD)
    old, new = held.requests
    assert (old.namespace, old.workload, old.entry, old.stops) == ("store", "catalog", "catalog-192.0.2.7-pods", "of-before")
    assert (new.namespace, new.workload, new.entry, new.stops) == ("shop", "billing", ENTRY, "of-before")
    halts = [line for line in held.log if line.startswith("halt")]
    assert len(halts) == 2, "of both workloads"


def test_a_workload_without_machines_has_no_slots_to_wait_for(machine: Machine, held: Slots, capsys: pytest.CaptureFixture[str]) -> None:
    machine.questions, held.without = ["stop store catalog of-before"], {"catalog"}
    join_machine.run(PAYLOAD)
    assert [request.workload for request in held.requests] == ["billing"]
    assert "machine billing-1 leaves the workload store/catalog, and no other machine of it is in the mesh" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("question", "line"),
    [
        ("stop shop billing 0123", "machine billing-1: no other machine of the workload shop/billing is in the mesh"),
        ("stop store catalog of-before", "machine billing-1 leaves the workload store/catalog, and no other machine of it is in the mesh"),
    ],
)
def test_a_pause_is_said_where_no_other_machine_answers(
    machine: Machine, held: Slots, capsys: pytest.CaptureFixture[str], question: str, line: str
) -> None:
    machine.questions = [question]
    join_machine.run(PAYLOAD)
    assert capsys.readouterr().err == ""
    held.alone = {"/".join(question.split()[1:3])}
    join_machine.run(PAYLOAD)
    assert capsys.readouterr().err.startswith(line)


def test_a_workload_without_its_slots_is_an_error(machine: Machine, held: Slots) -> None:
    machine.questions, held.without = ["stop shop billing 0123"], {"billing"}
    with pytest.raises(scripting.Failed, match="no Lease of billing"):
        join_machine.run(PAYLOAD)
    assert held.log == []


def test_a_join_is_confirmed_by_a_connection_of_its_own_within_its_time(machine: Machine) -> None:
    machine.questions = ["confirm 71.18"]
    join_machine.run(replace(PAYLOAD, bundle=replace(BUNDLE, confirm_s=90)))
    ((script, times, is_new),) = machine.confirmations
    assert is_new and sum(times) == 90 and machine.answers == ["yes"]
    assert "NONCE=71.18\n" in script and "the-token" not in script


@pytest.mark.parametrize(
    ("second", "cause"),
    [
        (Outcome(Reach.BROKEN, 255, reason="kex_exchange_identification: Connection closed by remote host"), "SSH did not reach admin@192.0.2.7: kex_exchange_identification"),
        (Outcome(Reach.LOGIN_REFUSED, 255, reason="Permission denied (publickey)."), "admin@192.0.2.7 refused the login"),
        (Outcome(Reach.FAILED, 1, "", "machine billing-1: no join waits here for this connection: it came too late"), "no join waits here for this connection"),
        (Outcome(Reach.TIMED_OUT, -1), "it ended with status -1"),
        (Outcome(Reach.DONE, 0, "words"), "it ended with status 0"),
    ],
)  # fmt: skip
def test_a_second_connection_that_fails_fails_the_join_with_its_cause(machine: Machine, held: Slots, second: Outcome, cause: str) -> None:
    machine.questions, machine.second = ["stop", "confirm 71.18"], second
    with pytest.raises(scripting.Failed) as error:
        join_machine.run(PAYLOAD)
    assert "with the redirection on, a second SSH connection to it failed, so the join was taken back: " + cause in str(error.value)
    assert str(error.value).count(cause) == 1
    assert any(line.startswith("halt: ") for line in held.log)


def test_the_cause_is_named_where_the_first_connection_is_lost_too(machine: Machine) -> None:
    machine.questions, machine.second, machine.outcome = ["confirm 1.2"], Outcome(Reach.BROKEN, 255, reason="reset"), DONE
    answered = machine.answers

    class Lost(list[str]):
        def append(self, _answer: str) -> None:
            raise Ended

    machine.answers = Lost()
    with pytest.raises(scripting.Failed, match=r"the SSH connection to admin@192.0.2.7 ended before the join did\n.*: SSH did not reach"):
        join_machine.run(PAYLOAD)
    assert answered == []


@pytest.mark.parametrize("question", ["confirm", "confirm ../../etc/passwd", "confirm 1 2"])
def test_a_confirmation_names_no_other_file(machine: Machine, question: str) -> None:
    machine.questions = [question]
    with pytest.raises(scripting.Failed, match="the request confirm is of another version"):
        join_machine.run(PAYLOAD)
    assert machine.confirmations == []


def test_a_machine_that_is_new_takes_no_slot_and_counts_from_then_on(machine: Machine, held: Slots) -> None:
    join_machine.run(PAYLOAD)
    assert held.log == ["joined billing-1"]


def test_a_join_that_is_rolled_back_halts_the_others(machine: Machine, held: Slots) -> None:
    machine.questions, machine.outcome = ["stop"], ROLLED_BACK
    with pytest.raises(scripting.Failed, match="the agent is not ready; the machine runs as before"):
        join_machine.run(PAYLOAD)
    assert held.log == ["take billing-1", f"halt: {ROLLED_BACK.stderr}", "give back"]


@pytest.mark.parametrize("moment", ["while it waits", "as it gets its slot"])
def test_a_connection_that_is_lost_before_the_stop_halts_nothing(machine: Machine, held: Slots, moment: str) -> None:
    machine.questions = ["stop"]
    if moment == "while it waits":
        held.wait_s = 3600
    else:
        held.on_take = lambda: setattr(machine, "connected_s", -1.0)
    with pytest.raises(scripting.Failed, match=r"the SSH connection to admin@192\.0\.2\.7 ended before the join did"):
        join_machine.run(PAYLOAD)
    assert not [line for line in held.log if line.startswith(("halt", "joined"))]


def test_a_halted_update_leaves_the_machine_untouched_with_the_cause(machine: Machine, held: Slots) -> None:
    machine.questions, held.refusal = ["stop"], "machine billing-2 failed"
    with pytest.raises(scripting.Failed, match="machine billing-1: machine billing-2 failed"):
        join_machine.run(PAYLOAD)
    assert held.log == []


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        (Outcome(Reach.DEAD, 255, reason="No route to host"), "machine billing-1: .*No route to host, so the join did not run"),
        (Outcome(Reach.NOT_BEGUN, 0), "the login shell of admin@192.0.2.7 did not run the join"),
        (Outcome(Reach.FAILED, 2, "", ""), "ended with status 2 without output"),
        (Outcome(Reach.TIMED_OUT, scripting.TIMED_OUT), "did not end within"),
        (Outcome(Reach.CUT_OFF, 255), "the SSH connection to admin@192.0.2.7 ended before the join did"),
        (Outcome(Reach.DONE, 0, "another digest"), "ended before its last step"),
    ],
)
def test_a_join_that_did_not_complete_is_an_error(machine: Machine, outcome: Outcome, message: str) -> None:
    machine.outcome = outcome
    with pytest.raises(scripting.Failed, match=message):
        join_machine.run(PAYLOAD)


@pytest.mark.parametrize("registered", ["", "another", "disconnected"])
def test_a_machine_that_istiod_has_not_registered_is_an_error(machine: Machine, cluster: FakeCluster, registered: str) -> None:
    machine.registers = {
        "": lambda: None,
        "another": lambda: cluster.add(ENTRY, "4567"),
        "disconnected": lambda: cluster.add(ENTRY, "0123", connected=False),
    }[registered]
    with pytest.raises(scripting.Failed, match="istiod has not registered it"):
        join_machine.run(PAYLOAD)


@pytest.mark.parametrize("questions", [[], ["stop"]])
def test_a_machine_counts_as_joined_once_its_probe_succeeds(
    machine: Machine, cluster: FakeCluster, held: Slots, questions: list[str]
) -> None:
    """No join of another machine waits for one that has never served."""
    machine.questions, held.stack = questions, {"shop/billing billing-1": ""}
    machine.registers = lambda: cluster.add(ENTRY, "0123", healthy=False)
    join_machine.run(PAYLOAD)
    assert "joined billing-1" not in held.log
    machine.registers = lambda: cluster.add(ENTRY, "0123")
    join_machine.run(PAYLOAD)
    assert held.log.count("joined billing-1") == 1


@pytest.mark.parametrize("questions", [[], ["stop"]])
def test_a_machine_that_has_served_counts_by_its_new_registration(
    machine: Machine, cluster: FakeCluster, held: Slots, questions: list[str]
) -> None:
    machine.questions, held.stack = questions, {"shop/billing billing-1": "4567"}
    machine.registers = lambda: cluster.add(ENTRY, "0123", healthy=False)
    join_machine.run(PAYLOAD)
    assert "joined billing-1" in held.log


@pytest.mark.parametrize("before", [True, False, None])
def test_a_probe_that_fails_is_an_error_only_where_it_succeeded_before(
    machine: Machine, cluster: FakeCluster, before: bool | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if before is not None:
        cluster.add(ENTRY, "0123", healthy=before)
    machine.registers = lambda: cluster.add(ENTRY, "0123", healthy=False)
    if before:
        with pytest.raises(scripting.Failed, match=r"its probe does not succeed \(refused\)"):
            join_machine.run(PAYLOAD)
    else:
        join_machine.run(PAYLOAD)
        assert "its probe does not succeed (refused)" in capsys.readouterr().err


def test_what_keeps_a_machine_out_stays_until_its_new_agent_starts(
    machine: Machine, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A join that is killed before leaves it as it was, and the machine too."""
    cluster.entries[ENTRY] = Quarantine(OWNER, ENTRY, "192.0.2.7", "dead").manifest(WORKLOAD_GROUP)

    def run_script(_target: object, script: Callable[[], str], *_: object, answer: Answer) -> Outcome:
        assert "KEPT_OUT=1\n" in script()
        for question in (STAMPED, "stop"):
            assert answer(question, machine.pause) == "yes"
        assert names.QUARANTINE_LABEL in cluster.entries[ENTRY]["metadata"]["labels"]
        assert answer("start", machine.pause) == "yes" and cluster.entries == {}
        cluster.add(ENTRY, "0123")
        return DONE

    monkeypatch.setattr(openssh, "run_script", run_script)
    join_machine.run(PAYLOAD)
    assert not [line for line in cluster.calls if line.startswith("create --filename")]


def test_a_machine_that_ssh_does_not_reach_stays_kept_out(machine: Machine, cluster: FakeCluster) -> None:
    cluster.entries[ENTRY] = Quarantine(OWNER, ENTRY, "192.0.2.7", "dead").manifest(WORKLOAD_GROUP)
    machine.outcome = Outcome(Reach.DEAD, 255, reason="No route to host")
    with pytest.raises(scripting.Failed, match="No route to host"):
        join_machine.run(PAYLOAD)
    assert not [line for line in cluster.calls if line.startswith("delete")]


def test_what_keeps_a_machine_out_and_cannot_be_removed_is_no_start(
    machine: Machine, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.entries[ENTRY] = Quarantine(OWNER, ENTRY, "192.0.2.7", "dead").manifest(WORKLOAD_GROUP)
    call = cluster.call

    def refusing(*words: str, **options: Any) -> scripting.Done:
        return scripting.Done(1, b"", b"Forbidden") if "delete" in words else call(*words, **options)

    monkeypatch.setattr(cluster, "call", refusing)
    machine.questions = ["start"]
    with pytest.raises(scripting.Failed, match=r"what keeps the machine out of the mesh was not removed: .*Forbidden"):
        join_machine.run(PAYLOAD)
    assert names.QUARANTINE_LABEL in cluster.entries[ENTRY]["metadata"]["labels"]


def test_a_machine_that_nothing_keeps_out_is_not_asked_for_its_start(machine: Machine) -> None:
    join_machine.run(PAYLOAD)
    assert "KEPT_OUT=''\n" in machine.script


@pytest.mark.parametrize(("registration", "restarts_for"), [(None, "NO_ENTRY"), ("", "OTHER_ENTRY"), ("4567", "OTHER_ENTRY"), ("0123", "")])
def test_an_agent_without_its_entry_is_restarted(
    machine: Machine, cluster: FakeCluster, registration: str | None, restarts_for: str
) -> None:
    """A person deleted the entry, or its label. istiod registers an agent only when it connects."""
    if registration is not None:
        cluster.add(ENTRY, registration)
    join_machine.run(PAYLOAD)
    assert [name for name in ("NO_ENTRY", "OTHER_ENTRY") if f"{name}=1\n" in machine.script] == ([restarts_for] if restarts_for else [])


def test_what_kept_a_machine_out_goes_and_comes_back_after_a_failure(machine: Machine, cluster: FakeCluster) -> None:
    kept_out = Quarantine(OWNER, ENTRY, "192.0.2.7", "dead").manifest(WORKLOAD_GROUP)
    cluster.entries[ENTRY] = kept_out
    machine.questions, machine.outcome = ["start"], ROLLED_BACK
    with pytest.raises(scripting.Failed):
        join_machine.run(PAYLOAD)
    assert cluster.entries[ENTRY]["metadata"]["labels"] == kept_out["metadata"]["labels"]
    assert cluster.entries[ENTRY]["metadata"]["ownerReferences"] == kept_out["metadata"]["ownerReferences"]
    machine.outcome = DONE
    machine.registers = lambda: cluster.add(ENTRY, "0123") if ENTRY not in cluster.entries else None
    join_machine.run(PAYLOAD)
    assert names.REGISTRATION_LABEL in cluster.entries[ENTRY]["metadata"]["labels"]


def test_an_agent_that_comes_back_while_its_machine_is_joined_is_kept_out_again(
    machine: Machine, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A join that fails brings the agent of before back, and that one registers at once."""
    cluster.entries[ENTRY] = Quarantine(OWNER, ENTRY, "192.0.2.7", "dead").manifest(WORKLOAD_GROUP)

    def fail(*_: object, answer: Answer) -> Outcome:
        assert answer("start", machine.pause) == "yes"
        cluster.add(ENTRY, "of-before")
        return ROLLED_BACK

    monkeypatch.setattr(openssh, "run_script", fail)
    with pytest.raises(scripting.Failed):
        join_machine.run(PAYLOAD)
    assert names.QUARANTINE_LABEL in cluster.entries[ENTRY]["metadata"]["labels"]


def test_a_machine_that_joined_stays_in_the_mesh_where_only_its_record_failed(
    machine: Machine, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.entries[ENTRY] = Quarantine(OWNER, ENTRY, "192.0.2.7", "dead").manifest(WORKLOAD_GROUP)

    machine.questions = ["start"]

    def refuse(*_: object) -> None:
        raise scripting.Failed("the Lease is missing")

    monkeypatch.setattr(slots, "joined", refuse)
    with pytest.raises(scripting.Failed, match="the Lease is missing"):
        join_machine.run(PAYLOAD)
    assert cluster.entries[ENTRY]["metadata"]["labels"] == {names.REGISTRATION_LABEL: "0123"}


def test_what_kept_a_machine_out_and_cannot_be_put_back_is_said(
    machine: Machine, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.entries[ENTRY] = Quarantine(OWNER, ENTRY, "192.0.2.7", "dead").manifest(WORKLOAD_GROUP)

    def fail(*_: object, answer: Answer) -> Outcome:
        assert answer("start", machine.pause) == "yes"
        cluster.down = "the API server is gone"
        return ROLLED_BACK

    monkeypatch.setattr(openssh, "run_script", fail)
    with pytest.raises(scripting.Failed, match="the machine runs as before"):
        join_machine.run(PAYLOAD)
    error = capsys.readouterr().err
    assert f"WorkloadEntry shop/{ENTRY}" in error and "could not be restored (the API server is gone)" in error
