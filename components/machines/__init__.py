"""Machines, one module a platform. Each gives a `Host`; none knows Istio."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pulumi
from pulumi_command import remote

from components.clusters import Cluster
from components.networks import Networks
from components.settings import DockerMachine, Settings


@dataclass(frozen=True, kw_only=True)
class Host:
    """What the rest of the program needs of a machine.

    `address` is what others in its network reach it by; `identity` changes when the machine is another one; `connection` is how SSH
    gets to it, with the host's key; `resource` is the machine itself.
    """

    address: pulumi.Output[str]
    identity: pulumi.Output[str]
    connection: remote.ConnectionArgs
    resource: pulumi.Resource


# Makes a machine, with the options that it is given.
MakeHost = Callable[[pulumi.ResourceOptions], Host]


def makers(stack: str, settings: Settings, networks: Networks, cluster: Cluster) -> Mapping[str, MakeHost]:
    """How each machine of a stack is made or adopted, by its name."""
    made: dict[str, MakeHost] = {}
    of_docker = {name: machine for name, machine in settings.machines.items() if isinstance(machine, DockerMachine)}
    if of_docker:
        from components.machines import docker

        made.update(docker.makers(stack, of_docker, settings, networks, cluster))
    return made
