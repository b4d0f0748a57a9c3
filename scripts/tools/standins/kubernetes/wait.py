"""When an object counts as ready, and why it is not.

The rules are those that pulumi-kubernetes documents for its await logic (`provider/pkg/await`);
kinds without a rule are ready when the API server has taken them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ..provider import Request
from .client import ApiError, Cluster, Object, Unreachable

DEFAULT_TIMEOUT = 600.0
SETTLE = 10.0
"""Seconds for which the endpoints of a Service must not change."""
_INTERVAL = 0.5


@dataclass(frozen=True)
class Verdict:
    """Whether an object is ready; if not, what it waits for, what is wrong so far, and whether
    that is final.
    """

    ready: bool
    waiting_for: str = ""
    problems: tuple[str, ...] = ()
    failed: bool = False


class NotReady(Exception):
    """An object did not become ready. `live` is what it was at last."""

    def __init__(self, live: Object, reasons: list[str]) -> None:
        super().__init__("; ".join(reasons))
        self.live, self.reasons = live, reasons


Check = Callable[[Cluster, Object], Verdict]


def until_ready(cluster: Cluster, live: Object, request: Request, timeout: float, settle: float = SETTLE) -> Object:
    """Wait for `live`, just applied, to be ready and give it as it is then.

    Raises `NotReady` when it failed, vanished or took longer than `timeout` seconds, `Cancelled`
    when the user interrupts.
    """
    check = check_for(live, settle)
    if check is None:
        return live
    deadline = time.monotonic() + timeout
    verdict, shown = Verdict(ready=False), ""
    while True:
        try:
            current = cluster.get(live["apiVersion"], live["kind"], live["metadata"].get("namespace", ""), live["metadata"]["name"])
            if current is None:
                raise NotReady(live, ["it was deleted while it was waited for"])
            live, verdict = current, check(cluster, current)
        except (Unreachable, ApiError) as error:
            verdict = Verdict(ready=False, waiting_for=str(error), problems=(str(error),))
        if verdict.ready:
            return live
        if verdict.failed:
            raise NotReady(live, list(verdict.problems))
        if time.monotonic() >= deadline:
            raise NotReady(live, [f"timed out after {timeout:g} s waiting for {verdict.waiting_for}", *verdict.problems])
        if (text := "; ".join([f"waiting for {verdict.waiting_for}", *verdict.problems])) != shown:
            request.status(text)
            shown = text
        request.wait(_INTERVAL)


def until_gone(cluster: Cluster, live: Object, request: Request, timeout: float) -> None:
    """Wait until a deleted object is gone, or another one has its name. Raises `NotReady` after
    `timeout` seconds.
    """
    metadata = live["metadata"]
    deadline = time.monotonic() + timeout
    shown = ""
    while True:
        try:
            current = cluster.get(live["apiVersion"], live["kind"], metadata.get("namespace", ""), metadata["name"])
            if current is None or current["metadata"]["uid"] != metadata["uid"]:
                return
            live, text = current, _why_there(current)
        except Unreachable as error:
            text = str(error)
        if time.monotonic() >= deadline:
            raise NotReady(live, [f"timed out after {timeout:g} s waiting for the deletion of {live['kind']} {metadata['name']}: {text}"])
        if text != shown:
            request.status(f"waiting for deletion: {text}")
            shown = text
        request.wait(_INTERVAL / 2)


def _why_there(live: Object) -> str:
    if finalizers := live["metadata"].get("finalizers"):
        return f"finalizers might be preventing it ({', '.join(finalizers)})"
    remaining = [each["message"] for each in _conditions(live).values() if each.get("status") == "True" and each.get("message")]
    return "; ".join(remaining) or "it still exists"


def check_for(live: Object, settle: float = SETTLE) -> Check | None:
    """Return the rule for this object's kind."""
    match live["apiVersion"], live["kind"]:
        case "apps/v1", "Deployment":
            return deployment
        case "batch/v1", "Job":
            return job
        case "v1", "Service":
            return _Service(settle)
        case "apiextensions.k8s.io/v1", "CustomResourceDefinition":
            return custom_resource_definition
    return None


def deployment(cluster: Cluster, live: Object) -> Verdict:
    """Ready when the controller has seen this generation and all replicas are of it and
    available, and no others are left.
    """
    status, conditions = live.get("status") or {}, _conditions(live)
    wanted = live["spec"].get("replicas", 1)
    available, updated, total = (status.get(key, 0) for key in ("availableReplicas", "updatedReplicas", "replicas"))
    seen = status.get("observedGeneration", 0) >= live["metadata"]["generation"]
    if seen and updated == total == available == wanted:
        return Verdict(ready=True)
    # Conditions of an older generation say nothing about this one.
    problems = [
        f"[{each['reason']}] {each['message']}"
        for type, bad in (("Progressing", "False"), ("ReplicaFailure", "True"))
        if seen and (each := conditions.get(type)) and each["status"] == bad
    ]
    late = seen and conditions.get("Progressing", {}).get("reason") == "ProgressDeadlineExceeded"
    pods = _pods(cluster, live) if seen else []
    return Verdict(
        ready=False,
        waiting_for=f"Deployment {live['metadata']['name']} to be available ({min(available, updated)}/{wanted} Pods, {updated} up to date)",
        problems=(*problems, *_pod_problems(pods)),
        failed=late,
    )


