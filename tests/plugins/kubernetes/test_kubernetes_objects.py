"""What the provider does with one object, against a real API server."""

from __future__ import annotations

import re
import threading
from typing import Any

import pytest

from tests.plugins.kubernetes.one_resource import Resource
from tests.support.control_plane import ControlPlane
from tools.standins.kubernetes.plugin import Kubernetes
from tools.standins.provider import UNKNOWN, Created, ProviderError, Request, Secret

CONFIG_MAP = "kubernetes:core/v1:ConfigMap"
DEFINITION = "kubernetes:apiextensions.k8s.io/v1:CustomResourceDefinition"


def config_map(namespace: str, name: str = "it", **data: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": data}


def definition(group: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"spec": {"type": "object", "x_kubernetes_preserve_unknown_fields": True}}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"things.{group}"},
        "spec": {
            "group": group,
            "names": {"kind": "Thing", "plural": "things"},
            "scope": "Namespaced",
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }


def test_an_existing_object_is_not_adopted(plane: ControlPlane, provider: Kubernetes, namespace: str) -> None:
    plane.create("v1", "ConfigMap", namespace, "it", data={"theirs": "yes"})
    with pytest.raises(ProviderError, match=r'configmaps "it" already exists: it is not managed by this resource'):
        Resource(provider, CONFIG_MAP).up(config_map(namespace, ours="yes"))
    there = plane.cluster.get("v1", "ConfigMap", namespace, "it")
    assert there and there["data"] == {"theirs": "yes"}


def test_a_removed_field_goes_and_the_fields_of_others_stay(plane: ControlPlane, provider: Kubernetes, namespace: str) -> None:
    resource = Resource(provider, CONFIG_MAP)
    resource.up(config_map(namespace, a="1", b="2"))
    plane.patch(f"/api/v1/namespaces/{namespace}/configmaps/it", {"data": {"theirs": "3"}})
    assert resource.up(config_map(namespace, a="1"))["data"] == {"a": "1", "theirs": "3"}
    current = resource.refresh()
    assert current and current.inputs["data"] == {"a": "1"}, "what others add is no drift"


def test_refresh_sees_changes_by_hand_and_nothing_else(plane: ControlPlane, provider: Kubernetes, namespace: str) -> None:
    """A quantity that the server writes in another way is not drift; neither is what it adds."""
    resource = Resource(provider, "kubernetes:apps/v1:Deployment")
    container = {"name": "it", "image": "it", "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}}}
    labels = {"app": "it"}
    inputs = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "it", "namespace": namespace, "annotations": {"pulumi.com/skipAwait": "true"}},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }
    resource.up(inputs)
    resource.refresh()
    assert not resource.diff(inputs).changes
    plane.patch(f"/apis/apps/v1/namespaces/{namespace}/deployments/it", {"spec": {"replicas": 3, "paused": True}})
    resource.refresh()
    assert resource.diff(inputs).changes == {"spec.replicas": "update"}
    plane.cluster.delete("apps/v1", "Deployment", namespace, "it", "Background")
    assert resource.refresh() is None


def test_a_preview_asks_the_server(provider: Kubernetes, plane: ControlPlane, namespace: str) -> None:
    """By a dry run: defaults are known, what will be chosen later is not, and what the server
    would refuse fails.
    """
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "it", "namespace": namespace}, "spec": {"ports": [{"port": 80}]}}
    resource = Resource(provider, "kubernetes:core/v1:Service")
    state = resource.preview(service)
    assert state["spec"]["clusterIP"] is UNKNOWN and state["metadata"]["uid"] is UNKNOWN and state["spec"]["type"] == "ClusterIP"
    assert plane.cluster.get("v1", "Service", namespace, "it") is None
    with pytest.raises(ProviderError, match=r"spec.ports"):
        resource.preview({**service, "spec": {"ports": [{"port": 80}, {"port": 80}]}})
    # What cannot be asked yet: values, the namespace, the kind.
    unknown = config_map(namespace, a=UNKNOWN)
    assert Resource(provider, CONFIG_MAP).preview(unknown) == unknown
    early = config_map("to-come", a="1")
    assert Resource(provider, CONFIG_MAP).preview(early) == early
    thing = {"apiVersion": "to-come.example.com/v1", "kind": "Thing", "metadata": {"name": "it", "namespace": namespace}}
    assert Resource(provider, "kubernetes:to-come.example.com/v1:Thing").preview(thing) == thing


