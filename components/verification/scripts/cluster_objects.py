"""Objects of a workload's namespace, as the API server has them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ...local import scripting
from ...local.cluster_access import Kubectl
from ...manifest import Manifest
from .. import cni_policies
from ..evidence import Pod


@dataclass(frozen=True)
class WorkloadPods:
    """Which pods are a workload's.

    namespace: the pods'. selector: labels of the pods.
    port: the Service's target port: a number, or the name of a port of the pods.
    """

    namespace: str
    selector: Mapping[str, str]
    port: int | str


@dataclass(frozen=True)
class Running:
    """A pod that runs.

    port: the one that the Service leads to; None where it has none. labels: its own.
    is_ending: whether it is being deleted.
    """

    pod: Pod
    port: int | None
    labels: Mapping[str, str]
    is_ending: bool

    @property
    def has_ipv4(self) -> bool:
        """Whether it can be called: evidence and CIDRs are of IPv4 alone."""
        return ":" not in self.pod.address

    @property
    def endpoint(self) -> str:
        """Its `address:port` if it gets calls; "" if it gets none."""
        return f"{self.pod.address}:{self.port}" if self.port and self.pod.ready and self.has_ipv4 else ""


class Cluster:
    """The namespace of a workload.

    problem: kubectl's words where entries could not be read the last time; "" where they were.
    """

    def __init__(self, program: Kubectl, pods: WorkloadPods) -> None:
        self._kubectl, self._of = program, pods
        self.problem = ""

    def get(self, kind: str, name: str) -> Manifest | None:
        """Return an object; None where there is none. Raises scripting.Failed without an answer."""
        words = ("get", kind, name, "--ignore-not-found")
        item: Manifest | None = self._read(f"cannot read the {kind} {name}", *words)
        return item

    def refusal(self) -> str:
        """Return kubectl's words where the namespace cannot be read; "" where it can."""
        words = ("--request-timeout=20s", "get", "namespace", self._of.namespace, "--output", "name")
        done = self._kubectl.call(*words, timeout_s=60)
        return (scripting.last_words(done.error) or "the API server does not answer") if done.status else ""

    def entries(self) -> dict[str, Manifest]:
        """Return the WorkloadEntries by name; none, and a `problem`, without an answer."""
        self.problem = ""
        try:
            return {item["metadata"]["name"]: item for item in self._items("workloadentry")}
        except scripting.Failed as error:
            self.problem = str(error)
            return {}

    def pods(self) -> tuple[Running, ...]:
        """Return the workload's pods that run. Raises scripting.Failed without an answer."""
        selector = ",".join(f"{key}={value}" for key, value in self._of.selector.items())
        items = self._items("pods", "--selector", selector, "--field-selector", "status.phase=Running")
        return tuple(_running(item, self._of.port) for item in items)

    def policies(self) -> list[Manifest]:
        """Return the NetworkPolicies; none without an answer: they are looked at for causes alone."""
        return _or_none(partial(self._items, "networkpolicies.networking.k8s.io"))

    def cni_policies(self) -> list[Manifest]:
        """Return the policies of other kinds; none without an answer. It takes one request where there are none."""
        done = self._kubectl.call("--request-timeout=20s", "get", "--raw", "/apis", timeout_s=60)
        groups = json.loads(done.text)["groups"] if done.status == 0 and done.text else []
        kinds = cni_policies.kinds(group["name"] for group in groups)
        return [item for kind in kinds for item in _or_none(partial(self._items, kind))]

    def labels(self) -> Mapping[str, str]:
        """Return the labels of the namespace; none without an answer: they are looked at for causes alone."""
        try:
            return _labels(self.get("namespace", self._of.namespace) or {})
        except scripting.Failed:
            return {}

    def _items(self, kind: str, *options: str) -> list[Manifest]:
        answer = self._read(f"cannot list {kind} of the namespace {self._of.namespace}", "get", kind, *options)
        return list(answer["items"]) if answer else []

    def _read(self, purpose: str, *words: str) -> Any:
        """Return the object that kubectl prints; None where it prints none. Raises scripting.Failed."""
        options = ("--namespace", self._of.namespace, "--output", "json")
        done = self._kubectl.check("--request-timeout=20s", *words, *options, purpose=purpose, timeout_s=60)
        return json.loads(done.text) if done.text else None


def _or_none(read: Callable[[], list[Manifest]]) -> list[Manifest]:
    try:
        return read()
    except scripting.Failed:
        return []


def _labels(item: Manifest) -> Mapping[str, str]:
    labels: Mapping[str, str] = item.get("metadata", {}).get("labels") or {}
    return labels


def _running(item: Manifest, target: int | str) -> Running:
    """Return a pod with its IPv4 address: of two families, IPv6 may be the first."""
    status = item["status"]
    addresses = [each["ip"] for each in status.get("podIPs") or ()] or [status.get("podIP", "")]
    ipv4 = [address for address in addresses if ":" not in address]
    is_ending = "deletionTimestamp" in item["metadata"]
    # One that is being deleted gets no calls, although it is ready.
    pod = Pod(item["metadata"]["name"], (ipv4 or addresses)[0], _is_ready(item) and not is_ending)
    return Running(pod, _port(item, target), _labels(item), is_ending)


def _port(item: Manifest, target: int | str) -> int | None:
    """Return the port of a pod that a Service leads to, by its name where the Service has one.

    Source: kubernetes/endpointslice, utils.go, FindPort. A port of sidecars comes last. One of UDP, or
    of a container that ends before the pod runs, is none.
    """
    if isinstance(target, int):
        return target
    sidecars = [each for each in item["spec"].get("initContainers", ()) if each.get("restartPolicy") == "Always"]
    containers: list[Mapping[str, Any]] = [*item["spec"]["containers"], *sidecars]
    ports = [port for container in containers for port in container.get("ports", ()) if port.get("protocol", "TCP") == "TCP"]
    return next((port["containerPort"] for port in ports if port.get("name") == target), None)


def _is_ready(item: Manifest) -> bool:
    return any(each["type"] == "Ready" and each["status"] == "True" for each in item["status"].get("conditions", []))
