"""The verification of a workload from the cluster's side, with a kubectl that answers as an API server."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from components.local import scripting
from components.verification.evidence import Entry
from components.verification.scripts import calling_pods, verify_workload
from components.verification.scripts.members import Member
from tests.support.fake_programs import ProgramsInMemory
from tests.support.verified_workload import (
    CALL,
    ENTRY,
    OF_POD,
    OWN,
    PAYLOAD,
    SHARED,
    TERMINATED,
    ApiServer,
    called,
    cluster_of,
    entry,
    manifest,
    pod,
    result,
    scripts,
    target,
)


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> ProgramsInMemory:
    """kubectl without processes: each test runs it ten times."""
    fakes = ProgramsInMemory()
    monkeypatch.setattr(scripting, "call", fakes.call)
    return fakes


def verbs(programs: ProgramsInMemory, verb: str) -> list[str]:
    return [line for line in programs.lines("kubectl") if f" {verb} " in line]


def test_a_workload_that_answers_and_refuses_strangers_is_verified(cluster: ApiServer, programs: ProgramsInMemory) -> None:
    evidence = verify_workload.run(PAYLOAD)
    assert evidence.entries == (ENTRY,)
    assert [(pod.name, pod.ready) for pod in evidence.pods] == [("product-abc", True), ("product-def", False)]
    assert evidence.calls[0].answers == 3
    assert [each.result for each in evidence.plaintext] == ["refused", "refused"]
    assert "ENDPOINTS='192.0.2.7:8080 10.244.0.9:8080'" in scripts(programs)["pod-outside"], "machines and ready pods"
    assert target(programs)[8] == "192.0.2.7:8080,10.244.0.9:8080"
    assert target(programs)[12] == "product-1=192.0.2.7:8080"
    assert all("--context theirs" in line for line in programs.lines("kubectl"))
    assert not any(" get service " in line for line in programs.lines("kubectl")), "nothing is called through a gateway"


def test_the_pods_that_were_started_beside_the_joins_are_used_and_removed(cluster: ApiServer, programs: ProgramsInMemory) -> None:
    verify_workload.run(PAYLOAD)
    assert verbs(programs, "create") == []
    [deleted] = verbs(programs, "delete")
    assert f"delete job --selector istio-vm-mesh/callers={SHARED} " in deleted


@pytest.mark.parametrize("metadata", [{}, {"deletionTimestamp": "2026-01-01T00:00:00Z"}])
def test_a_job_that_is_being_deleted_is_not_used(cluster: ApiServer, programs: ProgramsInMemory, metadata: dict[str, str]) -> None:
    cluster.job_metadata = metadata
    cluster.write()
    verify_workload.run(PAYLOAD)
    assert (verbs(programs, "create") == []) == (not metadata)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "status", "is_used"),
    [
        ("Suspended", "False", True),
        ("Suspended", "True", True),
        ("Failed", "True", False),
        ("SuccessCriteriaMet", "True", False),
        ("Complete", "False", True),
    ],
)
def test_a_job_that_a_queue_has_let_go_on_is_used(
    cluster: ApiServer, programs: ProgramsInMemory, kind: str, status: str, is_used: bool
) -> None:
    cluster.conditions = [{"type": kind, "status": status}]
    cluster.write()
    verify_workload.run(PAYLOAD)
    assert (verbs(programs, "create") == []) == is_used


def test_pods_that_other_workloads_are_called_from_stay(cluster: ApiServer, programs: ProgramsInMemory) -> None:
    cluster.called = "orders,product"
    cluster.write()
    verify_workload.run(PAYLOAD)
    assert verbs(programs, "create") == verbs(programs, "delete") == []


@pytest.mark.parametrize("fails", [False, True])
def test_without_them_a_verification_starts_its_own_and_leaves_nothing(cluster: ApiServer, programs: ProgramsInMemory, fails: bool) -> None:
    cluster.called = ""
    if fails:
        cluster.inside = (1, "", f"Job verify-product: no\n{TERMINATED}")
    cluster.write()
    if fails:
        with pytest.raises(scripting.Failed):
            verify_workload.run(PAYLOAD)
    else:
        verify_workload.run(PAYLOAD)
    created = [json.loads(call.stdin)["metadata"] for call in programs.calls("kubectl") if "create" in call.words]
    assert [each["name"] for each in created] == [f"{OWN}-outside", f"{OWN}-inside"]
    assert {each["labels"]["istio-vm-mesh/callers"] for each in created} == {OWN}
    [deleted] = verbs(programs, "delete")
    assert f"--selector istio-vm-mesh/callers={OWN} " in deleted


def test_where_no_pod_can_call_the_entries_alone_are_looked_at(cluster: ApiServer, programs: ProgramsInMemory) -> None:
    evidence = verify_workload.run(replace(PAYLOAD, target=None))
    assert evidence.entries and evidence.pods and not evidence.calls
    assert scripts(programs) == {}


def test_a_machine_whose_join_failed_is_named_and_fails_no_verification(cluster: ApiServer) -> None:
    evidence = verify_workload.run(replace(PAYLOAD, missing=("product-2",), closed=("far",), failed_groups=("fleet",)))
    missing, closed, group, of_machine, _ = evidence.calls
    assert of_machine.answers == 3
    assert (missing.machine, missing.verdict, missing.object) == ("product-2", "failed", "resource product-2-join")
    assert missing.cause == "machine product-2 is missing: its join failed in this update"
    assert closed.cause == "nothing behind the gateway of the network far is called: it failed in this update"
    assert (group.verdict, group.cause) == ("failed", "no machine of the instance group fleet is called: it failed in this update")
    assert [call.is_of_failed_resource for call in evidence.calls] == [True, True, True, False, False]


def test_machines_of_other_networks_are_called_through_their_gateways_alone(cluster: ApiServer, programs: ProgramsInMemory) -> None:
    far = Entry("product-2", "product-192.0.2.8-far", "192.0.2.8:8080")
    closed = Entry("product-3", "product-192.0.2.8-closed", "192.0.2.8:8080")
    cluster.entries |= {each.entry: entry(each.entry, "192.0.2.8", "True", each.entry.rpartition("-")[2]) for each in (far, closed)}
    assert cluster.outside
    cluster.outside = (0, cluster.outside[1] + result("172.31.0.1:15443", "refused"), "")
    cluster.inside = (0, CALL + OF_POD + called("172.31.0.1:15443", how="by-chance"), "")
    cluster.write()
    verify_workload.run(replace(PAYLOAD, entries=(ENTRY, far, closed), gateways={"far": ("172.31.0.1:15443",)}))
    columns = target(programs)
    assert columns[8] == "192.0.2.7:8080,10.244.0.9:8080"
    assert columns[10:12] == ["172.31.0.1:15443", "4"]
    assert columns[12] == "product-1=192.0.2.7:8080", "another network may have the address of an endpoint"
    assert "172.31.0.1:15443" in scripts(programs)["pod-outside"]


def test_each_network_gets_as_many_calls_as_meet_all_of_its_endpoints() -> None:
    """A small network beside a large one takes none of its calls away."""
    payload = replace(PAYLOAD, gateways={"large": ("10.9.0.1:15443", "10.9.0.2:15443"), "small": ("10.8.0.1:15443",), "closed": ()})
    numbers = {"large": 99, "small": 1, "closed": 5, "pods": 2, "elsewhere": 1}
    members = [Member(ENTRY, network) for network, number in numbers.items() for _ in range(number)]
    calls = verify_workload._calls_through_gateways(payload, members, {})
    assert calls == {"10.9.0.1:15443": 426, "10.9.0.2:15443": 426, "10.8.0.1:15443": 4}, "99 * (ln 99 + 4) and 1 * 4"


def test_a_weight_of_others_makes_no_calls_without_end() -> None:
    """A WorkloadEntry of another tool may have any weight, and the time of all calls is limited."""
    payload = replace(PAYLOAD, gateways={"far": ("10.9.0.1:15443",)})
    members = [Member(ENTRY, "far")]
    calls = [verify_workload._calls_through_gateways(payload, members, {"far": number})["10.9.0.1:15443"] for number in (100, 1000)]
    assert calls == [871, 871], "101 * (ln 101 + 4)"


def test_a_call_that_fails_is_told_in_its_own_words(cluster: ApiServer) -> None:
    cluster.inside = (1, "noise\n", f"noise\nJob verify-product: product does not resolve\n{TERMINATED}")
    cluster.write()
    with pytest.raises(
        scripting.Failed, match=r"^workload product: Job verify-product: product does not resolve; look at Service shop/product$"
    ):
        verify_workload.run(PAYLOAD)


def test_rows_of_a_run_that_fails_are_kept(cluster: ApiServer) -> None:
    failed = json.dumps({"calls": {"endpoint": "10.244.0.9:8080", "verdict": "failed", "cause": "no answer"}}) + "\n"
    cluster.inside = (1, CALL + failed, f"Job verify-product: no answer\n{TERMINATED}")
    cluster.write()
    evidence = verify_workload.run(replace(PAYLOAD, warn_only=True))
    assert [call.verdict for call in evidence.calls] == ["proved", "failed"], "and nothing twice"


@pytest.mark.slow
def test_a_pod_that_does_not_run_is_told_with_its_state(cluster: ApiServer, programs: ProgramsInMemory) -> None:
    cluster.inside = None
    cluster.write()
    with pytest.raises(scripting.Failed, match=r"did not run in 300 s: .*ImagePullBackOff"):
        verify_workload.run(PAYLOAD)
    assert len(verbs(programs, "delete")) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "refusal", ['pods "pod-inside" is forbidden: User "ci" cannot create resource "pods/exec"', "error: unable to upgrade connection"]
)
def test_a_pod_in_which_nothing_runs_is_told_in_kubectls_words(cluster: ApiServer, refusal: str) -> None:
    cluster.inside = (1, "", f"{refusal}\n")
    cluster.write()
    with pytest.raises(scripting.Failed, match=re.escape(f"`kubectl exec` in pod pod-inside: {refusal}")):
        verify_workload.run(PAYLOAD)


def test_a_stranger_with_a_sidecar_is_none(cluster: ApiServer) -> None:
    """A webhook of others injects everything: its calls would be those of the mesh."""
    cluster.stranger_sidecar = True
    cluster.write()
    with pytest.raises(scripting.Failed, match="the pod that calls from outside the mesh got a sidecar"):
        verify_workload.run(PAYLOAD)


def test_a_pod_without_a_sidecar_is_named(cluster: ApiServer) -> None:
    cluster.sidecar = False
    cluster.write()
    with pytest.raises(
        scripting.Failed, match="got no sidecar: check the label istio-injection of the namespace shop, and the injector's policies"
    ):
        verify_workload.run(PAYLOAD)


def event(name: str, reason: str, message: str, kind: str = "Job") -> dict[str, Any]:
    return {"involvedObject": {"kind": kind, "name": name}, "type": "Warning", "reason": reason, "message": message}


INSIDE = f"{SHARED}-inside"
REFUSED = f'pods "{INSIDE}-" is forbidden: violates PodSecurity "restricted:latest"'


@pytest.mark.parametrize(
    ("events", "problem"),
    [
        ([event(INSIDE, "FailedCreate", REFUSED)], f"FailedCreate: {REFUSED}"),
        (
            [event(INSIDE, "FailedCreate", "exceeded quota"), event(f"{INSIDE}-x7v", "FailedScheduling", "0/1 nodes", "Pod")],
            "FailedCreate: exceeded quota; FailedScheduling: 0/1 nodes",
        ),
        pytest.param([event(f"{INSIDE}2", "FailedCreate", "another Job's")], "the cluster reports no reason", marks=pytest.mark.slow),
    ],
)
def test_a_job_without_pods_is_explained_by_its_events(
    cluster: ApiServer, programs: ProgramsInMemory, events: list[dict[str, Any]], problem: str
) -> None:
    cluster.events = events
    no_pods = ("-inside --namespace", 0, json.dumps({"items": []}), "")
    programs.add("kubectl", no_pods, *cluster.rules())
    with pytest.raises(scripting.Failed, match=re.escape(f"calls from inside the mesh did not run in 300 s: {problem}") + "; look at Job"):
        verify_workload.run(PAYLOAD)


def test_a_job_that_is_refused_is_told_in_kubectls_words(cluster: ApiServer, programs: ProgramsInMemory) -> None:
    cluster.called = ""
    refused = (" create --filename", 1, "", "Error from server (Forbidden): jobs.batch is forbidden\n")
    programs.add("kubectl", refused, *cluster.rules())
    with pytest.raises(scripting.Failed, match=r"cannot create the Job that calls from outside the mesh: Error from server \(Forbidden\)"):
        verify_workload.run(PAYLOAD)


def test_a_stranger_that_is_answered_is_a_failure_where_mutual_tls_is_strict(cluster: ApiServer) -> None:
    cluster.outside = (0, result("192.0.2.7:8080", "answered") + result("10.244.0.9:8080", "refused"), "")
    cluster.write()
    with pytest.raises(scripting.Failed, match=r"a caller outside the mesh was answered by 192.0.2.7:8080: is mutual TLS strict"):
        verify_workload.run(PAYLOAD)
    assert verify_workload.run(replace(PAYLOAD, strict=False)).plaintext[0].result == "answered"


def test_a_stranger_that_did_not_call_everything_shows_nothing(cluster: ApiServer) -> None:
    cluster.outside = (0, result("192.0.2.7:8080", "refused"), "")
    cluster.write()
    with pytest.raises(scripting.Failed, match="the caller outside the mesh did not call all endpoints"):
        verify_workload.run(PAYLOAD)
    evidence = verify_workload.run(replace(PAYLOAD, warn_only=True))
    assert evidence.entries == (ENTRY,) and len(evidence.pods) == 2 and evidence.calls[0].answers == 3, "each once"


def test_a_workload_without_endpoints_is_not_verified(cluster: ApiServer) -> None:
    cluster.pods = []
    cluster.write()
    with pytest.raises(scripting.Failed, match="it has no endpoint: neither a pod is ready nor a machine healthy"):
        verify_workload.run(replace(PAYLOAD, entries=()))


@pytest.mark.parametrize("left_out", [{"missing": ("product-1",)}, {"closed": ("far",)}, {"failed_groups": ("fleet",)}])
def test_a_workload_all_of_whose_endpoints_failed_in_the_update_has_no_other_cause(cluster: ApiServer, left_out: dict[str, Any]) -> None:
    cluster.pods = []
    cluster.write()
    [row] = verify_workload.run(replace(PAYLOAD, entries=(), **left_out)).calls
    assert row.is_of_failed_resource


FORBIDDEN = 'Error from server (Forbidden): namespaces "shop" is forbidden: User "ci" cannot get resource "namespaces"'


@pytest.mark.parametrize(("words", "reason"), [("", "the API server does not answer"), (f"{FORBIDDEN}\n", FORBIDDEN)])
def test_an_api_server_that_does_not_answer_or_refuses_is_named(cluster: ApiServer, words: str, reason: str) -> None:
    cluster.refusal = words
    cluster.answers = False
    cluster.write()
    cause = f"workload product: nothing of its namespace can be read: {reason}; look at Namespace shop"
    with pytest.raises(scripting.Failed, match=f"^{re.escape(cause)}$"):
        verify_workload.run(PAYLOAD)


def once(cluster: ApiServer, programs: ProgramsInMemory, monkeypatch: pytest.MonkeyPatch, *rules: tuple[str, int, str, str]) -> None:
    """Have kubectl answer by these rules until the first pause."""
    programs.add("kubectl", *rules, *cluster.rules())
    monkeypatch.setattr(calling_pods, "sleep", lambda _: cluster.write())


@pytest.mark.parametrize(
    ("ran", "problem"),
    [
        ((0, "", ""), "its output was cut off"),
        pytest.param((0, CALL, ""), "its output was cut off", marks=pytest.mark.slow),
        ((1, CALL, "error: unable to upgrade connection\n"), "error: unable to upgrade connection"),
        ((1, f"{CALL}{calling_pods.DONE}\n", "error: lost\n"), "error: lost"),
        ((1, "", ""), "status 1"),
        pytest.param((137, "", "command terminated with exit code 137\n"), "command terminated with exit code 137", marks=pytest.mark.slow),
    ],
)
def test_a_script_whose_connection_is_cut_off_is_run_again_and_proves_nothing(
    cluster: ApiServer, programs: ProgramsInMemory, monkeypatch: pytest.MonkeyPatch, ran: tuple[int, str, str], problem: str
) -> None:
    """kubectl exec ends with status 0 then, too."""
    once(cluster, programs, monkeypatch, ("exec --stdin pod-inside ", *ran))
    assert verify_workload.run(PAYLOAD).calls[0].answers == 3
    cut_off = ("exec --stdin pod-inside ", *ran)
    programs.add("kubectl", cut_off, *cluster.rules())
    monkeypatch.setattr(calling_pods, "sleep", lambda _: None)
    with pytest.raises(scripting.Failed, match=re.escape(f"`kubectl exec` in pod pod-inside: {problem}")):
        verify_workload.run(PAYLOAD)


@pytest.mark.parametrize(
    ("rows", "missing"),
    [
        ("", "10.244.0.9:8080 172.31.0.1:15443 192.0.2.7:8080"),
        (CALL + OF_POD, "172.31.0.1:15443"),
        (CALL + OF_POD + called("", how="by-chance"), "172.31.0.1:15443"),
        (CALL + called("172.31.0.1:15443", how="by-chance"), "10.244.0.9:8080"),
    ],
)
def test_a_script_that_succeeds_without_showing_every_call_proves_nothing(cluster: ApiServer, rows: str, missing: str) -> None:
    far = Entry("product-2", "product-192.0.2.8-far", "192.0.2.8:8080")
    cluster.entries[far.entry] = entry(far.entry, "192.0.2.8", "True", "far")
    assert cluster.outside
    cluster.outside = (0, cluster.outside[1] + result("172.31.0.1:15443", "refused"), "")
    cluster.inside = (0, rows, "")
    cluster.write()
    with pytest.raises(scripting.Failed, match=rf"^workload product: verification/call-service shows nothing of {missing}$"):
        verify_workload.run(replace(PAYLOAD, entries=(ENTRY, far), gateways={"far": ("172.31.0.1:15443",)}))


@pytest.mark.parametrize("pod", ["pod-inside", "pod-outside"])
def test_bash_runs_nothing_of_a_script_that_arrives_in_part(cluster: ApiServer, programs: ProgramsInMemory, pod: str) -> None:
    """Wherever it is cut: behind each function, too, where bash could run what it has so far."""
    verify_workload.run(PAYLOAD)
    text = scripts(programs)[pod]
    ends = [match.end() for match in re.finditer(r"^}\n", text, re.MULTILINE)]
    parts = [text[:end] for end in {*ends, len(text) // 2, len(text) - 3} if end < len(text)]
    assert len(parts) > 10
    # Nothing but builtins: a program of this machine would not be found.
    runs = "\n".join(
        f"(echo() {{ printf ran; }}; PATH=; eval {shlex.quote(part)}) 2>/dev/null </dev/null && printf ended" for part in parts
    )
    done = subprocess.run(["/bin/bash", "-s"], input=runs, text=True, capture_output=True)
    assert done.stdout == "", "nothing has run"


def test_a_pod_that_has_ended_is_told_with_its_reason(cluster: ApiServer, programs: ProgramsInMemory) -> None:
    evicted = {
        "metadata": {"name": "pod-inside"},
        "spec": {},
        "status": {"phase": "Failed", "reason": "Evicted", "message": "low on memory"},
    }
    programs.add("kubectl", ("-inside --namespace", 0, json.dumps({"items": [evicted]}), ""), *cluster.rules())
    with pytest.raises(scripting.Failed, match="the pod that calls from inside the mesh has ended: Evicted: low on memory"):
        verify_workload.run(PAYLOAD)


def test_a_pod_may_end_with_a_reason_alone(cluster: ApiServer, programs: ProgramsInMemory) -> None:
    failed = {"metadata": {"name": "pod-inside"}, "spec": {}, "status": {"phase": "Failed", "reason": "NodeLost"}}
    programs.add("kubectl", ("-inside --namespace", 0, json.dumps({"items": [failed]}), ""), *cluster.rules())
    with pytest.raises(scripting.Failed, match="the pod that calls from inside the mesh has ended: NodeLost; look at"):
        verify_workload.run(PAYLOAD)


def test_events_that_may_not_be_read_are_told_in_kubectls_words(cluster: ApiServer, programs: ProgramsInMemory) -> None:
    forbidden = ("get events ", 1, "", "Error from server (Forbidden): events is forbidden\n")
    programs.add("kubectl", ("-inside --namespace", 0, '{"items": []}', ""), forbidden, *cluster.rules())
    with pytest.raises(scripting.Failed, match=r"did not run in 300 s: Error from server \(Forbidden\): events is forbidden"):
        verify_workload.run(PAYLOAD)


def test_a_container_that_has_ended_beside_its_sidecar_is_told_with_its_state(cluster: ApiServer, programs: ProgramsInMemory) -> None:
    statuses = [{"name": "calls", "state": {"terminated": {"reason": "OOMKilled"}}}]
    ended = {"metadata": {"name": "pod-inside"}, "spec": {}, "status": {"phase": "Running", "containerStatuses": statuses}}
    programs.add("kubectl", ("-inside --namespace", 0, json.dumps({"items": [ended]}), ""), *cluster.rules())
    with pytest.raises(scripting.Failed, match=r'inside the mesh has ended: \{"terminated": \{"reason": "OOMKilled"\}\}'):
        verify_workload.run(PAYLOAD)


def test_a_kubectl_that_prints_nothing_has_shown_no_object(programs: ProgramsInMemory) -> None:
    programs.add("kubectl")
    with verify_workload.kubectl(PAYLOAD.access) as program:
        assert calling_pods.Jobs(program, PAYLOAD.access, "shop").items("pods") == []
    assert cluster_of(PAYLOAD).entries() == {}


def test_a_pod_that_is_being_deleted_is_not_called(cluster: ApiServer, programs: ProgramsInMemory) -> None:
    """After a change of the pods, the old ones are still ready while they end."""
    cluster.pods[0]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    cluster.write()
    verify_workload.run(PAYLOAD)
    assert target(programs)[8] == "192.0.2.7:8080"


def with_addresses(cluster: ApiServer, *addresses: str, pod: int = 0) -> None:
    cluster.pods[pod]["status"] |= {"podIP": addresses[0], "podIPs": [{"ip": each} for each in addresses]}
    cluster.write()


def test_a_pod_of_two_families_is_called_by_ipv4(cluster: ApiServer, programs: ProgramsInMemory) -> None:
    with_addresses(cluster, "fd00::9", "10.244.0.9")
    assert verify_workload.run(PAYLOAD).pods[0].address == "10.244.0.9"
    assert target(programs)[8] == "192.0.2.7:8080,10.244.0.9:8080"


def test_a_pod_of_ipv6_alone_is_named_and_not_called(cluster: ApiServer, programs: ProgramsInMemory) -> None:
    with_addresses(cluster, "fd00::9")
    with pytest.raises(
        scripting.Failed, match="pod product-abc is not called: its address fd00::9 is none of IPv4; look at Pod shop/product-abc"
    ):
        verify_workload.run(PAYLOAD)
    assert target(programs)[8] == "192.0.2.7:8080"


def test_a_pod_of_ipv6_alone_that_is_not_ready_fails_no_update(cluster: ApiServer) -> None:
    """Nobody calls it."""
    with_addresses(cluster, "fd00::9", pod=1)
    assert [(pod.address, pod.ready) for pod in verify_workload.run(PAYLOAD).pods] == [("10.244.0.9", True), ("fd00::9", False)]


@pytest.mark.parametrize(
    ("pod_port", "endpoints"),
    [(9090, "192.0.2.7:8080,10.244.0.9:9090"), ("web", "192.0.2.7:8080,10.244.0.9:9091"), ("none", "192.0.2.7:8080")],
)
def test_pods_are_called_on_the_port_that_the_service_leads_to(
    cluster: ApiServer, programs: ProgramsInMemory, pod_port: int | str, endpoints: str
) -> None:
    """It may be another one than that of machines, and have a name: of a sidecar's TCP port here."""
    ports = [{"containerPort": 9092}, {"name": "web", "containerPort": 9091, "protocol": "TCP"}]
    by_udp = [{"name": "web", "containerPort": 53, "protocol": "UDP"}]
    ends = {"name": "migration", "ports": [{"name": "web", "containerPort": 9099}]}
    for item in cluster.pods:
        sidecar = {"name": "y", "restartPolicy": "Always", "ports": ports}
        item["spec"] = {"containers": [{"name": "x", "ports": by_udp}], "initContainers": [ends, sidecar]}
    answered = endpoints.split(",")
    cluster.inside = (0, "".join(map(called, answered)), "")
    cluster.outside = (0, "".join(result(each, "refused") for each in answered), "")
    cluster.write()
    evidence = verify_workload.run(replace(PAYLOAD, pods=replace(PAYLOAD.pods, port=pod_port)))
    assert target(programs)[8] == endpoints
    assert [each.name for each in evidence.pods] == ["product-abc", "product-def"]


