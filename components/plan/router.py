"""Gateways of networks that are machines: expanded into an ordinary workload and ordinary machines, with the role `router`.

Istio's own manual installs no gateway on the machines' side, so pods dial machines directly or not at all (istio/istio#56855). Here an
agent in router mode takes calls on 15443 and passes them on by the name in their TLS, without ending it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from components.plan import script
from components.plan.mesh import CROSS_NETWORK_PORT, NAMESPACE, STATUS_PORT, services_exposure
from components.plan.workload import host
from components.settings import GceMachine, HttpProbe, Machine, Probe, Settings, Workload

CLASS = "istio-remote"  # a Gateway API class for which Istio deploys nothing: it only states addresses


def workload_name(network: str) -> str:
    """The name of the workload that is the gateway of `network`."""
    return f"{network}-gateway"


def labels(network: str) -> dict[str, str]:
    """What selects the gateway's machines."""
    return {"istio": workload_name(network)}


def networks(settings: Settings) -> list[str]:
    """The networks whose gateway is machines, sorted."""
    return sorted(name for name, network in settings.networks.items() if network.gateway)


def closed(settings: Settings) -> list[str]:
    """The networks of machines that have no gateway: their machines call pods, nothing outside calls them."""
    inhabited = {machine.network for machine in settings.machines.values()} - {settings.cluster.network}
    return sorted(name for name in inhabited if not settings.networks[name].gateway)


def cut_off(settings: Settings, workload: str) -> bool:
    """Whether no pod can call a workload: it has no pods of this program's, and all its machines are in closed networks."""
    networks = {machine.network for machine in settings.machines.values() if machine.workload == workload}
    return not settings.workloads[workload].pods and bool(networks) and networks <= set(closed(settings))


def notes(settings: Settings) -> list[str]:
    """What people should know of the networks of a stack, where it is as they said but perhaps not as they meant."""
    found = []
    for network in closed(settings):
        of_here = {machine.workload for machine in settings.machines.values() if machine.network == network}
        out_of_reach = [name for name in sorted(of_here) if settings.workloads[name].services and cut_off(settings, name)]
        so = f", so no pod reaches the Services of {', '.join(out_of_reach)}" if out_of_reach else ""
        found.append(f"network {network} has no gateway: its machines call pods, and nothing outside of it calls them{so}")
    return found


def machine_names(settings: Settings, network: str) -> list[str]:
    """The machines that are the gateway of `network`."""
    gateway = settings.networks[network].gateway
    return [f"{workload_name(network)}-{number}" for number in range(1, (gateway.machines if gateway else 0) + 1)]


def balanced(settings: Settings, network: str) -> bool:
    """Whether the machines of a network's gateway are behind a load balancer, so that others know one address: on Google Cloud."""
    return any(isinstance(settings.machines[name], GceMachine) for name in machine_names(settings, network))


def expand(settings: Settings) -> Settings:
    """The settings with every network's gateway as a workload and machines; each machine is made like the network's first one, where the
    gateway names zones in one of them.
    """
    workloads, machines = dict(settings.workloads), dict(settings.machines)
    for network in networks(settings):
        first: Machine = next(machine for _, machine in sorted(settings.singles.items()) if machine.network == network)
        if isinstance(first, GceMachine):
            first = replace(first, setup=f"#!/bin/bash\n{script.body('gateway-setup')}", local_port=None)
        workloads[workload_name(network)] = Workload(
            namespace=NAMESPACE,
            labels=labels(network),
            ports={"tls": CROSS_NETWORK_PORT},
            probe=Probe(http=HttpProbe(port=STATUS_PORT, path="/healthz/ready")),
            services={},
            role="router",
        )
        gateway = settings.networks[network].gateway
        for number, name in enumerate(machine_names(settings, network)):
            made = replace(first, workload=workload_name(network))
            if isinstance(made, GceMachine) and gateway and gateway.zones:
                made = replace(made, zone=gateway.zones[number % len(gateway.zones)])
            machines[name] = made
    return replace(settings, workloads=workloads, machines=machines)


def needs_failover(settings: Settings, workload: str) -> bool:
    """Whether calls of a workload have more than one gateway to go through, so that one may fail."""
    gateways = [settings.networks[machine.network].gateway for machine in settings.machines_of(workload).values()]
    return any(gateway and gateway.machines > 1 for gateway in gateways)


def callers_choose(settings: Settings, workload: str) -> bool:
    """Whether callers of a workload know several gateways of a network, rather than a balancer before them."""
    return any(
        len(machine_names(settings, machine.network)) > 1 and not balanced(settings, machine.network)
        for machine in settings.machines_of(workload).values()
    )


def failover(service: str, workload: Workload, callers_choose: bool = True) -> dict[str, Any]:
    """The DestinationRule by which callers leave a gateway that no longer answers: a connection is given up after a second, and Istio's own
    retries take another. Where `callers_choose`, two in a row set the gateway aside for ten seconds; what the application answers sets nobody aside.

    A gateway passes on connections, so callers keep those to a machine that goes. Within the five seconds in which its agent ends, each is either
    used, and closed with the answer, or closed by its caller, because it was idle: a call that meets the end of one is lost.
    """
    outliers = {
        # Outlier detection would switch on failover between localities too.
        "loadBalancer": {"localityLbSetting": {"enabled": False}},
        "outlierDetection": {
            "splitExternalLocalOriginErrors": True,
            "consecutiveLocalOriginFailures": 2,
            "consecutive5xxErrors": 0,
            "consecutiveGatewayErrors": 0,
            "interval": "1s",
            "baseEjectionTime": "10s",
            "maxEjectionPercent": 50,
        },
    }
    tcp = {"connectTimeout": "1s", "tcpKeepalive": {"time": "5s", "interval": "1s", "probes": 3}}
    connections = {"connectionPool": {"tcp": tcp, "http": {"idleTimeout": "3s"}}}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": f"{service}-failover", "namespace": workload.namespace},
        "spec": {
            "host": host(service, workload),
            "trafficPolicy": {**connections, **(outliers if callers_choose else {})},
        },
    }


def server(network: str) -> dict[str, Any]:
    """The Gateway that has the machines of `network`'s gateway pass calls through."""
    manifest = services_exposure()
    manifest["metadata"]["name"] = workload_name(network)
    manifest["spec"]["selector"] = labels(network)
    return manifest


def nowhere(network: str) -> dict[str, Any]:
    """Keeps everybody outside of a closed network from being given endpoints in it.

    For a network without any gateway istiod hands out the machines' own addresses, which lead nowhere. With a gateway that no IPv4 proxy
    can reach it hands out none (istio/istio: pilot/pkg/xds/endpoints/ep_filters.go, since 1.30); the address is one for documentation.
    """
    manifest = addresses(network, ["2001:db8::1"])
    manifest["metadata"]["name"] = f"{network}-no-gateway"
    return manifest


def addresses(network: str, known: Sequence[str]) -> dict[str, Any]:
    """The Gateway API Gateway from which istiod learns where calls into `network` go. No value of istiod's chart changes with it."""
    listener = {
        "name": "cross-network",
        "port": CROSS_NETWORK_PORT,
        "protocol": "TLS",
        "tls": {"mode": "Passthrough", "options": {"gateway.istio.io/listener-protocol": "auto-passthrough"}},
    }
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": workload_name(network), "namespace": NAMESPACE, "labels": {"topology.istio.io/network": network}},
        "spec": {
            "gatewayClassName": CLASS,
            "addresses": [{"type": "IPAddress", "value": address} for address in known],
            "listeners": [listener],
        },
    }
