"""Verifies a workload from the cluster's side.

Waits until its entries are healthy, then calls its Service from a pod of its own. Then a pod
outside the mesh calls every endpoint without a certificate, and must be refused.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from time import monotonic, sleep
from typing import Any

from ...local import scripting
from ...local.cluster_access import ClusterAccess, Kubectl, kubectl
from ..evidence import Entry, Evidence, Plaintext, Pod, merge, parse

GROUP_TIMEOUT_S, JOB_TIMEOUT_S = 300, 120
_MESSAGE_LENGTH = 500
"""Characters of a message of the cluster that are shown."""

Manifest = Mapping[str, Any]


@dataclass(frozen=True)
class Payload:
    """A workload, and what must be true of it.

    access: the cluster.
    workload, namespace: its names.
    entries: the machines that must be healthy.
    group_size: how many further machines, of instance groups, must be healthy at least.
    port: the endpoints' port.
    selector: labels of its pods.
    job: the Job that calls it; None where nothing is called.
    plaintext_job: the Job that calls it from outside the mesh.
    endpoints_mark: text in `plaintext_job` that stands for endpoints that only the cluster has.
    strict: whether an answer to a caller outside the mesh is a failure.
    warn_only: whether a failure is a message alone.
    timeout_s: seconds to wait for the health of an entry.
    """

    access: ClusterAccess = field(metadata={"record": ClusterAccess})
    workload: str
    namespace: str
    entries: tuple[Entry, ...] = field(metadata={"record": Entry})
    group_size: int
    port: int
    selector: Mapping[str, str]
    job: Manifest | None
    plaintext_job: Manifest
    endpoints_mark: str
    strict: bool
    warn_only: bool
    timeout_s: int


def run(payload: Payload) -> Evidence:
    """Verify the workload. Raises scripting.Failed, or reports it where `warn_only` is set."""
    evidence = [Evidence()]
    try:
        with kubectl(payload.access) as program:
            for part in _verify(_Cluster(program, payload), payload):
                evidence.append(part)
    except _Unproven as problem:
        evidence.append(problem.evidence)
        message = f"workload {payload.workload}: {problem}"
        if not payload.warn_only:
            raise scripting.Failed(message) from None
        print(message, file=sys.stderr)
    return merge(evidence)


class _Unproven(Exception):
    """What should be true is not; `evidence` is what is true all the same."""

    def __init__(self, message: str, evidence: Evidence | None = None) -> None:
        super().__init__(message)
        self.evidence = evidence or Evidence()


def _verify(cluster: _Cluster, payload: Payload) -> Iterator[Evidence]:
    if cluster.get("namespace", payload.namespace) is None:
        raise _Unproven("the API server does not answer")
    for entry in payload.entries:
        _wait_for_entry(cluster, entry, payload.timeout_s)
        yield Evidence(entries=(entry,))
    members = _wait_for_group(cluster, payload)
    pods = cluster.pods()
    yield Evidence(entries=members, pods=pods)
    if payload.job is None:
        return
    endpoints = [f"{pod.address}:{payload.port}" for pod in pods if pod.ready]
    endpoints += [entry.endpoint for entry in members]
    text = json.dumps(payload.plaintext_job).replace(payload.endpoints_mark, " ".join(endpoints))
    with contextlib.ExitStack() as jobs:
        stranger = cluster.job(json.loads(text), "calls from outside the mesh")
        outside = jobs.enter_context(stranger)
        inside = jobs.enter_context(cluster.job(payload.job, "calls the workload"))
        yield Evidence(calls=parse(inside.log()).calls)
        results = parse(outside.log()).plaintext
    yield Evidence(plaintext=results)
    _check_refused(results, payload.strict)


def _check_refused(results: tuple[Plaintext, ...], strict: bool) -> None:
    answered = [result.endpoint for result in results if result.result == "answered"]
    if answered and strict:
        raise _Unproven(
            f"a caller outside the mesh was answered by {' '.join(answered)}: is mutual TLS strict "
            "for it (PeerAuthentication), and does its sidecar capture the port?"
        )


def _wait_for_entry(cluster: _Cluster, entry: Entry, timeout_s: float) -> None:
    """Wait until the entry is healthy; look for another one of the machine after a quarter."""
    start = monotonic()
    while True:
        health = cluster.health(entry.entry)
        if health.status == "True":
            return
        passed = monotonic() - start
        if not health.exists and passed >= timeout_s / 4:
            _check_other_entry(cluster, entry)
        if passed >= timeout_s:
            raise _Unproven(_cause(entry, health))
        sleep(0.5)


def _cause(entry: Entry, health: _Health) -> str:
    machine = f"machine {entry.machine}"
    if not health.exists:
        missing = f"there is no WorkloadEntry {entry.entry}"
        return f"{machine} did not register ({missing}): see 'journalctl --unit istio-vm-mesh' on it"
    if health.status == "False":
        return (
            f"machine {entry.machine} is unhealthy: its probe fails ({health.message}): is the "
            "application running on the machine, and on the probe's port?"
        )
    question = "is the probe in its mesh configuration?"
    return f"{machine} has registered but reports no health: {question}"


def _check_other_entry(cluster: _Cluster, entry: Entry) -> None:
    """Refuse another entry with this address: registered, but not as the stack says."""
    address = entry.endpoint.rpartition(":")[0]
    for item in cluster.items("workloadentry"):
        name = item["metadata"]["name"]
        if item.get("spec", {}).get("address") == address and name != entry.entry:
            network = item["spec"].get("network", "")
            raise _Unproven(
                f"machine {entry.machine} has registered as {name} in the network {network} "
                f"instead of {entry.entry}: does its agent run with another network or group "
                "(ISTIO_META_NETWORK, ISTIO_META_AUTO_REGISTER_GROUP)?"
            )


def _wait_for_group(cluster: _Cluster, payload: Payload) -> tuple[Entry, ...]:
    """Return healthy entries besides the declared ones: machines of groups have unknown names."""
    if not payload.group_size:
        return ()
    declared = {entry.entry for entry in payload.entries}
    end = monotonic() + GROUP_TIMEOUT_S
    while True:
        members = tuple(
            Entry(address, name, f"{address}:{payload.port}")
            for name, address in cluster.healthy_entries(payload.workload)
            if name not in declared
        )
        if len(members) >= payload.group_size:
            return members
        if monotonic() >= end:
            raise _Unproven(
                f"only {len(members)} of {payload.group_size} machines of groups are healthy: see "
                "'journalctl --unit google-startup-scripts' on the others",
                Evidence(entries=members),
            )
        sleep(2)


@dataclass(frozen=True)
class _Health:
    """The health of an entry, as its condition has it; `status` is "" without one."""

    exists: bool
    status: str = ""
    message: str = ""


def _health_of(item: Mapping[str, Any] | None) -> _Health:
    if not item:
        return _Health(exists=False)
    conditions = item.get("status", {}).get("conditions", [])
    for condition in conditions:
        if condition.get("type") == "Healthy":
            return _Health(True, condition.get("status", ""), condition.get("message", ""))
    return _Health(exists=True)


class _Cluster:
    """The workload's namespace."""

    def __init__(self, program: Kubectl, payload: Payload) -> None:
        self._kubectl, self._namespace = program, ("--namespace", payload.namespace)
        self._selector = ",".join(f"{key}={value}" for key, value in payload.selector.items())

    def get(self, kind: str, name: str) -> Mapping[str, Any] | None:
        """Return an object; None where there is none, or no answer."""
        words = ("get", kind, name, "--ignore-not-found", *self._namespace)
        item: Mapping[str, Any] | None = self._kubectl.json(*words)
        return item

    def items(self, kind: str, *options: str) -> list[Mapping[str, Any]]:
        """Return the objects of a kind; none without an answer."""
        answer = self._kubectl.json("get", kind, *options, *self._namespace)
        return list(answer["items"]) if answer else []

    def health(self, entry: str) -> _Health:
        """Return the health of a WorkloadEntry."""
        return _health_of(self.get("workloadentry", entry))

    def healthy_entries(self, workload: str) -> list[tuple[str, str]]:
        """Return name and address of the workload's healthy entries."""
        entries = self.items("workloadentry")
        healthy = [item for item in entries if _health_of(item).status == "True"]
        pairs = [(item["metadata"]["name"], item["spec"]["address"]) for item in healthy]
        return [pair for pair in pairs if pair[0].startswith(f"{workload}-{pair[1]}-")]

    def pods(self) -> tuple[Pod, ...]:
        """Return the workload's pods that run."""
        options = ("--selector", self._selector, "--field-selector", "status.phase=Running")
        return tuple(map(_pod, self.items("pods", *options)))

    @contextlib.contextmanager
    def job(self, manifest: Manifest, purpose: str) -> Iterator[_Job]:
        """Create a Job, and delete it afterwards."""
        words = ("create", "--filename", "-", "--output", "name", *self._namespace)
        stdin = json.dumps(manifest).encode()
        created = self._kubectl.call("--request-timeout=20s", *words, stdin=stdin, timeout_s=60)
        if created.status:
            reason = scripting.last_words(created.error)
            raise _Unproven(f"cannot create the Job that {purpose}: {reason}")
        name = created.text
        container = manifest["spec"]["template"]["spec"]["containers"][0]["name"]
        try:
            yield _Job(self, name, container)
        finally:
            delete = ("delete", name, "--ignore-not-found", "--wait=false", *self._namespace)
            self._kubectl.call("--request-timeout=20s", *delete, timeout_s=60)

    def logs(self, name: str, container: str) -> str:
        """Return the log of a Job's container, or why there is none."""
        words = ("logs", name, "--container", container, *self._namespace)
        done = self._kubectl.call("--request-timeout=20s", *words, timeout_s=60)
        return done.text or done.error