def test_a_pod_that_goes_while_it_is_called_fails_nothing(
    cluster: ApiServer, programs: ProgramsInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = json.dumps({"calls": {"endpoint": "10.244.0.9:8080", "verdict": "failed", "cause": "no answer"}}) + "\n"
    programs.add(
        "kubectl", ("exec --stdin pod-inside ", 1, CALL + failed, f"Job verify-product: no answer\n{TERMINATED}"), *cluster.rules()
    )

    def judge(done: scripting.Done) -> bool:
        has_failed = done.status != 0
        cluster.pods[0]["status"]["podIP"] = "10.244.0.11"
        assert cluster.outside
        cluster.outside = (0, cluster.outside[1] + result("10.244.0.11:8080", "refused"), "")
        cluster.inside = (0, CALL + called("10.244.0.11:8080"), "")
        cluster.write()
        return has_failed

    monkeypatch.setattr(verify_workload, "_has_failed", judge)
    evidence = verify_workload.run(PAYLOAD)
    assert [call.verdict for call in evidence.calls] == ["proved", "proved"]
    assert evidence.pods[0].address == "10.244.0.11"
    assert target(programs)[8] == "192.0.2.7:8080,10.244.0.11:8080"


def test_endpoints_that_change_all_the_time_are_looked_at_three_times(
    cluster: ApiServer, programs: ProgramsInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is shown is what was called, and not what came after it."""
    failing(cluster)
    looks: list[str] = []

    def judge(_: scripting.Done) -> bool:
        looks.append(target(programs)[8])
        cluster.pods[0]["status"]["podIP"] = f"10.244.1.{len(looks)}"
        cluster.outside = (
            0,
            "".join(result(f"{address}:8080", "refused") for address in ("192.0.2.7", "10.244.0.9", "10.244.1.1", "10.244.1.2")),
            "",
        )
        cluster.write()
        return True

    monkeypatch.setattr(verify_workload, "_has_failed", judge)
    evidence = verify_workload.run(replace(PAYLOAD, warn_only=True))
    assert [each.rpartition(",")[2] for each in looks] == ["10.244.0.9:8080", "10.244.1.1:8080", "10.244.1.2:8080"]
    assert evidence.pods[0].address == "10.244.1.2"


FAILED_ROW = called("10.244.0.9:8080", verdict="failed", cause="x")


@pytest.mark.parametrize(
    ("status", "text", "has_failed"),
    [(1, "", True), (0, OF_POD + FAILED_ROW, True), (0, OF_POD, False), (0, called("", verdict="failed", cause="x"), False)],
)
def test_a_call_by_name_that_fails_is_not_made_again(status: int, text: str, has_failed: bool) -> None:
    """Pods that come and go are no cause of it. Where a failure is a warning, the script succeeds."""
    assert verify_workload._has_failed(scripting.Done(status, text.encode(), b"")) is has_failed


def test_a_script_that_fails_in_silence_is_named_with_its_status(cluster: ApiServer) -> None:
    cluster.inside = (1, CALL + OF_POD, TERMINATED)
    cluster.write()
    with pytest.raises(
        scripting.Failed, match=r"^workload product: verification/call-service ended with status 1; look at Service shop/product$"
    ):
        verify_workload.run(PAYLOAD)


def test_a_script_that_does_not_end_is_no_proof(cluster: ApiServer) -> None:
    cluster.inside = (scripting.TIMED_OUT, CALL, "")
    cluster.write()
    with pytest.raises(scripting.Failed, match=r"the script in the pod that calls did not end in \d+ s; look at Job shop/verify-account$"):
        verify_workload.run(PAYLOAD)


def failing(cluster: ApiServer) -> None:
    """Have the calls from inside the mesh fail."""
    row = called("10.244.0.9:8080", verdict="failed", cause="no answer")
    cluster.inside = (1, row, f"Job verify-product: no answer\n{TERMINATED}")
    cluster.write()


def test_what_has_not_changed_is_called_once(cluster: ApiServer, programs: ProgramsInMemory) -> None:
    failing(cluster)
    with pytest.raises(scripting.Failed, match="no answer"):
        verify_workload.run(PAYLOAD)
    assert len([line for line in programs.lines("kubectl") if "exec --stdin pod-inside" in line]) == 1


def then(monkeypatch: pytest.MonkeyPatch, change: Callable[[], None]) -> None:
    """Have something change in the cluster once calls have failed."""
    has_failed = verify_workload._has_failed

    def judge(done: scripting.Done) -> bool:
        if failed := has_failed(done):
            change()
        return failed

    monkeypatch.setattr(verify_workload, "_has_failed", judge)


MEMBER = entry("product-192.0.2.9-pods", "192.0.2.9", "True")


def of_group(cluster: ApiServer, *members: dict[str, Any]) -> None:
    """Have these machines of groups, and let calls of them fail."""
    cluster.entries = {ENTRY.entry: cluster.entries[ENTRY.entry], **{item["metadata"]["name"]: item for item in members}}
    cluster.outside = (0, "".join(result(f"{each}:8080", "refused") for each in ("192.0.2.7", "10.244.0.9", "192.0.2.9", "192.0.2.10")), "")
    failing(cluster)


@pytest.mark.parametrize("unhealthy", [[], [entry("product-192.0.2.9-pods", "192.0.2.9", "False")]])
def test_a_machine_of_a_group_that_goes_while_it_is_called_is_missed(
    cluster: ApiServer, programs: ProgramsInMemory, monkeypatch: pytest.MonkeyPatch, unhealthy: list[dict[str, Any]]
) -> None:
    """Its application ends at the first request: what is left answers."""
    of_group(cluster, MEMBER)

    def change() -> None:
        of_group(cluster, *unhealthy)
        cluster.inside = (0, CALL + OF_POD, "")
        cluster.write()

    then(monkeypatch, change)
    with pytest.raises(scripting.Failed, match=r"only 0 of 1 machines of groups are healthy(.*\n)*.*no answer"):
        verify_workload.run(replace(PAYLOAD, group_sizes={"pods": 1}))
    assert len([line for line in programs.lines("kubectl") if "exec --stdin pod-inside" in line]) == 1


def test_a_machine_of_a_group_that_is_replaced_while_it_is_called_fails_nothing(
    cluster: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_group(cluster, MEMBER)
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        of_group(cluster, entry("product-192.0.2.10-pods", "192.0.2.10", "True"))
        cluster.inside = (0, CALL + OF_POD + called("192.0.2.10:8080"), "")
        cluster.write()

    monkeypatch.setattr(verify_workload, "sleep", pause)
    then(monkeypatch, lambda: of_group(cluster))
    evidence = verify_workload.run(replace(PAYLOAD, group_sizes={"pods": 1}))
    assert [each.machine for each in evidence.entries] == ["product-1", "192.0.2.10"]
    assert pauses == [2]


@pytest.mark.parametrize(
    ("metadata", "others", "problem"),
    [
        ({}, [pod("product-ghi", "10.244.0.11", "True")], "pod product-abc was called, and is not ready any more; look at Pod shop/product-abc"),
        ({}, [], "pod product-abc was called, and is not ready any more"),
        ({"deletionTimestamp": "2026-01-01T00:00:00Z"}, [], "no pod is ready any more since product-abc was called"),
        ({"name": "product-ghi"}, [], "no pod is ready any more since product-abc was called; look at pods of shop/product"),
        ({"deletionTimestamp": "2026-01-01T00:00:00Z"}, [pod("product-ghi", "10.244.0.11", "True")], ""),
        ({"name": "product-jkl"}, [pod("product-ghi", "10.244.0.11", "True")], ""),
    ],
)  # fmt: skip
def test_pods_may_be_replaced_while_they_are_called_and_may_not_turn_unready(
    cluster: ApiServer, monkeypatch: pytest.MonkeyPatch, metadata: dict[str, str], others: list[dict[str, Any]], problem: str
) -> None:
    failing(cluster)

    def change() -> None:
        unready = pod("product-abc", "10.244.0.9", "False")
        unready["metadata"] |= metadata
        cluster.pods = [unready, *others]
        addresses = ["192.0.2.7", *(each["status"]["podIP"] for each in others)]
        cluster.inside = (0, "".join(called(f"{address}:8080") for address in addresses), "")
        cluster.outside = (0, "".join(result(f"{address}:8080", "refused") for address in addresses), "")
        cluster.write()

    then(monkeypatch, change)
    if not problem:
        assert [each.verdict for each in verify_workload.run(PAYLOAD).calls] == ["proved", "proved"]
        return
    with pytest.raises(scripting.Failed, match=re.escape(problem) + r"(.*\n)*.*no answer"):
        verify_workload.run(PAYLOAD)


def test_a_pod_that_is_ready_again_is_called_again(cluster: ApiServer, programs: ProgramsInMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(cluster)

    def change(ready: str) -> None:
        cluster.pods = [pod("product-abc", "10.244.0.9", ready), pod("product-ghi", "10.244.0.11", "True")]
        cluster.inside = (0, CALL + OF_POD + called("10.244.0.11:8080"), "")
        addresses = ("192.0.2.7", "10.244.0.9", "10.244.0.11")
        cluster.outside = (0, "".join(result(f"{address}:8080", "refused") for address in addresses), "")
        cluster.write()

    then(monkeypatch, lambda: change("False"))
    monkeypatch.setattr(verify_workload, "sleep", lambda _: change("True"))
    verify_workload.run(PAYLOAD)
    assert target(programs)[8] == "192.0.2.7:8080,10.244.0.9:8080,10.244.0.11:8080"


def test_a_pod_that_is_ready_again_where_it_was_is_called_again(cluster: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(cluster)

    def change(ready: str) -> None:
        cluster.pods = [pod("product-abc", "10.244.0.9", ready)]
        cluster.inside = (0, CALL + OF_POD, "")
        cluster.write()

    then(monkeypatch, lambda: change("False"))
    monkeypatch.setattr(verify_workload, "sleep", lambda _: change("True"))
    verify_workload.run(PAYLOAD)


def test_endpoints_are_not_called_again_once_that_would_take_too_long(cluster: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(cluster)

    def change() -> None:
        cluster.pods = [pod("product-ghi", "10.244.0.11", "True")]
        cluster.inside = (0, CALL + called("10.244.0.11:8080"), "")
        cluster.write()

    then(monkeypatch, change)
    monkeypatch.setattr(verify_workload, "LIMIT_S", 100)
    with pytest.raises(scripting.Failed, match="no answer"):
        verify_workload.run(PAYLOAD)


def test_pods_that_cannot_be_read_again_have_not_gone(
    cluster: ApiServer, programs: ProgramsInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(cluster)
    forbidden = ("get pods --selector app", 1, "", "error: lost\n")
    then(monkeypatch, lambda: programs.add("kubectl", forbidden, *cluster.rules()))
    with pytest.raises(scripting.Failed, match=r"^workload product: Job verify-product: no answer$"):
        verify_workload.run(PAYLOAD)


def test_calls_that_failed_are_judged_where_nothing_is_left_to_call(cluster: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that has to call nothing succeeds. Here the only machine is behind no gateway by now."""
    cluster.pods = []
    failing(cluster)

    def change() -> None:
        cluster.entries = {item["metadata"]["name"]: item for item in [entry("product-192.0.2.7-far", "192.0.2.7", "True", "far")]}
        cluster.inside = (0, "", "")
        cluster.write()

    then(monkeypatch, change)
    with pytest.raises(scripting.Failed, match="no answer"):
        verify_workload.run(replace(PAYLOAD, entries=(), group_sizes={"pods": 0}))


def test_endpoints_of_others_that_cannot_be_counted_are_no_proof(cluster: ApiServer, programs: ProgramsInMemory) -> None:
    """With too few calls a gateway would leave endpoints out."""
    far = Entry("product-2", "product-192.0.2.8-far", "192.0.2.8:8080")
    cluster.entries[far.entry] = entry(far.entry, "192.0.2.8", "True", "far")
    assert cluster.outside
    cluster.outside = (0, cluster.outside[1] + result("172.31.0.1:15443", "refused"), "")
    cluster.inside = (0, CALL + OF_POD + called("172.31.0.1:15443", how="by-chance"), "")
    programs.add("kubectl", ("get service product ", 1, "", "error: lost\n"), *cluster.rules())
    cause = "how many endpoints gateways choose from is unknown: cannot read the service product: error: lost; look at Service shop/product"
    payload = replace(PAYLOAD, entries=(ENTRY, far), gateways={"far": ("172.31.0.1:15443",)})
    with pytest.raises(scripting.Failed, match=f"^workload product: {cause}$"):
        verify_workload.run(payload)
    assert len(verify_workload.run(replace(payload, warn_only=True)).calls) == 4, "all others are called all the same"


@pytest.mark.parametrize(("kind", "cause"), [("pods --selector app", "cannot list pods"), ("workloadentry", "cannot list workloadentry")])
def test_what_cannot_be_read_is_no_proof(cluster: ApiServer, programs: ProgramsInMemory, kind: str, cause: str) -> None:
    forbidden = (f"get {kind}", 1, "", 'Error from server (Forbidden): User "ci" cannot list resource\n')
    programs.add("kubectl", forbidden, *cluster.rules())
    with pytest.raises(scripting.Failed, match=rf'{cause} of the namespace shop: Error from server \(Forbidden\): User "ci"'):
        verify_workload.run(PAYLOAD)


@pytest.mark.parametrize(("status", "answer"), [(1, ""), (0, '{"metadata": {}}'), (0, '{"metadata": {"labels": null}}')])
def test_a_namespace_may_have_no_labels(programs: ProgramsInMemory, status: int, answer: str) -> None:
    programs.add("kubectl", ("get namespace shop", status, answer, ""))
    assert cluster_of(PAYLOAD).labels() == {}


@pytest.mark.parametrize("labels", [{}, {"labels": None}])
def test_a_pod_may_have_no_labels(programs: ProgramsInMemory, labels: dict[str, None]) -> None:
    item = pod("product-abc", "10.244.0.9", "True")
    item["metadata"] |= labels
    programs.add("kubectl", ("get pods ", 0, json.dumps({"items": [item]}), ""))
    assert [each.labels for each in cluster_of(PAYLOAD).pods()] == [{}]


def test_a_pod_of_which_another_condition_is_true_is_not_ready(cluster: ApiServer, programs: ProgramsInMemory) -> None:
    cluster.pods[1]["status"]["conditions"].insert(0, {"type": "Initialized", "status": "True"})
    cluster.write()
    verify_workload.run(PAYLOAD)
    assert target(programs)[8] == "192.0.2.7:8080,10.244.0.9:8080"


def test_a_port_that_no_service_leads_to_is_no_proof(cluster: ApiServer) -> None:
    """The ports of a Service that exists are in the cluster alone."""
    with pytest.raises(scripting.Failed, match="nothing is called: no Service with a cluster IP leads to port 9090"):
        verify_workload.run(replace(PAYLOAD, target=None, not_offered=9090))


def test_slow_applications_and_many_endpoints_have_time_for_all_calls() -> None:
    def limit_s(**changes: Any) -> float:
        assert PAYLOAD.target
        return verify_workload._time_limit_s(PAYLOAD.caller, replace(PAYLOAD.target, **changes))

    one = ("192.0.2.7:8080",)
    assert limit_s(endpoints=one, timeout_s=60) >= 30 + 3 * 60, "addressed, the same again, and by name"
    assert limit_s(endpoints=one) == 30 + 60 + 3 * 8 + 0.5, "and no longer: an update waits for it"
    behind = limit_s(gateways=("172.31.0.1:15443",), calls=(2912,))
    assert behind >= 30 + 2912 / 50 * 2.2, "a connection for bytes is watched for two seconds"


CALLER_POLICY = {
    "metadata": {"name": "deny", "namespace": "shop"},
    "spec": {"podSelector": {"matchLabels": {"app": "inside"}}, "policyTypes": ["Egress"]},
}
CALLED_POLICY = {"metadata": {"name": "closed", "namespace": "shop"}, "spec": {"podSelector": {"matchLabels": {"app": "product"}}}}


def with_policies(cluster: ApiServer, programs: ProgramsInMemory, *policies: dict[str, Any]) -> None:
    cluster.pods[0]["metadata"]["labels"] = {"app": "product"}
    items = json.dumps({"items": policies})
    programs.add("kubectl", ("get networkpolicies.networking.k8s.io ", 0, items, ""), *cluster.rules())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        (CALLER_POLICY, "the NetworkPolicy shop/deny selects the caller's pod and does not let it out to 10.244.0.9:8080"),
        (CALLED_POLICY, "the NetworkPolicy shop/closed selects the pod 10.244.0.9 and does not let the caller's pod in on port 8080"),
    ],
)
def test_a_network_policy_that_refuses_a_call_is_named(
    cluster: ApiServer, programs: ProgramsInMemory, policy: dict[str, Any], sentence: str
) -> None:
    cause = "no answer from 10.244.0.9:8080: it takes no connection (timeout)"
    row = json.dumps({"calls": {"endpoint": "10.244.0.9:8080", "verdict": "failed", "cause": cause}}) + "\n"
    cluster.inside = (1, CALL + row, f"Job verify-product: {cause}\n{TERMINATED}")
    cluster.write()
    with_policies(cluster, programs, policy)
    payload = replace(PAYLOAD, pair=replace(PAYLOAD.pair, inside=labelled("inside")))
    with pytest.raises(scripting.Failed, match=re.escape(f"{cause}; {sentence}")):
        verify_workload.run(payload)
    _, failed = verify_workload.run(replace(payload, warn_only=True)).calls
    assert failed.cause == f"{cause}; {sentence}"


