"""Machines of a workload by their entries: which are healthy, and what is wrong with others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any

from ... import names
from ...local import scripting
from ..evidence import Call, Entry, unproven
from ..target import Target
from .cluster_objects import Cluster

GROUP_TIMEOUT_S = 600
"""Seconds for machines of instance groups: a first boot, with its setup and a slow mirror."""


@dataclass(frozen=True)
class Expected:
    """The machines that must be healthy.

    namespace, workload: whose they are.
    entries: those that the stack declares.
    port: the machines' port.
    group_sizes: how many machines of instance groups must be healthy at least, by the network's name
        in the mesh.
    timeout_s: seconds to wait for the health of entries.
    """

    namespace: str
    workload: str
    entries: tuple[Entry, ...]
    port: int
    group_sizes: Mapping[str, int]
    timeout_s: int


@dataclass(frozen=True)
class Member:
    """A healthy machine of the workload, and the name of its network in the mesh."""

    entry: Entry
    network: str


def wait_for_entries(cluster: Cluster, expected: Expected) -> tuple[list[Member], list[Call]]:
    """Wait until all machines are healthy; return those that are, and what is wrong with others."""
    start, wrong = monotonic(), dict[str, Call]()
    while True:
        items = cluster.entries()
        healthy = [Member(entry, _network(items[entry.entry])) for entry in expected.entries if _is_healthy(items.get(entry.entry))]
        pending = [entry for entry in expected.entries if not _is_healthy(items.get(entry.entry)) and entry.machine not in wrong]
        others = _of_groups(items, expected)
        passed = monotonic() - start
        if passed >= expected.timeout_s / 4:
            wrong.update(_other_entries(expected, pending, items))
        if passed >= expected.timeout_s:
            wrong.update({entry.machine: _unhealthy(expected, entry, items.get(entry.entry), cluster.problem) for entry in pending})
        is_settled = all(entry.machine in wrong for entry in pending)
        too_few = _too_few(expected, _count(expected, others), expected.group_sizes)
        if is_settled and (not too_few or passed >= GROUP_TIMEOUT_S):
            break
        sleep(0.5 if not is_settled else 2)
    if too_few and cluster.problem:
        too_few = [_of_workload(expected, f"whether machines of groups are healthy cannot be read: {cluster.problem}")]
    return [*healthy, *others], [*wrong.values(), *too_few]


def still_there(cluster: Cluster, expected: Expected, members: Sequence[Member]) -> list[Member]:
    """Return machines as they are now: those that are declared stay, those of groups come and go."""
    declared = {entry.entry for entry in expected.entries}
    items = cluster.entries()
    if cluster.problem:
        return list(members)
    return [*(member for member in members if member.entry.entry in declared), *_of_groups(items, expected)]


def lost(expected: Expected, before: Sequence[Member], now: Sequence[Member]) -> list[Call]:
    """Return what is wrong where machines of groups have gone that their stated size needs.

    Where there were too few before, that is stated already.
    """
    needed = _count(expected, before) & Counter(expected.group_sizes)
    return _too_few(expected, _count(expected, now), needed)


def endpoints_of_others(cluster: Cluster, network: str, target: Target, members: Sequence[Member]) -> Mapping[str, int]:
    """Return how many endpoints besides the members each network has, where members are behind gateways.

    They are entries that the Service selects: of another workload, or that another tool has created.
    One without a condition of health gets calls. One with a weight counts as so many. One
    without a network is in that of its label.

    Raises scripting.Failed where the cluster does not answer.
    """
    if all(member.network == network for member in members):
        return {}
    service = cluster.get("service", target.service.partition(".")[0]) or {}
    selector = service.get("spec", {}).get("selector")
    if not selector:
        return {}
    declared, others = {member.entry.entry for member in members}, Counter[str]()
    items = cluster.entries()
    if cluster.problem:
        raise scripting.Failed(cluster.problem)
    for name, item in items.items():
        spec: Mapping[str, Any] = item.get("spec", {})
        labels = {**(item["metadata"].get("labels") or {}), **(spec.get("labels") or {})}
        is_called = not _disconnected(item) and _health(item).get("status") != "False"
        if name not in declared and is_called and selector.items() <= labels.items():
            others[_network(item) or labels.get(names.NETWORK_LABEL, "")] += int(spec.get("weight") or 1)
    return others


def _of_groups(items: Mapping[str, Mapping[str, Any]], expected: Expected) -> list[Member]:
    """Return the healthy machines of the workload's instance groups."""
    declared = {entry.entry for entry in expected.entries}
    return [_member(item, expected.port) for name, item in items.items() if name not in declared and _is_of_group(item, expected)]


