"""A network's gateway as everybody outside of the network knows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi

from components.machine import Machine
from components.networks import Networks
from components.plan import router
from components.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """`addresses` are where calls into a network go, by the name of what takes them there; `ready` exists once it does."""

    addresses: Mapping[str, pulumi.Output[str]]
    ready: Sequence[pulumi.Resource]


def gateway(network: str, settings: Settings, networks: Networks, machines: Mapping[str, Machine]) -> Gateway:
    """The gateway of `network`: its machines, or the balancer before them where the platform has one."""
    if router.balanced(settings, network) and settings.google and networks.google:
        from components.machines.balancer import Balancer

        balancer = Balancer(network, settings, settings.google, networks.google, list(machines.values()))
        return Gateway(addresses={router.workload_name(network): balancer.address}, ready=balancer.ready)
    return Gateway(
        addresses={name: machine.address for name, machine in machines.items()}, ready=[machine.join for machine in machines.values()]
    )