def _pod(item: Mapping[str, Any]) -> Pod:
    return Pod(item["metadata"]["name"], item["status"].get("podIP", ""), _is_ready(item))


def _is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


@dataclass(frozen=True)
class _Job:
    """A Job that runs.

    cluster: its namespace.
    name: as kubectl prints it, `job.batch/NAME`.
    container: the container whose end is the Job's; the sidecar beside it drains for longer.
    """

    cluster: _Cluster
    name: str
    container: str

    def log(self) -> str:
        """Return what the container printed once it succeeded."""
        end = monotonic() + JOB_TIMEOUT_S
        while True:
            state = self._state()
            code = state.get("terminated", {}).get("exitCode")
            if code == 0:
                return self.cluster.logs(self.name, self.container)
            if code is not None:
                raise _Unproven(scripting.last_words(self.cluster.logs(self.name, self.container)))
            if monotonic() >= end:
                raise _Unproven(f"the pod that calls it did not run in {JOB_TIMEOUT_S} s: {self._obstacle(state)}")
            sleep(0.5)  # each look starts kubectl, beside the pod that is to start

    @property
    def _bare_name(self) -> str:
        return self.name.rpartition("/")[2]

    def _obstacle(self, state: Mapping[str, Any]) -> str:
        """Return what the cluster reports of the Job and its pods, or the container's state.

        A Job whose pods are refused (quota, Pod Security, admission) has no pod: the reason is in
        events of the Job alone. That a pod cannot be scheduled is in events of the pod.
        """
        name, messages = self._bare_name, {}
        for event in self.cluster.items("events", "--field-selector", "type=Warning"):
            of = event["involvedObject"].get("name", "")
            if of == name or of.startswith(f"{name}-"):
                message = " ".join(str(event.get("message", "")).split())
                messages[event.get("reason", "")] = message[:_MESSAGE_LENGTH]
        if messages:
            return "; ".join(f"{reason}: {message}" for reason, message in messages.items())
        return json.dumps(state)[:_MESSAGE_LENGTH] if state else "the cluster reports no reason"

    def _state(self) -> Mapping[str, Any]:
        for pod in self.cluster.items("pods", "--selector", f"job-name={self._bare_name}"):
            for status in pod["status"].get("containerStatuses", []):
                if status["name"] == self.container:
                    state: Mapping[str, Any] = status.get("state", {})
                    return state
        return {}
