"""The look at the cluster: the real dynamic provider, engine and API server, by kubeconfigs of several people."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pulumi
import pytest
from pulumi_kubernetes.core.v1 import ConfigMap, Service

from components.config.existing import ExistingGateway
from components.existing_objects import SERVICE, ExistingObject
from components.istio.namespace import owned_namespace
from components.kubernetes import check_cluster, cluster_options, use_existing
from components.platforms.existing.cluster import ExistingClusterArgs, existing_cluster
from components.versions import minor
from tests.support import harness
from tests.support.cli_stack import STACK, Program, Stack
from tests.support.control_plane import ControlPlane, program
from tools.lab.offline import versions
from tools.standins.command import Command
from tools.standins.kubernetes.plugin import Kubernetes
from tools.standins.provider import Provider


@pytest.fixture
def mesh(stack: Stack, sdk: Path, host: Callable[[Provider], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """An empty stack with the dynamic provider, the `kubernetes` provider and kubectl."""
    plugin = tmp_path / "bin" / "pulumi-resource-pulumi-python"
    plugin.parent.mkdir()
    shutil.copy(sdk / plugin.name, plugin)
    plugin.chmod(0o755)
    places = [str(plugin.parent), str(program("kubectl").parent), os.environ["PATH"]]
    settings = {
        "PATH": os.pathsep.join(places),
        "PYTHONPATH": str(harness.ROOT),
        "PULUMI_PYTHON_CMD": sys.executable,
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }
    stack.environment.update(settings)
    for name in ("PATH", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, settings[name])
    host(Kubernetes(settle=0.2))
    return stack


def one_object(namespace: str, **reached: Any) -> Program:
    """Declare one object in a cluster that exists, reached as `reached` says."""

    def declare() -> None:
        gateway = ExistingGateway(address="192.0.2.1", install=False)
        args = ExistingClusterArgs(network="pods", pod_cidr="10.0.0.0/16", gateway=gateway, **reached)
        cluster = check_cluster("cluster-check", existing_cluster(args))
        options = cluster_options("kubernetes", cluster)
        ConfigMap("one", metadata={"name": "one", "namespace": namespace}, data={"a": "b"}, opts=options)
        pulumi.export("access", cluster.access.apply(lambda access: access.context))

    return declare


def write_kubeconfig(file: Path, plane: ControlPlane, context: str, user: dict[str, Any] | None = None) -> Path:
    """Write a kubeconfig with one context, by default with the administrator's certificate."""
    document = json.loads(plane.kubeconfig)
    document["contexts"] = [{"name": context, "context": {"cluster": "test", "user": "test"}}]
    document["current-context"] = "somewhere-else"
    if user is not None:
        document["users"] = [{"name": "test", "user": user}]
    file.parent.mkdir(exist_ok=True, parents=True)
    file.write_text(json.dumps(document))
    return file


