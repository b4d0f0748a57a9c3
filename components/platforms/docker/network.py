"""Docker networks, one for each network of a stack."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network

import pulumi

from ... import commands
from . import configuration, names
from .scripts import create_network, remove


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


@dataclass(frozen=True, kw_only=True)
class DockerNetworkArgs:
    """What a Docker network is made from.

    stack: the stack's name; Docker's names begin with it.
    network: the stack's name of the network.
    cidr: its addresses.
    """

    stack: str
    network: str
    cidr: IPv4Network


def docker_network(name: str, args: DockerNetworkArgs) -> DockerNetwork:
    """Create the Docker network for a network of a stack. name: the resource's name."""
    docker_name = names.docker_name(args.stack, args.network)
    payload = create_network.Payload(
        name=docker_name,
        cidr=str(args.cidr),
        dynamic_cidr=str(configuration.dynamic_cidr(args.cidr)),
        label=names.stack_label(args.stack),
    )
    command = commands.local_command(
        name,
        commands.Script(create_network, payload),
        pulumi.ResourceOptions(delete_before_replace=True),
        delete=commands.Script(remove, remove.Payload(remove.NETWORK, docker_name, names.stack_label(args.stack))),
        options=commands.CommandOptions(triggers=[str(args.cidr)]),
    )
    created = commands.result(command, create_network.Result)
    return DockerNetwork(name=args.network, docker_name=created.apply(lambda network: network.name), cidr=args.cidr)
