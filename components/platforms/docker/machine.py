"""Containers with systemd and sshd as machines, on a Docker engine of this computer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pulumi

from ... import commands
from ...config.docker import DockerMachine
from ...local import openssh
from ...machines.host import Host, HostFactory
from ...machines.ssh_key import SshKey
from ...machines.ssh_server import require_ssh
from ...names import SSH_PORT, part_name
from . import configuration, names
from .network import DockerNetwork
from .scripts import create_machine, remove


@dataclass(frozen=True, kw_only=True)
class DockerHostArgs:
    """What a container is made from.

    stack: the stack's name; Docker's names begin with it.
    settings: the machine.
    key: the SSH key that opens it.
    network: the Docker network that its address is from.
    second_network: another Docker network that it is attached to.
    routes: `CIDR via address`, one a line.
    """

    stack: str
    settings: DockerMachine
    key: SshKey
    network: DockerNetwork
    routes: pulumi.Output[str]
    second_network: DockerNetwork | None = None


def docker_host(args: DockerHostArgs) -> HostFactory:
    """Return what creates the container of a machine."""
    return partial(_host, args)


def _host(args: DockerHostArgs, name: str, opts: pulumi.ResourceOptions) -> Host:
    require_ssh()
    docker_name = names.docker_name(args.stack, name)
    first, last = configuration.machine_addresses(args.network.cidr)
    attachment = {"network": args.network.docker_name}
    if args.second_network:
        attachment["second"] = args.second_network.docker_name
    attachment["routes"] = args.routes

    def payload(values: Mapping[str, str]) -> create_machine.Payload:
        return create_machine.Payload(
            name=docker_name,
            hostname=name,
            image=args.settings.image,
            network=values["network"],
            second_network=values.get("second"),
            first=first,
            last=last,
            label=names.stack_label(args.stack),
            public_key=values["public"],
            routes=tuple(values["routes"].splitlines()),
            user=names.SSH_USER,
        )

    values = pulumi.Output.all(**attachment, public=args.key.public)
    command = commands.local_command(
        part_name(name, names.CONTAINER),
        commands.Script(create_machine, values.apply(payload)),
        pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(delete_before_replace=True)),
        delete=commands.Script(remove, remove.Payload(remove.CONTAINER, docker_name, names.stack_label(args.stack))),
        options=commands.CommandOptions(triggers=[args.settings.image, *attachment.values()]),
    )
    container = commands.result(command, create_machine.Result)
    target = pulumi.Output.all(container=container, key=args.key.file)
    return Host(
        address=container.apply(lambda result: result.address),
        instance_id=container.apply(lambda result: result.id),
        target=target.apply(partial(_target, name)),
        patience_s=args.settings.connect_within,
        resource=command,
        # Docker removes a container without shutting it down, and clients behind a gateway keep
        # their connections until the agent ends them.
        leaves=True,
    )


def _target(name: str, values: Mapping[str, Any]) -> openssh.Target:
    container: create_machine.Result = values["container"]
    hop = openssh.Hop(
        host=container.address,
        port=SSH_PORT,
        user=names.SSH_USER,
        host_key=container.host_key,
        identity_file=values["key"],
    )
    return openssh.Target(machine=name, hop=hop)
