"""How a cluster is reached, and whose credentials Pulumi's provider gets. kubectl and kind are small programs."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.local import scripting, update_id
from components.local.cluster_access import (
    ClusterAccess,
    OtherCluster,
    Unreachable,
    cluster_name,
    kubectl,
    moved,
    note_move,
    read_kind_kubeconfig,
    read_objects,
    unchecked_kubectl,
)
from components.local.scripts import credentials
from tests.support.fake_programs import Programs

ACCESS = ClusterAccess(context="production", path="~/theirs", uid="uid-1")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def lines(programs: Programs) -> list[str]:
    return [line.replace(str(Path.home()), "~") for line in programs.lines("kubectl")]


def test_the_kubeconfig_is_used_where_it_is_and_the_cluster_is_checked(programs: Programs) -> None:
    programs.add("kubectl", ("kube-system", 0, "uid-1", ""))
    with kubectl(ACCESS) as program:
        program.call("get", "pods")
    first, second = lines(programs)
    assert "get namespace kube-system" in first
    assert second == "kubectl --kubeconfig ~/theirs --context production get pods"


def test_kubectl_collects_garbage_only_beyond_a_limit(programs: Programs) -> None:
    programs.add_script("kubectl", "import os; print(os.environ['GOGC'], os.environ['GOMEMLIMIT'])")
    with kubectl(ClusterAccess(context="production")) as program:
        assert program.call("get", "pods").text == "off 256MiB", "a limit, or what waits long needs ever more memory"


def test_without_a_path_kubectl_finds_the_kubeconfig(programs: Programs) -> None:
    programs.add("kubectl")
    with kubectl(ClusterAccess(context="production")) as program:
        program.call("get", "pods")
    assert lines(programs) == ["kubectl --context production get pods"]


def test_kind_is_asked_for_its_kubeconfig_and_no_file_is_left(programs: Programs) -> None:
    programs.add("kind", ("get kubeconfig --name lab", 0, "canary-kubeconfig", ""))
    programs.add("kubectl")
    with kubectl(ClusterAccess(kind="lab")) as program:
        program.call("get", "pods")
    (call,) = programs.calls("kubectl")
    assert call.files == ("canary-kubeconfig",)
    assert not Path(call.words[2]).exists()


def kubeconfig_of_kind(programs: Programs) -> str:
    """Return the kubeconfig that kubectl gets for a kind cluster."""
    with kubectl(ClusterAccess(kind="lab")) as program:
        program.call("get", "pods")
    return programs.calls("kubectl")[-1].files[0]


def test_kind_is_asked_once_in_an_update(programs: Programs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    programs.add("kind", ("", 0, "first", ""))
    programs.add("kubectl")
    updates = iter(["u-1", "u-1", "u-1", "u-2", "u-2"])
    monkeypatch.setattr(update_id, "of_pulumi", lambda: next(updates))
    assert kubeconfig_of_kind(programs) == "first"
    programs.add("kind", ("", 0, "second", ""))
    assert kubeconfig_of_kind(programs) == "first", "another script of the update"
    assert kubeconfig_of_kind(programs) == "second", "the next update, which may have another cluster of the name"
    (file,) = (tmp_path / "state/istio-vm-mesh/clusters").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("note", ["", "no JSON", "[]", "{}", '{"update": "u-1"}', "null"])
def test_kind_is_asked_where_its_note_cannot_be_read(
    programs: Programs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, note: str
) -> None:
    programs.add("kind", ("", 0, "of kind", ""))
    programs.add("kubectl")
    monkeypatch.setattr(update_id, "of_pulumi", lambda: "u-1")
    kubeconfig_of_kind(programs)
    (file,) = (tmp_path / "state").rglob("*.json")
    file.write_text(note)
    assert kubeconfig_of_kind(programs) == "of kind"
    assert len(programs.lines("kind")) == 2


def test_without_a_place_for_its_note_kind_is_asked_each_time(programs: Programs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """kind's own failure is still one."""
    (tmp_path / "state").write_text("a file")
    programs.add("kind", ("", 0, "of kind", ""))
    programs.add("kubectl")
    monkeypatch.setattr(update_id, "of_pulumi", lambda: "u-1")
    assert [kubeconfig_of_kind(programs) for _ in range(2)] == ["of kind"] * 2
    programs.add("kind", ("", 1, "", "ERROR: no such cluster"))
    with pytest.raises(scripting.Failed, match="kind has no kubeconfig of lab: ERROR: no such cluster"):
        kubeconfig_of_kind(programs)


