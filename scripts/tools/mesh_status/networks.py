"""istiod, the networks and their gateways: a part of `assess`, and pure like it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from components import names
from components.config.addresses import is_address
from components.config.stack import Settings

from . import read_cluster
from .model import ControlPlane, Gateway, Health, Network, Workload
from .read_cluster import Cluster
from .read_machines import MachineReport
from .read_state import Stack


def version(state: Stack, found: Cluster) -> str:
    """istiod's version: what runs, else what the stack installed."""
    return max((pod.proxy for pod in found.control_plane), default="") or state.version


def control_plane(state: Stack, found: Cluster) -> ControlPlane:
    """istiod as its pods are."""
    ready = sum(pod.ready for pod in found.control_plane)
    problems = [f"{pod.name} is not ready: {pod.problem}" for pod in found.control_plane if not pod.ready]
    if not found.problem and not found.control_plane:
        problems.append(f"no istiod runs in {names.ISTIO_NAMESPACE}: machines keep what they have, and nothing new reaches them")
    return ControlPlane(
        version=version(state, found),
        ready=ready,
        pods=len(found.control_plane),
        health=_of_pods(found.control_plane, found),
        advice=tuple(problems),
    )


def _of_pods(pods: Sequence[read_cluster.Pod], found: Cluster) -> Health:
    if found.problem:
        return "unknown"
    if not pods:
        return "missing"
    return "healthy" if all(pod.ready for pod in pods) else "unhealthy"


def networks(pods: str, gateway: Gateway, settings: Settings | None, workloads: Sequence[Workload]) -> tuple[Network, ...]:
    """The network of the pods first, with its gateway, then the others by name."""
    declared = {name: network.ranges for name, network in settings.networks.items()} if settings else {}
    used = {endpoint.network for workload in workloads for endpoint in workload.endpoints} - {""}
    others = sorted({*declared, *used} - {pods})
    routers = {workload.name: workload for workload in workloads if workload.router}
    made = {name: _machine_gateway(routers.get(names.gateway_workload_name(name))) for name in others}
    return (
        Network(name=pods, ranges=declared.get(pods, ()), gateway=gateway),
        *(Network(name=name, ranges=declared.get(name, ()), gateway=made[name]) for name in others),
    )


def pod_gateway(state: Stack, found: Cluster, reports: Iterable[MachineReport]) -> Gateway:
    """The gateway in the cluster. One that was there before, under labels of its own, is judged by whether machines reach it."""
    problems = [f"{pod.name} is not ready: {pod.problem}" for pod in found.gateway if not pod.ready]
    health = _of_pods(found.gateway, found)
    if not found.gateway and not state.own_gateway:
        reached = {seen.gateway for seen in reports} - {None}
        health = "unknown" if not reached else "healthy" if True in reached else "unhealthy"
    elif not found.gateway and not found.problem:
        problems.append("it has no pods: machines cannot reach the control plane")
    if found.gateway_addresses and state.gateway and state.gateway not in found.gateway_addresses and is_address(state.gateway):
        now = " and ".join(found.gateway_addresses)
        problems.append(f"machines dial {state.gateway}, and its Service has {now} now: run `pulumi up`")
    return Gateway(
        name=names.EASTWEST_GATEWAY,
        kind="pods",
        addresses=(state.gateway,) if state.gateway else (),
        health=health,
        version=max((pod.proxy for pod in found.gateway), default=""),
        advice=tuple(problems),
    )


def _machine_gateway(workload: Workload | None) -> Gateway | None:
    if not workload:
        return None
    return Gateway(
        name=workload.name,
        kind="machines",
        addresses=tuple(each.address for each in workload.endpoints if each.address),
        health=workload.health,
        version=min((each.agent for each in workload.endpoints), default=""),
        workload=workload.name,
    )
