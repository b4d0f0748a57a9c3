"""A mesh that exists is read by kubectl, refused by name, and unknown where a cluster does not answer."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import pytest
from pulumi.runtime.rpc import UNKNOWN

from components import mesh_facts
from components.istio.adoption import Adoption
from components.istio.mesh_reading import MeshReadingProvider
from components.local import cluster_access, scripting
from components.local.cluster_access import ClusterAccess, Unreachable
from tests.support.meshes import MESHES, of_cluster

WANTED = Adoption(
    namespace="istio-system",
    revision=None,
    version="1.31.0",
    hub="",
    network="pods",
    other_networks=(),
    created_namespaces={"billing": {}},
    other_namespaces=("shop",),
    pods={"billing": ["billing"], "shop": ["goods"]},
    unrestricted_pods={},
    stack="mesh.prod",
)


def labelled(objects: list[Any], words: tuple[str, ...]) -> list[Any]:
    """Return the objects that kubectl lists by the label of a network."""
    label, _, value = words[words.index("--selector") + 1].partition("=")
    assert "--all-namespaces" in words
    return [each for each in objects if each["metadata"]["labels"].get(label) == value]


class TheirCluster:
    """A cluster with a mesh of meshes.yaml.

    namespaces: labels by name. elsewhere: the namespaces in which istiod runs besides.
    injectors: the webhooks of sidecar injectors; None where this user may not read them.
    failure: what kubectl says to everything; "" for a cluster that answers.
    """

    def __init__(self, mesh: str) -> None:
        self.mesh = copy.deepcopy(MESHES[mesh])
        self.namespaces: dict[str, dict[str, str]] = {self.mesh["namespace"]: {}, "shop": {}}
        self.elsewhere: list[str] = []
        self.failure = ""
        self.injectors: list[Any] | None = None
        self.services: list[Any] = []
        self.gateways: list[Any] = []

    @contextmanager
    def kubectl(self, _access: ClusterAccess) -> Iterator[Any]:
        """Stand in for `cluster_access.kubectl`."""
        if self.failure:
            raise Unreachable(self.failure)
        yield self

    def check(self, *words: str, purpose: str, timeout_s: float) -> scripting.Done:
        """Stand in for kubectl."""
        assert purpose and timeout_s
        kind, words = words[2], words[3:]
        items = self._items(kind, words)
        text = json.dumps({"items": items}) if items or "--ignore-not-found" not in words else ""
        return scripting.Done(0, (json.dumps(items[0]) if len(items) == 1 and kind == "configmaps" else text).encode(), b"")

    def json(self, *words: str) -> Any:
        """Stand in for kubectl, for what may fail."""
        if "mutatingwebhookconfigurations" in words:
            return self.injectors and {"items": self.injectors}
        assert "--all-namespaces" in words
        return {"items": [{"metadata": {"namespace": name}} for name in self.elsewhere]}

    def _items(self, kind: str, words: tuple[str, ...]) -> list[Any]:
        here = "--namespace" in words and words[words.index("--namespace") + 1] == self.mesh["namespace"]
        if kind == "deployments":
            return self.mesh["deployments"] if here else []
        if kind == "configmaps":
            return [{"metadata": {"name": name}, "data": data} for name, data in self.mesh["config_maps"].items() if name in words and here]
        if kind == "namespaces":
            return [{"metadata": {"name": name, "labels": labels}} for name, labels in self.namespaces.items() if name in words]
        if kind == "services":
            return labelled(self.services, words)
        if kind == "customresourcedefinitions":
            return [{"metadata": {"name": words[0]}}] if self.gateways else []
        if kind == "gateways.gateway.networking.k8s.io":
            return labelled(self.gateways, words)
        assert kind == "mutatingwebhookconfigurations"
        return [each for each in self.mesh["webhooks"] if "istio.io/tag" in each["metadata"]["labels"]]


def read(cluster: TheirCluster, monkeypatch: pytest.MonkeyPatch, preview: bool = True, **changes: Any) -> tuple[Any, list[str]]:
    """Return the facts that a check gives, and why it fails."""
    monkeypatch.setattr(cluster_access, "kubectl", cluster.kubectl)
    dialled = changes.pop("gateway_address", None)
    wanted = replace(WANTED, namespace=changes.pop("namespace", cluster.mesh["namespace"]), **changes)
    news = {
        "access": json.dumps(asdict(ClusterAccess())),
        "wanted": json.dumps(asdict(wanted)),
        "preview": preview,
        "facts": None,
        "gateway_address": dialled,
    }
    result = MeshReadingProvider().check({}, news)
    assert "preview" not in result.inputs, "else every update after a preview would show a difference"
    return result.inputs["facts"], [failure.reason for failure in result.failures]


@pytest.mark.parametrize(
    ("mesh", "changes"),
    [
        ("default", {}),
        ("revisioned", {"revision": "prod"}),
        ("revisioned", {"revision": "1-31"}),
        ("revisioned", {}),
        ("elsewhere", {"network": "vpc", "revision": "stable", "created_namespaces": {}}),
    ],
)
def test_meshes_as_people_have_them_are_read(mesh: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = TheirCluster(mesh)
    cluster.namespaces = {name: {"mesh": "yes"} for name in cluster.namespaces}
    text, failures = read(cluster, monkeypatch, **changes)
    assert not failures
    assert mesh_facts.decode(text) == of_cluster(MESHES[mesh], changes.get("revision", None if mesh == "default" else "1-31"))


def test_an_unreachable_cluster_is_unknown_in_a_preview_and_an_error_in_an_update(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = TheirCluster("default")
    cluster.failure = "the cluster does not answer"
    assert read(cluster, monkeypatch, preview=True) == (UNKNOWN, [])
    assert read(cluster, monkeypatch, preview=False)[1] == ["the cluster does not answer"]


def test_a_cluster_that_does_not_exist_yet_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    result = MeshReadingProvider().check({}, {"access": UNKNOWN, "wanted": "{}", "preview": True})
    assert (result.inputs["facts"], result.failures) == (UNKNOWN, [])


def test_another_namespace_is_named_where_istiod_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = TheirCluster("default")
    cluster.elsewhere = ["aks-istio-system"]
    [reason] = read(cluster, monkeypatch, namespace="istio")[1]
    assert reason.endswith("no istiod runs in the namespace istio: set mesh.namespace to aks-istio-system")


def test_a_managed_control_plane_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = TheirCluster("default")
    cluster.mesh["deployments"] = []
    [reason] = read(cluster, monkeypatch)[1]
    assert "managed control planes outside of the cluster are not supported" in reason


def test_a_revision_that_is_not_there_is_answered_with_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    [reason] = read(TheirCluster("revisioned"), monkeypatch, revision="canary")[1]
    assert reason == "this mesh cannot be adopted: there is no revision or tag 'canary': set mesh.revision to one of 1-31, prod"


def test_a_mesh_without_an_injector_is_ambient_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = TheirCluster("default")
    del cluster.mesh["config_maps"]["istio-sidecar-injector"]
    [reason] = read(cluster, monkeypatch)[1]
    assert "ambient mode alone is not supported" in reason


def test_variables_that_istiod_has_of_config_maps_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of its own take precedence, and the last ConfigMap does."""
    cluster = TheirCluster("default")
    container = cluster.mesh["deployments"][0]["spec"]["template"]["spec"]["containers"][0]
    references = [
        {"configMapRef": {"name": "first"}},
        {"secretRef": {"name": "keys"}},
        {"configMapRef": {"name": "second"}, "prefix": "PILOT_"},
    ]
    container["envFrom"] = [*references, {"configMapRef": {"name": "none", "optional": True}}]
    cluster.mesh["config_maps"]["first"] = {"ENABLE_CA_SERVER": "false", "PILOT_WORKLOAD_ENTRY_GRACE_PERIOD": "20s"}
    cluster.mesh["config_maps"]["second"] = {"WORKLOAD_ENTRY_GRACE_PERIOD": "30s"}
    [reason] = read(cluster, monkeypatch)[1]
    assert "the certificate authority of the mesh is not istiod (ENABLE_CA_SERVER=false)" in reason
    container["env"].append({"name": "ENABLE_CA_SERVER", "value": "true"})
    text, failures = read(cluster, monkeypatch)
    assert (mesh_facts.decode(text).grace_s, failures) == (30, [])