def test_a_cluster_that_was_made_in_an_update_is_used_in_the_rest_of_it(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    programs.add("kind", ("", 0, "of the cluster before", ""))
    programs.add("kubectl")
    monkeypatch.setattr(update_id, "of_pulumi", lambda: "u-1")
    kubeconfig_of_kind(programs)
    programs.add("kind", ("", 0, "of the new cluster", ""))
    assert read_kind_kubeconfig("lab") == "of the new cluster"
    assert kubeconfig_of_kind(programs) == "of the new cluster"


def test_another_cluster_is_refused_by_both_identities(programs: Programs) -> None:
    programs.add("kubectl", ("kube-system", 0, "uid-2", ""))
    with (
        pytest.raises(OtherCluster, match=r"the context production of ~/theirs leads to another cluster.* uid-2, .* uid-1"),
        kubectl(ACCESS),
    ):
        pytest.fail("the cluster is used")


def test_a_cluster_that_does_not_answer_is_a_failure_that_names_it(programs: Programs) -> None:
    programs.add("kubectl", ("", 1, "", "Unable to connect to the server\n"))
    with pytest.raises(scripting.Failed, match=r"the context production of ~/theirs .*Unable to connect"), kubectl(ACCESS):
        pytest.fail("the cluster is used")


ROOT = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "root"}}
NAMESPACE = {"kind": "Namespace", "metadata": {"name": "kube-system", "uid": "uid-1"}}


def read(programs: Programs, *items: object, status: int = 0, error: str = "") -> tuple[dict[str, Any], str]:
    answer = json.dumps({"kind": "List", "items": items}) if len(items) != 1 else json.dumps(items[0])
    programs.add("kubectl", ("", status, answer if items else "", error))
    with unchecked_kubectl(moved(ACCESS)) as program:
        return read_objects(program, ACCESS, [ROOT])


def test_objects_and_the_clusters_identity_are_read_by_one_call(programs: Programs) -> None:
    assert read(programs, NAMESPACE, ROOT) == ({"Namespace": NAMESPACE, "ConfigMap": ROOT}, "")
    (call,) = programs.calls("kubectl")
    assert [item["kind"] for item in json.loads(call.stdin)["items"]] == ["Namespace", "ConfigMap"]


def test_objects_that_are_missing_or_not_readable_are_left_out(programs: Programs) -> None:
    assert read(programs, NAMESPACE) == ({"Namespace": NAMESPACE}, "")
    assert read(programs, NAMESPACE, status=1, error="configmaps is forbidden\n") == ({"Namespace": NAMESPACE}, "configmaps is forbidden")


def test_objects_of_another_cluster_are_not_used(programs: Programs) -> None:
    other = {**NAMESPACE, "metadata": {"uid": "uid-2"}}
    with pytest.raises(OtherCluster, match=r"leads to another cluster.* uid-2, .* uid-1"):
        read(programs, other, ROOT)
    with pytest.raises(Unreachable, match="Unable to connect"):
        read(programs, status=1, error="Unable to connect to the server\n")


def test_a_context_that_was_renamed_elsewhere_is_no_riddle(programs: Programs) -> None:
    programs.add("kubectl", ("", 1, "", "error: context was not found for specified context: production\n"))
    with pytest.raises(scripting.Failed, match="`pulumi preview` notes it on this computer"), kubectl(ACCESS):
        pytest.fail("the cluster is used")


def test_what_a_context_is_called_now_is_noted_for_this_stack_alone() -> None:
    now = ClusterAccess(context="prod-eu")
    note_move(ACCESS, now)
    assert moved(ACCESS) == replace(ACCESS, context="prod-eu", path=None)
    another = replace(ACCESS, context="viewer")
    assert moved(another) == another
    note_move(ACCESS, replace(ACCESS, uid=None))
    assert moved(ACCESS) == ACCESS


