"""Verifies a workload from the cluster's side.

Waits until its entries are healthy, then calls it from a pod of its own. Meanwhile a pod outside
the mesh calls every endpoint without a certificate, and must be refused. A machine that is missing
or unhealthy is named, and the others are verified all the same.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from time import monotonic, sleep

from ... import names, shell
from ...local import scripting
from ...local.cluster_access import ClusterAccess, Kubectl, kubectl
from ..evidence import Call, Entry, Evidence, Plaintext, merge, parse, unproven
from ..network_policies import End
from ..target import CALL_SCRIPT, PLAINTEXT_SCRIPT, Caller, Target, call_variables, connections_for, plaintext_variables
from . import deployment, policy_causes
from .calling_pods import CallingPod, Jobs, NotRunning, NotStarted, Pair
from .cluster_objects import Cluster, Running, WorkloadPods
from .members import Expected, Member, endpoints_of_others, lost, still_there, wait_for_entries

_MARGIN_S = 60
"""Seconds that the script that calls may need besides its patience."""
_AT_ONCE, _STRANGERS_AT_ONCE = 50, 20
"""How many calls the scripts make at once, from inside the mesh and from outside."""
_MOST_OTHERS = 100
"""How many endpoints of others count in a network: weights of WorkloadEntries are any numbers."""
_LOOKS = 3
"""How often endpoints are looked at: pods and machines of groups come and go while they are called."""
LIMIT_S = 1700
"""Seconds in which the calls have ended: those that would take longer are not repeated."""


@dataclass(frozen=True)
class Payload:
    """A workload, and what must be true of it.

    access: the cluster.
    workload: its name.
    entries: the machines that must be healthy.
    missing: the machines whose joins failed in this update.
    closed: networks with machines whose gateway failed in this update.
    failed_groups: instance groups that failed in this update.
    group_sizes: how many machines of instance groups must be healthy at least, by the network's name
        in the mesh.
    pods: its pods. runs_pods: whether a Deployment of this program runs some: one must be ready.
    port: the machines' port.
    target: what is called, without the endpoints; None where nothing is called.
    not_offered: the port that should be called, and that no Service leads to; 0 for none.
    network: the name of the pods' network in the mesh.
    gateways: addresses of the gateways of other networks, by the networks' names.
    pair: the Jobs that call where no pair of this update runs. shared: the name of that pair.
    caller: who calls, for the evidence.
    strict: whether an answer to a caller outside the mesh is a failure.
    warn_only: whether a failure is a part of the evidence alone.
    timeout_s: seconds to wait for the health of entries, and meanwhile for a pod.
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
    group_sizes: Mapping[str, int] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()
    failed_groups: tuple[str, ...] = ()
    not_offered: int = 0
    runs_pods: bool = False

    @property
    def namespace(self) -> str:
        """The workload's namespace."""
        return self.pods.namespace

    @property
    def expected(self) -> Expected:
        """The machines that must be healthy."""
        return Expected(self.namespace, self.workload, self.entries, self.port, self.group_sizes, self.timeout_s)

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


@dataclass(frozen=True)
class _There:
    """The machines and pods that are there after calls that failed.

    is_short: whether some are absent that must be there. has_waited: whether some were, for a while.
    """

    members: Sequence[Member]
    pods: tuple[Running, ...]
    is_short: bool
    has_waited: bool


