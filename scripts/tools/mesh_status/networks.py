"""istiod, the networks and their gateways: a part of `assess`, and pure like it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from components import names
from components.config.addresses import is_address
from components.config.stack import Settings
from components.versions import numbers

from . import read_cluster
from .model import ControlPlane, Gateway, Health, Network, Workload
from .read_cluster import Cluster
from .read_machines import MachineReport
from .read_state import Stack


def version(state: Stack, cluster: Cluster) -> str:
    """Return istiod's version: what runs, else what the stack installed."""
    return max((pod.proxy for pod in cluster.control_plane), default="", key=numbers) or state.facts.image_tag


def control_plane(state: Stack, cluster: Cluster) -> ControlPlane:
    """Return istiod as its pods are."""
    ready = sum(pod.ready for pod in cluster.control_plane)
    problems = [f"{pod.name} is not ready: {pod.problem}" for pod in cluster.control_plane if not pod.ready]
    if not cluster.problem and not cluster.control_plane:
        problems.append(f"no istiod runs in {state.facts.namespace}: machines keep what they have, and nothing new reaches them")
    return ControlPlane(
        version=version(state, cluster),
        ready=ready,
        pods=len(cluster.control_plane),
        health=_of_pods(cluster.control_plane, cluster),
        advice=tuple(problems),
    )


def _of_pods(pods: Sequence[read_cluster.Pod], cluster: Cluster) -> Health:
    if cluster.problem:
        return "unknown"
    if not pods:
        return "missing"
    return "healthy" if all(pod.ready for pod in pods) else "unhealthy"


def networks(pods: str, gateway: Gateway, settings: Settings | None, workloads: Sequence[Workload]) -> tuple[Network, ...]:
    """Return the network of the pods first, with its gateway, then the others by name."""
    declared = {name: settings.cidrs(name) for name in settings.networks} if settings else {}
    used = {endpoint.network for workload in workloads for endpoint in workload.endpoints} - {""}
    others = sorted({*declared, *used} - {pods})
    gateway_workloads = {workload.name: workload for workload in workloads if workload.is_gateway}
    gateways = {name: _machine_gateway(gateway_workloads.get(names.gateway_workload_name(name))) for name in others}
    return (
        Network(name=pods, ranges=declared.get(pods, ()), gateway=gateway),
        *(Network(name=name, ranges=declared.get(name, ()), gateway=gateways[name]) for name in others),
    )


def pod_gateway(state: Stack, cluster: Cluster, reports: Iterable[MachineReport]) -> Gateway:
    """Return the gateway in the cluster. One that was there before, under labels of its own, is judged by whether machines reach it."""
    problems = [f"{pod.name} is not ready: {pod.problem}" for pod in cluster.gateway if not pod.ready]
    health = _of_pods(cluster.gateway, cluster)
    if not cluster.gateway and not state.own_gateway:
        reached = {seen.gateway for seen in reports} - {None}
        health = "unknown" if not reached else "healthy" if True in reached else "unhealthy"
    elif not cluster.gateway and not cluster.problem:
        problems.append("it has no pods: machines cannot reach the control plane")
    if cluster.gateway_addresses and state.gateway and state.gateway not in cluster.gateway_addresses and is_address(state.gateway):
        now = " and ".join(cluster.gateway_addresses)
        problems.append(f"machines use the gateway address {state.gateway}, but its Service has {now}: run `pulumi up`")
    return Gateway(
        name=names.EASTWEST_GATEWAY,
        kind="pods",
        addresses=(state.gateway,) if state.gateway else (),
        health=health,
        version=max((pod.proxy for pod in cluster.gateway), default=""),
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
