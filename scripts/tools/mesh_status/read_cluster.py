"""Reads the cluster: WorkloadEntries, pods, Services, the control plane and its gateway, read with kubectl."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

from components.local import scripting
from components.local.cluster_access import ClusterAccess, Kubectl, kubectl, kubernetes_version
from components.manifest import Manifest
from components.mesh_facts import MeshFacts
from components.names import (
    DISCONNECTED_ANNOTATION,
    EASTWEST_GATEWAY,
    GATEWAY_SELECTOR,
    GROUP_ANNOTATION,
    NETWORK_LABEL,
    QUARANTINE_LABEL,
    REASON_ANNOTATION,
    REGISTRATION_LABEL,
    REVISION_LABEL,
    STACK_ANNOTATION,
)

from .read_state import Workload

TIMEOUT = 10
"""Seconds for one request to the API server."""
PARALLEL = 4
ALIVE = ("--field-selector", "status.phase!=Succeeded,status.phase!=Failed")
# What Istio's chart labels istiod's pods with, by default and with a revision.
CONTROL_PLANE = "istio in (pilot,istiod)"


class ClusterError(Exception):
    """The cluster cannot be read; one sentence."""


@dataclass(frozen=True)
class Entry:
    """A WorkloadEntry. `healthy` is None while no probe has reported; `disconnected` is since when its agent has no connection to istiod.

    quarantine: the machine that the entry keeps out of the mesh; "" for the entry of a machine in
        the mesh.
    stack, reason: the stack that gave that machine up, and why.
    registration: of a machine that was joined on its own; "" for one of an instance group.
    """

    name: str
    namespace: str
    workload_group: str
    address: str
    network: str
    healthy: bool | None = None
    message: str = ""
    disconnected: datetime | None = None
    quarantine: str = ""
    stack: str = ""
    reason: str = ""
    registration: str = ""


@dataclass(frozen=True)
class Pod:
    """A pod. `proxy` is the version of its sidecar, "" without one; `problem` is why it is not ready."""

    name: str
    address: str
    network: str
    ready: bool
    started: datetime | None
    proxy: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Cluster:
    """What was read. `pods` by workload; `gateway_address` is where the gateway's Service is reached; `problem` is why nothing could be read.

    `kubernetes` is the API server's version. `policies` are the NetworkPolicies of the workloads' namespaces, of which those are missing that may not be read.
    """

    entries: tuple[Entry, ...] = ()
    pods: Mapping[str, tuple[Pod, ...]] = field(default_factory=dict)
    services: frozenset[tuple[str, str]] = frozenset()
    control_plane: tuple[Pod, ...] = ()
    gateway: tuple[Pod, ...] = ()
    gateway_addresses: tuple[str, ...] = ()
    policies: tuple[Manifest, ...] = ()
    kubernetes: str = ""
    problem: str = ""


Get = Callable[..., list[Mapping[str, Any]]]
"""Gets objects: the arguments of `kubectl get`. Raises ClusterError."""


def read(variables: Mapping[str, str], access: ClusterAccess, mesh: MeshFacts, workloads: Mapping[str, Workload]) -> Cluster:
    """Read everything; `problem` is set where the API server does not answer or refuses."""
    try:
        with kubectl(access, variables) as program:
            seen = answered(partial(_get, program), mesh, workloads)
            return replace(seen, kubernetes=kubernetes_version(program))
    except (ClusterError, scripting.Failed) as error:
        return Cluster(problem=str(error))


def answered(get: Get, mesh: MeshFacts, workloads: Mapping[str, Workload]) -> Cluster:
    """Read with a few requests at a time. Raises ClusterError."""
    istiod = f"{CONTROL_PLANE},{REVISION_LABEL}={mesh.revision}" if mesh.revision else CONTROL_PLANE
    with ThreadPoolExecutor(PARALLEL) as pool:
        spaces = sorted({workload.namespace for workload in workloads.values()})
        inside = [pool.submit(get, "workloadentries.v1.networking.istio.io,services", "--namespace", name) for name in spaces]
        pods = {
            name: pool.submit(get, "pods", *ALIVE, "--namespace", workload.namespace, "--selector", _selector(workload.labels))
            for name, workload in workloads.items()
        }
        control_plane = pool.submit(get, "pods", *ALIVE, "--namespace", mesh.namespace, "--selector", istiod)
        gateway = pool.submit(get, "pods", *ALIVE, "--namespace", mesh.namespace, "--selector", _selector(GATEWAY_SELECTOR))
        policies = [pool.submit(_policies, get, name) for name in spaces]
        service = pool.submit(get, "service", EASTWEST_GATEWAY, "--namespace", mesh.namespace, "--ignore-not-found")
        try:
            objects = [item for answer in inside for item in answer.result()]
            return Cluster(
                entries=tuple(_entry(item) for item in objects if item["kind"] == "WorkloadEntry"),
                pods={name: tuple(map(_pod, answer.result())) for name, answer in pods.items()},
                services=frozenset(
                    (item["metadata"]["namespace"], item["metadata"]["name"]) for item in objects if item["kind"] == "Service"
                ),
                control_plane=tuple(map(_pod, control_plane.result())),
                gateway=tuple(map(_pod, gateway.result())),
                gateway_addresses=tuple(address for item in service.result() for address in _addresses(item)),
                policies=tuple(item for answer in policies for item in answer.result()),
            )
        except ClusterError:
            pool.shutdown(cancel_futures=True)
            raise


def _policies(get: Get, namespace: str) -> list[Manifest]:
    """Return what only explains failures; nothing where the credential may not list it."""
    try:
        return [dict(item) for item in get("networkpolicies.networking.k8s.io", "--namespace", namespace)]
    except ClusterError:
        return []


def _get(program: Kubectl, *arguments: str) -> list[Mapping[str, Any]]:
    words = [f"--request-timeout={TIMEOUT}s", "get", *arguments, "--output", "json"]
    done = program.call(*words, timeout_s=3 * TIMEOUT)
    if done.status == scripting.TIMED_OUT:
        raise ClusterError(f"the API server did not answer within {3 * TIMEOUT} s")
    if done.status:
        reason = scripting.last_words(done.error) or "it gave no reason"
        raise ClusterError(f"`kubectl get {arguments[0]}` failed: {reason}")
    if not done.text:  # --ignore-not-found
        return []
    answer = json.loads(done.text)
    return answer["items"] if answer["kind"] == "List" else [answer]


def _selector(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in labels.items())


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _condition(item: Mapping[str, Any], type: str) -> Mapping[str, Any]:
    return next((each for each in item.get("status", {}).get("conditions", ()) if each["type"] == type), {})


def _entry(item: Mapping[str, Any]) -> Entry:
    metadata, spec = item["metadata"], item["spec"]
    labels, annotations, healthy = metadata.get("labels", {}), metadata.get("annotations", {}), _condition(item, "Healthy")
    return Entry(
        name=metadata["name"],
        namespace=metadata["namespace"],
        workload_group=annotations.get(GROUP_ANNOTATION, ""),
        address=spec.get("address", ""),
        network=spec.get("network", ""),
        healthy=healthy["status"] == "True" if healthy else None,
        message=healthy.get("message", ""),
        disconnected=_time(annotations.get(DISCONNECTED_ANNOTATION)),
        quarantine=labels.get(QUARANTINE_LABEL, ""),
        stack=annotations.get(STACK_ANNOTATION, ""),
        reason=annotations.get(REASON_ANNOTATION, ""),
        registration=labels.get(REGISTRATION_LABEL, ""),
    )


def _pod(item: Mapping[str, Any]) -> Pod:
    metadata, spec, status = item["metadata"], item["spec"], item["status"]
    ready = _condition(item, "Ready")
    # A sidecar is a container, or an init container that stays. A gateway's only container, and istiod's, has the version too.
    containers = {each["name"]: each["image"] for each in (*spec.get("initContainers", ()), *spec["containers"])}
    image = containers.get("istio-proxy") or containers.get("discovery", "")
    return Pod(
        name=metadata["name"],
        address=status.get("podIP", ""),
        network=metadata.get("labels", {}).get(NETWORK_LABEL, ""),
        ready=ready.get("status") == "True",
        started=_time(status.get("startTime")),
        proxy=image.partition("@")[0].rpartition(":")[2] if ":" in image.rpartition("/")[2] else "",
        problem="" if ready.get("status") == "True" else _problem(item),
    )


def _problem(item: Mapping[str, Any]) -> str:
    """Why a pod is not ready, in Kubernetes' words."""
    if item["metadata"].get("deletionTimestamp"):
        return "is being deleted"
    status = item["status"]
    for each in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        state = each.get("state", {})
        for reason in (state.get("waiting", {}).get("reason"), state.get("terminated", {}).get("reason")):
            if reason and reason not in ("PodInitializing", "Completed"):
                return f"container {each['name']}: {reason}"
    message = _condition(item, "Ready").get("message") or _condition(item, "PodScheduled").get("message")
    return message or f"is {status.get('phase', 'Pending')}"


def _addresses(service: Mapping[str, Any]) -> Iterator[str]:
    """Where a Service is reached from outside the cluster."""
    yield from service["spec"].get("externalIPs", ())
    for ingress in service["status"].get("loadBalancer", {}).get("ingress", ()):
        yield ingress.get("ip") or ingress.get("hostname", "")