class _Verification:
    """One verification.

    parts: what was shown. failures: causes, the first one first.
    """

    def __init__(self, payload: Payload) -> None:
        self._payload = payload
        self._pods_until = monotonic() + payload.timeout_s
        self.parts: list[Evidence] = []
        self.failures: list[str] = []
        self._started = monotonic()

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
        members, problems = wait_for_entries(cluster, payload.expected)
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
        payload = self._payload
        try:
            if not payload.runs_pods:
                return cluster.pods()
            pods, problems = deployment.wait_for_pod(cluster, payload.namespace, payload.workload, self._pods_until)
        except scripting.Failed as error:
            self._fail(unproven(str(error), object=f"pods of {payload.namespace}/{payload.workload}"))
            return ()
        for problem in problems:
            self._fail(problem)
        return pods

    def _take_down(self, members: Sequence[Member], pods: Sequence[Running]) -> None:
        entries = tuple(member.entry for member in members)
        self.parts.append(Evidence(entries=entries, pods=tuple(each.pod for each in pods)))

    def _call(self, program: Kubectl, cluster: Cluster, target: Target, members: Sequence[Member]) -> None:
        payload = self._payload
        jobs = Jobs(program, payload.access, payload.namespace)
        pods = self._pods(cluster)
        for each in pods:
            pod = each.pod
            if pod.ready and not each.has_ipv4:
                cause = f"pod {pod.name} is not called: its address {pod.address} is none of IPv4"
                self._fail(unproven(cause, object=f"Pod {payload.namespace}/{pod.name}"))
        others = self._others(cluster, target, members)
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
                    is_late = monotonic() - self._started + _time_limit_s(payload.caller, called) > LIMIT_S
                    if not _has_failed(done) or look == _LOOKS or is_late:
                        break
                    there = self._look_again(cluster, members, pods)
                    members, pods = there.members, there.pods
                    now = _with_endpoints(payload, target, members, pods, others)
                    if there.is_short or (now == called and not there.has_waited) or not _reached(now):
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

    def _others(self, cluster: Cluster, target: Target, members: Sequence[Member]) -> Mapping[str, int]:
        try:
            return endpoints_of_others(cluster, self._payload.network, target, members)
        except scripting.Failed as error:
            self._fail(unproven(f"how many endpoints gateways choose from is unknown: {error}", object=_service(target)))
            return {}

    def _look_again(self, cluster: Cluster, members: Sequence[Member], pods: Sequence[Running]) -> _There:
        """Return what is there now, once all that must be there is.

        members, pods: those that were called. What takes their place has the time of entries.
        """
        payload, running, has_waited = self._payload, (*pods,), False
        end = monotonic() + payload.timeout_s
        while True:
            there = still_there(cluster, payload.expected, members)
            with contextlib.suppress(scripting.Failed):  # all are there, as far as the cluster answers
                running = cluster.pods()
            missed = [*lost(payload.expected, members, there), *_unready(payload, pods, running)]
            if not missed or monotonic() >= end:
                break
            has_waited = True
            sleep(2)
        for row in missed:
            self._fail(row)
        return _There(there, running, bool(missed), has_waited)

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


def _unready(payload: Payload, called: Sequence[Running], now: Sequence[Running]) -> list[Call]:
    """Return what is wrong where a pod stays and is ready no more, or where none is ready.

    called: the pods that were called. now: those that run now.
    """
    before = {each.pod for each in called if each.endpoint}
    there = [each.pod for each in now if not each.is_ending]
    unready = [pod.name for pod in there if not pod.ready and replace(pod, ready=True) in before]
    if unready:
        cause = "was called, and is not ready any more"
        return [unproven(f"pod {name} {cause}", object=f"Pod {payload.namespace}/{name}") for name in unready]
    if before and not any(each.endpoint for each in now):
        gone = ", ".join(sorted(pod.name for pod in before))
        cause = f"no pod is ready any more since {gone} was called"
        return [unproven(cause, object=f"pods of {payload.namespace}/{payload.workload}")]
    return []


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


def _with_endpoints(
    payload: Payload, target: Target, members: Sequence[Member], pods: Sequence[Running], others: Mapping[str, int]
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


def _calls_through_gateways(payload: Payload, members: Sequence[Member], others: Mapping[str, int]) -> Mapping[str, int]:
    """Return how many calls meet all endpoints behind the gateways of each network, by gateway."""
    behind = Counter(member.network for member in members if payload.gateways.get(member.network))
    calls = Counter[str]()
    for network, endpoints in behind.items():
        gateways = payload.gateways[network]
        connections = connections_for(endpoints + min(others.get(network, 0), _MOST_OTHERS))
        calls.update(dict.fromkeys(gateways, -(-connections // len(gateways))))
    return calls