def test_who_runs_it_and_how_makes_no_difference(mesh: Stack, plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    mine = write_kubeconfig(tmp_path / "mine", plane, "production")
    first = mesh.preview(one_object(namespace, context="production", path=str(mine)))
    assert first.changes() == {"create": 5}
    mesh.up(one_object(namespace, context="production", path=str(mine)))
    assert mesh.resources()["cluster-check"]["outputs"]["kubernetes"] == minor(versions.KUBERNETES)
    theirs = write_kubeconfig(tmp_path / "theirs", plane, "prod-eu")
    mine.unlink()
    again = one_object(namespace, context="prod-eu", path=str(theirs))
    assert mesh.preview(again).changes() == {"unchanged": 5}
    assert mesh.up(again).changes() == {"unchanged": 5}
    mesh.destroy()
    assert plane.cluster.get("v1", "ConfigMap", namespace, "one") is None


def new_token(plane: ControlPlane, namespace: str) -> str:
    """Create the ServiceAccount `ops` anew, which voids its tokens, and return a token of it."""
    path = plane.cluster.endpoint("v1", "ServiceAccount").path(namespace)
    if plane.cluster.get("v1", "ServiceAccount", namespace, "ops"):
        plane.cluster.call("DELETE", f"{path}/ops")
    plane.create("v1", "ServiceAccount", namespace, "ops")
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    token: str = plane.cluster.call("POST", f"{path}/ops/token", body=request)["status"]["token"]
    return token


@pytest.fixture
def token(plane: ControlPlane, namespace: str) -> str:
    """A token of the ServiceAccount `ops`, which may do anything."""
    subjects = [{"kind": "ServiceAccount", "name": "ops", "namespace": namespace}]
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    plane.create("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "", f"ops-{namespace}", subjects=subjects, roleRef=role)
    plane.wait_until_may(f"system:serviceaccount:{namespace}:ops", namespace, "create", "configmaps")
    return new_token(plane, namespace)


PLUGIN = """#!/bin/sh
printf '{"apiVersion": "client.authentication.k8s.io/v1beta1", "kind": "ExecCredential", "status": {"token": "%s"}}' "$(cat "${0%/*}/../token")"
"""


@pytest.mark.parametrize(
    "user",
    [
        {"tokenFile": "token"},
        {"exec": {"apiVersion": "client.authentication.k8s.io/v1beta1", "command": "./bin/login", "interactiveMode": "Never"}},
    ],
    ids=["token file", "plugin"],
)
def test_files_beside_a_kubeconfig_are_used_and_a_token_that_ended_is_nobodys_loss(
    mesh: Stack, plane: ControlPlane, namespace: str, token: str, user: dict[str, Any], tmp_path: Path
) -> None:
    file = write_kubeconfig(tmp_path / "theirs" / "config", plane, "production", user)
    (file.parent / "token").write_text(token)
    plugin = file.parent / "bin" / "login"
    plugin.parent.mkdir()
    plugin.write_text(PLUGIN)
    plugin.chmod(0o755)
    declared = one_object(namespace, context="production", path=str(file))
    mesh.up(declared)
    after = new_token(plane, namespace)
    (file.parent / "token").write_text(after)
    assert mesh.preview(declared).changes() == {"unchanged": 5}
    mesh.destroy()
    assert plane.cluster.get("v1", "ConfigMap", namespace, "one") is None
    assert mesh.files_with(token) == mesh.files_with(after) == []


def answer_as_another_cluster(directory: Path) -> None:
    """Put a kubectl on the stack's PATH by which kube-system has another UID."""
    kubectl = program("kubectl")
    file = directory / "kubectl"
    file.write_text(f'#!/bin/sh\ncase "$*" in *"get namespace kube-system"*) echo another-uid ;; *) exec {kubectl} "$@" ;; esac\n')
    file.chmod(0o755)


def test_another_cluster_under_the_same_name_is_refused_by_both_names(
    mesh: Stack, plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    file = write_kubeconfig(tmp_path / "mine", plane, "production")
    declared = one_object(namespace, context="production", path=str(file))
    mesh.up(declared)
    uid = plane.cluster.call("GET", "/api/v1/namespaces/kube-system")["metadata"]["uid"]
    answer_as_another_cluster(tmp_path / "bin")
    for refused in (mesh.preview(declared, fails=True), mesh.up(declared, fails=True)):
        assert "leads to another cluster than the stack's" in refused.output
        assert "another-uid" in refused.output and uid in refused.output and plane.server in refused.output
        assert "Traceback" not in refused.output
    destroyed = mesh.call("destroy", "--stack", STACK, "--yes", "--skip-preview", fails=True)
    assert "another-uid" in destroyed.output, "the program does not run, and the credentials are not given"
    assert plane.cluster.get("v1", "ConfigMap", namespace, "one")


def test_a_first_preview_names_what_is_missing(mesh: Stack, plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    file = write_kubeconfig(tmp_path / "mine", plane, "production")
    refused = mesh.preview(one_object(namespace, context="produktion", path=str(file)), fails=True).output
    assert f"the context produktion of {file} cannot be used" in refused and "(it has: production)" in refused
    refused = mesh.preview(one_object(namespace, context="production", path="~/nowhere"), fails=True).output
    assert "there is no kubeconfig ~/nowhere" in refused
    mesh.environment["PATH"] = str(tmp_path / "bin")
    refused = mesh.preview(one_object(namespace, context="production", path=str(file)), fails=True).output
    assert "kubectl is not on PATH: install it on the computer that runs Pulumi" in refused


def existing(plane: ControlPlane, namespace: str, tmp_path: Path) -> Program:
    """Declare one object in the cluster of the administrator's kubeconfig."""
    return one_object(namespace, context="production", path=str(write_kubeconfig(tmp_path / "mine", plane, "production")))


def test_an_object_of_others_is_refused_before_anything_is_made(mesh: Stack, plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    declared = existing(plane, namespace, tmp_path)
    plane.create("v1", "ConfigMap", namespace, "one", data={"theirs": "1"})
    for refused in (mesh.preview(declared, fails=True), mesh.up(declared, fails=True)):
        assert f"ConfigMap {namespace}/one (without a label of this program)" in refused.output
        assert "Choose other names in the stack file" in refused.output and "Traceback" not in refused.output
    assert "one" not in mesh.resources()
    theirs = plane.cluster.get("v1", "ConfigMap", namespace, "one")
    assert theirs and theirs["data"] == {"theirs": "1"}
    command = next(line for line in refused.output.splitlines() if "kubectl --namespace" in line)
    subprocess.run([*shlex.split(command), "--kubeconfig", tmp_path / "mine", "--context", "production"], check=True, env=mesh.env())
    mesh.up(declared)
    assert (plane.cluster.get("v1", "ConfigMap", namespace, "one") or {})["data"]["a"] == "b", "handed over as the message says"


def test_an_object_that_was_made_since_is_seen_and_one_of_ours_is_not_in_the_way(
    mesh: Stack, plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    declared = existing(plane, namespace, tmp_path)
    mesh.up(declared)
    assert mesh.preview(declared).changes() == {"unchanged": 5}
    mesh.call("state", "delete", "--stack", STACK, "--yes", mesh.resources()["one"]["urn"])
    assert mesh.up(declared).changes() == {"created": 1, "unchanged": 4}, "as after an update that was killed"
    mesh.destroy()
    mesh.up(lambda: None)
    labels = {"app.kubernetes.io/managed-by": "istio-vm-mesh", "istio-vm-mesh/stack": "other.lab"}
    plane.create("v1", "ConfigMap", namespace, "one")
    plane.patch(f"/api/v1/namespaces/{namespace}/configmaps/one", {"metadata": {"labels": labels}})
    assert "(of the stack other.lab)" in mesh.preview(declared, fails=True).output


def application(namespace: str, file: Path, *, exists: bool, resource: str = "web") -> Program:
    """Declare a Service, or use the one that exists."""
    spec = {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]}
    metadata = {"name": "web", "namespace": namespace, "annotations": {"pulumi.com/skipAwait": "true"}}

    def declare() -> None:
        gateway = ExistingGateway(address="192.0.2.1", install=False)
        args = ExistingClusterArgs(network="pods", pod_cidr="10.0.0.0/16", gateway=gateway, context="production", path=str(file))
        cluster = check_cluster("cluster-check", existing_cluster(args))
        options = cluster_options("kubernetes", cluster)
        if exists:
            labels = {"app": "web"}
            used = ExistingObject(
                workload="web",
                kind=SERVICE,
                namespace=namespace,
                name="web",
                labels=labels,
                pod_labels=labels,
                ports={"http": 8080},
                declared_by=resource,
            )
            use_existing(cluster, used)
            service = Service.get(resource, f"{namespace}/web", opts=options)
        else:
            service = Service(resource, metadata=metadata, spec=spec, opts=options)
        pulumi.export("port", service.spec.apply(lambda spec: spec.ports[0].port))

    return declare


def test_a_service_of_others_is_used_and_stays_as_it_is(mesh: Stack, plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    """Also one that this stack created, and that its file declares as existing from now on."""
    file = write_kubeconfig(tmp_path / "mine", plane, "production")
    used = application(namespace, file, exists=True)
    for refused in (mesh.preview(used, fails=True), mesh.up(used, fails=True)):
        assert f"workloads.web.services.web: the namespace {namespace} has no Service web" in refused.output
        assert "Traceback" not in refused.output
    mesh.up(application(namespace, file, exists=False))
    before = plane.cluster.get("v1", "Service", namespace, "web")
    assert "delete" not in mesh.preview(used).changes()
    mesh.up(used)
    assert plane.cluster.get("v1", "Service", namespace, "web") == before
    assert set(mesh.up(used).changes()) == {"unchanged"}
    plane.patch(f"/api/v1/namespaces/{namespace}/services/web", {"spec": {"selector": {"app": "other"}}})
    assert "selects app: other, so machines would never be its endpoints" in mesh.preview(used, fails=True).output
    mesh.destroy()
    assert plane.cluster.get("v1", "Service", namespace, "web"), "it is not this stack's any more"


@pytest.mark.parametrize("exists", [False, True], ids=["created", "read"])
def test_a_service_that_goes_to_another_workload_is_refused_and_stays(
    mesh: Stack, plane: ControlPlane, namespace: str, tmp_path: Path, exists: bool
) -> None:
    """Pulumi would have the new resource take it over, and delete it with the old one."""
    file = write_kubeconfig(tmp_path / "mine", plane, "production")
    mesh.up(application(namespace, file, exists=False))
    moved = application(namespace, file, exists=exists, resource="orders-web")
    for refused in (mesh.preview(moved, fails=True), mesh.up(moved, fails=True)):
        assert f"Service {namespace}/web (web is now orders-web)" in refused.output and "Traceback" not in refused.output
    assert plane.cluster.get("v1", "Service", namespace, "web")
    mesh.up(lambda: None)
    if not exists:
        mesh.up(moved)
        assert plane.cluster.get("v1", "Service", namespace, "web")


def test_a_cluster_that_does_not_let_one_look_is_said(mesh: Stack, plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    plane.create("v1", "ServiceAccount", namespace, "ops")
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "look"}
    subjects = [{"kind": "ServiceAccount", "name": "ops", "namespace": namespace}]
    rules = [{"apiGroups": [""], "resources": ["namespaces"], "resourceNames": ["kube-system"], "verbs": ["get"]}]
    plane.create("rbac.authorization.k8s.io/v1", "Role", "kube-system", f"look-{namespace}", rules=rules)
    binding = {"subjects": subjects, "roleRef": {**role, "name": f"look-{namespace}"}}
    plane.create("rbac.authorization.k8s.io/v1", "RoleBinding", "kube-system", f"look-{namespace}", **binding)
    plane.wait_until_may(f"system:serviceaccount:{namespace}:ops", "kube-system", "get", "namespaces", "kube-system")
    path = f"{plane.cluster.endpoint('v1', 'ServiceAccount').path(namespace)}/ops/token"
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    token = plane.cluster.call("POST", path, body=request)["status"]["token"]
    file = write_kubeconfig(tmp_path / "mine", plane, "production", {"token": token})
    refused = mesh.preview(one_object(namespace, context="production", path=str(file)), fails=True).output
    assert f"the objects in the namespace {namespace} cannot be listed" in refused and "forbidden" in refused


def test_a_namespace_is_removed_last_and_stays_with_what_others_put_into_it(
    mesh: Stack, host: Callable[[Provider], None], plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    host(Command())
    file, shop = write_kubeconfig(tmp_path / "mine", plane, "production"), f"{namespace}-shop"

    def declared() -> None:
        gateway = ExistingGateway(address="192.0.2.1", install=False)
        args = ExistingClusterArgs(network="pods", pod_cidr="10.0.0.0/16", gateway=gateway, context="production", path=str(file))
        cluster = check_cluster("cluster-check", existing_cluster(args))
        options = cluster_options("kubernetes", cluster)
        owned = owned_namespace("shop", {"name": shop}, cluster, options)
        after = pulumi.ResourceOptions(depends_on=owned)
        ConfigMap("one", metadata={"name": "one", "namespace": shop}, opts=pulumi.ResourceOptions.merge(options, after))

    mesh.up(declared)
    plane.create("v1", "ConfigMap", shop, "theirs")
    destroyed = mesh.destroy().output
    assert f"the namespace {shop} stays, because it holds ConfigMap {shop}/theirs" in destroyed
    assert "one" not in mesh.resources()
    assert plane.cluster.get("v1", "ConfigMap", shop, "theirs") and not plane.cluster.get("v1", "ConfigMap", shop, "one")
    mesh.up(declared)
    plane.cluster.call("DELETE", f"/api/v1/namespaces/{shop}/configmaps/theirs")
    assert "stays" not in mesh.destroy().output
    assert plane.cluster.get("v1", "Namespace", "", shop) is None
