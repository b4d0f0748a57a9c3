"""What the program relies on in the `kubernetes` plugin, seen in its source
(`provider/pkg/provider`, `provider/pkg/await`) and run against it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

import pulumi
import pulumi_kubernetes
import pytest

from tests.support.cli_stack import Stack
from tests.support.control_plane import ControlPlane
from tests.support.waiting import wait_until

Wanted = dict[str, Any]


@pytest.fixture
def program(plane: ControlPlane, namespace: str) -> Callable[..., Callable[[], None]]:
    """Makes programs: a provider with the given settings, and ConfigMaps and Services in the
    test's namespace.
    """

    def make(maps: dict[str, Wanted], services: dict[str, Wanted] | None = None, **settings: Any) -> Callable[[], None]:
        def run() -> None:
            provider = pulumi_kubernetes.Provider("cluster", kubeconfig=plane.kubeconfig, cluster_identifier="test", **settings)
            options = pulumi.ResourceOptions(provider=provider)
            for name, data in maps.items():
                pulumi_kubernetes.core.v1.ConfigMap(name, metadata={"name": name, "namespace": namespace}, data=data, opts=options)
            for name, notes in (services or {}).items():
                metadata = {"name": name, "namespace": namespace, "annotations": notes}
                pulumi_kubernetes.core.v1.Service(
                    name, metadata=metadata, spec={"type": "LoadBalancer", "ports": [{"port": 80}]}, opts=options
                )

        return run

    return make


def data(plane: ControlPlane, namespace: str, name: str) -> Any:
    config_map = plane.cluster.get("v1", "ConfigMap", namespace, name)
    return config_map and config_map["data"]


def test_an_existing_object_is_refused_unless_it_may_be_upserted(
    plane: ControlPlane, objects: Stack, namespace: str, program: Callable[..., Any]
) -> None:
    """It is somebody else's and refused, unless the provider is told otherwise; a preview finds
    nothing wrong.
    """
    plane.create("v1", "ConfigMap", namespace, "it", data={"theirs": "1", "both": "1"})
    assert objects.preview(program({"it": {"both": "2"}})).changes() == {"create": 3}
    assert "already exists" in objects.up(program({"it": {"both": "2"}}), fails=True).output
    assert data(plane, namespace, "it") == {"theirs": "1", "both": "1"}
    upsert = {"upsert_existing_objects": True}
    assert 'conflict with "a-person"' in objects.up(program({"it": {"both": "2"}}, **upsert), fails=True).output
    objects.up(program({"it": {"both": "2"}}, **upsert, enable_patch_force=True))
    assert data(plane, namespace, "it") == {"theirs": "1", "both": "2"}


@pytest.mark.parametrize("upsert", [False, True])
def test_fields_of_the_first_up_can_change_and_go(
    plane: ControlPlane, objects: Stack, namespace: str, program: Callable[..., Any], upsert: bool
) -> None:
    """They are the resource's own, however the object was made; fields of others stay."""
    settings = {"enable_config_map_mutable": True, "upsert_existing_objects": upsert}
    objects.up(program({"it": {"changes": "1", "goes": "1"}}, **settings))
    plane.patch(f"/api/v1/namespaces/{namespace}/configmaps/it", {"data": {"theirs": "1"}})
    assert objects.up(program({"it": {"changes": "2", "comes": "2"}}, **settings)).changes() == {"updated": 1, "unchanged": 2}
    assert data(plane, namespace, "it") == {"changes": "2", "comes": "2", "theirs": "1"}


def test_a_load_balancer_waits_for_its_address_and_is_saved_when_interrupted(
    plane: ControlPlane, objects: Stack, namespace: str, program: Callable[..., Any]
) -> None:
    """A balancer without an address is waited for, unless an annotation says not to. What is
    interrupted is saved, and gone on with.
    """
    skips, waits = {"pulumi.com/skipAwait": "true"}, {"pulumi.com/timeoutSeconds": "60"}
    objects.up(program({}, {"skips": skips}))
    with objects.updating(program({}, {"skips": skips, "waits": waits})) as process:
        wait_until(lambda: plane.cluster.get("v1", "Service", namespace, "waits") is not None)
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert process.returncode != 0
    saved = objects.resources()["waits"]
    assert saved["initErrors"] and saved["id"] == f"{namespace}/waits"
    path = f"/api/v1/namespaces/{namespace}/services/waits"
    plane.patch(f"{path}/status", {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}})
    assert objects.up(program({}, {"skips": skips, "waits": waits})).changes() == {"updated": 1, "unchanged": 3}
    outputs = objects.resources()["waits"]["outputs"]
    assert outputs["status"]["loadBalancer"]["ingress"][0]["ip"] == "192.0.2.1"