def job(cluster: Cluster, live: Object) -> Verdict:
    """Ready when complete; final when failed."""
    status, conditions, name = live.get("status") or {}, _conditions(live), live["metadata"]["name"]
    if conditions.get("Complete", {}).get("status") == "True":
        return Verdict(ready=True)
    failure = conditions.get("Failed", {})
    failed = failure.get("status") == "True"
    problems = [f"Job {name} failed: [{failure.get('reason')}] {failure.get('message')}"] if failed else []
    counts = " | ".join(f"{key.capitalize()}: {status.get(key, 0)}" for key in ("active", "succeeded", "failed"))
    pods = _pods(cluster, live) if live["spec"].get("selector") else []
    return Verdict(
        ready=False,
        waiting_for=f"Job {name} to succeed ({counts})",
        problems=(*problems, *_pod_problems(pods)),
        failed=failed,
    )


def custom_resource_definition(cluster: Cluster, live: Object) -> Verdict:
    """Ready when its resources are served."""
    conditions = _conditions(live)
    if conditions.get("Established", {}).get("status") == "True":
        return Verdict(ready=True)
    accepted = conditions.get("NamesAccepted", {})
    refused = accepted.get("status") == "False"
    problems = (f"[{accepted.get('reason')}] {accepted.get('message')}",) if refused else ()
    return Verdict(ready=False, waiting_for=f"{live['metadata']['name']} to be established", problems=problems)


def load_balancer(cluster: Cluster, live: Object) -> Verdict:
    """Ready when it has an address from outside, or is no balancer."""
    if live["spec"].get("type") != "LoadBalancer" or (live.get("status") or {}).get("loadBalancer", {}).get("ingress"):
        return Verdict(ready=True)
    return Verdict(
        ready=False,
        waiting_for=f"an address for Service {live['metadata']['name']}",
        problems=("Service was not allocated an IP address; does your cloud provider support this?",),
    )


class _Service:
    """Ready when it has an external address, if it is a balancer, and the endpoints that the
    controller made have not changed for a while.

    No endpoints at all are fine; endpoints that are not ready are not. A Service without selector
    or address of its own has none to wait for.
    """

    def __init__(self, settle: float) -> None:
        self._settle = settle
        self._seen: Any = None
        self._since = time.monotonic()

    def __call__(self, cluster: Cluster, live: Object) -> Verdict:
        spec, metadata = live["spec"], live["metadata"]
        address = load_balancer(cluster, live)
        if spec.get("type") == "ExternalName" or spec.get("clusterIP") == "None" or not spec.get("selector"):
            return address
        label = f"kubernetes.io/service-name={metadata['name']}"
        slices = cluster.list("discovery.k8s.io/v1", "EndpointSlice", metadata["namespace"], label)
        seen = sorted((each["metadata"]["uid"], each["metadata"]["resourceVersion"]) for each in slices)
        if seen != self._seen:
            self._seen, self._since = seen, time.monotonic()
        endpoints = [each.get("conditions", {}) for one in slices for each in one.get("endpoints") or []]
        pending = sum(not each.get("ready", True) and not each.get("terminating") for each in endpoints)
        if slices and not pending and time.monotonic() - self._since >= self._settle:
            return address
        if not slices:
            return Verdict(ready=False, waiting_for=f"the endpoints of Service {metadata['name']}")
        if pending:
            return Verdict(
                ready=False,
                waiting_for=f"{pending} endpoints of Service {metadata['name']} to be ready",
                problems=(
                    "Service does not target any Pods. Selected Pods may not be ready, or field '.spec.selector' may not match labels on any Pods",
                )
                if pending == len(endpoints)
                else (),
            )
        return Verdict(ready=False, waiting_for=f"the endpoints of Service {metadata['name']} to settle")


def _conditions(live: Object) -> dict[str, Any]:
    return {each["type"]: each for each in (live.get("status") or {}).get("conditions") or []}


def _pods(cluster: Cluster, live: Object) -> list[Object]:
    """The Pods that a Deployment or Job selects."""
    return cluster.list("v1", "Pod", live["metadata"]["namespace"], _selector(live["spec"]["selector"]))


def _selector(selector: Object) -> str:
    """A label selector as text for a query."""
    terms = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for each in selector.get("matchExpressions") or []:
        key, values = each["key"], ",".join(each.get("values") or [])
        terms.append(
            {"In": f"{key} in ({values})", "NotIn": f"{key} notin ({values})", "Exists": key, "DoesNotExist": f"!{key}"}[each["operator"]]
        )
    return ",".join(terms)


def _pod_problems(pods: Iterable[Object]) -> list[str]:
    """What keeps Pods from being ready, each reason once, with the name of the first Pod that
    has it.
    """
    problems: dict[str, str] = {}
    for pod in pods:
        if "deletionTimestamp" not in pod["metadata"]:
            for reason in _reasons(pod):
                problems.setdefault(reason, pod["metadata"]["name"])
    return [f"[Pod {name}]: {reason}" for reason, name in problems.items()]


def _reasons(pod: Object) -> Iterator[str]:
    status, conditions = pod.get("status") or {}, _conditions(pod)
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        yield f"{scheduled.get('reason')}: {scheduled.get('message')}"
    if status.get("phase") == "Failed" and status.get("reason"):
        yield f"{status['reason']}: {status.get('message', '')}"
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        if container.get("ready"):
            continue
        waiting = container.get("state", {}).get("waiting") or {}
        if waiting and waiting.get("reason") not in ("ContainerCreating", "PodInitializing", None):
            yield f"container {container['name']}: {waiting['reason']}: {waiting.get('message', '')}"
        for ended in (container.get("state", {}).get("terminated"), container.get("lastState", {}).get("terminated")):
            if ended and ended.get("exitCode"):
                yield f"container {container['name']}: {ended.get('reason')}: exit code {ended['exitCode']}: {ended.get('message', '')}".rstrip(
                    ": "
                )
