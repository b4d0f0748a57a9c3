"""Verifies a workload from the cluster's side.

Waits until its entries are healthy, then calls it from a pod of its own. Meanwhile a pod outside
the mesh calls every endpoint without a certificate, and must be refused. A machine that is missing
or unhealthy is named, and the others are verified all the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from time import monotonic, sleep
from typing import Any

from ... import names, shell
from ...local import scripting
from ...local.cluster_access import ClusterAccess, Kubectl, kubectl
from ..evidence import Call, Entry, Evidence, Plaintext, merge, parse, unproven
from ..network_policies import End
from ..target import CALL_SCRIPT, PLAINTEXT_SCRIPT, Caller, Target, call_variables, connections_for, plaintext_variables
from . import policy_causes
from .calling_pods import CallingPod, Jobs, NotRunning, NotStarted, Pair
from .cluster_objects import Cluster, Running, WorkloadPods

GROUP_TIMEOUT_S = 600
"""Seconds for machines of instance groups: a first boot, with its setup and a slow mirror."""
_MARGIN_S = 60
"""Seconds that the script that calls may need besides its patience."""
_AT_ONCE, _STRANGERS_AT_ONCE = 50, 20
"""How many calls the scripts make at once, from inside the mesh and from outside."""
_MOST_OTHERS = 100
"""How many endpoints of others count in a network: weights of WorkloadEntries are any numbers."""
_LOOKS = 3
"""How often endpoints are looked at: pods and machines of groups come and go while they are called."""


@dataclass(frozen=True)
class Payload:
    """A workload, and what must be true of it.

    access: the cluster.
    workload: its name.
    entries: the machines that must be healthy.
    missing: the machines whose joins failed in this update.
    closed: networks with machines whose gateway failed in this update.
    failed_groups: instance groups that failed in this update.
    group_size: how many further machines, of instance groups, must be healthy at least.
    pods: its pods.
    port: the machines' port.
    target: what is called, without the endpoints; None where nothing is called.
    not_offered: the port that should be called, and that no Service leads to; 0 for none.
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
    entries: tuple[Entry, ...] = field(metadata={"record": Entry})
    pods: WorkloadPods = field(metadata={"record": WorkloadPods})
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
    failed_groups: tuple[str, ...] = ()
    not_offered: int = 0

    @property
    def namespace(self) -> str:
        """The workload's namespace."""
        return self.pods.namespace

    @property
    def calling(self) -> End:
        """The pod that calls from inside the mesh."""
        return End("", self.namespace, self.pair.calling_labels)


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
        cluster = Cluster(program, payload.pods)
        if reason := cluster.refusal():
            self._fail(unproven(f"nothing of its namespace can be read: {reason}", object=f"Namespace {payload.namespace}"))
            return
        for machine in payload.missing:
            self._show(_missing(machine))
        for network in payload.closed:
            cause = f"nothing behind the gateway of the network {network} is called: it failed in this update"
            self._show(unproven(cause, object=f"Gateway {names.gateway_workload_name(network)}"))
        for group in payload.failed_groups:
            cause = f"no machine of the instance group {group} is called: it failed in this update"
            self._show(unproven(cause, object=f"instance group {group}"))
        members, problems = _wait_for_entries(cluster, payload)
        for problem in problems:
            self._fail(problem)
        if payload.not_offered:
            cause = f"nothing is called: no Service with a cluster IP leads to port {payload.not_offered}"
            self._fail(unproven(cause, object=f"Services of {payload.namespace}/{payload.workload}"))
        if payload.target is None:
            self._take_down(members, self._pods(cluster))
        else:
            self._call(program, cluster, payload.target, members)

    def _pods(self, cluster: Cluster) -> tuple[Running, ...]:
        try:
            return cluster.pods()
        except scripting.Failed as error:
            self._fail(unproven(str(error), object=f"pods of {self._payload.namespace}/{self._payload.workload}"))
            return ()

    def _take_down(self, members: Sequence[_Member], pods: Sequence[Running]) -> None:
        entries = tuple(member.entry for member in members)
        self.parts.append(Evidence(entries=entries, pods=tuple(each.pod for each in pods)))

    def _call(self, program: Kubectl, cluster: Cluster, target: Target, members: Sequence[_Member]) -> None:
        payload = self._payload
        jobs = Jobs(program, payload.access, payload.namespace)
        pods = self._pods(cluster)
        for each in pods:
            pod = each.pod
            if pod.ready and not each.has_ipv4:
                cause = f"pod {pod.name} is not called: its address {pod.address} is none of IPv4"
                self._fail(unproven(cause, object=f"Pod {payload.namespace}/{pod.name}"))
        others = _others(cluster, payload, target, members)
        called = _with_endpoints(payload, target, members, pods, others)
        if not _reached(called):
            self._take_down(members, pods)
            if payload.missing or payload.closed or payload.failed_groups:
                return  # the rows of what failed in this update state why
            self._fail(unproven("it has no endpoint: neither a pod is ready nor a machine healthy", object=_service(target)))
            return
        try:
            with jobs.use(payload.shared, payload.pair) as (inside, outside), ThreadPoolExecutor(1) as beside:
                for look in range(1, _LOOKS + 1):
                    strangers = beside.submit(_call_from_outside, outside, called, _reached(called))
                    done = _call_from_inside(inside, payload.caller, called)
                    if not _has_failed(done) or look == _LOOKS:
                        break
                    members, pods = _still_there(cluster, payload, members), self._pods(cluster)
                    now = _with_endpoints(payload, target, members, pods, others)
                    if now == called or not _reached(now):
                        break
                    called = now
                self._judge(done, cluster, called)
                plaintext = strangers.result()
        except NotRunning as problem:
            policies = policy_causes.keeping_from_start(cluster, payload.calling, payload.port) if isinstance(problem, NotStarted) else []
            self._fail(unproven("; ".join([str(problem), *policies]), object=f"Job {payload.namespace}/{payload.shared}"))
            plaintext = ()
        self._take_down(members, pods)
        self.parts.append(Evidence(plaintext=plaintext))
        answered = [result.endpoint for result in plaintext if result.result == "answered"]
        if answered and payload.strict:
            self._fail(
                unproven(
                    f"a caller outside the mesh was answered by {' '.join(answered)}: is mutual TLS strict "
                    "for it (PeerAuthentication), and does its sidecar redirect the port?",
                    service=target.service,
                    port=target.port,
                    object=f"PeerAuthentication {payload.namespace}/default",
                )
            )

    def _judge(self, done: scripting.Done, cluster: Cluster, target: Target) -> None:
        """Take down what the calls from inside the mesh have shown."""
        shown = parse(done.text)
        failed = [call for call in shown.calls if call.verdict == "failed"]
        silent = [call.endpoint for call in failed if call.endpoint and "no connection" in call.cause]
        refused = policy_causes.refusing_pod(cluster, self._payload.calling, silent)
        calls = (replace(call, cause="; ".join([call.cause, *refused.get(call.endpoint, ())])) for call in shown.calls)
        self.parts.append(replace(shown, calls=tuple(calls)))
        if done.status == 0:
            self._check_rows(shown, target)
            return
        cause = scripting.last_words(done.error) or f"{CALL_SCRIPT} ended with status {done.status}"
        if failed:
            first = next((call.endpoint for call in failed if call.cause in cause), "")
            self.failures.append("; ".join([cause, *refused.get(first, ())]))
        else:
            self._fail(unproven(cause, service=target.service, port=target.port, object=_service(target)))

    def _check_rows(self, shown: Evidence, target: Target) -> None:
        """Fail where a script that succeeded shows nothing of what it had to call."""
        silent = {*target.endpoints} - {call.endpoint for call in shown.calls}
        passed_on = [call for call in shown.calls if call.endpoint and call.how == "by-chance"]
        missing = sorted([*silent, *target.gateways[len(passed_on) :]])
        if missing:
            self._fail(unproven(f"{CALL_SCRIPT} shows nothing of {' '.join(missing)}", service=target.service, port=target.port))

    def _fail(self, row: Call) -> None:
        self.failures.append(row.problem)
        self._show(row)

    def _show(self, row: Call) -> None:
        self.parts.append(Evidence(calls=(row,)))


