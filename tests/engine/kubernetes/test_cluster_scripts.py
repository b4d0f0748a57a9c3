"""The scripts beside Pulumi that change a cluster, at a real API server."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.istio.scripts import gateway_api, remove_namespace
from components.local import scripting
from components.local.cluster_access import UID_OF, ClusterAccess, OtherCluster, kubectl, read_objects, unchecked_kubectl
from components.names import MANAGED_BY_LABEL, PROJECT, STACK_LABEL, UPDATE_LABEL
from components.ownership import ObjectName, refuse_others, served_kinds
from tests.support import control_plane
from tests.support.control_plane import ControlPlane
from tests.support.scripts import add_program
from tests.support.waiting import wait_until
from tools.lab.offline.programs import Tools
from tools.standins.kubernetes.client import ApiError
from tools.steps import Steps

OURS = {MANAGED_BY_LABEL: PROJECT, STACK_LABEL: "mesh.lab"}
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture(scope="module")
def own_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane whose kinds are this file's alone."""
    with control_plane.running(tmp_path_factory.mktemp("control-plane")) as running:
        yield running


@pytest.fixture
def access(own_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> ClusterAccess:
    """How the control plane is reached, with kubectl on PATH."""
    return access_to(own_plane, monkeypatch)


def access_to(plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> ClusterAccess:
    monkeypatch.setenv("PATH", f"{control_plane.program('kubectl').parent}{os.pathsep}{os.environ['PATH']}")
    return ClusterAccess(path=str(plane.authority.parent / "kubeconfig"))


def create_namespace(plane: ControlPlane, name: str, **labels: str) -> None:
    plane.cluster.call("POST", "/api/v1/namespaces", body={"metadata": {"name": name, "labels": {**OURS, **labels}}})


def exists(plane: ControlPlane, name: str) -> bool:
    return plane.cluster.get("v1", "Namespace", "", name) is not None


def read(access: ClusterAccess, *wanted: tuple[str, str, str]) -> tuple[set[str], str]:
    """Return the kinds that are read of a namespace's objects (apiVersion, kind, name), and why others are not."""
    with unchecked_kubectl(access) as program:
        items = [{"apiVersion": version, "kind": kind, "metadata": {"namespace": "read", "name": name}} for version, kind, name in wanted]
        objects, problem = read_objects(program, access, items)
        return set(objects), problem


def test_what_a_join_needs_of_its_cluster_is_read_by_one_call(own_plane: ControlPlane, access: ClusterAccess) -> None:
    create_namespace(own_plane, "read")
    own_plane.create("v1", "ConfigMap", "read", "root", data={"root-cert.pem": "ROOT"})
    cluster = own_plane.cluster.get("v1", "Namespace", "", UID_OF)
    assert cluster
    checked = replace(access, uid=cluster["metadata"]["uid"])
    root, gone = ("v1", "ConfigMap", "root"), ("v1", "Secret", "gone")
    assert read(checked, root, gone) == ({"Namespace", "ConfigMap"}, "")
    assert (read(checked, gone), read(access, gone), read(access, root)) == (({"Namespace"}, ""), (set(), ""), ({"ConfigMap"}, ""))
    assert "no matches for kind" in read(access, root, ("example.com/v1", "Unknown", "x"))[1]
    with pytest.raises(OtherCluster, match="leads to another cluster"):
        read(replace(access, uid="another"), root)


def remove(access: ClusterAccess, name: str) -> None:
    remove_namespace.run(remove_namespace.Payload(access, name, "mesh.lab"))


def test_a_namespace_with_defaults_alone_is_removed(
    own_plane: ControlPlane, access: ClusterAccess, capsys: pytest.CaptureFixture[str]
) -> None:
    create_namespace(own_plane, "empty")
    for name in ("kube-root-ca.crt", "istio-ca-root-cert"):
        own_plane.create("v1", "ConfigMap", "empty", name)
    job = {"metadata": {"labels": {MANAGED_BY_LABEL: PROJECT}, "namespace": "empty", "name": "verify-1"}, "data": {}}
    own_plane.cluster.call("POST", "/api/v1/namespaces/empty/configmaps", body=job)
    # A Job that an update has left: its container ended before it was removed.
    job["metadata"] |= {"labels": {**OURS, UPDATE_LABEL: "0123abcd"}, "name": "verify-2"}
    own_plane.cluster.call("POST", "/api/v1/namespaces/empty/configmaps", body=job)
    remove(access, "empty")
    assert not exists(own_plane, "empty")
    assert capsys.readouterr().err == ""
    remove(access, "empty")


KUBERC = """
apiVersion: kubectl.config.k8s.io/v1beta1
kind: Preference
defaults:
- command: delete
  options: [{name: interactive, default: "true"}]
"""


def test_a_persons_preferences_for_kubectl_change_no_command(
    own_plane: ControlPlane, access: ClusterAccess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A deletion that asks deletes nothing, and succeeds."""
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "kuberc").write_text(KUBERC)
    monkeypatch.setenv("HOME", str(tmp_path))
    create_namespace(own_plane, "preferred")
    remove(access, "preferred")
    assert not exists(own_plane, "preferred")


@pytest.mark.parametrize("kind", ["Secret", "ConfigMap", "Service", "PersistentVolumeClaim"])
def test_a_namespace_with_something_of_others_stays_and_what_keeps_it_is_said(
    own_plane: ControlPlane, access: ClusterAccess, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    name = f"used-{kind.lower()}"
    create_namespace(own_plane, name)
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    specs: dict[str, Any] = {"Service": {"ports": [{"port": 80}]}, "PersistentVolumeClaim": claim}
    own_plane.create("v1", kind, name, "theirs", **({"spec": specs[kind]} if kind in specs else {}))
    remove(access, name)
    assert exists(own_plane, name)
    assert f"the namespace {name} stays, because it holds {kind} {name}/theirs" in capsys.readouterr().err


def test_a_namespace_that_was_given_away_stays(own_plane: ControlPlane, access: ClusterAccess, capsys: pytest.CaptureFixture[str]) -> None:
    create_namespace(own_plane, "given")
    account = {"metadata": {"name": "product", "namespace": "given", "labels": OURS}}
    own_plane.cluster.call("POST", "/api/v1/namespaces/given/serviceaccounts", body=account)
    remove(access, "given")
    assert exists(own_plane, "given") and "ServiceAccount given/product" in capsys.readouterr().err
    create_namespace(own_plane, "another", **{STACK_LABEL: "other.lab"})
    remove(access, "another")
    assert exists(own_plane, "another") and "not this stack's any more" in capsys.readouterr().err


def test_what_an_object_of_no_namespace_owns_keeps_the_namespace(
    own_plane: ControlPlane, access: ClusterAccess, capsys: pytest.CaptureFixture[str]
) -> None:
    """Operators make Secrets and more in namespaces for an object of the whole cluster."""
    create_namespace(own_plane, "owned")
    namespace = own_plane.cluster.get("v1", "Namespace", "", "owned")
    assert namespace
    owner = {"apiVersion": "v1", "kind": "Namespace", "name": "owned", "uid": namespace["metadata"]["uid"]}
    secret = {"metadata": {"name": "theirs", "ownerReferences": [owner]}}
    own_plane.cluster.call("POST", "/api/v1/namespaces/owned/secrets", body=secret)
    remove(access, "owned")
    assert exists(own_plane, "owned") and "Secret owned/theirs" in capsys.readouterr().err


def test_an_answer_that_is_lost_leaves_no_namespace_behind(
    own_plane: ControlPlane, access: ClusterAccess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The removal runs once: where it calls the namespace another's, it stays for ever."""
    create_namespace(own_plane, "unread")
    again = f'[[ "$*" = *"get namespace"* ]] && ! mkdir {tmp_path}/first 2>/dev/null'
    kubectl = control_plane.program("kubectl")
    add_program(tmp_path, "kubectl", f'if {again}; then echo "i/o timeout" >&2; exit 1; fi; exec {kubectl} "$@"')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    try:
        remove(access, "unread")
    except scripting.Failed:
        return
    assert not exists(own_plane, "unread")


@pytest.fixture
def silent_api(own_plane: ControlPlane) -> Iterator[str]:
    """An aggregated API whose server is gone: its group."""
    services = "/apis/apiregistration.k8s.io/v1/apiservices"
    group, version = "theirs.example.com", "v1beta1"
    spec = {
        "group": group,
        "version": version,
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
        "insecureSkipTLSVerify": True,
        "service": {"name": "gone", "namespace": "default"},
    }
    own_plane.cluster.call("POST", services, body={"metadata": {"name": f"{version}.{group}"}, "spec": spec})

    def is_silent() -> bool:
        service = own_plane.cluster.call("GET", f"{services}/{version}.{group}")
        conditions = service.get("status", {}).get("conditions", [])
        return any((each["type"], each["status"]) == ("Available", "False") for each in conditions)

    wait_until(is_silent)
    yield group
    own_plane.cluster.call("DELETE", f"{services}/{version}.{group}")


def test_a_namespace_stays_while_an_api_does_not_list_what_it_has_in_it(
    own_plane: ControlPlane, access: ClusterAccess, silent_api: str, capsys: pytest.CaptureFixture[str]
) -> None:
    create_namespace(own_plane, "unlisted")
    remove(access, "unlisted")
    assert exists(own_plane, "unlisted")
    error = capsys.readouterr().err
    assert "the namespace unlisted stays: the cluster does not list all kinds" in error and f"{silent_api}/v1beta1" in error


def test_only_the_groups_that_are_needed_must_answer(access: ClusterAccess, silent_api: str) -> None:
    with kubectl(access) as program:
        assert ("apps", "Deployment") in served_kinds(program, groups={"apps", "not.there.example.com"})
        with pytest.raises(scripting.Failed, match=r"does not list all kinds.*kubectl get apiservices"):
            served_kinds(program, groups={"apps", silent_api})
        with pytest.raises(scripting.Failed, match="does not list all kinds"):
            refuse_others(program, [ObjectName(silent_api, "Thing", "default", "product")], "mesh.lab")


def test_a_cluster_that_does_not_answer_is_no_removal(access: ClusterAccess, tmp_path: Path) -> None:
    document = json.loads(Path(access.path or "").read_text())
    document["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    (tmp_path / "down").write_text(json.dumps(document))
    with pytest.raises(scripting.Failed, match="cannot be read"):
        remove(ClusterAccess(path=str(tmp_path / "down")), "shop")


@pytest.fixture(scope="module")
def source() -> str:
    """The CRDs as the lab has them."""
    with Steps("test", 1, retry_command="the same command").step("get gateway-api-crds") as step:
        return str(Tools().directory(step, "gateway-api-crds").path)


@pytest.fixture
def no_crds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane of the test's own, without the Gateway API: a busy API server takes minutes to remove CRDs."""
    with control_plane.running(tmp_path_factory.mktemp("control-plane")) as running:
        yield running


@pytest.fixture
def no_crds_access(no_crds: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> ClusterAccess:
    """How that control plane is reached."""
    return access_to(no_crds, monkeypatch)


@pytest.fixture
def requests(no_crds_access: ClusterAccess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file with what kubectl asks of that control plane."""
    log, programs = tmp_path / "requests", tmp_path / "programs"
    monkeypatch.setenv("HOME", str(tmp_path))  # without what earlier calls have cached
    add_program(programs, "kubectl", f'exec {control_plane.program("kubectl")} -v=6 "$@" 2>>{log}')
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return log


def delete_crds(plane: ControlPlane, *names: str) -> None:
    """Delete CRDs, and wait until the API server no longer serves their kinds."""
    for name in names:
        plane.cluster.call("DELETE", f"{CRDS}/{name}")
    kinds = {name.partition(".")[0] for name in names}
    wait_until(lambda: not kinds & served(plane))


def served(plane: ControlPlane) -> set[str]:
    """Return the plural names of the kinds of the Gateway API that are served."""
    names: set[str] = set()
    with contextlib.suppress(ApiError):  # the group, or a version of it, is gone
        for group in plane.cluster.call("GET", "/apis/gateway.networking.k8s.io")["versions"]:
            names |= {kind["name"] for kind in plane.cluster.call("GET", f"/apis/{group['groupVersion']}")["resources"]}
    return names


def crds(plane: ControlPlane) -> dict[str, dict[str, Any]]:
    return {crd["metadata"]["name"].partition(".")[0]: crd for crd in plane.cluster.call("GET", CRDS)["items"]}


def version(crd: dict[str, Any]) -> str:
    text: str = crd["metadata"]["annotations"]["gateway.networking.k8s.io/bundle-version"]
    return text


@pytest.fixture
def newer(source: str, tmp_path: Path) -> str:
    """The CRDs of a later release."""
    for file in Path(source).glob("*.yaml"):
        (tmp_path / file.name).write_text(file.read_text().replace("bundle-version: v1.6.0", "bundle-version: v1.7.0"))
    return str(tmp_path)


def revisions(plane: ControlPlane) -> dict[str, str]:
    return {name: crd["metadata"]["resourceVersion"] for name, crd in crds(plane).items()}


def test_crds_are_installed_where_there_are_none_and_upgraded_where_they_are_ours(
    no_crds: ControlPlane, no_crds_access: ClusterAccess, source: str, newer: str, requests: Path
) -> None:
    gateway_api.run(gateway_api.Payload(no_crds_access, source))
    assert "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/" in requests.read_text()
    assert "/openapi" not in requests.read_text(), "a busy API server may need longer for these documents than kubectl waits"
    first = revisions(no_crds)
    assert {"gateways", "gatewayclasses"} <= set(first)
    gateway_api.run(gateway_api.Payload(no_crds_access, source))
    assert revisions(no_crds) == first, "nothing is applied again"
    delete_crds(no_crds, crds(no_crds)["httproutes"]["metadata"]["name"])
    gateway_api.run(gateway_api.Payload(no_crds_access, source))
    assert "httproutes" in crds(no_crds), "as after an update that was killed"
    gateway_api.run(gateway_api.Payload(no_crds_access, newer))
    assert version(crds(no_crds)["gateways"]) == "v1.7.0"
    last = revisions(no_crds)
    gateway_api.run(gateway_api.Payload(no_crds_access, source))
    assert revisions(no_crds) == last, "an earlier release replaces no later one"


def test_crds_of_others_are_left_as_they_are(no_crds: ControlPlane, no_crds_access: ClusterAccess, source: str, newer: str) -> None:
    gateway_api.run(gateway_api.Payload(no_crds_access, source))
    names = {name: crd["metadata"]["name"] for name, crd in crds(no_crds).items()}
    for name in names.values():
        no_crds.patch(f"{CRDS}/{name}", {"metadata": {"labels": {MANAGED_BY_LABEL: None}}})
    delete_crds(no_crds, names["tlsroutes"])
    before = revisions(no_crds)
    gateway_api.run(gateway_api.Payload(no_crds_access, newer))
    assert revisions(no_crds) == before
    delete_crds(no_crds, names["gateways"])
    with pytest.raises(scripting.Failed, match="lack the kind Gateway, and this program did not install them"):
        gateway_api.run(gateway_api.Payload(no_crds_access, source))


def test_a_source_that_is_none_is_named(access: ClusterAccess) -> None:
    with pytest.raises(scripting.Failed, match=r"cannot be read: check mesh.gatewayApi: .*nowhere.yaml"):
        gateway_api.run(gateway_api.Payload(access, "nowhere.yaml"))
