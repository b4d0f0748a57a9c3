"""The machines of a workload in its verification, with a kubectl that answers as an API server."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from components import names
from components.local import scripting
from components.names import DISCONNECTED_ANNOTATION, NETWORK_LABEL
from components.verification.evidence import Entry
from components.verification.scripts import members, verify_workload
from tests.support.fake_programs import ProgramsInMemory
from tests.support.verified_workload import CALL, ENTRY, OF_POD, PAYLOAD, ApiServer, called, cluster_of, entry, result, target


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> ProgramsInMemory:
    """kubectl without processes: each test runs it ten times."""
    fakes = ProgramsInMemory()
    monkeypatch.setattr(scripting, "call", fakes.call)
    return fakes


def with_condition(item: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return an entry for which another condition is true."""
    item["status"]["conditions"].insert(0, {"type": kind, "status": "True"})
    return item


def disconnected(item: dict[str, Any]) -> dict[str, Any]:
    """Return an entry whose agent has gone; istiod removes it some time later."""
    item["metadata"]["annotations"] = {DISCONNECTED_ANNOTATION: "2026-01-01T00:00:00Z"}
    return item


FAULTS: list[tuple[list[dict[str, Any]], str]] = [
    ([entry(ENTRY.entry, "192.0.2.7", "False")], r"machine product-1 is unhealthy: its probe fails \(HTTP 503\)"),
    ([entry(ENTRY.entry, "192.0.2.7", None)], "machine product-1 has registered but reports no health"),
    ([], r"machine product-1 did not register \(there is no WorkloadEntry product-192.0.2.7-pods\)"),
    (
        [entry("product-192.0.2.7-far", "192.0.2.7", "True", "far")],
        "has registered as product-192.0.2.7-far in the network far instead of product-192.0.2.7-pods",
    ),
    ([entry("orders-192.0.2.7-pods", "192.0.2.7", "True")], "has registered as orders-192.0.2.7-pods in the network pods instead"),
    ([entry("product-192.0.2.70-pods", "192.0.2.70", "True")], "machine product-1 did not register"),
    (
        [entry(ENTRY.entry, "192.0.2.7", "False"), entry("product-192.0.2.7-far", "192.0.2.7", "True", "far")],
        "machine product-1 is unhealthy",
    ),
    (
        [disconnected(entry(ENTRY.entry, "192.0.2.7", "True"))],
        "machine product-1 has had no connection to istiod since 2026-01-01T00:00:00Z",
    ),
    ([with_condition(entry(ENTRY.entry, "192.0.2.7", "False"), "Reachable")], "machine product-1 is unhealthy"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("entries", "problem"), FAULTS)
def test_a_machine_that_is_not_in_the_mesh_is_named_with_the_cause(cluster: ApiServer, entries: list[dict[str, Any]], problem: str) -> None:
    cluster.entries = {item["metadata"]["name"]: item for item in entries}
    cluster.outside = (0, result("10.244.0.9:8080", "refused"), "")
    cluster.write()
    with pytest.raises(scripting.Failed, match=f"workload product: .*{problem}.*; look at WorkloadEntry shop/"):
        verify_workload.run(PAYLOAD)


def test_a_machine_that_is_unhealthy_takes_nobody_elses_proof_away(cluster: ApiServer, programs: ProgramsInMemory) -> None:
    other = Entry("product-2", "product-192.0.2.8-pods", "192.0.2.8:8080")
    cluster.entries[other.entry] = entry(other.entry, "192.0.2.8", "False")
    cluster.write()
    evidence = verify_workload.run(replace(PAYLOAD, entries=(ENTRY, other), warn_only=True))
    assert evidence.entries == (ENTRY,)
    [failed] = [call for call in evidence.calls if call.verdict == "failed"]
    assert (failed.machine, failed.endpoint, failed.object) == ("product-2", "192.0.2.8:8080", f"WorkloadEntry shop/{other.entry}")
    assert failed.cause.startswith("machine product-2 is unhealthy")
    assert target(programs)[8] == "192.0.2.7:8080,10.244.0.9:8080", "it is not called"


def test_an_entry_that_becomes_healthy_is_waited_for(cluster: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    healthy = cluster.entries
    cluster.entries = {}
    cluster.write()

    def later(_: float) -> None:
        cluster.entries = healthy
        cluster.write()

    monkeypatch.setattr(members, "sleep", later)
    assert verify_workload.run(PAYLOAD).entries == (ENTRY,)


def test_machines_of_groups_are_counted_and_called(cluster: ApiServer, programs: ProgramsInMemory) -> None:
    member = "product-192.0.2.9-pods"
    cluster.entries[member] = entry(member, "192.0.2.9", "True")
    cluster.entries["other-192.0.2.10-pods"] = entry("other-192.0.2.10-pods", "192.0.2.10", "True")
    assert cluster.outside
    cluster.outside = (0, cluster.outside[1] + result("192.0.2.9:8080", "refused"), "")
    cluster.inside = (0, CALL + OF_POD + called("192.0.2.9:8080"), "")
    cluster.write()
    evidence = verify_workload.run(replace(PAYLOAD, group_sizes={"pods": 1}))
    assert evidence.entries == (ENTRY, Entry("192.0.2.9", member, "192.0.2.9:8080"))
    assert target(programs)[8] == "192.0.2.7:8080,192.0.2.9:8080,10.244.0.9:8080"
    assert target(programs)[12] == "product-1=192.0.2.7:8080,192.0.2.9=192.0.2.9:8080"


def test_endpoints_of_others_behind_a_gateway_make_calls_too(cluster: ApiServer, programs: ProgramsInMemory) -> None:
    """The gateway chooses among all that the Service selects: of another workload, or created by hand."""
    far = Entry("product-2", "product-192.0.2.8-far", "192.0.2.8:8080")
    cluster.entries[far.entry] = entry(far.entry, "192.0.2.8", "True", "far")
    labels = {"app": "product", "version": "v2"}
    for each in (ENTRY, far):
        cluster.entries[each.entry]["metadata"]["labels"] = labels

    def other(name: str, healthy: str | None, *, network: str = "far", spec: Mapping[str, Any] | None = None, **metadata: Any) -> None:
        item = entry(name, "192.0.2.20", healthy, network)
        cluster.entries[name] = {**item, "metadata": {**item["metadata"], **metadata}, "spec": {**item["spec"], **(spec or {})}}

    other("of-another-workload", "True", labels=labels)
    other("by-hand", None, spec={"labels": labels, "weight": 3})
    other("network-by-label", "True", network="", spec={"labels": {**labels, NETWORK_LABEL: "far"}})
    other("unhealthy", "False", labels=labels)
    other("disconnected", "True", labels=labels, annotations={DISCONNECTED_ANNOTATION: "2026-11-27T12:00:00Z"})
    other("of-another-service", "True", labels={"app": "orders"})
    other("near", "True", network="pods", labels=labels)
    assert cluster.outside
    cluster.outside = (0, cluster.outside[1] + result("172.31.0.1:15443", "refused"), "")
    cluster.inside = (0, CALL + OF_POD + called("172.31.0.1:15443", how="by-chance"), "")
    cluster.write()
    verify_workload.run(replace(PAYLOAD, entries=(ENTRY, far), gateways={"far": ("172.31.0.1:15443",)}))
    assert target(programs)[10:12] == ["172.31.0.1:15443", "35"], "1 of its own, 1, 3 and 1 of others: 6 * (ln 6 + 4)"


@pytest.mark.parametrize("spec", [{}, {"selector": {}}, None])
def test_a_service_without_a_selector_has_no_endpoints_of_others(
    spec: Mapping[str, Any] | None, cluster: ApiServer, programs: ProgramsInMemory
) -> None:
    """Its endpoints are those of EndpointSlices, and WorkloadEntries are none of them. The Service may be gone, too."""
    far = Entry("product-2", "product-192.0.2.8-far", "192.0.2.8:8080")
    cluster.entries |= {name: entry(name, "192.0.2.8", "True", "far") for name in (far.entry, "by-hand")}
    assert cluster.outside
    cluster.outside = (0, cluster.outside[1] + result("172.31.0.1:15443", "refused"), "")
    cluster.inside = (0, CALL + OF_POD + called("172.31.0.1:15443", how="by-chance"), "")
    cluster.service = spec
    cluster.write()
    verify_workload.run(replace(PAYLOAD, entries=(ENTRY, far), gateways={"far": ("172.31.0.1:15443",)}))
    assert target(programs)[10:12] == ["172.31.0.1:15443", "4"]


@pytest.mark.slow
def test_a_group_that_is_too_small_is_named(cluster: ApiServer) -> None:
    with pytest.raises(scripting.Failed, match=r"only 0 of 2 machines of groups are healthy in the network pods"):
        verify_workload.run(replace(PAYLOAD, group_sizes={"pods": 2}))


def test_machines_of_two_networks_may_have_one_address(cluster: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them is late: the other is not it."""
    late = Entry("product-2", "product-192.0.2.7-far", "192.0.2.7:8080")
    cluster.entries["orders-192.0.2.7-else"] = entry("orders-192.0.2.7-else", "192.0.2.7", "True", "else")
    cluster.write()
    passed: list[float] = []

    def later(_: float) -> None:
        passed.append(10)
        if sum(passed) >= 40:
            cluster.entries[late.entry] = entry(late.entry, "192.0.2.7", "True", "far")
            cluster.write()

    monkeypatch.setattr(members, "sleep", later)
    monkeypatch.setattr(members, "monotonic", lambda: sum(passed))
    assert verify_workload.run(replace(PAYLOAD, entries=(ENTRY, late))).entries == (ENTRY, late)


ELSEWHERE = entry("product-192.0.2.7-far", "192.0.2.7", "True", "far")
"""An entry of the machine in another network than the stack says."""


def clock(cluster: ApiServer, monkeypatch: pytest.MonkeyPatch, changes: dict[int, list[dict[str, Any]]]) -> list[float]:
    """Have the cluster's entries change at seconds; return the pauses, of which each takes ten seconds."""
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if items := changes.get(10 * len(pauses)):
            cluster.entries = {item["metadata"]["name"]: item for item in items}
            cluster.write()

    monkeypatch.setattr(members, "sleep", pause)
    monkeypatch.setattr(members, "monotonic", lambda: 10 * len(pauses))
    return pauses


MEMBER = entry("product-192.0.2.9-pods", "192.0.2.9", "True")


def test_machines_of_groups_are_waited_for_where_all_others_are_healthy(cluster: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """They boot, which takes long: they are asked for seldom."""
    [right] = cluster.entries.values()
    cluster.entries = {}
    assert cluster.outside
    cluster.outside = (0, cluster.outside[1] + result("192.0.2.9:8080", "refused"), "")
    cluster.inside = (0, CALL + OF_POD + called("192.0.2.9:8080"), "")
    cluster.write()
    pauses = clock(cluster, monkeypatch, {20: [right], 500: [right, MEMBER]})
    assert [each.machine for each in verify_workload.run(replace(PAYLOAD, group_sizes={"pods": 1})).entries] == ["product-1", "192.0.2.9"]
    assert pauses == [0.5] * 2 + [2] * 48


def test_machines_of_groups_are_waited_for_until_their_time_is_over(cluster: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    unhealthy = {"metadata": MEMBER["metadata"], "spec": MEMBER["spec"], "status": {"conditions": [{"type": "Healthy", "status": "False"}]}}
    cluster.entries["product-192.0.2.9-pods"] = unhealthy
    cluster.write()
    pauses = clock(cluster, monkeypatch, {})
    with pytest.raises(scripting.Failed, match="only 0 of 1 machines of groups are healthy"):
        verify_workload.run(replace(PAYLOAD, group_sizes={"pods": 1}))
    assert 10 * len(pauses) == members.GROUP_TIMEOUT_S


def waited_for(cluster: ApiServer, sizes: Mapping[str, int], items: Sequence[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Return the addresses of the machines of groups, and what is wrong, with these entries."""
    cluster.entries = {item["metadata"]["name"]: item for item in items}
    cluster.write()
    payload = replace(PAYLOAD, entries=(), group_sizes=sizes)
    healthy, problems = members.wait_for_entries(cluster_of(payload), payload.expected)
    return [each.entry.machine for each in healthy], [row.cause.partition(":")[0] for row in problems]


def of_groups(network: str, *numbers: int) -> list[dict[str, Any]]:
    return [entry(names.entry_name("product", f"192.0.2.{each}", network), f"192.0.2.{each}", "True", network) for each in numbers]


@pytest.mark.parametrize(
    ("sizes", "items", "problems"),
    [
        ({"pods": 2, "far": 2}, of_groups("pods", 1, 2, 3, 4), ["only 0 of 2 machines of groups are healthy in the network far"]),
        ({"": 1, "far": 1}, of_groups("far", 1, 2), ["only 0 of 1 machines of groups are healthy in the network of the pods"]),
        ({"": 1, "far": 1}, [*of_groups("", 1), *of_groups("far", 2)], []),
    ],
)
def test_each_network_needs_its_own_machines_of_groups(
    cluster: ApiServer, monkeypatch: pytest.MonkeyPatch, sizes: dict[str, int], items: list[dict[str, Any]], problems: list[str]
) -> None:
    """An autoscaler adds machines in one network. Those of another one may reach no gateway."""
    clock(cluster, monkeypatch, {})
    assert waited_for(cluster, sizes, items) == ([item["spec"]["address"] for item in items], problems)


@pytest.mark.parametrize("network", ["pods", "else"])
def test_others_are_no_machines_of_groups(cluster: ApiServer, monkeypatch: pytest.MonkeyPatch, network: str) -> None:
    """One that is forgotten, or whose join failed, has a registration; or there is no group."""
    clock(cluster, monkeypatch, {})
    [other] = of_groups(network, 7)
    if network == "pods":
        other["metadata"]["labels"] = {names.REGISTRATION_LABEL: "0123"}
    problem = "only 1 of 2 machines of groups are healthy in the network pods"
    assert waited_for(cluster, {"pods": 2}, [*of_groups("pods", 1), other]) == (["192.0.2.1"], [problem])


@pytest.mark.parametrize(
    ("sizes", "status", "machines"),
    [({"pods": 1}, 0, ["product-1", "192.0.2.9"]), ({"pods": 1}, 1, ["product-1", "192.0.2.4"]), ({}, 0, ["product-1"])],
)
def test_machines_of_groups_come_and_go_and_others_stay(
    cluster: ApiServer, programs: ProgramsInMemory, sizes: dict[str, int], status: int, machines: list[str]
) -> None:
    """Where entries cannot be read, nobody has gone."""
    programs.add("kubectl", ("get workloadentry ", status, json.dumps({"items": [MEMBER]}), ""))
    payload = replace(PAYLOAD, group_sizes=sizes)
    gone = Entry("192.0.2.4", "product-192.0.2.4-pods", "192.0.2.4:8080")
    before = [members.Member(each, "pods") for each in ((ENTRY, gone) if sizes else (ENTRY,))]
    assert [each.entry.machine for each in members.still_there(cluster_of(payload), payload.expected, before)] == machines


@pytest.mark.parametrize("annotations", [None, {}, {"istio.io/connectedAt": "2026-01-01T00:00:00Z"}])
def test_a_machine_whose_agent_is_connected_is_healthy(cluster: ApiServer, annotations: dict[str, str] | None) -> None:
    cluster.entries[ENTRY.entry]["metadata"]["annotations"] = annotations
    cluster.write()
    assert verify_workload.run(PAYLOAD).entries == (ENTRY,)


def test_an_old_entry_elsewhere_is_no_problem_where_the_right_one_comes(cluster: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    right = cluster.entries[ENTRY.entry]
    cluster.entries = {ELSEWHERE["metadata"]["name"]: ELSEWHERE}
    cluster.write()
    clock(cluster, monkeypatch, {10: [ELSEWHERE, right]})
    assert verify_workload.run(PAYLOAD).entries == (ENTRY,)


def test_an_entry_elsewhere_is_named_before_the_time_is_over(cluster: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.entries = {ELSEWHERE["metadata"]["name"]: ELSEWHERE}
    cluster.outside = (0, result("10.244.0.9:8080", "refused"), "")
    cluster.write()
    pauses = clock(cluster, monkeypatch, {})
    with pytest.raises(scripting.Failed, match=r"has registered as product-192\.0\.2\.7-far"):
        verify_workload.run(PAYLOAD)
    assert len(pauses) == 2


def test_what_is_wrong_with_a_machine_stays_while_another_is_waited_for(cluster: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Entry("product-2", "product-192.0.2.8-pods", "192.0.2.8:8080")
    cluster.entries = {ELSEWHERE["metadata"]["name"]: ELSEWHERE}
    cluster.outside = (0, result("10.244.0.9:8080", "refused"), "")
    cluster.write()
    clock(cluster, monkeypatch, {})
    with pytest.raises(scripting.Failed, match=r"product-1 has registered as product-192.0.2.7-far(.*\n.*)product-2 did not register"):
        verify_workload.run(replace(PAYLOAD, entries=(ENTRY, other)))


@pytest.mark.parametrize(
    ("size", "before", "now", "problems"),
    [(2, 2, 1, 1), (2, 2, 2, 0), (2, 3, 2, 0), (2, 1, 1, 0), (2, 1, 0, 1), (0, 1, 0, 0)],
)
def test_groups_are_below_their_size_once(size: int, before: int, now: int, problems: int) -> None:
    """Those above it may go. Where they were below it from the start, that is stated already."""
    several = [members.Member(Entry(f"192.0.2.{each}", f"product-192.0.2.{each}-pods", ""), "pods") for each in range(100, 103)]
    declared = members.Member(ENTRY, "pods")
    rows = members.lost(replace(PAYLOAD, group_sizes={"pods": size}).expected, [declared, *several[:before]], [declared, *several[:now]])
    cause = f"only {now} of {size} machines of groups are healthy in the network pods"
    assert [row.cause.partition(":")[0] for row in rows] == [cause] * problems


def test_machines_of_groups_that_go_are_missed_in_their_own_network() -> None:
    """Those that come in another one do not replace them."""
    pods, far = (
        [members.Member(Entry(f"192.0.2.{each}", f"product-192.0.2.{each}-{network}", ""), network) for each in range(100, 104)]
        for network in ("pods", "far")
    )
    expected = replace(PAYLOAD, group_sizes={"pods": 2, "far": 2}).expected
    assert members.lost(expected, [*pods[:2], *far[:2]], [*pods, *far[:2]]) == []
    [row] = members.lost(expected, [*pods[:2], *far[:2]], [*pods, *far[:1]])
    assert row.cause.startswith("only 1 of 2 machines of groups are healthy in the network far")


@pytest.mark.slow
def test_machines_of_groups_that_cannot_be_read_are_told_in_kubectls_words(cluster: ApiServer, programs: ProgramsInMemory) -> None:
    programs.add("kubectl", ("get workloadentry ", 1, "", "error: lost\n"), *cluster.rules())
    cause = "whether machines of groups are healthy cannot be read: cannot list workloadentry of the namespace shop: error: lost"
    with pytest.raises(scripting.Failed, match=f"{cause}; look at WorkloadGroup shop/product"):
        verify_workload.run(replace(PAYLOAD, entries=(), group_sizes={"pods": 1}))


@pytest.mark.parametrize(
    ("kind", "cause"), [("service product", "cannot read the service"), ("workloadentry", "cannot list workloadentry")]
)
def test_endpoints_of_others_that_cannot_be_read_are_not_none(
    cluster: ApiServer, programs: ProgramsInMemory, kind: str, cause: str
) -> None:
    programs.add("kubectl", (f"get {kind} ", 1, "", "error: lost\n"), *cluster.rules())
    assert PAYLOAD.target
    with pytest.raises(scripting.Failed, match=f"{cause} .*: error: lost"):
        members.endpoints_of_others(cluster_of(PAYLOAD), "pods", PAYLOAD.target, [members.Member(ENTRY, "far")])