def _count(expected: Expected, members: Sequence[Member]) -> Counter[str]:
    """Return how many machines of groups each network has."""
    return Counter(member.network for member in members if member.entry not in expected.entries)


def _too_few(expected: Expected, there: Mapping[str, int], needed: Mapping[str, int]) -> list[Call]:
    """Return what is wrong with each network that has fewer machines of groups than it needs."""
    return [
        _of_workload(
            expected,
            f"only {there.get(network, 0)} of {expected.group_sizes[network]} machines of groups are healthy in the network "
            f"{network or 'of the pods'}: see 'journalctl --unit istio-vm-mesh-boot' on the others",
        )
        for network, number in needed.items()
        if there.get(network, 0) < number
    ]


def _of_workload(expected: Expected, cause: str) -> Call:
    return unproven(cause, object=f"WorkloadGroup {expected.namespace}/{expected.workload}")


def _unhealthy(expected: Expected, entry: Entry, item: Mapping[str, Any] | None, unread: str) -> Call:
    values = {"machine": entry.machine, "endpoint": entry.endpoint, "object": f"WorkloadEntry {expected.namespace}/{entry.entry}"}
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


def _other_entries(expected: Expected, pending: Sequence[Entry], items: Mapping[str, Mapping[str, Any]]) -> dict[str, Call]:
    """Return machines that have registered, but not as the stack states: another entry has their address.

    Machines of other networks may have the address, too: another machine of the stack, or one of
    another workload. So either the group or the network is the one of the stack.
    """
    problems = {}
    declared = {entry.entry for entry in expected.entries}
    for entry in pending:
        address = entry.endpoint.rpartition(":")[0]
        group = f"{expected.workload}-{address}"
        network = names.entry_network(entry.entry, expected.workload, address)
        for name, item in items.items():
            is_candidate = name not in declared and (name.startswith(group) or _network(item) == network)
            if entry.entry not in items and is_candidate and item.get("spec", {}).get("address") == address:
                problems[entry.machine] = unproven(
                    f"machine {entry.machine} has registered as {name} in the network {_network(item)} "
                    f"instead of {entry.entry}: does its agent run with another network or group "
                    "(ISTIO_META_NETWORK, ISTIO_META_AUTO_REGISTER_GROUP)?",
                    machine=entry.machine,
                    endpoint=entry.endpoint,
                    object=f"WorkloadEntry {expected.namespace}/{name}",
                )
    return problems


def _member(item: Mapping[str, Any], port: int) -> Member:
    address = item["spec"]["address"]
    return Member(Entry(address, item["metadata"]["name"], f"{address}:{port}"), _network(item))


def _is_of_group(item: Mapping[str, Any], expected: Expected) -> bool:
    """Return whether an entry is of a healthy machine of the workload's groups.

    A machine that is joined on its own has a registration, also once it is forgotten.
    """
    address, metadata = item.get("spec", {}).get("address"), item["metadata"]
    if names.REGISTRATION_LABEL in (metadata.get("labels") or {}) or _network(item) not in expected.group_sizes:
        return False
    name: str = metadata["name"]
    return _is_healthy(item) and name.startswith(f"{expected.workload}-{address}")


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
