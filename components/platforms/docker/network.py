"""Docker networks, one for each network of a stack."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network

import pulumi
from pulumi_command import local

from ... import shell
from . import names


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
    variables = {
        "NAME": docker_name,
        "RANGE": str(cidr),
        "DYNAMIC_RANGE": str(names.dynamic_cidr(cidr)),
        "LABEL": names.stack_label(stack),
    }
    command = local.Command(
        f"network-{name}",
        create=shell.LOCAL,
        stdin=shell.local_script("platforms/docker/docker-network", variables),
        delete=f"docker network rm {docker_name} >/dev/null",
        triggers=[str(cidr)],
        logging=local.Logging.STDERR,
        add_previous_output_in_env=False,
        opts=pulumi.ResourceOptions(delete_before_replace=True),
    )
    return DockerNetwork(name=name, docker_name=command.stdout, cidr=cidr)
