"""From what was read to the mesh that is shown: puts state, cluster and machines together. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta

from components import names
from components.config.stack import Settings
from components.verification import evidence, network_policies
from components.versions import is_older_kubernetes, unsupported_kubernetes

from . import advice, networks, read_cluster, read_state
from .model import Call, Endpoint, GatewayTraffic, Health, Mesh, Verification, Workload, worst_health
from .read_cluster import Cluster
from .read_machines import MachineReport
from .read_state import Stack, StackError


@dataclass(frozen=True)
class Facts:
    """All that was read. `settings` are the stack file's, or why they could not be read; `reports` by machine."""

    state: Stack
    settings: Settings | StackError
    cluster: Cluster
    read: datetime
    reports: Mapping[str, MachineReport] = field(default_factory=dict)


def mesh(facts: Facts, verification: Verification | None = None) -> Mesh:
    """Return the mesh with the health of its parts and what to do."""
    state, cluster = facts.state, facts.cluster
    settings = facts.settings if isinstance(facts.settings, Settings) else None
    failed = bool(verification and verification.error)
    workloads = tuple(_workload(each, facts, settings, failed) for _, each in sorted(state.workloads.items()))
    control_plane = networks.control_plane(state, cluster)
    network = _pods_network(state, settings)
    gateway = networks.pod_gateway(state, cluster, facts.reports.values())
    shown_networks = networks.networks(network, gateway, settings, workloads)
    remarks = [advice.kept_out(entry) for entry in cluster.entries if entry.quarantine]
    if cluster.problem:
        remarks.append(cluster.problem)
    if supported := unsupported_kubernetes(control_plane.version, cluster.kubernetes):
        is_older = is_older_kubernetes(control_plane.version, cluster.kubernetes)
        cure = "upgrade the cluster" if is_older else "upgrade Istio (docs/how-to/upgrades.md)"
        remarks.append(f"the cluster has Kubernetes {cluster.kubernetes}; {supported}: {cure}")
    if state.pending:
        remarks.append("an update is running, or was killed: when none runs, `pulumi up` finishes its work")
    remarks += [f"{cause}, and the last verification left it out: run `pulumi up`, which verifies too" for cause in state.left_out]
    remarks += [f"the last verification warned: {cause}" for cause in state.unproven]
    # Right after a verification another one shows the same.
    if state.unproven and not verification:
        remarks.append("when that is settled, `./scripts/status --verify` verifies again")
    if isinstance(facts.settings, StackError):
        remarks.append(str(facts.settings))
    elif settings and (new := sorted(set(settings.workloads) - set(state.workloads))):
        remarks.append(f"in the stack file and not in the stack yet: workload {', '.join(new)}; run `pulumi up`")
    healths = [
        control_plane.health,
        *(each.health for each in workloads),
        *(each.gateway.health for each in shown_networks if each.gateway),
    ]
    return Mesh(
        id=state.facts.mesh_id,
        stack=state.name,
        cluster=state.cluster,
        network=network,
        health=worst_health([*healths, "unknown"] if cluster.problem else healths),
        read=facts.read,
        updated=state.updated,
        verified=min((each.verified for each in state.workloads.values() if each.verified), default=None),
        control_plane=control_plane,
        networks=shown_networks,
        workloads=workloads,
        calls=tuple(_call(each) for each in state.calls),
        gateway_traffic=tuple(GatewayTraffic(**asdict(each)) for each in state.gateway_traffic),
        verification=verification,
        advice=tuple(remarks),
    )


def _pods_network(state: Stack, settings: Settings | None) -> str:
    """The network of the pods as the stack calls it; in the mesh it may have no name."""
    return state.facts.network or (settings.cluster.network if settings else "")