def test_the_first_cause_has_the_policies_of_its_endpoint(cluster: ApiServer, programs: ProgramsInMemory) -> None:
    causes = {f"10.244.0.{each}:8080": f"no answer from 10.244.0.{each}:8080: it takes no connection" for each in (9, 11)}
    rows = "".join(called(endpoint, verdict="failed", cause=cause) for endpoint, cause in causes.items())
    cluster.inside = (1, rows, f"Job verify-product: {causes['10.244.0.11:8080']}\n{TERMINATED}")
    cluster.write()
    with_policies(cluster, programs, CALLER_POLICY)
    with pytest.raises(
        scripting.Failed, match=r"from 10.244.0.11:8080: it takes no connection; .* does not let it out to 10.244.0.11:8080$"
    ):
        verify_workload.run(replace(PAYLOAD, pair=replace(PAYLOAD.pair, inside=labelled("inside"))))


def test_a_name_that_takes_no_connection_has_no_policies(cluster: ApiServer, programs: ProgramsInMemory) -> None:
    cause = "calls by the name product are not answered (last: no connection)"
    cluster.inside = (1, CALL + OF_POD + called("", verdict="failed", cause=cause), f"Job verify-product: {cause}\n{TERMINATED}")
    cluster.write()
    with_policies(cluster, programs, CALLER_POLICY)
    with pytest.raises(scripting.Failed, match=re.escape(cause) + "$"):
        verify_workload.run(PAYLOAD)
    assert not [line for line in programs.lines("kubectl") if "polic" in line or "--raw" in line], "nothing is looked up for it"