def test_deletion_waits_for_finalizers(plane: ControlPlane, objects: Stack, namespace: str, program: Callable[..., Any]) -> None:
    objects.up(program({"it": {}}))
    path = f"/api/v1/namespaces/{namespace}/configmaps/it"
    plane.patch(path, {"metadata": {"finalizers": ["example.com/hold"]}})

    def going() -> bool:
        config_map = plane.cluster.get("v1", "ConfigMap", namespace, "it")
        return config_map is not None and "deletionTimestamp" in config_map["metadata"]

    def release() -> None:
        try:
            wait_until(going)
            gone_early.append("it" not in objects.resources())
        finally:  # else the destruction would wait
            plane.patch(path, {"metadata": {"finalizers": None}})

    gone_early: list[bool] = []
    helper = threading.Thread(target=release)
    helper.start()
    objects.destroy()
    helper.join()
    assert gone_early == [False] and objects.resources() == {}
    assert plane.cluster.get("v1", "ConfigMap", namespace, "it") is None


def test_a_generated_name_is_kept_and_a_replacement_gets_another(plane: ControlPlane, objects: Stack, namespace: str) -> None:
    def run(value: str, label: str) -> None:
        provider = pulumi_kubernetes.Provider("cluster", kubeconfig=plane.kubeconfig, cluster_identifier="test")
        metadata = {"namespace": namespace, "labels": {"of": label}}
        pulumi_kubernetes.core.v1.ConfigMap("it", metadata=metadata, data={"a": value}, opts=pulumi.ResourceOptions(provider=provider))

    def name() -> str:
        return str(objects.resources()["it"]["outputs"]["metadata"]["name"])

    objects.up(lambda: run("1", "x"))
    first = name()
    assert first.startswith("it-")
    assert objects.up(lambda: run("1", "y")).changes() == {"updated": 1, "unchanged": 2}
    assert name() == first
    assert objects.up(lambda: run("2", "y")).changes() == {"replaced": 1, "unchanged": 2}
    assert name() != first and data(plane, namespace, first) is None


def test_the_state_has_the_official_shape(objects: Stack, program: Callable[..., Any]) -> None:
    """So that a state of one plugin continues with the other."""
    objects.up(program({"it": {"a": "1"}}))
    saved = objects.resources()["it"]
    assert set(saved["outputs"]) == {"apiVersion", "data", "kind", "metadata", "__fieldManager", "__initialApiVersion", "__inputs"}
    assert saved["outputs"]["__inputs"] == saved["inputs"]
    assert saved["outputs"]["__initialApiVersion"] == "v1" and saved["outputs"]["__fieldManager"].startswith("pulumi-kubernetes-")
    assert saved["outputs"]["metadata"]["managedFields"]


def test_a_field_that_a_kind_does_not_have_is_refused(plane: ControlPlane, objects: Stack, namespace: str) -> None:
    """The server would drop it, and the object would lack what the program states."""

    def program(create_namespace: bool = False) -> None:
        provider = pulumi_kubernetes.Provider("cluster", kubeconfig=plane.kubeconfig, cluster_identifier="test")
        options = pulumi.ResourceOptions(provider=provider)
        place = f"{namespace}-to-come" if create_namespace else namespace
        if create_namespace:
            there = pulumi_kubernetes.core.v1.Namespace("to-come", metadata={"name": place}, opts=options)
            options = pulumi.ResourceOptions(provider=provider, depends_on=[there])
        spec = {"ports": [{"port": 80, "protcol": "UDP"}]}
        metadata = {"name": "it", "namespace": place, "annotations": {"pulumi.com/skipAwait": "true"}}
        pulumi_kubernetes.core.v1.Service("it", metadata=metadata, spec=spec, opts=options)

    assert "protcol" in objects.preview(program, fails=True).output
    assert "protcol" in objects.up(lambda: program(create_namespace=True), fails=True).output
    assert plane.cluster.get("v1", "Service", f"{namespace}-to-come", "it") is None
    objects.destroy()
