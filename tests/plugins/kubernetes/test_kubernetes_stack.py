"""A stack of Kubernetes objects through the real engine, against a real API server."""

from __future__ import annotations

import json
from typing import Any

import pulumi
import pulumi_kubernetes
import pytest

from tests.support.cli_stack import Stack
from tests.support.control_plane import ControlPlane

CANARY = "canary-8c1f2e"
CANARY_ENCODED = "Y2FuYXJ5LThjMWYyZQ=="


def test_life_of_a_stack(plane: ControlPlane, objects: Stack, namespace: str) -> None:
    """Create, nothing to do, a change with its dry run, drift and refresh, replace, destroy."""
    settings = {"color": "red", "role": "view"}
    force: dict[str, str] = {}

    def program() -> None:
        provider = pulumi_kubernetes.Provider(
            "cluster",
            kubeconfig=pulumi.Output.secret(plane.kubeconfig),
            cluster_identifier="test",
            enable_config_map_mutable=True,
            enable_secret_mutable=True,
        )
        options = pulumi.ResourceOptions(provider=provider)
        metadata: dict[str, Any] = {"name": "settings", "namespace": namespace, "annotations": force}
        config = pulumi_kubernetes.core.v1.ConfigMap("settings", metadata=metadata, data={"color": settings["color"]}, opts=options)
        token = pulumi.Output.secret(CANARY)
        pulumi_kubernetes.core.v1.Secret("token", metadata={"namespace": namespace}, string_data={"token": token}, opts=options)
        pulumi_kubernetes.rbac.v1.RoleBinding(
            "binding",
            metadata={"name": "binding", "namespace": namespace},
            role_ref={"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": settings["role"]},
            subjects=[{"kind": "User", "name": "somebody", "apiGroup": "rbac.authorization.k8s.io"}],
            opts=options,
        )
        service = pulumi_kubernetes.core.v1.Service(
            "service", metadata={"name": "service", "namespace": namespace}, spec={"ports": [{"port": 80}]}, opts=options
        )
        there = pulumi_kubernetes.core.v1.ConfigMap.get("there", pulumi.Output.concat(namespace, "/there"), opts=options)
        pulumi.export("uid", config.metadata["uid"])
        pulumi.export("address", service.spec["cluster_ip"])
        pulumi.export("there", there.data["note"])

    def outputs() -> dict[str, Any]:
        return json.loads(objects.call("stack", "output", "--json", "--stack", "lab").output)

    plane.create("v1", "ConfigMap", namespace, "there", data={"note": "made by somebody else"})

    first = objects.up(program)
    exported = outputs()
    assert exported["address"].startswith("10.96.") and exported["there"] == "made by somebody else"
    name = objects.resources()["token"]["outputs"]["metadata"]["name"]
    assert name.startswith("token-")
    stored = plane.cluster.get("v1", "Secret", namespace, name)
    assert stored and stored["data"] == {"token": CANARY_ENCODED}
    assert CANARY not in first.output and CANARY_ENCODED not in first.output
    assert not objects.files_with(CANARY) and not objects.files_with(CANARY_ENCODED)
    assert not objects.files_with(json.loads(plane.kubeconfig)["users"][0]["user"]["client-key"])

    assert objects.up(program).changes() == {"unchanged": 6}

    settings["color"] = "blue"
    assert '~ color: "red" => "blue"' in objects.preview(program, "--diff").output
    assert objects.up(program).changes() == {"updated": 1, "unchanged": 5}
    assert outputs() == exported

    touched = [line for line in objects.refresh().output.splitlines() if " updated (" in line]
    assert len(touched) == 1 and "ConfigMap there" in touched[0], "nobody touched anything; what was only read counts as updated"
    plane.patch(f"/api/v1/namespaces/{namespace}/configmaps/settings", {"data": {"color": "green"}})
    assert objects.refresh().changes()["updated"] == 1
    # Their field manager owns the field now; the dry run finds out that taking it back has to be
    # asked for.
    refused = objects.preview(program, fails=True).output
    assert 'conflict with "a-person"' in refused
    force["pulumi.com/patchForce"] = "true"
    assert '~ color: "green" => "blue"' in objects.preview(program, "--diff").output
    # A binding's role cannot change in place: it has a name of its own, so the old one goes first.
    settings["role"] = "edit"
    assert objects.up(program).changes() == {"updated": 1, "replaced": 1, "changes": 2, "unchanged": 4}

    objects.destroy()
    assert plane.cluster.list("v1", "Service", namespace) == []
    assert plane.cluster.get("v1", "ConfigMap", namespace, "there"), "what was only read stays"


def test_a_cluster_that_is_yet_to_come(plane: ControlPlane, objects: Stack, namespace: str) -> None:
    """An unknown kubeconfig does not disturb a preview, nor do unknown inputs; what is chosen by
    the server is unknown until it is.
    """

    def program() -> None:
        here = pulumi.ResourceOptions(provider=pulumi_kubernetes.Provider("here", kubeconfig=plane.kubeconfig))
        metadata = {"namespace": namespace}
        service = pulumi_kubernetes.core.v1.Service("service", metadata=metadata, spec={"ports": [{"port": 80}]}, opts=here)
        address = service.spec["cluster_ip"].apply(lambda ip: f"http://{ip}")
        pulumi_kubernetes.core.v1.ConfigMap("depends", metadata=metadata, data={"address": address}, opts=here)
        later = service.metadata["uid"].apply(lambda _: plane.kubeconfig)
        there = pulumi.ResourceOptions(provider=pulumi_kubernetes.Provider("there", kubeconfig=later, cluster_identifier="test"))
        pulumi_kubernetes.core.v1.ConfigMap("there", metadata=metadata, data={}, opts=there)

    assert objects.preview(program).changes() == {"create": 6}
    assert objects.up(program).changes() == {"created": 6}
    assert objects.resources()["depends"]["outputs"]["data"]["address"].startswith("http://10.96.")


@pytest.mark.standin
def test_unsupported_kinds_are_refused_by_name(plane: ControlPlane, objects: Stack) -> None:
    """What is not implemented is refused by name, already in the preview."""

    def program() -> None:
        provider = pulumi_kubernetes.Provider("cluster", kubeconfig=plane.kubeconfig)
        pulumi_kubernetes.apps.v1.StatefulSet("database", opts=pulumi.ResourceOptions(provider=provider))

    output = objects.preview(program, fails=True).output
    assert "stand-in for the kubernetes provider does not implement kubernetes:apps/v1:StatefulSet; install the official plugin" in output