def test_a_policy_is_not_named_where_the_endpoint_has_answered(cluster: ApiServer, programs: ProgramsInMemory) -> None:
    row = json.dumps({"calls": {"endpoint": "10.244.0.9:8080", "verdict": "failed", "cause": "/ returns 404"}}) + "\n"
    cluster.inside = (1, CALL + row, f"Job verify-product: / returns 404\n{TERMINATED}")
    cluster.write()
    with_policies(cluster, programs, CALLED_POLICY)
    with pytest.raises(scripting.Failed, match=r"^workload product: Job verify-product: / returns 404$"):
        verify_workload.run(PAYLOAD)


CNI_POLICY = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumClusterwideNetworkPolicy",
    "metadata": {"name": "deny"},
    "spec": {"endpointSelector": {"matchLabels": {"io.cilium.k8s.namespace.labels.team": "a"}}, "egress": [{}]},
}
NO_CONNECTION = "no answer from 10.244.0.9:8080: it takes no connection (timeout)"


def not_reached(cluster: ApiServer, programs: ProgramsInMemory, *groups: str) -> None:
    """Have a pod take no connection, in a cluster with these API groups."""
    cluster.inside = (
        1,
        CALL + called("10.244.0.9:8080", verdict="failed", cause=NO_CONNECTION),
        f"Job verify-product: {NO_CONNECTION}\n{TERMINATED}",
    )
    namespace = json.dumps({"kind": "Namespace", "metadata": {"labels": {"team": "a"}}})
    programs.add(
        "kubectl",
        ("get --raw /apis", 0, json.dumps({"groups": [{"name": name} for name in groups]}), ""),
        ("get ciliumnetworkpolicies.cilium.io ", 1, "", 'error: the server doesn\'t have a resource type "ciliumnetworkpolicies"\n'),
        ("get ciliumclusterwidenetworkpolicies.cilium.io ", 0, json.dumps({"items": [CNI_POLICY]}), ""),
        ("get namespace shop", 0, namespace, ""),
        *cluster.rules(),
    )  # fmt: skip


