"""Gateways of networks as ordinary workloads and machines, whose agent runs as a router.

Istio's manual installs no gateway on the machines' side, so pods call machines directly or not at
all (istio/istio#56855). An agent in router mode accepts requests on port 15443 and forwards them by
the server name of their TLS, without terminating it.
"""

from __future__ import annotations

from ..names import (
    CROSS_NETWORK_PORT,
    ISTIO_NAMESPACE,
    STATUS_PORT,
    gateway_labels,
    gateway_machine_name,
    gateway_workload_name,
)
from .google import GceMachine
from .stack import Machine, Settings
from .workload import HttpProbe, Probe, WorkloadSettings


def networks_with_gateway(settings: Settings) -> list[str]:
    """Return the names of the networks that have gateway machines, sorted."""
    return sorted(name for name, network in settings.networks.items() if network.gateway)


def gateway_machine_names(settings: Settings, network: str) -> list[str]:
    """Return the names of the gateway machines of `network`."""
    gateway = settings.networks[network].gateway
    count = gateway.machines if gateway else 0
    return [gateway_machine_name(network, number) for number in range(1, count + 1)]


def add_gateway_machines(settings: Settings) -> Settings:
    """Return the stack with a workload and machines for the gateway of every network.

    A gateway machine has the configuration of the network's first machine, except its startup
    script and its local port. If the gateway names zones, they are assigned round-robin.
    """
    workloads, machines = dict(settings.workloads), dict(settings.machines)
    for network in networks_with_gateway(settings):
        workload = gateway_workload_name(network)
        workloads[workload] = WorkloadSettings(
            name=workload,
            namespace=ISTIO_NAMESPACE,
            labels=gateway_labels(network),
            ports={"tls": CROSS_NETWORK_PORT},
            probe=Probe(http=HttpProbe(port=STATUS_PORT, path="/healthz/ready")),
            services={},
            max_unavailable="1",
            role="router",
        )
        for number, name in enumerate(gateway_machine_names(settings, network)):
            machines[name] = _gateway_machine(settings, network, name, number)
    return settings.model_copy(update={"workloads": workloads, "machines": machines})


def _gateway_machine(settings: Settings, network: str, name: str, number: int) -> Machine:
    in_network = {
        each: machine
        for each, machine in settings.single_machines.items()
        if machine.network == network
    }
    first, gateway = in_network[min(in_network)], settings.networks[network].gateway
    changes: dict[str, object] = {"name": name, "workload": gateway_workload_name(network)}
    if isinstance(first, GceMachine):
        zones = gateway.zones if gateway and gateway.zones else (first.zone,)
        zone = zones[number % len(zones)]
        changes |= {"startup_script": None, "zone": zone}
    return first.model_copy(update=changes)
