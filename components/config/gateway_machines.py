"""A network's gateway as an ordinary workload and ordinary machines, with the role `router`."""

from __future__ import annotations

from dataclasses import replace

from .. import names
from ..names import CROSS_NETWORK_PORT, ISTIO_NAMESPACE, STATUS_PORT
from .google import GceMachine
from .stack import Machine, Settings
from .workload import HttpProbe, Probe, WorkloadSettings


def networks_with_gateway(settings: Settings) -> list[str]:
    """The networks whose gateway is machines, sorted."""
    return sorted(name for name, network in settings.networks.items() if network.gateway)


def gateway_machine_names(settings: Settings, network: str) -> list[str]:
    """The machines that are the gateway of `network`."""
    gateway = settings.networks[network].gateway
    return [f"{names.gateway_workload_name(network)}-{number}" for number in range(1, (gateway.machines if gateway else 0) + 1)]


def add_gateway_machines(settings: Settings) -> Settings:
    """The settings with every network's gateway as a workload and machines; each machine is made like the network's first one, where the
    gateway names zones in one of them.
    """
    workloads, machines = dict(settings.workloads), dict(settings.machines)
    for network in networks_with_gateway(settings):
        first: Machine = next(machine for _, machine in sorted(settings.singles.items()) if machine.network == network)
        if isinstance(first, GceMachine):
            first = replace(first, setup=None, local_port=None)
        workloads[names.gateway_workload_name(network)] = WorkloadSettings(
            namespace=ISTIO_NAMESPACE,
            labels=names.gateway_labels(network),
            ports={"tls": CROSS_NETWORK_PORT},
            probe=Probe(http=HttpProbe(port=STATUS_PORT, path="/healthz/ready")),
            services={},
            role="router",
        )
        gateway = settings.networks[network].gateway
        for number, name in enumerate(gateway_machine_names(settings, network)):
            made = replace(first, workload=names.gateway_workload_name(network))
            if isinstance(made, GceMachine) and gateway and gateway.zones:
                made = replace(made, zone=gateway.zones[number % len(gateway.zones)])
            machines[name] = made
    return replace(settings, workloads=workloads, machines=machines)