def test_a_policy_of_cilium_that_may_refuse_a_call_is_named(cluster: ApiServer, programs: ProgramsInMemory) -> None:
    not_reached(cluster, programs, "apps", "cilium.io")
    sentence = "the CiliumClusterwideNetworkPolicy deny selects the caller's pod: does it let it out to 10.244.0.9:8080?"
    with pytest.raises(scripting.Failed, match=re.escape(f"{NO_CONNECTION}; {sentence}") + "$"):
        verify_workload.run(PAYLOAD)


def test_a_cluster_with_kubernetes_own_policies_alone_costs_one_more_request(cluster: ApiServer, programs: ProgramsInMemory) -> None:
    not_reached(cluster, programs, "apps", "networking.k8s.io")
    with pytest.raises(scripting.Failed, match=re.escape(NO_CONNECTION) + "$"):
        verify_workload.run(PAYLOAD)
    looked_at = [line for line in programs.lines("kubectl") if "polic" in line or "--raw" in line]
    assert [line.split(" get ")[1].split(" --")[0] for line in looked_at] == ["networkpolicies.networking.k8s.io", "--raw /apis"]


@pytest.mark.parametrize("answer", [(1, "", "forbidden\n"), (0, "", ""), (scripting.TIMED_OUT, '{"groups": [', "")])
def test_policies_that_may_not_be_read_hide_no_cause(cluster: ApiServer, programs: ProgramsInMemory, answer: tuple[int, str, str]) -> None:
    not_reached(cluster, programs)
    programs.add("kubectl", ("get networkpolicies", *answer), ("get --raw", *answer), *cluster.rules())
    with pytest.raises(scripting.Failed, match=re.escape(NO_CONNECTION) + "$"):
        verify_workload.run(PAYLOAD)