def test_all_problems_of_a_mesh_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = TheirCluster("unserved")
    cluster.namespaces["shop"] = {"istio.io/dataplane-mode": "ambient"}
    reasons = "\n".join(read(cluster, monkeypatch, other_networks=("far",), other_namespaces=("shop", "gone"))[1])
    for part in (
        "ENABLE_CA_SERVER=false",
        "PILOT_ENABLE_WORKLOAD_ENTRY_AUTOREGISTRATION=false",
        "set global.network of istiod, or leave out far",
        "the namespace shop is in ambient mode",
        "the namespace gone does not exist",
    ):
        assert part in reasons


def test_a_network_of_another_name_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    [reason] = read(TheirCluster("revisioned"), monkeypatch, network="vpc")[1]
    assert "is called 'pods': give it this name in the stack's networks (the stack calls it 'vpc')" in reason


def test_namespaces_that_discovery_selectors_leave_out_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = TheirCluster("elsewhere")
    cluster.namespaces["mesh-system"] = {"mesh": "yes"}
    one, other = read(cluster, monkeypatch, network="vpc")[1]
    assert (
        "does not see the namespace billing: discoverySelectors of its MeshConfig leave it out; give it such labels in namespaces.billing.labels"
        in one
    )
    assert "does not see the namespace shop" in other and "give it such labels" in other


