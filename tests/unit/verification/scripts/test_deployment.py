"""The pods of a workload's Deployment in its verification, with a kubectl that answers as an API server."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from components.local import scripting
from components.names import WORKLOAD_LABEL
from components.verification.scripts import deployment, verify_workload
from tests.support.fake_programs import ProgramsInMemory
from tests.support.verified_workload import CALL, ENTRY, OF_POD, PAYLOAD, ApiServer, entry, pod, result, target

WITH_PODS = replace(PAYLOAD, runs_pods=True)
NO_POD = "workload product: no pod is ready; look at Deployment shop/product"


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> ProgramsInMemory:
    """kubectl without processes: each test runs it ten times."""
    fakes = ProgramsInMemory()
    monkeypatch.setattr(scripting, "call", fakes.call)
    return fakes


def of_deployment(item: dict[str, Any]) -> dict[str, Any]:
    item["metadata"]["labels"] = {WORKLOAD_LABEL: "product"}
    return item


def runs(cluster: ApiServer, *pods: dict[str, Any]) -> None:
    """Have these pods; those that are ready answer, and so does the machine."""
    ready = any(each["status"]["conditions"][0]["status"] == "True" for each in pods)
    cluster.pods = list(pods)
    cluster.inside = (0, CALL + (OF_POD if ready else ""), "")
    cluster.outside = (0, result("192.0.2.7:8080", "refused") + result("10.244.0.9:8080", "refused"), "")
    cluster.write()


@pytest.mark.parametrize("names", [(), ("product-abc",), ("product-abc", "product-def")])
def test_a_workload_none_of_whose_pods_is_ready_is_not_verified_by_its_machines(cluster: ApiServer, names: tuple[str, ...]) -> None:
    runs(cluster, *(of_deployment(pod(name, "10.244.0.9", "False")) for name in names))
    with pytest.raises(scripting.Failed, match=f"^{NO_POD}$"):
        verify_workload.run(WITH_PODS)
    evidence = verify_workload.run(replace(WITH_PODS, warn_only=True))
    assert [(call.verdict, call.object) for call in evidence.calls] == [("failed", "Deployment shop/product"), ("proved", "")]
    assert evidence.entries == (ENTRY,), "the machine is called all the same"


def test_it_fails_too_where_nothing_is_called(cluster: ApiServer) -> None:
    runs(cluster)
    with pytest.raises(scripting.Failed, match=f"^{NO_POD}$"):
        verify_workload.run(replace(WITH_PODS, target=None))


def test_one_pod_that_is_ready_is_enough(cluster: ApiServer) -> None:
    runs(cluster, of_deployment(pod("product-abc", "10.244.0.9", "True")), of_deployment(pod("product-def", "10.244.0.10", "False")))
    assert [each.ready for each in verify_workload.run(WITH_PODS).pods] == [True, False]


def test_a_pod_that_is_ready_within_the_time_of_entries_is_called(
    cluster: ApiServer, programs: ProgramsInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs(cluster, of_deployment(pod("product-abc", "10.244.0.9", "False")))
    ready = of_deployment(pod("product-abc", "10.244.0.9", "True"))
    monkeypatch.setattr(deployment, "sleep", lambda _: runs(cluster, ready))
    verify_workload.run(WITH_PODS)
    assert target(programs)[8] == "192.0.2.7:8080,10.244.0.9:8080"


def test_pods_have_no_more_time_than_the_entries_before_them(cluster: ApiServer, programs: ProgramsInMemory) -> None:
    """All waits of a verification have to fit its command."""
    cluster.entries = {ENTRY.entry: entry(ENTRY.entry, "192.0.2.7", "False")}
    runs(cluster)
    with pytest.raises(scripting.Failed, match=f"machine product-1 is unhealthy.*\n{NO_POD}"):
        verify_workload.run(WITH_PODS)
    assert len([line for line in programs.lines("kubectl") if "get pods --selector app" in line]) == 1


def test_a_pod_of_others_with_the_same_labels_is_none_of_the_deployment(cluster: ApiServer) -> None:
    runs(cluster, pod("theirs", "10.244.0.9", "True"), of_deployment(pod("product-abc", "10.244.0.10", "False")))
    with pytest.raises(scripting.Failed, match=f"^{NO_POD}$"):
        verify_workload.run(WITH_PODS)


def test_a_workload_without_pods_of_this_program_needs_none(cluster: ApiServer) -> None:
    runs(cluster, pod("theirs", "10.244.0.9", "False"))
    assert verify_workload.run(PAYLOAD).entries == (ENTRY,)
