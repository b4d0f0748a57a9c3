"""Verifies a workload from the cluster's side.

Waits until its entries are healthy, then calls it from a pod of its own. Meanwhile a pod outside
the mesh calls every endpoint without a certificate, and must be refused. A machine that is missing
or unhealthy is named, and takes nobody else's proof away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from time import monotonic, sleep
from typing import Any

from ... import names, shell
from ...local import scripting
from ...local.cluster_access import ClusterAccess, Kubectl, kubectl
from ..evidence import Call, Entry, Evidence, Plaintext, Pod, merge, parse
from ..target import CALL_SCRIPT, PLAINTEXT_SCRIPT, Caller, Target, call_variables, plaintext_variables
from .calling_pods import CallingPod, Jobs, NotRunning, Pair

GROUP_TIMEOUT_S = 600
"""Seconds for machines of instance groups: a first boot, with its setup and a slow mirror."""
_MARGIN_S = 60
"""Seconds that the script that calls may need besides its patience."""


@dataclass(frozen=True)
class Payload:
    """A workload, and what must be true of it.

    access: the cluster.
    workload, namespace: its names.
    entries: the machines that must be healthy.
    missing: the machines whose joins failed in this update.
    closed: networks with machines whose gateway failed in this update.
    group_size: how many further machines, of instance groups, must be healthy at least.
    selector: labels of its pods.
    port: the endpoints' port.
    target: what is called, without the endpoints; None where nothing is called.
    network: the name of the pods' network in the mesh.
    gateways: addresses of the gateways of other networks, by the networks' names.
    pair: the Jobs that call where no pair of this update runs. shared: the name of that pair.
    caller: who calls, for the evidence.
    strict: whether an answer to a caller outside the mesh is a failure.
    warn_only: whether a failure is a part of the evidence alone.
    timeout_s: seconds to wait for the health of entries.
    """

    access: ClusterAccess = field(metadata={"record": ClusterAccess})
    workload: str
    namespace: str
    entries: tuple[Entry, ...] = field(metadata={"record": Entry})
    selector: Mapping[str, str]
    port: int
    target: Target | None = field(metadata={"record": Target})
    caller: Caller = field(metadata={"record": Caller})
    network: str
    gateways: Mapping[str, Sequence[str]]
    pair: Pair = field(metadata={"record": Pair})
    shared: str
    strict: bool
    warn_only: bool
    timeout_s: int
    group_size: int = 0
    missing: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()


def run(payload: Payload) -> Evidence:
    """Verify the workload.

    Returns what was shown, also of what failed where `warn_only` is set. Raises scripting.Failed
    with all causes otherwise. Joins that failed are no failure of the verification: the update
    has failed by them.
    """
    verification = _Verification(payload)
    with kubectl(payload.access) as program:
        verification.run(program)
    if verification.failures and not payload.warn_only:
        lines = [f"workload {payload.workload}: {cause}" for cause in verification.failures]
        raise scripting.Failed("\n".join(lines))
    return merge(verification.parts)


class _Unproven(Exception):
    """What should be true is not.

    row: the cause as evidence.
    """

    def __init__(self, cause: str, **values: Any) -> None:
        place = values.get("object", "")
        super().__init__(f"{cause}; look at {place}" if place and place not in cause else cause)
        self.row = Call(verdict="failed", cause=cause, **values)


class _Verification:
    """One verification.

    parts: what was shown. failures: causes, the first one first.
    """

    def __init__(self, payload: Payload) -> None:
        self._payload = payload
        self.parts: list[Evidence] = []
        self.failures: list[str] = []

    def run(self, program: Kubectl) -> None:
        """Verify everything that can be verified."""
        payload = self._payload
        cluster = _Cluster(program, payload)
        if cluster.get("namespace", payload.namespace) is None:
            self._fail(_Unproven("the API server does not answer", object=f"Namespace {payload.namespace}"))
            return
        for machine in payload.missing:
            self._show(_missing(machine))
        for network in payload.closed:
            cause = f"nothing behind the gateway of the network {network} is called: it failed in this update"
            self._show(_Unproven(cause, object=f"Gateway {names.gateway_workload_name(network)}"))
        members, problems = _wait_for_entries(cluster, payload)
        for problem in problems:
            self._fail(problem)
        pods = cluster.pods()
        self.parts.append(Evidence(entries=tuple(member.entry for member in members), pods=pods))
        if payload.target is not None:
            self._call(program, _with_endpoints(payload, payload.target, members, pods))

    def _call(self, program: Kubectl, target: Target) -> None:
        payload = self._payload
        jobs = Jobs(program, payload.namespace)
        reached = [*target.endpoints, *target.gateways]
        if not reached:
            self._fail(_Unproven("it has no endpoint: neither a pod is ready nor a machine healthy", object=_service(target)))
            return
        try:
            with jobs.use(payload.shared, payload.pair) as (inside, outside), ThreadPoolExecutor(1) as beside:
                strangers = beside.submit(_call_from_outside, outside, target, reached)
                self._call_from_inside(inside, target)
                plaintext = strangers.result()
        except NotRunning as problem:
            self._fail(_Unproven(str(problem), object=f"Job {payload.namespace}/{payload.shared}"))
            return
        self.parts.append(Evidence(plaintext=plaintext))
        answered = [result.endpoint for result in plaintext if result.result == "answered"]
        if answered and payload.strict:
            self._fail(
                _Unproven(
                    f"a caller outside the mesh was answered by {' '.join(answered)}: is mutual TLS strict "
                    "for it (PeerAuthentication), and does its sidecar capture the port?",
                    service=target.service,
                    port=target.port,
                    object=f"PeerAuthentication {payload.namespace}/default",
                )
            )

    def _call_from_inside(self, pod: CallingPod, target: Target) -> None:
        caller = self._payload.caller
        variables = call_variables(caller, target)
        done = pod.run(shell.remote_script(CALL_SCRIPT, variables), caller.timeout_s + _MARGIN_S)
        shown = parse(done.text)
        self.parts.append(shown)
        if done.status == 0:
            return
        cause = scripting.last_words(done.error) or f"{CALL_SCRIPT} ended with status {done.status}"
        if any(call.verdict == "failed" for call in shown.calls):
            self.failures.append(cause)
        else:
            self._fail(_Unproven(cause, service=target.service, port=target.port, object=_service(target)))

    def _fail(self, problem: _Unproven) -> None:
        self.failures.append(str(problem))
        self._show(problem)

    def _show(self, problem: _Unproven) -> None:
        self.parts.append(Evidence(calls=(problem.row,)))


def _service(target: Target) -> str:
    name, namespace = target.service.split(".")[:2]
    return f"Service {namespace}/{name}"


def _missing(machine: str) -> _Unproven:
    cause = f"machine {machine} is missing: its join failed in this update"
    return _Unproven(cause, machine=machine, object=f"resource {names.part_name(machine, names.JOIN)}")


def _call_from_outside(pod: CallingPod, target: Target, endpoints: Sequence[str]) -> tuple[Plaintext, ...]:
    variables = plaintext_variables(target, endpoints)
    # Each endpoint has six seconds (plaintext-probe.sh).
    done = pod.run(shell.remote_script(PLAINTEXT_SCRIPT, variables), _MARGIN_S + 6 * len(endpoints))
    results = parse(done.text).plaintext
    if {result.endpoint for result in results} < {*endpoints}:
        raise NotRunning(f"the caller outside the mesh did not call all endpoints: {scripting.last_words(done.error)}")
    return results


@dataclass(frozen=True)
class _Member:
    """A healthy machine of the workload, and the name of its network in the mesh."""

    entry: Entry
    network: str


def _with_endpoints(payload: Payload, target: Target, members: Sequence[_Member], pods: Sequence[Pod]) -> Target:
    """Return what is called, with the endpoints that pods see (istio/istio: ep_filters.go)."""
    near = [member.entry for member in members if member.network == payload.network]
    far = [member for member in members if payload.gateways.get(member.network)]
    gateways = [address for network in {member.network: 0 for member in far} for address in payload.gateways[network]]
    of_pods = [f"{pod.address}:{payload.port}" for pod in pods if pod.ready]
    return replace(
        target,
        endpoints=tuple(dict.fromkeys([*(entry.endpoint for entry in near), *of_pods])),
        gateways=tuple(dict.fromkeys(gateways)),
        remote=len(far),
        machines=tuple(f"{member.entry.machine}={member.entry.endpoint}" for member in members),
    )


def _wait_for_entries(cluster: _Cluster, payload: Payload) -> tuple[list[_Member], list[_Unproven]]:
    """Wait until all machines are healthy; return those that are, and what is wrong with others."""
    start, wrong = monotonic(), dict[str, _Unproven]()
    declared = {entry.entry for entry in payload.entries}
    while True:
        items = {item["metadata"]["name"]: item for item in cluster.items("workloadentry")}
        healthy = [_Member(entry, _network(items[entry.entry])) for entry in payload.entries if _is_healthy(items.get(entry.entry))]
        pending = [entry for entry in payload.entries if not _is_healthy(items.get(entry.entry)) and entry.machine not in wrong]
        others = [_member(item, payload.port) for name, item in items.items() if name not in declared and _is_of_group(item, payload)]
        passed = monotonic() - start
        if passed >= payload.timeout_s / 4:
            wrong.update(_other_entries(payload.namespace, pending, items))
        if passed >= payload.timeout_s:
            wrong.update({entry.machine: _unhealthy(payload, entry, items.get(entry.entry)) for entry in pending})
        is_settled = all(entry.machine in wrong for entry in pending)
        too_few = len(others) < payload.group_size
        if is_settled and (not too_few or passed >= GROUP_TIMEOUT_S):
            break
        sleep(0.5 if not is_settled else 2)
    problems = [*wrong.values(), *(_too_few(payload, others) if too_few else ())]
    return [*healthy, *(others if payload.group_size else ())], problems


def _too_few(payload: Payload, members: Sequence[_Member]) -> Iterator[_Unproven]:
    yield _Unproven(
        f"only {len(members)} of {payload.group_size} machines of groups are healthy: see "
        "'journalctl --unit google-startup-scripts' on the others",
        object=f"WorkloadGroup {payload.namespace}/{payload.workload}",
    )


def _unhealthy(payload: Payload, entry: Entry, item: Mapping[str, Any] | None) -> _Unproven:
    values = {"machine": entry.machine, "endpoint": entry.endpoint, "object": f"WorkloadEntry {payload.namespace}/{entry.entry}"}
    machine, health = f"machine {entry.machine}", _health(item)
    if item is None:
        missing = f"there is no WorkloadEntry {entry.entry}"
        return _Unproven(f"{machine} did not register ({missing}): see 'journalctl --unit istio-vm-mesh' on it", **values)
    if health.get("status") == "False":
        return _Unproven(
            f"{machine} is unhealthy: its probe fails ({' '.join(health.get('message', '').split())}): is the "
            "application running on the machine, and on the probe's port?",
            **values,
        )
    return _Unproven(f"{machine} has registered but reports no health: is the probe in its mesh configuration?", **values)


def _other_entries(namespace: str, pending: Sequence[Entry], items: Mapping[str, Mapping[str, Any]]) -> dict[str, _Unproven]:
    """Return machines that have registered, but not as the stack says: another entry has their address."""
    problems = {}
    for entry in pending:
        address = entry.endpoint.rpartition(":")[0]
        for name, item in items.items():
            if entry.entry not in items and name != entry.entry and item.get("spec", {}).get("address") == address:
                problems[entry.machine] = _Unproven(
                    f"machine {entry.machine} has registered as {name} in the network {_network(item)} "
                    f"instead of {entry.entry}: does its agent run with another network or group "
                    "(ISTIO_META_NETWORK, ISTIO_META_AUTO_REGISTER_GROUP)?",
                    machine=entry.machine,
                    endpoint=entry.endpoint,
                    object=f"WorkloadEntry {namespace}/{name}",
                )
    return problems


def _member(item: Mapping[str, Any], port: int) -> _Member:
    address = item["spec"]["address"]
    return _Member(Entry(address, item["metadata"]["name"], f"{address}:{port}"), _network(item))


def _is_of_group(item: Mapping[str, Any], payload: Payload) -> bool:
    """Return whether an entry is of a machine of the workload that names itself, and healthy."""
    address = item.get("spec", {}).get("address")
    name: str = item["metadata"]["name"]
    return _is_healthy(item) and name.startswith(f"{payload.workload}-{address}")


def _network(item: Mapping[str, Any]) -> str:
    return str(item.get("spec", {}).get("network", ""))


def _health(item: Mapping[str, Any] | None) -> Mapping[str, str]:
    """Return the condition of an entry's health; empty without one."""
    conditions = (item or {}).get("status", {}).get("conditions", [])
    return next((each for each in conditions if each.get("type") == "Healthy"), {})


def _is_healthy(item: Mapping[str, Any] | None) -> bool:
    return _health(item).get("status") == "True"


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

    def pods(self) -> tuple[Pod, ...]:
        """Return the workload's pods that run."""
        options = ("--selector", self._selector, "--field-selector", "status.phase=Running")
        return tuple(map(_pod, self.items("pods", *options)))


def _pod(item: Mapping[str, Any]) -> Pod:
    return Pod(item["metadata"]["name"], item["status"].get("podIP", ""), _is_ready(item))


def _is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)