def test_labels_that_the_stack_states_count_for_discovery_selectors(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = TheirCluster("elsewhere")
    cluster.namespaces["mesh-system"] = cluster.namespaces["shop"] = {"mesh": "yes"}
    assert read(cluster, monkeypatch, network="vpc", created_namespaces={"billing": {"mesh": "yes"}})[1] == []


RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def test_pods_that_pod_security_would_refuse_are_named_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the CNI plugin: an init container with NET_ADMIN redirects the traffic of pods."""
    cluster = TheirCluster("default")
    cluster.namespaces["shop"] = RESTRICTED
    one, other = read(cluster, monkeypatch, created_namespaces={"billing": {**RESTRICTED}})[1]
    assert "the namespace billing enforces Pod Security's level restricted, which refuses pods of billing" in one
    assert "the namespace shop enforces" in other and "without Istio's CNI plugin (pilot.cni.enabled), sidecars have" in other
    assert read(cluster, monkeypatch, pods={})[1] == [], "no pods of ours are there"
    cluster.mesh["config_maps"]["istio-sidecar-injector"]["values"] = with_cni(cluster)
    assert read(cluster, monkeypatch)[1] == []


def test_pods_that_the_level_restricted_would_refuse_are_named_before(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = TheirCluster("default")
    cluster.mesh["config_maps"]["istio-sidecar-injector"]["values"] = with_cni(cluster)
    cluster.namespaces["shop"] = RESTRICTED
    (problem,) = read(cluster, monkeypatch, unrestricted_pods={"shop": ["goods"]})[1]
    assert (
        "the namespace shop enforces Pod Security's level restricted, which refuses pods of goods: set their pods.restricted to true"
        in problem
    )
    cluster.namespaces["shop"] = {"pod-security.kubernetes.io/enforce": "baseline"}
    assert read(cluster, monkeypatch, unrestricted_pods={"shop": ["goods"]})[1] == []


@pytest.mark.parametrize(
    ("labels", "is_refused"),
    [
        ({"pod-security.kubernetes.io/warn": "restricted", "pod-security.kubernetes.io/audit": "restricted"}, False),
        ({**RESTRICTED, "pod-security.kubernetes.io/enforce-version": "v1.30"}, True),
        ({"pod-security.kubernetes.io/enforce": "baseline"}, True),
        ({"pod-security.kubernetes.io/enforce": "privileged", "pod-security.kubernetes.io/warn": "restricted"}, False),
    ],
)
def test_the_level_that_a_namespace_enforces_counts_alone(
    labels: dict[str, str], is_refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = TheirCluster("default")
    cluster.namespaces["shop"] = labels
    assert bool(read(cluster, monkeypatch)[1]) is is_refused


def selecting(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"key": key, "operator": operator, **({"values": list(values)} if values else {})}


def injector(revision: str, is_default: bool) -> Any:
    """A control plane's webhooks, with the selectors of Istio's chart."""
    enabled = selecting("sidecar.istio.io/inject", "NotIn", "false")
    unlabelled = [selecting("istio-injection", "DoesNotExist"), selecting("istio.io/rev", "DoesNotExist")]
    rules = [
        ([selecting("istio.io/rev", "In", revision), unlabelled[0]], [enabled]),
        (unlabelled, [enabled, selecting("istio.io/rev", "In", revision)]),
    ]
    if is_default:
        asked = [selecting("sidecar.istio.io/inject", "In", "true"), selecting("istio.io/rev", "DoesNotExist")]
        rules += [([selecting("istio-injection", "In", "enabled")], [enabled]), (unlabelled, asked)]
    metadata = {"labels": {"app": "sidecar-injector", "istio.io/rev": revision}}
    return {
        "metadata": metadata,
        "webhooks": [{"namespaceSelector": {"matchExpressions": of}, "objectSelector": {"matchExpressions": pod}} for of, pod in rules],
    }


@pytest.mark.parametrize(
    ("mesh", "labels", "selected"),
    [
        ("default", {}, ""),
        ("default", {"istio-injection": "enabled"}, ""),
        ("default", {"istio-injection": "enabled", "istio.io/rev": "gone"}, ""),
        ("default", {"istio-injection": "disabled"}, "istio-injection: disabled"),
        ("default", {"istio.io/rev": "1-29"}, "istio.io/rev: 1-29"),
        ("revisioned", {}, ""),
        ("revisioned", {"istio.io/rev": "1-31"}, ""),
        ("revisioned", {"istio.io/rev": "canary"}, "istio.io/rev: canary"),
        ("revisioned", {"istio-injection": "enabled"}, "istio-injection: enabled"),
    ],
)
def test_a_namespace_whose_labels_keep_sidecars_out_is_named(
    mesh: str, labels: dict[str, str], selected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A control plane that went, a tag that is not there, injection that somebody switched off."""
    cluster = TheirCluster(mesh)
    cluster.namespaces["shop"] = labels
    cluster.injectors = [injector("default", True)] if mesh == "default" else [injector("1-31", False)]
    failures = read(cluster, monkeypatch)[1]
    assert len(failures) == bool(selected)
    if selected:
        asked = "istio-injection: enabled" if mesh == "default" else "istio.io/rev: 1-31"
        assert (
            f"pods of goods in the namespace shop would get no sidecar, because its labels ({selected}) select no control plane"
            in failures[0]
        )
        assert failures[0].endswith(f"give it {asked} instead")
    cluster.injectors = [injector("canary", False)]
    assert read(cluster, monkeypatch)[1] == [], "the mesh's own are labelled otherwise"
    cluster.injectors = None
    assert read(cluster, monkeypatch)[1] == [], "not everyone may read webhooks"


def with_cni(cluster: TheirCluster) -> str:
    """Return the values of an injector whose mesh has the CNI plugin."""
    values = json.loads(cluster.mesh["config_maps"]["istio-sidecar-injector"]["values"])
    return json.dumps({**values, "pilot": {"cni": {"enabled": True}}})


@pytest.mark.parametrize(
    ("hub", "stated", "problem"),
    [("", "", "set mesh.hub"), ("", "r.example.com/i", ""), ("registry.istio.io/testing", "r.example.com/i", "leave out mesh.hub")],
)
def test_the_registry_is_asked_for_only_where_nothing_names_it(
    hub: str, stated: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = TheirCluster("default")
    if not hub:
        cluster.mesh["config_maps"]["istio-sidecar-injector"]["values"] = "{}"
        cluster.mesh["deployments"][0]["spec"]["template"]["spec"]["containers"][0]["image"] = "pilot@sha256:0"
    text, failures = read(cluster, monkeypatch, hub=stated)
    assert len(failures) == bool(problem) and problem in "".join(failures)
    if not problem:
        assert mesh_facts.decode(text).proxy_image == "r.example.com/i/proxyv2:1.31.0"


def entrance(name: str, network: str, **more: Any) -> Any:
    """Return a Service or a Gateway by which a network is entered."""
    return {"metadata": {"name": name, "namespace": "istio-system", "labels": {"topology.istio.io/network": network}}, **more}


def balancer(*ingress: dict[str, str], **spec: Any) -> Any:
    return {"spec": {"type": "LoadBalancer", **spec}, "status": {"loadBalancer": {"ingress": list(ingress)}}}


@pytest.mark.parametrize(
    ("services", "gateways", "refused"),
    [
        ([balancer({"ip": "10.0.0.5"})], [], "10.0.0.5 (the Service istio-system/entrance)"),
        ([balancer({"ip": "10.0.0.5"}, externalIPs=["10.0.0.6"])], [], "10.0.0.6 (the Service istio-system/entrance)"),
        ([], [{"spec": {"addresses": [{"type": "IPAddress", "value": "10.0.0.7"}]}}], "10.0.0.7 (the Gateway istio-system/entrance)"),
        ([balancer({"ip": "203.0.113.9"})], [], ""),
        ([balancer({"ip": "10.0.0.5"}, externalIPs=["203.0.113.9"])], [], ""),
        ([], [{"spec": {"addresses": [{"type": "IPAddress", "value": "203.0.113.9"}]}}], ""),
        ([], [{"spec": {"addresses": [{"type": "IPAddress"}]}}], ""),
        ([balancer({"hostname": "lb.example.com"})], [], ""),
        ([{"spec": {"type": "ClusterIP"}}], [], ""),
        ([], [], ""),
    ],
)
def test_a_gateway_behind_nat_is_refused_where_istiod_gives_another_address(
    services: list[Any], gateways: list[Any], refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """istiod gives out what the Service has (istio/istio#43656). Names are compared by nobody: they differ from place to place."""
    cluster = TheirCluster("elsewhere")
    cluster.namespaces = {name: {"mesh": "yes"} for name in cluster.namespaces}
    cluster.services = [entrance("entrance", "vpc", **each) for each in services]
    cluster.services += [entrance("other", "another", **balancer({"ip": "10.9.9.9"}))]
    cluster.gateways = [entrance("entrance", "vpc", **each) for each in gateways]
    stated: dict[str, Any] = {"network": "vpc", "revision": "stable", "created_namespaces": {}, "gateway_address": "203.0.113.9"}
    _, failures = read(cluster, monkeypatch, **stated, other_networks=("far",))
    assert len(failures) == (1 if refused else 0)
    if refused:
        assert "istiod gives machines of far another address" in failures[0] and refused in failures[0]
        assert "cluster.gateway.address is 203.0.113.9" in failures[0]
    assert not read(cluster, monkeypatch, **stated)[1], "machines of the pods' network call pods directly"
    assert not read(cluster, monkeypatch, **{**stated, "gateway_address": None}, other_networks=("far",))[1], "of a gateway of ours"
