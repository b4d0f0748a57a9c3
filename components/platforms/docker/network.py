"""Docker networks, one for each network of a stack."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network

import pulumi

from ... import commands
from . import configuration, names
from .scripts import create_network


@dataclass(frozen=True, kw_only=True)
class DockerNetwork:
    """A Docker network.

    name: the stack's name of the network.
    docker_name: Docker's name of it, once it exists.
    cidr: its addresses.
    """

    name: str
    docker_name: pulumi.Output[str]
    cidr: IPv4Network


def docker_network(stack: str, name: str, cidr: IPv4Network) -> DockerNetwork:
    """Create the Docker network for the network `name` of a stack."""
    docker_name = names.docker_name(stack, name)
    payload = create_network.Payload(
        name=docker_name,
        cidr=str(cidr),
        dynamic_cidr=str(configuration.dynamic_cidr(cidr)),
        label=names.stack_label(stack),
    )
    command = commands.local_command(
        names.network_resource_name(name),
        commands.Script(create_network, payload),
        pulumi.ResourceOptions(delete_before_replace=True),
        delete=["docker", "network", "rm", docker_name],
        options=commands.CommandOptions(triggers=[str(cidr)]),
    )
    created = commands.result(command, create_network.Result)
    return DockerNetwork(name=name, docker_name=created.apply(lambda network: network.name), cidr=cidr)
