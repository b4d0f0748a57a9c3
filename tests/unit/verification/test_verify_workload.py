"""The verification of a workload from the cluster's side, with a kubectl that answers as an API server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from components.local import scripting
from components.local.cluster_access import ClusterAccess, Kubectl
from components.verification.evidence import Entry
from components.verification.scripts import verify_workload
from tests.support.fake_programs import Programs

ENTRY = Entry("product-1", "product-192.0.2.7-pods", "192.0.2.7:8080")
CALL = '{"calls": {"caller": "Job verify-product", "service": "product", "port": 80, "endpoint": "192.0.2.7:8080", "answers": 3}}\n'


def outside(endpoint: str, result: str) -> str:
    return json.dumps({"plaintext": {"endpoint": endpoint, "result": result}}) + "\n"


def job(name: str, text: str = "") -> dict[str, Any]:
    container = {"name": "calls", "command": ["bash", "-c", text]}
    return {"metadata": {"generateName": name}, "spec": {"template": {"spec": {"containers": [container]}}}}


PAYLOAD = verify_workload.Payload(
    access=ClusterAccess(context="theirs"),
    workload="product",
    namespace="shop",
    entries=(ENTRY,),
    group_size=0,
    port=8080,
    selector={"app": "product", "version": "v1"},
    job=job("inside"),
    plaintext_job=job("outside", "ENDPOINTS='PODS'"),
    endpoints_mark="PODS",
    strict=True,
    warn_only=False,
    timeout_s=60,
)


class Cluster:
    """What the API server has; `write` tells the fake kubectl."""

    def __init__(self, programs: Programs) -> None:
        self.programs = programs
        self.entries = {ENTRY.entry: entry(ENTRY.entry, "192.0.2.7", "True")}
        self.pods = [pod("product-abc", "10.244.0.9", "True"), pod("product-def", "10.244.0.10", "False")]
        self.inside: tuple[int | None, str] = (0, CALL)
        self.outside: tuple[int | None, str] = (0, outside("192.0.2.7:8080", "refused"))
        self.answers = True
        self.write()

    def write(self) -> None:
        self.programs.add("kubectl", *self.rules())

    def rules(self) -> list[tuple[str, int, str, str]]:
        def of_job(code: int | None) -> str:
            state = {"waiting": {"reason": "ImagePullBackOff"}} if code is None else {"terminated": {"exitCode": code}}
            statuses = [{"name": "istio-proxy", "state": {"running": {}}}, {"name": "calls", "state": state}]
            return json.dumps({"items": [{"status": {"containerStatuses": statuses}}]})

        items = json.dumps({"items": list(self.entries.values())})
        return [
            ("get namespace shop", 0 if self.answers else 1, "{}" if not self.answers else '{"kind": "Namespace"}', ""),
            *((f"get workloadentry {name} ", 0, json.dumps(item), "") for name, item in self.entries.items()),
            (r"get workloadentry --namespace", 0, items, ""),
            (r"get workloadentry ", 0, "", ""),
            ("job-name=inside", 0, of_job(self.inside[0]), ""),
            ("job-name=outside", 0, of_job(self.outside[0]), ""),
            ("logs job.batch/inside", 0, self.inside[1], ""),
            ("logs job.batch/outside", 0, self.outside[1], ""),
            ("get pods --selector app=product,version=v1", 0, json.dumps({"items": self.pods}), ""),
        ]


def entry(name: str, address: str, healthy: str | None, network: str = "pods") -> dict[str, Any]:
    conditions = [{"type": "Healthy", "status": healthy, "message": "HTTP 503"}] if healthy else []
    return {
        "metadata": {"name": name},
        "spec": {"address": address, "network": network},
        "status": {"conditions": conditions},
    }


def pod(name: str, address: str, ready: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "status": {"podIP": address, "conditions": [{"type": "Ready", "status": ready}]}}


@pytest.fixture
def cluster(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    passed: list[float] = []
    monkeypatch.setattr(verify_workload, "sleep", lambda _: passed.append(10))
    monkeypatch.setattr(verify_workload, "monotonic", lambda: sum(passed))
    names = iter(["job.batch/outside\n", "job.batch/inside\n"])
    call = Kubectl.call

    def create(self: Kubectl, *words: str, **options: Any) -> scripting.Done:
        done = call(self, *words, **options)
        return scripting.Done(0, next(names).encode(), b"") if "create" in words else done

    monkeypatch.setattr(Kubectl, "call", create)
    yield Cluster(programs)


def created(programs: Programs) -> list[str]:
    return [call.stdin for call in programs.calls("kubectl") if "create" in call.words]


def test_a_workload_that_answers_and_refuses_strangers_is_verified(cluster: Cluster, programs: Programs) -> None:
    evidence = verify_workload.run(PAYLOAD)
    assert evidence.entries == (ENTRY,)
    assert [(pod.name, pod.ready) for pod in evidence.pods] == [("product-abc", True), ("product-def", False)]
    assert evidence.calls[0].answers == 3
    assert [each.result for each in evidence.plaintext] == ["refused"]
    outside, inside = created(programs)
    assert "ENDPOINTS='10.244.0.9:8080'" in outside, "ready pods alone"
    assert json.loads(inside)["metadata"]["generateName"] == "inside"
    deleted = [call.words for call in programs.calls("kubectl") if "delete" in call.words]
    assert len(deleted) == 2, "both Jobs are removed"
    assert all("--context theirs" in line for line in programs.lines("kubectl"))


def test_where_no_pod_can_call_the_entries_alone_are_looked_at(cluster: Cluster, programs: Programs) -> None:
    evidence = verify_workload.run(replace(PAYLOAD, job=None))
    assert evidence.entries and evidence.pods and not evidence.calls
    assert created(programs) == []


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ([entry(ENTRY.entry, "192.0.2.7", "False")], r"machine product-1 is unhealthy: its probe fails \(HTTP 503\)"),
        ([entry(ENTRY.entry, "192.0.2.7", None)], "machine product-1 has registered but reports no health"),
        ([], r"machine product-1 did not register \(there is no WorkloadEntry product-192.0.2.7-pods\)"),
        (
            [entry("product-192.0.2.7-far", "192.0.2.7", "True", "far")],
            "has registered as product-192.0.2.7-far in the network far instead of product-192.0.2.7-pods",
        ),
    ],
)
def test_a_machine_that_is_not_in_the_mesh_is_named_with_the_cause(cluster: Cluster, entries: list[dict[str, Any]], problem: str) -> None:
    cluster.entries = {item["metadata"]["name"]: item for item in entries}
    cluster.write()
    with pytest.raises(scripting.Failed, match=f"workload product: .*{problem}"):
        verify_workload.run(PAYLOAD)


def test_an_entry_that_becomes_healthy_is_waited_for(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    healthy = cluster.entries
    cluster.entries = {}
    cluster.write()

    def later(_: float) -> None:
        cluster.entries = healthy
        cluster.write()

    monkeypatch.setattr(verify_workload, "sleep", later)
    assert verify_workload.run(PAYLOAD).entries == (ENTRY,)


def test_machines_of_groups_are_counted_and_called_by_strangers_too(cluster: Cluster, programs: Programs) -> None:
    member = "product-192.0.2.9-pods"
    cluster.entries[member] = entry(member, "192.0.2.9", "True")
    cluster.entries["other-192.0.2.10-pods"] = entry("other-192.0.2.10-pods", "192.0.2.10", "True")
    cluster.write()
    evidence = verify_workload.run(replace(PAYLOAD, group_size=1))
    assert evidence.entries == (ENTRY, Entry("192.0.2.9", member, "192.0.2.9:8080"))
    assert "10.244.0.9:8080 192.0.2.9:8080" in created(programs)[0]


def test_a_group_that_is_too_small_is_named(cluster: Cluster) -> None:
    with pytest.raises(scripting.Failed, match=r"only 0 of 2 machines of groups are healthy"):
        verify_workload.run(replace(PAYLOAD, group_size=2))


def test_a_call_that_fails_is_told_in_its_own_words(cluster: Cluster) -> None:
    cluster.inside = (1, "noise\nJob verify-product: product does not resolve\n")
    cluster.write()
    with pytest.raises(scripting.Failed, match=r"^workload product: Job verify-product: product does not resolve$"):
        verify_workload.run(PAYLOAD)


def test_a_pod_that_does_not_run_is_told_with_its_state(cluster: Cluster, programs: Programs) -> None:
    cluster.inside = (None, "")
    cluster.write()
    with pytest.raises(scripting.Failed, match=r"did not run in 120 s: .*ImagePullBackOff"):
        verify_workload.run(PAYLOAD)
    assert sum("delete" in call.words for call in programs.calls("kubectl")) == 2


def event(name: str, reason: str, message: str, kind: str = "Job") -> dict[str, Any]:
    return {"involvedObject": {"kind": kind, "name": name}, "type": "Warning", "reason": reason, "message": message}


REFUSED = 'pods "inside-" is forbidden: violates PodSecurity "restricted:latest"'


@pytest.mark.parametrize(
    ("events", "problem"),
    [
        ([event("inside", "FailedCreate", REFUSED)], 'FailedCreate: pods "inside-" is forbidden: violates PodSecurity "restricted:latest"'),
        (
            [event("inside", "FailedCreate", "exceeded quota"), event("inside-x7v", "FailedScheduling", "0/1 nodes", "Pod")],
            "FailedCreate: exceeded quota; FailedScheduling: 0/1 nodes",
        ),
        ([event("inside2", "FailedCreate", "another Job's")], "the cluster reports no reason"),
    ],
)
def test_a_job_without_pods_is_explained_by_its_events(
    cluster: Cluster, programs: Programs, events: list[dict[str, Any]], problem: str
) -> None:
    cluster.inside = (None, "")
    no_pods = ("job-name=inside", 0, json.dumps({"items": []}), "")
    programs.add("kubectl", ("get events ", 0, json.dumps({"items": events}), ""), no_pods, *cluster.rules())
    with pytest.raises(scripting.Failed, match=re.escape(f"the pod that calls it did not run in 120 s: {problem}") + "$"):
        verify_workload.run(PAYLOAD)


def test_a_stranger_that_is_answered_is_a_failure_where_mutual_tls_is_strict(cluster: Cluster) -> None:
    cluster.outside = (0, outside("192.0.2.7:8080", "answered") + outside("10.244.0.9:8080", "refused"))
    cluster.write()
    with pytest.raises(scripting.Failed, match=r"a caller outside the mesh was answered by 192.0.2.7:8080: is mutual TLS strict"):
        verify_workload.run(PAYLOAD)


def test_elsewhere_it_is_only_evidence(cluster: Cluster) -> None:
    cluster.outside = (0, outside("192.0.2.7:8080", "answered"))
    cluster.write()
    assert verify_workload.run(replace(PAYLOAD, strict=False)).plaintext[0].result == "answered"


def test_a_warning_keeps_what_was_shown(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.inside = (1, "Job verify-product: no answer\n")
    cluster.write()
    evidence = verify_workload.run(replace(PAYLOAD, warn_only=True))
    assert evidence.entries == (ENTRY,)
    assert capsys.readouterr().err == "workload product: Job verify-product: no answer\n"


def test_an_api_server_that_does_not_answer_is_named(cluster: Cluster) -> None:
    cluster.answers = False
    cluster.write()
    with pytest.raises(scripting.Failed, match=r"^workload product: the API server does not answer$"):
        verify_workload.run(PAYLOAD)