def test_a_kind_that_appears_while_it_is_waited_for(plane: ControlPlane, provider: Kubernetes, namespace: str) -> None:
    """A custom resource waits for its definition, is found by discovery, and counts as deleted
    when its kind is gone.
    """
    crd = Resource(provider, DEFINITION)
    thing = Resource(provider, "kubernetes:late.example.com/v1:Thing")
    later = threading.Timer(0.7, crd.up, [definition("late.example.com")])
    later.start()
    spec = {
        "apiVersion": "late.example.com/v1",
        "kind": "Thing",
        "metadata": {"name": "it", "namespace": namespace},
        "spec": {"a": {"b": 1}},
    }
    assert thing.up(spec)["spec"] == {"a": {"b": 1}}
    later.join()
    assert (
        crd.state
        and crd.state["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["x_kubernetes_preserve_unknown_fields"]
    )
    changed = definition("late.example.com")
    changed["spec"]["names"]["shortNames"] = ["th"]
    assert crd.up(changed)["spec"]["names"]["shortNames"] == ["th"]
    crd.delete()
    thing.delete()
    assert thing.refresh() is None


def test_deletion_waits_for_finalizers(plane: ControlPlane, provider: Kubernetes, namespace: str) -> None:
    resource = Resource(provider, CONFIG_MAP)
    resource.up(config_map(namespace))
    path = f"/api/v1/namespaces/{namespace}/configmaps/it"
    plane.patch(path, {"metadata": {"finalizers": ["example.com/hold"]}})
    resource.timeout = 0.5
    with pytest.raises(ProviderError, match=r"timed out after 0.5 s waiting for the deletion of ConfigMap it: .*example.com/hold"):
        resource.delete()
    released = threading.Event()

    def release() -> None:
        released.set()
        plane.patch(path, {"metadata": {"finalizers": None}})

    threading.Timer(0.5, release).start()
    resource.timeout = 200
    resource.delete()
    assert released.is_set()
    resource.delete()  # Something absent is fine.


def test_secrets_stay_secret(plane: ControlPlane, provider: Kubernetes, namespace: str) -> None:
    """In the state, wherever they went, and in errors, where servers like to quote."""
    resource = Resource(provider, CONFIG_MAP)
    state = resource.up(config_map(namespace, open="a", hidden=Secret("canary")))
    assert state["data"] == {"open": "a", "hidden": Secret("canary")} and state["__inputs"]["data"]["hidden"] == Secret("canary")
    plane.patch(f"/api/v1/namespaces/{namespace}/configmaps/it", {"data": {"hidden": "changed"}})
    current = resource.refresh()
    assert current and current.inputs["data"]["hidden"] == Secret("changed") == current.state["data"]["hidden"]
    with pytest.raises(ProviderError) as failure:
        Resource(provider, CONFIG_MAP).up(config_map(namespace) | {"metadata": {"name": Secret("Not_A_Name!"), "namespace": namespace}})
    assert "[secret]" in str(failure.value) and "Not_A_Name!" not in str(failure.value)


def test_reading_something_that_was_not_declared(plane: ControlPlane, provider: Kubernetes, namespace: str) -> None:
    plane.create("v1", "Secret", namespace, "theirs", stringData={"a": "b"})

    def read(type: str, id: str) -> Any:
        return provider.read(Request("urn", type, "it", id=id))

    secret = read("kubernetes:core/v1:Secret", f"{namespace}/theirs")
    assert secret.id == f"{namespace}/theirs" and secret.state["data"] == Secret({"a": "Yg=="}) and secret.state["metadata"]["uid"]
    assert "uid" not in secret.inputs["metadata"]
    assert read("kubernetes:core/v1:Namespace", namespace).state["metadata"]["name"] == namespace
    assert read("kubernetes:core/v1:Secret", f"{namespace}/absent") is None
    assert read("kubernetes:absent.example.com/v1:Thing", f"{namespace}/absent") is None


def test_names_and_namespaces(plane: ControlPlane, namespace: str) -> None:
    """A generated name is kept; an object goes to the provider's namespace unless it has one or
    lives outside of namespaces.
    """
    provider = Kubernetes()
    provider.configure({"kubeconfig": plane.kubeconfig, "namespace": namespace})
    resource = Resource(provider, CONFIG_MAP, name="settings")
    inputs: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "1"}}
    state = resource.up(inputs)
    assert resource.id == f"{namespace}/{state['metadata']['name']}" and state["metadata"]["name"].startswith("settings-")
    difference = resource.diff({**inputs, "data": {"a": "2"}})
    assert difference.changes == {"data.a": "update"} == dict.fromkeys(difference.replaces, "update")
    assert not difference.delete_before_replace, "the next one gets another name"
    role = Resource(provider, "kubernetes:rbac.authorization.k8s.io/v1:ClusterRole")
    role.up({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": f"role-{namespace}"}, "rules": []})
    assert role.id == f"role-{namespace}"
    role.delete()


def test_a_cluster_that_does_not_answer(plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = Kubernetes()
    provider.configure({"kubeconfig": re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:1", plane.kubeconfig)})
    resource = Resource(provider, CONFIG_MAP, id="default/it", inputs=config_map("default"), state=config_map("default"))
    with pytest.raises(ProviderError, match=r"does not answer.*PULUMI_K8S_DELETE_UNREACHABLE=true"):
        resource.refresh()
    monkeypatch.setenv("PULUMI_K8S_DELETE_UNREACHABLE", "true")
    assert resource.refresh() is None
    resource.delete()
    assert isinstance(provider.create(resource.request(inputs=config_map("default"), preview=True)), Created)
