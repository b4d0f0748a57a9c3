"""Machines, one module a platform. Each gives a `Host`; none knows Istio."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pulumi
from pulumi_command import remote

from components.clusters import Cluster
from components.networks import Networks
from components.plan import script
from components.settings import DockerMachine, GceMachine, Settings, SshMachine, of_platform


@dataclass(frozen=True, kw_only=True)
class Host:
    """What the rest of the program needs of a machine.

    `address` is what others in its network reach it by; `identity` changes when the machine is another one; `connection` is how SSH
    gets to it, with the host's key; `as_root` is the command that runs a script there. `resource` is the machine itself, where this program
    made it. `leave` is the script that has it leave the mesh, for the machine that runs Pulumi; one that is shut down needs none.

    Where the host's key is made on the machine, `prepare` is the script that waits for it and prints it, for the machine that runs Pulumi, and
    `connection` a function of the key.
    """

    address: pulumi.Output[str]
    identity: pulumi.Output[str]
    connection: remote.ConnectionArgs | Callable[[pulumi.Output[str]], remote.ConnectionArgs]
    prepare: str | None = None
    as_root: str = script.REMOTE
    resource: pulumi.Resource | None = None
    leave: pulumi.Output[str] | None = None


# Makes a machine, with the options that it is given.
MakeHost = Callable[[pulumi.ResourceOptions], Host]


def makers(stack: str, settings: Settings, networks: Networks, cluster: Cluster) -> Mapping[str, MakeHost]:
    """How each machine of a stack is made or adopted, by its name."""
    made: dict[str, MakeHost] = {}
    of_docker = {name: machine for name, machine in settings.machines.items() if isinstance(machine, DockerMachine)}
    if of_docker:
        from components.machines import docker

        made.update(docker.makers(stack, of_docker, settings, networks, cluster))
    of_ssh = {name: machine for name, machine in settings.machines.items() if isinstance(machine, SshMachine)}
    if of_ssh:
        from components.machines import ssh

        made.update(ssh.makers(of_ssh))
    of_gce = of_platform(settings, GceMachine)
    if of_gce and settings.google and networks.google:
        from components.machines import gce

        made.update(gce.makers(stack, of_gce, settings, settings.google, networks.google))
    return made
