"""Gateways of networks as ordinary workloads and machines, whose agent runs as a router.

Istio's manual installs no gateway on the machines' side, so pods call machines directly or not at
all (istio/istio#56855). An agent in router mode accepts requests on port 15443 and forwards them by
the server name of their TLS, without terminating it.
"""

from __future__ import annotations

from ..names import (
    CROSS_NETWORK_PORT,
    STATUS_PORT,
    gateway_group_name,
    gateway_labels,
    gateway_machine_name,
    gateway_workload_name,
)
from .docker import DockerMachine
from .google import GceInstanceGroup, GceMachine
from .stack import Machine, Settings
from .workload import HttpProbe, Probe, WorkloadSettings


def networks_with_gateway(settings: Settings) -> list[str]:
    """Return the names of the networks that have gateway machines, sorted."""
    return sorted(name for name, network in settings.networks.items() if network.gateway)


def gateway_machine_names(settings: Settings, network: str) -> list[str]:
    """Return the names of the gateway machines of `network`, or that of their instance group."""
    gateway = settings.networks[network].gateway
    if gateway and gateway.group:
        return [gateway_group_name(network)]
    count = gateway.machines if gateway else 0
    return [gateway_machine_name(network, number) for number in range(1, count + 1)]


def add_gateway_machines(settings: Settings) -> Settings:
    """Return the stack with a workload and machines for the gateway of every network.

    Its machines have the settings of the gateway alone, whatever else is in the network.
    """
    workloads, machines = dict(settings.workloads), dict(settings.machines)
    for network in networks_with_gateway(settings):
        workload = gateway_workload_name(network)
        workloads[workload] = WorkloadSettings(
            name=workload,
            namespace=settings.mesh.namespace,
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
    gateway = settings.networks[network].gateway
    assert gateway is not None, "networks_with_gateway"
    values: dict[str, object] = {
        "name": name,
        "workload": gateway_workload_name(network),
        "network": network,
        "rotation": gateway.rotation,
    }
    if gateway.image is not None:
        values["image"] = gateway.image
    if not settings.has_subnets(network):
        return DockerMachine.model_validate({"platform": "docker", **values})
    if gateway.machine_type is not None:
        values["machine_type"] = gateway.machine_type
    if gateway.group:
        count = {"min_replicas": gateway.machines, "max_replicas": gateway.machines}
        zones = tuple(dict.fromkeys(gateway.zones))
        group = {"platform": "gce-instance-group", "subnet": gateway.subnet, "zones": zones}
        return GceInstanceGroup.model_validate({**values, **group, **count})
    zone = gateway.zones[number % len(gateway.zones)]
    more = {"platform": "gce", "subnet": gateway.subnet, "zone": zone}
    return GceMachine.model_validate({**values, **more})