def test_a_policy_of_cilium_that_keeps_a_pod_from_starting_is_named(cluster: ApiServer, programs: ProgramsInMemory) -> None:
    cluster.inside = None
    cluster.write()
    not_reached(cluster, programs, "cilium.io")
    programs.add("kubectl", ("-inside --namespace", 0, '{"items": []}', ""), *programs.rules("kubectl"))
    with pytest.raises(scripting.Failed, match="the CiliumClusterwideNetworkPolicy deny selects the Jobs that verify it"):
        verify_workload.run(PAYLOAD)


@pytest.mark.slow
def test_a_network_policy_that_keeps_a_pod_from_starting_is_named(cluster: ApiServer, programs: ProgramsInMemory) -> None:
    """The sidecar does not reach istiod, and the container that calls waits for it."""
    cluster.inside = None
    cluster.write()
    with_policies(cluster, programs, CALLER_POLICY)
    with pytest.raises(
        scripting.Failed, match=r"did not run in 300 s: .*; the NetworkPolicy shop/deny selects the Jobs .* istiod \(15012\)"
    ):
        verify_workload.run(replace(PAYLOAD, pair=replace(PAYLOAD.pair, inside=labelled("inside"))))
    assert len([line for line in programs.lines("kubectl") if "get namespace shop" in line]) == 1, "its labels are not needed"


def test_a_network_policy_is_not_named_where_a_pod_had_started(cluster: ApiServer, programs: ProgramsInMemory) -> None:
    cluster.sidecar = False
    cluster.write()
    with_policies(cluster, programs, CALLER_POLICY)
    with pytest.raises(scripting.Failed, match=r"got no sidecar: [^;]*; look at Job"):
        verify_workload.run(replace(PAYLOAD, pair=replace(PAYLOAD.pair, inside=labelled("inside"))))


def labelled(which: str) -> dict[str, Any]:
    job = manifest(which)
    job["spec"]["template"]["metadata"] = {"labels": {"app": which}}
    return job