def _workload(state: read_state.Workload, facts: Facts, settings: Settings | None, failed: bool) -> Workload:
    name, cluster, pods_network = state.name, facts.cluster, _pods_network(facts.state, settings)
    identities = facts.state.facts.spiffe_ids(state.namespace, state.service_account)
    is_gateway = state.namespace == facts.state.facts.namespace
    declared = set(settings.single_machines_of(name)) if settings else None
    machines = {machine.name: machine for machine in facts.state.machines.values() if machine.workload == name}
    entries = {entry.name: entry for entry in cluster.entries if entry.namespace == state.namespace and entry.workload_group == name}
    endpoints = [
        _machine(
            advice.MachineFacts(
                name=machine,
                state=machines.get(machine),
                entry=entries.pop(machines[machine].entry, None) if machine in machines else None,
                report=facts.reports.get(machine),
                declared=declared is None or machine in declared,
                cluster_answers=not cluster.problem,
                identities=identities,
                control_plane=networks.version(facts.state, cluster),
                rotation=_rotation(machine, is_gateway, settings),
                stated_version=settings.mesh.version if settings and settings.mesh.adopt else "",
                gateway=facts.state.gateway,
                gateway_port=facts.state.gateway_port,
            ),
            settings,
            pods_network,
            facts.read,
        )
        for machine in sorted({*machines, *(declared or ())})
    ]
    endpoints += [_registered_itself(entry, pods_network, facts.read) for _, entry in sorted(entries.items())]
    pods = sorted(cluster.pods.get(name, ()), key=lambda pod: pod.name)
    endpoints += [_pod(pod, networks.version(facts.state, cluster), pods_network) for pod in pods]
    existing = settings.workloads[name].existing_services if settings and name in settings.workloads else []
    problems, health = _problems(state, endpoints, cluster, existing)
    changed = [each.name for each in machines.values() if _changed_since(each, state)]
    # Right after a verification that failed, its cause is shown.
    if changed and not failed:
        problems.append(f"{', '.join(changed)} joined or changed after it was verified last: run `./scripts/status --verify`")
    if settings and not cluster.problem and (too_few := _too_few(settings, name, entries.values(), pods_network)):
        problems += too_few
        health = worst_health([health, "missing"])
    if settings and (failed or not state.verified):
        problems += _policies(state, settings, cluster)
    return Workload(
        name=name,
        namespace=state.namespace,
        identity=identities[0],
        services={f"{service}.{state.namespace}": ports for service, ports in sorted(state.services.items())},
        endpoints=tuple(endpoints),
        health=worst_health([health, *(each.health for each in endpoints)]),
        verified=state.verified,
        is_gateway=is_gateway,
        advice=tuple(problems),
    )


def _too_few(settings: Settings, workload: str, others: Iterable[read_cluster.Entry], pods_network: str) -> list[str]:
    """What is wrong with networks that have fewer machines of instance groups than the stack file states.

    others: the workload's entries of no single machine in the state.
    """
    there = Counter(entry.network or pods_network for entry in others if not entry.registration)
    problems = []
    for network, least in settings.min_group_sizes(workload).items():
        number = there[pods_network if network == settings.cluster.network else network]
        if number < least:
            problems.append(
                f"{number} of at least {least} machines of its instance groups in the network {network} are registered: "
                "see the log of one's first start"
            )
    return problems


def _policies(state: read_state.Workload, settings: Settings, cluster: Cluster) -> list[str]:
    """What of the cluster may keep calls from a workload whose verification fails, or never succeeded."""
    declared = settings.workloads.get(state.name)
    if not declared or settings.verification_mode(state.name) == "none":
        return []
    there = [each for each in cluster.policies if each["metadata"]["namespace"] == state.namespace]
    return network_policies.sentences(there, state.labels, declared.probe.port)


def _rotation(machine: str, is_gateway: bool, settings: Settings | None) -> str:
    """The key of the stack file that has a machine join again."""
    if is_gateway:
        network = settings.machines[machine].network if settings and machine in settings.machines else "<its network>"
        return f"networks.{network}.gateway.rotation"
    return f"machines.{machine}.rotation"