def test_a_note_that_was_cut_off_is_none_and_one_that_cannot_be_written_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command of an update reads it. One that was killed has left half of it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    note_move(ACCESS, replace(ACCESS, context="prod-eu"))
    (note,) = tmp_path.rglob("*.json")
    note.write_text(note.read_text()[:7])
    assert moved(ACCESS) == ACCESS
    note_move(ACCESS, replace(ACCESS, uid=None))
    assert not list(tmp_path.iterdir())
    (tmp_path / "istio-vm-mesh").touch()
    with pytest.raises(scripting.Failed, match=r"was not noted: cannot write .*set XDG_STATE_HOME"):
        note_move(ACCESS, replace(ACCESS, context="prod-eu"))


def test_people_see_a_name() -> None:
    text = json.dumps({"current-context": "gke"})
    assert [cluster_name(access) for access in (ACCESS, ClusterAccess(kind="lab"), ClusterAccess(text=text))] == [
        "production",
        "kind-lab",
        "gke",
    ]


def printed(programs: Programs, capsys: pytest.CaptureFixture[str], user: dict[str, Any], access: ClusterAccess = ACCESS) -> Any:
    """Return the status that the plugin prints for a user's entry."""
    document = {"clusters": [{"cluster": {"server": "https://10.0.0.1"}}], "users": [{"user": user}]}
    programs.add("kubectl", ("config view", 0, json.dumps(document), ""), ("kube-system", 0, "uid-1", ""))
    credentials.run(credentials.Payload(access))
    answer = json.loads(capsys.readouterr().out)
    assert answer["kind"] == "ExecCredential" and answer["apiVersion"] == credentials.API_VERSION
    return answer["status"]


@pytest.fixture
def kubeconfig(tmp_path: Path) -> ClusterAccess:
    """A kubeconfig in a directory with a token."""
    (tmp_path / "config").touch()
    (tmp_path / "token").write_text("a-token\n")
    return ClusterAccess(context="production", path=str(tmp_path / "config"), uid="uid-1")


def test_each_login_of_kubeconfigs_is_handed_on(programs: Programs, capsys: pytest.CaptureFixture[str], kubeconfig: ClusterAccess) -> None:
    assert printed(programs, capsys, {"token": "t"}, kubeconfig) == {"token": "t"}
    assert printed(programs, capsys, {"token": "t", "tokenFile": "token"}, kubeconfig) == {"token": "a-token"}
    pair = {f"client-{part}-data": base64.b64encode(part.encode()).decode() for part in ("certificate", "key")}
    assert printed(programs, capsys, pair, kubeconfig) == {"clientCertificateData": "certificate", "clientKeyData": "key"}


def test_a_plugin_beside_the_kubeconfig_is_asked_as_kubectl_asks_it(
    programs: Programs, capsys: pytest.CaptureFixture[str], kubeconfig: ClusterAccess, tmp_path: Path
) -> None:
    login = tmp_path / "login"
    login.write_text('#!/bin/sh\nprintf \'{"status": {"token": "%s %s", "info": %s}}\' "$1" "$REGION" "$KUBERNETES_EXEC_INFO"\n')
    login.chmod(0o755)
    version = "client.authentication.k8s.io/v1beta1"
    plugin = {"command": "./login", "args": ["get"], "env": [{"name": "REGION", "value": "eu"}], "apiVersion": version}
    status = printed(programs, capsys, {"exec": plugin}, kubeconfig)
    assert (status["token"], status["info"]["apiVersion"]) == ("get eu", version)
    login.write_text("#!/bin/sh\necho 'log in first' >&2\nexit 1\n")
    with pytest.raises(scripting.Failed, match=r"the login by \./login failed: log in first"):
        printed(programs, capsys, {"exec": plugin}, kubeconfig)


def test_a_user_without_a_login_is_said(programs: Programs, capsys: pytest.CaptureFixture[str], kubeconfig: ClusterAccess) -> None:
    with pytest.raises(scripting.Failed, match="has neither a token, a client certificate nor a plugin"):
        printed(programs, capsys, {"username": "admin", "password": "canary"}, kubeconfig)
