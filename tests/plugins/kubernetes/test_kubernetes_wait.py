"""Waiting for objects, against real controllers; the tests play the kubelet."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from tests.plugins.kubernetes.one_resource import Resource
from tests.support.control_plane import ControlPlane
from tests.support.waiting import wait_until, when
from tools.standins.kubernetes import wait
from tools.standins.kubernetes.plugin import Kubernetes
from tools.standins.provider import InitFailed

LABELS = {"app": "it"}


def workload(namespace: str, api_version: str, kind: str, annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    pod = {"restartPolicy": "Never" if kind == "Job" else "Always", "containers": [{"name": "it", "image": "it"}]}
    template = {"metadata": {"labels": LABELS}, "spec": pod}
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": "it", "namespace": namespace, "annotations": annotations or {}},
        "spec": {"template": template, **spec},
    }


def deployment(namespace: str, **spec: Any) -> dict[str, Any]:
    return workload(namespace, "apps/v1", "Deployment", selector={"matchLabels": LABELS}, **spec)


def play_kubelet(plane: ControlPlane, namespace: str, status: dict[str, Any], count: int = 1) -> None:
    """Give the status to the first `count` Pods that have none yet."""
    while count:
        for pod in plane.cluster.list("v1", "Pod", namespace):
            if "conditions" not in pod["status"]:
                plane.patch(f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}/status", {"status": status})
                count -= 1
        time.sleep(0.05)


READY = {"phase": "Running", "podIP": "10.244.0.9", "conditions": [{"type": "Ready", "status": "True"}]}


def container(**state: Any) -> dict[str, Any]:
    status = [{"name": "it", "image": "it", "imageID": "", "restartCount": 0, "ready": False, "state": state}]
    return {"phase": "Pending", "conditions": [{"type": "Ready", "status": "False"}], "containerStatuses": status}


@pytest.fixture
def background() -> Any:
    with ThreadPoolExecutor() as pool:
        yield pool.submit


@pytest.fixture
def time_passes(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """While it is set, time passes for what waits: six seconds at each look. A wait of ten ends at the second look."""
    passes, now = threading.Event(), [0.0]

    def monotonic() -> float:
        now[0] += 6 * passes.is_set()
        return now[0]

    monkeypatch.setattr(wait, "time", SimpleNamespace(monotonic=monotonic))
    return passes


def test_a_deployment_waits_for_its_replicas(
    plane: ControlPlane, provider: Kubernetes, namespace: str, background: Callable[..., Any], time_passes: threading.Event
) -> None:
    """Ready when all replicas are available; an image that cannot be pulled is named; the next
    `up` goes on from there.
    """

    def live(api_version: str, kind: str, name: str) -> dict[str, Any]:
        return plane.cluster.get(api_version, kind, namespace, name) or {"status": {}}

    resource = Resource(provider, "kubernetes:apps/v1:Deployment", timeout=10)
    up = background(resource.up, deployment(namespace, replicas=1))
    play_kubelet(plane, namespace, container(waiting={"reason": "ErrImagePull", "message": "no such image"}))
    wait_until(lambda: live("apps/v1", "Deployment", "it")["status"].get("updatedReplicas") == 1)
    time_passes.set()
    with pytest.raises(InitFailed) as failure:
        up.result()
    time_passes.clear()
    assert "timed out after 10 s waiting for Deployment it to be available (0/1 Pods, 1 up to date)" in str(failure.value)
    assert "container it: ErrImagePull: no such image" in str(failure.value)
    assert failure.value.id == f"{namespace}/it" and failure.value.state["metadata"]["uid"]

    resource.id, resource.state, resource.inputs = failure.value.id, failure.value.state, deployment(namespace, replicas=1)
    resource.timeout = 200
    changed = deployment(namespace, replicas=1)
    changed["spec"]["template"]["metadata"]["annotations"] = {"try": "again"}
    up = background(resource.up, changed)
    play_kubelet(plane, namespace, READY)
    assert up.result()["status"]["availableReplicas"] == 1

    # A point-in-time check on refresh: a Deployment that is broken now is reported.
    pod = next(each for each in plane.cluster.list("v1", "Pod", namespace) if each["status"].get("phase") == "Running")
    plane.patch(f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}/status", {"status": container(terminated={"exitCode": 3})})
    with pytest.raises(InitFailed, match=r"0/1 Pods.*exit code 3"):
        while True:
            resource.refresh()
    resource.delete()
    assert plane.cluster.get("apps/v1", "Deployment", namespace, "it") is None


def test_an_interrupted_deployment_is_saved(plane: ControlPlane, provider: Kubernetes, namespace: str) -> None:
    resource = Resource(provider, "kubernetes:apps/v1:Deployment")
    request = resource.request(inputs=resource.check(deployment(namespace)).inputs)
    there = lambda: plane.cluster.get("apps/v1", "Deployment", namespace, "it") is not None  # noqa: E731
    with when(there, request.cancel), pytest.raises(InitFailed, match="interrupted") as failure:
        provider.create(request)
    assert failure.value.id == f"{namespace}/it", "`destroy` must know of it"


def test_a_failed_job_names_the_cause_and_may_be_replaced(
    plane: ControlPlane, provider: Kubernetes, namespace: str, background: Callable[..., Any]
) -> None:
    """A failed one fails at once with what its Pod said, and is replaced if it asks for that."""
    again = {"pulumi.com/replaceUnready": "true"}
    resource = Resource(provider, "kubernetes:batch/v1:Job")
    inputs = workload(namespace, "batch/v1", "Job", again, backoffLimit=0)
    up = background(resource.up, inputs)
    terminated = {"exitCode": 7, "reason": "Error", "message": "product does not answer"}
    play_kubelet(plane, namespace, {**container(terminated=terminated), "phase": "Failed"})
    with pytest.raises(InitFailed, match=r"Job it failed: \[BackoffLimitExceeded\].*exit code 7: product does not answer") as failure:
        up.result()
    resource.id, resource.state, resource.inputs = failure.value.id, failure.value.state, inputs
    difference = resource.diff(inputs)
    assert difference.replaces and difference.delete_before_replace
    resource.delete()

    resource = Resource(provider, "kubernetes:batch/v1:Job")
    up = background(resource.up, inputs)
    play_kubelet(plane, namespace, {**container(terminated={"exitCode": 0}), "phase": "Succeeded"})
    assert up.result()["status"]["succeeded"] == 1
    assert not resource.diff(inputs).changes


SERVICE = "kubernetes:core/v1:Service"


def service(namespace: str, name: str, type: str = "ClusterIP", **annotations: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "annotations": {f"pulumi.com/{key}": value for key, value in annotations.items()}}
    spec = {"type": type, "selector": LABELS, "ports": [{"port": 80}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def test_a_service_waits_for_endpoints_or_an_address(
    plane: ControlPlane, provider: Kubernetes, namespace: str, background: Callable[..., Any]
) -> None:
    """No endpoints are fine once they have settled; a balancer waits for an address; an
    annotation skips all that.
    """
    slow = Kubernetes(settle=1.0)
    slow.configure({"kubeconfig": plane.kubeconfig})
    started = time.monotonic()
    Resource(slow, SERVICE, name="settles").up(service(namespace, "settles"))
    assert time.monotonic() - started >= 1.0

    with pytest.raises(
        InitFailed, match=r"timed out after 5 s waiting for an address for Service pending.*does your cloud provider support"
    ):
        Resource(provider, SERVICE, name="pending", timeout=0).up(service(namespace, "pending", "LoadBalancer", timeoutSeconds="5"))
    Resource(provider, SERVICE, name="skips").up(service(namespace, "skips", "LoadBalancer", skipAwait="true"))
    balanced = Resource(provider, SERVICE, name="balanced")
    up = background(balanced.up, service(namespace, "balanced", "LoadBalancer"))
    path = f"/api/v1/namespaces/{namespace}/services/balanced"
    while plane.cluster.get("v1", "Service", namespace, "balanced") is None:
        time.sleep(0.05)
    plane.patch(f"{path}/status", {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}})
    assert up.result()["status"]["loadBalancer"]["ingress"][0]["ip"] == "192.0.2.1"


def test_a_service_waits_for_endpoints_that_are_not_ready(
    plane: ControlPlane, provider: Kubernetes, namespace: str, background: Callable[..., Any], time_passes: threading.Event
) -> None:
    plane.create("v1", "Node", "", "a-node")
    plane.create("v1", "Pod", namespace, "it", spec={"nodeName": "a-node", "containers": [{"name": "it", "image": "it"}]})
    plane.patch(f"/api/v1/namespaces/{namespace}/pods/it", {"metadata": {"labels": LABELS}})
    status = {"phase": "Running", "podIP": "10.244.0.9", "podIPs": [{"ip": "10.244.0.9"}]}
    plane.patch(f"/api/v1/namespaces/{namespace}/pods/it/status", {"status": status})
    up = background(Resource(provider, SERVICE, name="unready", timeout=10).up, service(namespace, "unready"))
    wait_until(lambda: any(each.get("endpoints") for each in plane.cluster.list("discovery.k8s.io/v1", "EndpointSlice", namespace)))
    time_passes.set()
    with pytest.raises(InitFailed, match="Service does not target any Pods"):
        up.result()
