"""When a machine is joined again, seen in a preview. The cluster is a small fake."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest
from pulumi.runtime.rpc import UNKNOWN

from components.local import cluster_access, scripting
from components.local.cluster_access import ClusterAccess
from components.machines import registration
from components.machines.registration import RegistrationProvider
from tests.support.fake_cluster import FakeCluster

ENTRY = "product-172.31.6.130-pods"
PROPS: dict[str, Any] = {
    "access": asdict(ClusterAccess(context="prod")),
    "workload": "product",
    "others": "orders",
    "namespace": "shop",
    "identity": "machine-1",
    "entry": ENTRY,
}
ID = "0123"


@pytest.fixture(autouse=True)
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    """A cluster in which the machine is joined."""
    cluster = FakeCluster()
    monkeypatch.setattr(cluster_access, "kubectl", cluster.kubectl)
    monkeypatch.setattr(registration, "_listings", {})
    monkeypatch.setattr(registration, "sleep", lambda _: None)
    cluster.add(ENTRY, ID)
    return cluster


def diff(**news: Any) -> tuple[bool | None, list[str] | None]:
    result = RegistrationProvider().diff(ID, {**PROPS, "checked": ""}, {**PROPS, **news})
    return result.changes, result.replaces


def test_every_registration_has_an_identifier_of_its_own() -> None:
    created = [RegistrationProvider().create(dict(PROPS)).id for _ in range(2)]
    assert created[0] != created[1] and len(created[0]) == 12


def test_a_machine_that_is_joined_changes_nothing() -> None:
    assert diff() == (False, None)


def test_another_machine_has_another_registration() -> None:
    assert diff(identity="machine-2") == (True, ["identity"])
    assert diff(identity=UNKNOWN) == (True, ["identity"])


@pytest.mark.parametrize(
    "change",
    [
        {"workload": "orders", "others": "product"},
        {"workload": "orders", "others": "product", "namespace": "other"},
        {"entry": "product-10.0.0.1-pods"},
    ],
)
def test_a_machine_that_moves_keeps_its_registration(change: dict[str, Any]) -> None:
    assert diff(**change) == (True, None)


@pytest.mark.parametrize("change", [{"access": asdict(ClusterAccess(context="renamed"))}, {"others": "new orders"}])
def test_another_context_and_another_workload_beside_it_change_nothing(change: dict[str, Any]) -> None:
    assert diff(**change) == (False, None)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"workload": "goods"}, "the workload product, which this machine runs, is now called goods"),
        ({"namespace": "other"}, "the workload product moves from the namespace shop to other"),
    ],
)
def test_a_workload_with_machines_cannot_be_renamed_or_moved(change: dict[str, Any], says: str) -> None:
    with pytest.raises(RuntimeError, match=says):
        diff(**change)


@pytest.mark.parametrize("state", ["missing", "another registration", "disconnected"])
def test_a_machine_out_of_the_mesh_is_joined_again(cluster: FakeCluster, state: str) -> None:
    cluster.entries.clear()
    if state != "missing":
        cluster.add(ENTRY, ID if state == "disconnected" else "4567", connected=state != "disconnected")
    assert diff() == (True, None)
    before = RegistrationProvider().update(ID, PROPS, PROPS).outs
    assert before and before["checked"] != ""
    assert diff(forgotten=True) == (False, None), "a machine that is forgotten is not joined"


def test_a_machine_whose_probe_fails_is_in_the_mesh(cluster: FakeCluster) -> None:
    cluster.add(ENTRY, ID, healthy=False)
    assert diff() == (False, None)


def problems(preview: bool, **news: Any) -> list[str]:
    """Return why a machine that was registered is refused."""
    result = RegistrationProvider().check(PROPS, {**PROPS, "preview": preview, **news})
    assert "preview" not in result.inputs, "else every update after a preview would show a difference"
    return [failure.reason for failure in result.failures]


def test_an_api_server_that_cannot_be_reached_changes_nothing_in_a_preview(cluster: FakeCluster) -> None:
    cluster.entries.clear()
    cluster.down = "Unable to connect to the server"
    assert problems(preview=True) == []
    assert diff() == (False, None)


def test_an_api_server_that_cannot_be_reached_fails_an_update(cluster: FakeCluster) -> None:
    cluster.down = "Unable to connect to the server"
    [problem] = problems(preview=False)
    assert "whether the machine is in the mesh cannot be read: Unable to connect to the server" in problem


def refuse(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, words: str, status: int = 1) -> None:
    """Have the API server, which answers, give no list of entries."""
    monkeypatch.setattr(cluster, "call", lambda *_, **__: scripting.Done(status, b"", words.encode()))


FORBIDDEN = 'Error from server (Forbidden): workloadentries.networking.istio.io is forbidden: User "ci" cannot list resource'


@pytest.mark.parametrize("preview", [True, False])
@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (FORBIDDEN, 1, FORBIDDEN),
        ("Error from server (TooManyRequests): too many requests", 1, "too many requests"),
        ("Error from server (InternalError): an error on the server", 1, "an error on the server"),
        ("", scripting.TIMED_OUT, "did not end within 30 s"),
    ],
)
def test_entries_that_the_api_server_does_not_list_are_no_machines_in_the_mesh(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, preview: bool, words: str, status: int, says: str
) -> None:
    """A machine could be out of the mesh, and the update would succeed without a change."""
    refuse(cluster, monkeypatch, words, status)
    [problem] = problems(preview)
    assert says in problem
    grant = "grant list on workloadentries (networking.istio.io) in the namespace shop"
    assert (grant in problem) == ("Forbidden" in words)


@pytest.mark.parametrize("news", [{"forgotten": True}, {"identity": "machine-2"}, {"namespace": "other"}, {"entry": UNKNOWN}])
def test_a_machine_that_is_not_compared_needs_no_list(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, news: dict[str, Any]) -> None:
    refuse(cluster, monkeypatch, FORBIDDEN)
    assert problems(preview=False, **news) == []
    assert RegistrationProvider().check({}, dict(PROPS)).failures == [], "a machine that is new has no entry"


def test_one_refusal_of_a_busy_api_server_is_asked_again(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = cluster.call
    refuse(cluster, monkeypatch, "Error from server (TooManyRequests): too many requests")
    monkeypatch.setattr(registration, "sleep", lambda _: monkeypatch.setattr(cluster, "call", answer))
    assert (problems(preview=False), diff()) == ([], (False, None))


@pytest.mark.parametrize(
    "words",
    [
        'error: the server doesn\'t have a resource type "workloadentries"',
        'Error from server (NotFound): Unable to list "networking.istio.io/v1, Resource=workloadentries": the server could not find the requested resource',
    ],
)
def test_machines_join_again_after_istio_was_uninstalled(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    refuse(cluster, monkeypatch, words)
    assert problems(preview=True) == []
    assert diff() == (True, None)


@pytest.mark.parametrize("key", ["entry", "access", "context"])
def test_what_is_not_known_yet_in_a_preview_changes_nothing(cluster: FakeCluster, key: str) -> None:
    cluster.entries.clear()
    unknown = {"access": asdict(replace(ClusterAccess(), context=UNKNOWN))} if key == "context" else {key: UNKNOWN}
    assert diff(**unknown) == (key == "entry", None)
    assert cluster.calls == []


def test_the_entries_are_listed_once_for_all_machines_of_a_run(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        cluster.add(f"product-10.0.0.{number}-pods", str(number))
    for number in range(20):
        props = {**PROPS, "entry": f"product-10.0.0.{number}-pods"}
        assert RegistrationProvider().diff(str(number), {**props, "checked": ""}, props).changes is False
    assert len(cluster.calls) == 1
    monkeypatch.setattr(registration, "LISTING_LIFE_S", -1)
    diff()
    assert len(cluster.calls) == 2, "a run that comes later asks again"


def test_a_runner_without_kubectl_is_refused_in_the_preview(monkeypatch: pytest.MonkeyPatch) -> None:
    assert RegistrationProvider().check({}, dict(PROPS)).failures == []
    monkeypatch.setenv("PATH", "/nowhere")
    failures = RegistrationProvider().check({}, dict(PROPS)).failures
    assert [failure.reason for failure in failures] == ["kubectl is not on PATH: install it on the computer that runs Pulumi"]
