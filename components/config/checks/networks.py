"""Rules for networks, their CIDRs and their gateways."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Network
from typing import NamedTuple

from ...names import gateway_group_name, gateway_machine_name, gateway_workload_name
from ..addresses import parse_cidr
from ..docker import KindCluster
from ..problems import Problem, suggestion
from ..stack import Settings
from .names import check_names


class _Cidr(NamedTuple):
    """A CIDR of a stack file: its place, and the network that has it (None: Services)."""

    path: str
    text: str
    network: str | None


def check(settings: Settings) -> Iterator[Problem]:
    """Yield what is wrong with the networks of a stack and with every CIDR in it."""
    yield from check_names("networks", settings.networks)
    yield from _check_cidrs(settings)
    yield from _check_reserved_names(settings)
    for name in settings.networks:
        if not settings.cidrs(name):
            yield Problem(
                f"networks.{name}.cidrs",
                "is missing: give at least one CIDR, because no subnet and no cluster is in "
                "this network",
            )
        yield from _check_gateway(settings, name)
    network = settings.cluster.network
    if network not in settings.networks:
        hint = suggestion(network, settings.networks)
        yield Problem("cluster.network", f"{network!r} is not a network of this stack{hint}")


def _check_reserved_names(settings: Settings) -> Iterator[Problem]:
    """Yield workloads and machines with a name that the program derives for a gateway."""
    for network, declared in settings.networks.items():
        if declared.gateway is None:
            continue
        workload = gateway_workload_name(network)
        machine = re.compile(rf"{re.escape(workload)}-\d+")
        for section, name in (
            *(("workloads", name) for name in sorted(settings.workloads) if name == workload),
            *(
                ("machines", name)
                for name in sorted(settings.machines)
                if machine.fullmatch(name) or name == gateway_group_name(network)
            ),
        ):
            yield Problem(
                f"{section}.{name}",
                f"is a name that the gateway of network {network} may add: choose another",
            )


def _check_gateway(settings: Settings, name: str) -> Iterator[Problem]:
    path, gateway = f"networks.{name}.gateway", settings.networks[name].gateway
    if gateway is None:
        return
    machines = [machine for machine in settings.machines.values() if machine.network == name]
    if name == settings.cluster.network:
        yield Problem(
            path, "the cluster's own network has its east-west gateway in the cluster: leave it out"
        )
    elif gateway.machines < 1:
        yield Problem(f"{path}.machines", "must be at least 1")
    elif len(longest := gateway_machine_name(name, gateway.machines)) > 63:
        yield Problem(
            path,
            f"its machines have names such as {longest!r}, and host names have at most 63 "
            f"characters: give the network a name that is {len(longest) - 63} shorter",
        )
    elif not machines:
        yield Problem(path, "this network has no machine: leave the gateway out until it has one")
    elif not settings.has_subnets(name) and not isinstance(settings.cluster, KindCluster):
        yield Problem(
            path,
            "gateway machines are created on Compute Engine or beside a cluster of the platform "
            "kind, and this network has no subnet: leave it out",
        )


def _declared(settings: Settings) -> Iterator[_Cidr]:
    """Yield every CIDR of a stack file; those of `networks` last."""
    cluster = settings.cluster
    for name, subnet in settings.google.subnets.items() if settings.google else ():
        yield _Cidr(f"google.subnets.{name}.cidr", subnet.cidr, subnet.network)
    first, *others = settings.pod_cidrs
    yield _Cidr("cluster.podCidr", first, cluster.network)
    for index, text in enumerate(others):
        yield _Cidr(f"cluster.additionalPodCidrs[{index}]", text, cluster.network)
    if cluster.service_cidr is not None:
        yield _Cidr("cluster.serviceCidr", cluster.service_cidr, None)
    for name, network in settings.networks.items():
        for index, text in enumerate(network.cidrs):
            yield _Cidr(f"networks.{name}.cidrs[{index}]", text, name)


def _check_cidrs(settings: Settings) -> Iterator[Problem]:
    valid: list[tuple[_Cidr, IPv4Network]] = []
    for cidr in _declared(settings):
        try:
            parsed = parse_cidr(cidr.text)
        except ValueError as error:
            yield Problem(cidr.path, f"expected a CIDR such as 10.0.0.0/24; {error}")
            continue
        if not isinstance(parsed, IPv4Network):
            yield Problem(cidr.path, "IPv6 CIDRs are not supported: give an IPv4 CIDR")
        elif parsed.is_loopback or parsed.is_link_local or parsed.is_multicast:
            yield Problem(cidr.path, f"{cidr.text} cannot contain machines or pods")
        elif parsed.prefixlen == 0:
            yield Problem(cidr.path, f"{cidr.text} is the whole internet: give a smaller CIDR")
        else:
            for other, network in valid:
                if network.overlaps(parsed):
                    yield Problem(cidr.path, _overlap(cidr, other))
            valid.append((cidr, parsed))


def _overlap(cidr: _Cidr, other: _Cidr) -> str:
    """The message for a CIDR that overlaps an earlier one."""
    overlaps = f"{cidr.text} overlaps {other.text} of {other.path}"
    if not cidr.path.startswith("networks.") or cidr.network != other.network:
        return f"{overlaps}: give each its own addresses"
    if cidr.text == other.text:
        return f"{cidr.text} is already in this network by {other.path}: leave it out"
    return f"{overlaps}, which is already in this network: give other addresses alone"
