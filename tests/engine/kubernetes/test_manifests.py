"""What the program puts into clusters is what they take: every manifest at a real API server with Istio's and the Gateway API's CRDs, strictly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import pytest
import yaml

from components.config.mesh import MeshSettings
from components.istio import charts, manifests
from components.verification import jobs
from tests.support import harness
from tests.support.control_plane import ControlPlane
from tests.support.module_files import directory
from tests.support.samples import FACTS, PRODUCT
from tests.support.waiting import wait_until
from tools.standins.kubernetes.client import ApiError

FREE = {"env", "annotations", "labels", "meshConfig"}
"""Chart values that are maps of keys that Helm does not know."""


def refusal(plane: ControlPlane, manifest: Mapping[str, Any], namespace: str) -> str | None:
    """What the API server says against a manifest, which it does not keep."""
    metadata = {**manifest["metadata"], "namespace": namespace} if "namespace" in manifest["metadata"] else manifest["metadata"]
    body = {**manifest, "metadata": metadata}
    path = plane.cluster.endpoint(manifest["apiVersion"], manifest["kind"]).path(metadata.get("namespace", ""))
    try:
        plane.cluster.call("POST", path, {"dryRun": "All", "fieldValidation": "Strict"}, body)
    except ApiError as error:
        return str(error)
    return None


def graph(stack: str) -> dict[str, harness.Node]:
    return harness.declared(stack).graph


def manifests_of(stack: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, node in graph(stack).items():
        of_cluster = node.type.startswith("kubernetes:") and not node.type.startswith("kubernetes:helm.sh")
        if of_cluster and set(node.inputs) != {"id"} and not (node.type.endswith(":Namespace") and name == "istio-system"):
            yield name, {key: value for key, value in node.inputs.items() if not key.startswith("__")}


@pytest.mark.parametrize("stack", harness.stacks())
def test_the_api_server_takes_every_manifest(strict: ControlPlane, namespace: str, stack: str) -> None:
    sent = dict(manifests_of(stack))
    assert len(sent) >= 5
    assert {name: error for name, manifest in sent.items() if (error := refusal(strict, manifest, namespace))} == {}


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("WorkloadGroup", {"template": {"serviceAcount": "x"}}),
        ("WorkloadGroup", {"probe": {"periodSecond": 1}}),
        ("Gateway", {"server": []}),
        ("PeerAuthentication", {"mtls": {"mode": "VERY_STRICT"}}),
    ],
)
def test_the_api_server_refuses_what_is_wrong(strict: ControlPlane, namespace: str, kind: str, change: dict[str, Any]) -> None:
    group = "security.istio.io/v1" if kind == "PeerAuthentication" else "networking.istio.io/v1"
    manifest = {"apiVersion": group, "kind": kind, "metadata": {"name": "it", "namespace": namespace}, "spec": change}
    assert refusal(strict, manifest, namespace)


def defaults(chart: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((directory("istio-charts") / chart / "values.yaml").read_text())
    return values.get("_internal_defaults_do_not_set", values)


@cache
def templates(chart: str) -> str:
    return "".join(file.read_text() for file in (directory("istio-charts") / chart / "templates").rglob("*") if file.is_file())


def unknown(values: Mapping[str, Any], defaults: Mapping[str, Any], chart: str, path: str = "") -> Iterator[str]:
    """The values that a chart has no default for, and that none of its templates reads."""
    for key, value in values.items():
        place = f"{path}.{key}"
        if key not in defaults and f".Values{place}" not in templates(chart) and not isinstance(value, Mapping):
            yield place
        elif isinstance(value, Mapping) and key not in FREE:
            yield from unknown(value, defaults.get(key) or {}, chart, place)


def test_the_charts_read_every_value_that_the_program_sets() -> None:
    """Helm passes over what it does not know."""
    mesh = MeshSettings(id="m", version="1.31.0")
    ours = {
        "base": charts.base_values(mesh),
        "istiod": charts.istiod_values(mesh, "pods"),
        "gateway": charts.gateway_values(
            mesh, charts.facts(mesh, "pods"), charts.Entrance(service={"type": "LoadBalancer"}, cross_network=True)
        ),
    }
    for chart, values in ours.items():
        assert list(unknown(values, defaults(chart), chart)) == []
    assert list(unknown({"global": {"meshId": "m"}}, defaults("istiod"), "istiod")) == [".global.meshId"]


@pytest.mark.parametrize("stack", [stack for stack in harness.stacks() if stack != "existing"])
def test_the_gateway_chart_reads_every_value_of_the_service(stack: str) -> None:
    service = graph(stack)["istio-vm-mesh-gateway"].inputs["values"]["service"]
    assert list(unknown(service, {}, "gateway", ".service")) == []


def test_pods_of_ours_are_admitted_where_a_namespace_is_restricted_and_has_a_quota(plane: ControlPlane, namespace: str) -> None:
    """The API server's own admission: Pod Security by the namespace's label, and a quota that demands requests and limits."""
    enforced = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    plane.patch(f"/api/v1/namespaces/{namespace}", enforced)
    hard = {"limits.cpu": "8", "limits.memory": "8Gi", "requests.cpu": "8", "requests.memory": "8Gi"}
    plane.create("v1", "ResourceQuota", namespace, "all", spec={"hard": hard})
    deployment = manifests.deployment(PRODUCT, FACTS)
    assert deployment
    pair = jobs.pair("verify-product", [jobs.Called(PRODUCT, FACTS)], "lab")
    templates = [deployment, pair.inside, pair.outside]
    for number, manifest in enumerate(templates):
        spec = {**manifest["spec"]["template"]["spec"], "serviceAccountName": "default"}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"pod-{number}", "namespace": namespace}, "spec": spec}
        wait_until(lambda pod=pod: "status unknown" not in (refusal(plane, pod, namespace) or ""), description="the quota is counted")  # type: ignore[misc]
        assert refusal(plane, pod, namespace) is None
        privileged = {**pod, "spec": {**spec, "securityContext": {}}}
        assert "violates PodSecurity" in (refusal(plane, privileged, namespace) or ""), "the namespace is restricted"