def _service(target: Target) -> str:
    name, namespace = target.service.split(".")[:2]
    return f"Service {namespace}/{name}"


def _missing(machine: str) -> Call:
    cause = f"machine {machine} is missing: its join failed in this update"
    return unproven(cause, machine=machine, object=f"resource {names.part_name(machine, names.JOIN)}")


def _reached(target: Target) -> list[str]:
    return [*target.endpoints, *target.gateways]


def _call_from_inside(pod: CallingPod, caller: Caller, target: Target) -> scripting.Done:
    return pod.run(shell.remote_script(CALL_SCRIPT, call_variables(caller, target)), _time_limit_s(caller, target))


def _time_limit_s(caller: Caller, target: Target) -> float:
    """Return the seconds in which the calls from inside have ended, if all are as slow as they may be.

    A round begins before the caller's patience is over. Calls by the name follow.
    """
    rounds = -(-len(target.endpoints) // _AT_ONCE) + 2
    if target.gateways:
        rounds += 2 * -(-sum(target.calls) // _AT_ONCE) + 1
    call_s = max(target.timeout_s + 5, 8)
    return caller.timeout_s + _MARGIN_S + rounds * call_s + len(target.endpoints) / 2


def _has_failed(done: scripting.Done) -> bool:
    return done.status != 0 or any(call.verdict == "failed" and call.endpoint for call in parse(done.text).calls)


def _call_from_outside(pod: CallingPod, target: Target, endpoints: Sequence[str]) -> tuple[Plaintext, ...]:
    variables = plaintext_variables(target, endpoints)
    # Each endpoint has six seconds (plaintext-probe.sh).
    done = pod.run(shell.remote_script(PLAINTEXT_SCRIPT, variables), _MARGIN_S + 6 * -(-len(endpoints) // _STRANGERS_AT_ONCE))
    results = {result.endpoint: result for result in parse(done.text).plaintext}
    if not {*endpoints} <= {*results}:
        raise NotRunning(f"the caller outside the mesh did not call all endpoints: {scripting.last_words(done.error)}")
    return tuple(results[endpoint] for endpoint in dict.fromkeys(endpoints))


@dataclass(frozen=True)
class _Member:
    """A healthy machine of the workload, and the name of its network in the mesh."""

    entry: Entry
    network: str


def _with_endpoints(
    payload: Payload, target: Target, members: Sequence[_Member], pods: Sequence[Running], others: Mapping[str, int]
) -> Target:
    """Return what is called, with the endpoints that pods see (istio/istio: ep_filters.go).

    others: how many endpoints besides the members each network has.
    """
    near = [member.entry for member in members if member.network == payload.network]
    through = _calls_through_gateways(payload, members, others)
    of_pods = [each.endpoint for each in pods if each.endpoint]
    return replace(
        target,
        endpoints=tuple(dict.fromkeys([*(entry.endpoint for entry in near), *of_pods])),
        gateways=tuple(through),
        calls=tuple(through.values()),
        # One of another network may have the same address.
        machines=tuple(f"{entry.machine}={entry.endpoint}" for entry in near),
    )


def _others(cluster: Cluster, payload: Payload, target: Target, members: Sequence[_Member]) -> Mapping[str, int]:
    """Return how many endpoints besides the members each network has, where members are behind gateways.

    They are entries that the Service selects: of another workload, or that another tool has created.
    One without a condition of health gets calls. One with a weight counts as so many. One
    without a network is in that of its label.
    """
    if all(member.network == payload.network for member in members):
        return {}
    service = cluster.get("service", target.service.partition(".")[0]) or {}
    selector = service.get("spec", {}).get("selector")
    if not selector:
        return {}
    declared, others = {member.entry.entry for member in members}, Counter[str]()
    for name, item in cluster.entries().items():
        spec: Mapping[str, Any] = item.get("spec", {})
        labels = {**(item["metadata"].get("labels") or {}), **(spec.get("labels") or {})}
        is_called = not _disconnected(item) and _health(item).get("status") != "False"
        if name not in declared and is_called and selector.items() <= labels.items():
            others[_network(item) or labels.get(names.NETWORK_LABEL, "")] += int(spec.get("weight") or 1)
    return others


def _calls_through_gateways(payload: Payload, members: Sequence[_Member], others: Mapping[str, int]) -> Mapping[str, int]:
    """Return how many calls meet all endpoints behind the gateways of each network, by gateway."""
    behind = Counter(member.network for member in members if payload.gateways.get(member.network))
    calls = Counter[str]()
    for network, endpoints in behind.items():
        gateways = payload.gateways[network]
        connections = connections_for(endpoints + min(others.get(network, 0), _MOST_OTHERS))
        calls.update(dict.fromkeys(gateways, -(-connections // len(gateways))))
    return calls


def _wait_for_entries(cluster: Cluster, payload: Payload) -> tuple[list[_Member], list[Call]]:
    """Wait until all machines are healthy; return those that are, and what is wrong with others."""
    start, wrong = monotonic(), dict[str, Call]()
    while True:
        items = cluster.entries()
        healthy = [_Member(entry, _network(items[entry.entry])) for entry in payload.entries if _is_healthy(items.get(entry.entry))]
        pending = [entry for entry in payload.entries if not _is_healthy(items.get(entry.entry)) and entry.machine not in wrong]
        others = _of_groups(items, payload)
        passed = monotonic() - start
        if passed >= payload.timeout_s / 4:
            wrong.update(_other_entries(payload, pending, items))
        if passed >= payload.timeout_s:
            wrong.update({entry.machine: _unhealthy(payload, entry, items.get(entry.entry), cluster.problem) for entry in pending})
        is_settled = all(entry.machine in wrong for entry in pending)
        too_few = len(others) < payload.group_size
        if is_settled and (not too_few or passed >= GROUP_TIMEOUT_S):
            break
        sleep(0.5 if not is_settled else 2)
    problems = [*wrong.values(), *(_too_few(payload, others) if too_few else ())]
    return [*healthy, *(others if payload.group_size else ())], problems


def _of_groups(items: Mapping[str, Mapping[str, Any]], payload: Payload) -> list[_Member]:
    """Return the healthy machines of the workload's instance groups."""
    declared = {entry.entry for entry in payload.entries}
    return [_member(item, payload.port) for name, item in items.items() if name not in declared and _is_of_group(item, payload)]


def _still_there(cluster: Cluster, payload: Payload, members: Sequence[_Member]) -> list[_Member]:
    """Return machines as they are now: those that are declared stay, those of groups come and go."""
    declared = {entry.entry for entry in payload.entries}
    items = cluster.entries()
    if cluster.problem or not payload.group_size:
        return list(members)
    return [*(member for member in members if member.entry.entry in declared), *_of_groups(items, payload)]


def _too_few(payload: Payload, members: Sequence[_Member]) -> Iterator[Call]:
    yield unproven(
        f"only {len(members)} of {payload.group_size} machines of groups are healthy: see "
        "'journalctl --unit istio-vm-mesh-boot' on the others",
        object=f"WorkloadGroup {payload.namespace}/{payload.workload}",
    )


def _unhealthy(payload: Payload, entry: Entry, item: Mapping[str, Any] | None, unread: str) -> Call:
    values = {"machine": entry.machine, "endpoint": entry.endpoint, "object": f"WorkloadEntry {payload.namespace}/{entry.entry}"}
    machine, health = f"machine {entry.machine}", _health(item)
    if unread:
        return unproven(f"whether {machine} is healthy cannot be read: {unread}", **values)
    if item is None:
        missing = f"there is no WorkloadEntry {entry.entry}"
        return unproven(f"{machine} did not register ({missing}): see 'journalctl --unit istio-vm-mesh' on it", **values)
    if since := _disconnected(item):
        return unproven(f"{machine} has had no connection to istiod since {since}: see 'journalctl --unit istio-vm-mesh' on it", **values)
    if health.get("status") == "False":
        return unproven(
            f"{machine} is unhealthy: its probe fails ({' '.join(health.get('message', '').split())}): is the "
            "application running on the machine, and on the probe's port?",
            **values,
        )
    return unproven(f"{machine} has registered but reports no health: is the probe in its mesh configuration?", **values)


def _other_entries(payload: Payload, pending: Sequence[Entry], items: Mapping[str, Mapping[str, Any]]) -> dict[str, Call]:
    """Return machines that have registered, but not as the stack states: another entry has their address.

    Machines of other networks may have the address, too: another machine of the stack, or one of
    another workload. So either the group or the network is the one of the stack.
    """
    problems = {}
    declared = {entry.entry for entry in payload.entries}
    for entry in pending:
        address = entry.endpoint.rpartition(":")[0]
        group = f"{payload.workload}-{address}"
        network = names.entry_network(entry.entry, payload.workload, address)
        for name, item in items.items():
            is_candidate = name not in declared and (name.startswith(group) or _network(item) == network)
            if entry.entry not in items and is_candidate and item.get("spec", {}).get("address") == address:
                problems[entry.machine] = unproven(
                    f"machine {entry.machine} has registered as {name} in the network {_network(item)} "
                    f"instead of {entry.entry}: does its agent run with another network or group "
                    "(ISTIO_META_NETWORK, ISTIO_META_AUTO_REGISTER_GROUP)?",
                    machine=entry.machine,
                    endpoint=entry.endpoint,
                    object=f"WorkloadEntry {payload.namespace}/{name}",
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


def _disconnected(item: Mapping[str, Any] | None) -> str:
    """Return since when the agent of an entry is not connected to istiod; "" where it is."""
    annotations: Mapping[str, str] = (item or {}).get("metadata", {}).get("annotations") or {}
    return annotations.get(names.DISCONNECTED_ANNOTATION, "")


def _is_healthy(item: Mapping[str, Any] | None) -> bool:
    """Return whether an entry's agent is connected, and has reported that its probe succeeds."""
    return not _disconnected(item) and _health(item).get("status") == "True"