def _problems(
    state: read_state.Workload, endpoints: Sequence[Endpoint], cluster: Cluster, existing: Sequence[str]
) -> tuple[list[str], Health]:
    """What is wrong with a workload as a whole. `endpoints`: all that is behind it, `existing`: its Services that the stack only uses."""
    problems: list[str] = []
    if not cluster.problem:
        pods = sum(each.kind == "pod" for each in endpoints)
        if pods < state.replicas:
            problems.append(f"{pods} of {state.replicas} pods are there: `kubectl --namespace {state.namespace} get events` has the cause")
        for name in sorted(state.services):
            if (state.namespace, name) not in cluster.services:
                cure = "the stack file has it as `existing`: create it, then run" if name in existing else "run `pulumi refresh` and"
                problems.append(f"the Service {name} is not in the cluster: {cure} `pulumi up`")
        if not endpoints:
            problems.append("nothing is behind it: no pod has its labels, and no machine is registered for it")
    return problems, "missing" if problems else "healthy"


def _changed_since(machine: read_state.Machine, workload: read_state.Workload) -> bool:
    """Return whether a machine joined as another one after its workload was verified last.

    A join that ran again and changed nothing is no reason to verify.
    """
    if workload.verified is None or machine.joined is None or machine.joined <= workload.verified:
        return False
    return bool(machine.revision) and workload.revisions.get(machine.name) != machine.revision


def _machine(facts: advice.MachineFacts, settings: Settings | None, pods_network: str, now: datetime) -> Endpoint:
    health, sentences = advice.machine(facts, now)
    state, seen = facts.state, facts.report if facts.report and not facts.report.problem else None
    certificate = seen.certificate if seen else None
    configured = settings.machines[facts.name].network if settings and facts.name in settings.machines else ""
    return Endpoint(
        kind="machine",
        name=facts.name,
        network=(facts.entry.network if facts.entry else "") or configured or _network_of(state) or pods_network,
        address=(state.address if state else "") or (facts.entry.address if facts.entry else ""),
        health=health,
        entry=state.entry if state else "",
        state=_state(facts.entry, facts.cluster_answers),
        agent=seen.agent if seen else "",
        envoy=seen.envoy if seen else "",
        active=now - timedelta(seconds=seen.active) if seen and seen.unit == "active" and seen.active is not None else None,
        certificate_begins=certificate.begins if certificate else None,
        certificate_ends=certificate.ends if certificate else None,
        token_expires=seen.token_expires if seen else None,
        clock=round(seen.offset, 1) if seen else None,
        joined=state.joined if state else None,
        verified=state.proven if state else None,
        advice=tuple(sentences),
    )


def _network_of(state: read_state.Machine | None) -> str:
    """The network that a machine registers in, by its entry's name."""
    return names.entry_network(state.entry, state.workload, state.address) if state else ""


def _state(entry: read_cluster.Entry | None, answers: bool) -> str:
    if not entry:
        return "NotRegistered" if answers else ""
    if entry.disconnected:
        return "Disconnected"
    return {True: "Healthy", False: "Unhealthy", None: "NoHealthYet"}[entry.healthy]


def _registered_itself(entry: read_cluster.Entry, pods_network: str, now: datetime) -> Endpoint:
    """A machine that is none of the stack's: it joined by itself, as those of an instance group do, or it was joined by hand."""
    seen = advice.MachineFacts(
        name=entry.name, state=read_state.Machine(entry.name, entry.workload_group, joined=now), entry=entry, report=None
    )
    health, sentences = advice.machine(seen, now)
    return Endpoint(
        kind="machine", name=entry.name, network=entry.network or pods_network, address=entry.address, health=health, entry=entry.name,
        state=_state(entry, True), advice=tuple(sentences),
    )  # fmt: skip


def _pod(pod: read_cluster.Pod, control_plane: str, network: str) -> Endpoint:
    health, sentences = advice.pod(pod, control_plane)
    return Endpoint(
        kind="pod", name=pod.name, network=pod.network or network, address=pod.address, health=health,
        state="Ready" if pod.ready else "NotReady", agent=pod.proxy, active=pod.started, advice=tuple(sentences),
    )  # fmt: skip


def _call(call: evidence.Call) -> Call:
    return Call(
        caller=call.caller,
        caller_identity=call.caller_identity,
        service=f"{call.service}:{call.port}",
        endpoint=call.endpoint,
        identity=call.peer,
        path=call.path,
        answers=call.answers,
    )
