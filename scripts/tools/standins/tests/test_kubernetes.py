"""The pure parts of the kubernetes stand-in: differences, replacement, drift, secrets,
kubeconfigs, provider settings.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from ..kubernetes import charts, kubeconfig, objects, wait
from ..kubernetes.plugin import Kubernetes
from ..provider import UNKNOWN, ProviderError, Request, Secret

BOTH = frozenset({"ConfigMap", "Secret"})


def thing(api_version: str, kind: str, **fields: Any) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": "it", "namespace": "here"}, **fields}


@pytest.mark.parametrize(
    ("old", "new", "replaced"),
    [
        (
            thing("v1", "Service", spec={"clusterIP": "10.0.0.1"}),
            thing("v1", "Service", spec={"clusterIP": "10.0.0.2"}),
            {"spec.clusterIP"},
        ),
        (thing("v1", "Service", spec={"clusterIP": "10.0.0.1"}), thing("v1", "Service"), {"spec"}),
        (thing("v1", "Service", spec={"ports": []}), thing("v1", "Service"), set()),
        (
            thing("apps/v1", "Deployment", spec={"selector": {"matchLabels": {"a": "1"}}, "replicas": 1}),
            thing("apps/v1", "Deployment", spec={"selector": {"matchLabels": {"a": "2"}}, "replicas": 2}),
            {"spec.selector.matchLabels.a"},
        ),
        (
            thing("batch/v1", "Job", spec={"template": {"spec": {"containers": [{"image": "a"}]}}, "backoffLimit": 1}),
            thing("batch/v1", "Job", spec={"template": {"spec": {"containers": [{"image": UNKNOWN}]}}, "backoffLimit": 2}),
            {"spec.template.spec.containers[0].image"},
        ),
        (
            thing("rbac.authorization.k8s.io/v1", "RoleBinding", roleRef={"name": "a"}),
            thing("rbac.authorization.k8s.io/v1", "RoleBinding", roleRef={"name": "b"}),
            {"roleRef.name"},
        ),
        (thing("v1", "Secret", type="Opaque"), thing("v1", "Secret", type="example.com/other"), {"type"}),
        (thing("v1", "ConfigMap", data={"a": "1"}), thing("v1", "ConfigMap", data={"a": "2"}), {"data.a"}),
        (thing("v1", "Secret", data=Secret({"a": "1"})), thing("v1", "Secret", data=Secret({"a": "2"})), {"data.a"}),
        (thing("networking.istio.io/v1beta1", "WorkloadGroup"), thing("networking.istio.io/v1", "WorkloadGroup"), set()),
        (thing("extensions/v1", "Thing"), thing("example.com/v1", "Thing"), {"apiVersion"}),
        (thing("v1", "ConfigMap"), {**thing("v1", "ConfigMap"), "metadata": {"name": "other", "namespace": "here"}}, {"metadata.name"}),
        (thing("v1", "ConfigMap"), {**thing("v1", "ConfigMap"), "metadata": {"name": "it"}}, {"metadata.namespace"}),
    ],
)
def test_what_forces_a_replacement(old: dict[str, Any], new: dict[str, Any], replaced: set[str]) -> None:
    assert objects.replacing(objects.changes(old, new, "default"), old, new, frozenset()) == replaced


def test_data_changes_in_place_where_the_provider_says_so() -> None:
    for kind in ("ConfigMap", "Secret"):
        old, new = thing("v1", kind, data={"a": "1"}), thing("v1", kind, data={"a": "2"})
        changes = objects.changes(old, new, "default")
        assert objects.replacing(changes, old, new, BOTH) == set()
        assert objects.replacing(changes, old, {**new, "immutable": True}, BOTH) == {"data.a"}


def test_a_namespace_left_out_is_the_default_one() -> None:
    without = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "it"}}
    assert objects.changes(without, thing("v1", "ConfigMap"), "here") == {}
    assert objects.changes(without, thing("v1", "ConfigMap"), "default") == {"metadata.namespace": "add"}
    assert objects.same_place(without, thing("v1", "ConfigMap"), "here") and not objects.same_place(
        without, thing("v1", "ConfigMap"), "there"
    )


@pytest.mark.parametrize(
    ("inputs", "before", "now", "expected"),
    [
        ({"cpu": 0.5}, {"cpu": "500m", "x": 1}, {"cpu": "500m", "x": 2}, {"cpu": 0.5}),
        ({"cpu": 0.5}, {"cpu": "500m"}, {"cpu": "1"}, {"cpu": "1"}),
        ({"a": 1, "b": 2}, {"a": 1, "b": 2}, {"a": 1}, {"a": 1}),
        ({"stringData": {"a": "b"}}, {"data": {}}, {"data": {"c": "d"}}, {"stringData": {"a": "b"}}),
        ({"list": [{"a": 1}]}, {"list": [{"a": 1, "z": 0}]}, {"list": [{"a": 2, "z": 0}]}, {"list": [{"a": 2}]}),
        ({"list": [1]}, {"list": [1]}, {"list": [1, 2]}, {"list": [1, 2]}),
    ],
)
def test_drift_is_what_changed_since_it_was_last_seen(inputs: Any, before: Any, now: Any, expected: Any) -> None:
    assert objects.drifted(inputs, before, now) == expected


def test_secrets() -> None:
    inputs = objects.normalised(thing("v1", "Secret", stringData={"a": Secret("b")}, data={"c": "ZA=="}))
    assert inputs["data"] == Secret({"c": "ZA==", "a": "Yg=="}) and "stringData" not in inputs
    unknown = objects.normalised(thing("v1", "Secret", stringData={"a": UNKNOWN}))
    assert unknown["stringData"] == Secret({"a": UNKNOWN})
    assert objects.as_secret_as({"a": {"b": 1, "c": 2}, "l": [1, 2]}, {"a": {"b": Secret(1)}, "l": [1, Secret(2)]}) == {
        "a": {"b": Secret(1), "c": 2},
        "l": Secret([1, 2]),
    }
    encoded = base64.b64encode(b"password").decode()
    assert (
        objects.redacted(f"no password, no {encoded}, but open", {"a": Secret(encoded), "b": "open"})
        == "no [secret], no [secret], but open"
    )


def test_names() -> None:
    anonymous = {"apiVersion": "v1", "kind": "ConfigMap"}
    first = objects.named(anonymous, {}, "settings", b"seed")
    assert first["metadata"]["name"] == objects.named(anonymous, {}, "settings", b"seed")["metadata"]["name"] != "settings"
    assert objects.named(anonymous, first, "settings", b"another")["metadata"] == first["metadata"]
    assert not objects.same_place(first, first, "default"), "a generated name can be given again, so the old object need not go first"
    assert objects.named(thing("v1", "ConfigMap"), first, "settings", b"")["metadata"]["name"] == "it"
    assert objects.type_of("kubernetes:core/v1:ConfigMap") == ("v1", "ConfigMap")
    assert objects.type_of("kubernetes:networking.istio.io/v1:Gateway") == ("networking.istio.io/v1", "Gateway")


def settings(**more: Any) -> dict[str, Any]:
    clusters = [{"name": name, "cluster": {"server": f"https://{name}:6443/"}} for name in ("one", "two")]
    contexts = [{"name": name, "context": {"cluster": name, "user": "me", "namespace": "ns"}} for name in ("one", "two")]
    config = {"clusters": clusters, "contexts": contexts, "users": [{"name": "me", "user": {"token": "t"}}], "current-context": "one"}
    return {"kubeconfig": json.dumps(config), **more}


def test_kubeconfig(tmp_path: Path) -> None:
    text = settings()["kubeconfig"]
    one = kubeconfig.parse(text)
    assert (one.server, one.namespace, one.token) == ("https://one:6443", "ns", "t") and "t" not in repr(one).split("https://one:6443")[1]
    assert kubeconfig.parse(text, context="two").server == "https://two:6443" == kubeconfig.parse(text, cluster="two").server
    (tmp_path / "config").write_text(text)
    assert kubeconfig.parse(str(tmp_path / "config")) == one == kubeconfig.parse(one.text("ns"))
    with pytest.raises(ProviderError, match="has no context 'three'"):
        kubeconfig.parse(text, context="three")
    with pytest.raises(ProviderError, match="does not implement the login by 'username'"):
        kubeconfig.parse(text.replace('"token": "t"', '"username": "admin"'))
    login = tmp_path / "login"
    login.write_text('#!/bin/sh\nprintf \'{"apiVersion": "%s", "status": {"token": "of %s"}}\' "$1" "$WHO"\n')
    login.chmod(0o755)
    plugin = {"command": str(login), "args": ["v1"], "env": [{"name": "WHO", "value": "me"}], "apiVersion": "v1"}
    by_plugin = text.replace('"token": "t"', f'"exec": {json.dumps(plugin)}')
    assert kubeconfig.parse(by_plugin).token == "of me" and kubeconfig.parse(by_plugin, log_in=False).token == ""
    with pytest.raises(ProviderError, match="answers in v1, and the kubeconfig requires v2"):
        kubeconfig.parse(by_plugin.replace('"apiVersion": "v1"', '"apiVersion": "v2"'))
    with pytest.raises(ProviderError, match="not YAML") as failure:
        kubeconfig.parse("a: [\nclient-key-data: canary")
    assert "canary" not in str(failure.value)
    with kubeconfig.memory_file("secret") as (path, _):
        assert Path(path).read_text() == "secret" and Path(path).stat().st_mode & 0o777 == 0o600


def diff_config(old: dict[str, Any], new: dict[str, Any]) -> set[str]:
    return set(Kubernetes().diff_config(Request("", "", "", old_inputs=old, inputs=new)).replaces)


def test_which_settings_replace_everything() -> None:
    """The identifier alone where there is one, else another server."""
    there, two = settings(context="two"), settings(context="two", clusterIdentifier="a")
    assert diff_config(settings(), settings()) == set()
    assert diff_config(settings(), there) == {"context"}
    assert diff_config(settings(), settings(kubeconfig=UNKNOWN)) == {"kubeconfig"}
    assert diff_config(settings(clusterIdentifier="a"), two) == set()
    assert diff_config(settings(clusterIdentifier="a"), settings(kubeconfig=UNKNOWN, clusterIdentifier="a")) == set()
    assert diff_config(two, settings(context="two", clusterIdentifier="b")) == {"clusterIdentifier"}
    assert diff_config(there, two) == set(), "naming a cluster later changes nothing"


def test_what_is_refused() -> None:
    provider = Kubernetes()
    for type in (
        "core/v1:ConfigMap",
        "networking.istio.io/v1:WorkloadGroup",
        "helm.sh/v3:Release",
        "apps/v1:Deployment",
        "core/v1:Namespace",
    ):
        assert provider.supports(f"kubernetes:{type}"), type
    for type in ("apps/v1:StatefulSet", "core/v1:ConfigMapPatch", "core/v1:ConfigMapList", "yaml/v2:ConfigGroup", "helm.sh/v3:Chart"):
        assert not provider.supports(f"kubernetes:{type}"), type

    def failures(**more: Any) -> list[str]:
        return [each.reason for each in provider.check_config(Request("", "", "", inputs=settings(**more))).failures]

    assert failures(enableServerSideApply="true", enablePatchForce="false", version="4.32.0") == []
    assert "does not implement the provider setting 'deleteUnreachable'" in failures(deleteUnreachable="true")[0]
    assert "a provider without `kubeconfig`" in failures(kubeconfig="")[0]
    for annotation in ("pulumi.com/waitFor", "pulumi.com/patchFieldManager"):
        provider.configure(settings())
        metadata = {"name": "it", "annotations": {annotation: "x"}}
        with pytest.raises(ProviderError, match=f"does not implement the annotation '{annotation}'"):
            provider.check(Request("", "kubernetes:core/v1:ConfigMap", "it", inputs={**thing("v1", "ConfigMap"), "metadata": metadata}))


def test_charts(tmp_path: Path) -> None:
    (tmp_path / "Chart.yaml").write_text("name: it\nversion: 1.2.3\n")
    assert charts.version(tmp_path) == "1.2.3"
    assert charts.local_path(str(tmp_path), "") == tmp_path
    assert charts.local_path("base", "https://charts.example.com") is None is charts.local_path("oci://charts.example.com/base", "")
    with pytest.raises(ProviderError, match="no chart at"):
        charts.local_path(str(tmp_path / "absent"), "")
    objects_of_chart = charts.manifest(
        {"manifest": "---\n# nothing\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a, namespace: b}\n"}
    )
    assert charts.resource_names(objects_of_chart) == {"Deployment.apps/apps/v1": ["b/a"]}


def test_a_service_without_endpoints_of_its_own_is_ready_at_once() -> None:
    nowhere: Any = None
    specs: list[dict[str, Any]] = [
        {"ports": []},
        {"clusterIP": "None", "selector": {"a": "b"}},
        {"type": "ExternalName", "selector": {"a": "b"}},
    ]
    for spec in specs:
        check = wait.check_for(thing("v1", "Service"))
        assert check and check(nowhere, thing("v1", "Service", spec=spec)).ready
