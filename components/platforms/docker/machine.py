"""Containers with systemd and sshd as machines, on a Docker engine of this computer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import pulumi
from pulumi_command import local, remote

from ... import shell
from ...config.docker import DockerMachine
from ...config.existing import SshMachine
from ...machines import ssh_leave
from ...machines.host import Host, HostFactory
from ...machines.ssh_key import SshKey
from . import names
from .network import DockerNetwork


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


def docker_host(name: str, args: DockerHostArgs) -> HostFactory:
    """Return what creates the container of machine `name`."""
    return partial(_host, name, args)


def _host(name: str, args: DockerHostArgs, opts: pulumi.ResourceOptions) -> Host:
    docker_name = names.docker_name(args.stack, name)
    first, last = names.machine_addresses(args.network.cidr)
    attachment = {"network": args.network.docker_name}
    if args.second_network:
        attachment["second"] = args.second_network.docker_name
    attachment["routes"] = args.routes

    def script(inputs: Mapping[str, str]) -> str:
        variables = {
            "NAME": docker_name,
            "HOSTNAME_OF_MACHINE": name,
            "IMAGE": args.settings.image,
            "NETWORK": inputs["network"],
            "SECOND_NETWORK": inputs.get("second", ""),
            "FIRST": first,
            "LAST": last,
            "LABEL": names.stack_label(args.stack),
            "PUBLIC_KEY": inputs["public"],
            "ROUTES": inputs["routes"],
            "SSH_USER": names.SSH_USER,
        }
        return shell.local_script("platforms/docker/docker-machine", variables)

    container = local.Command(
        f"{name}-container",
        create=shell.LOCAL,
        stdin=pulumi.Output.all(**attachment, public=args.key.public).apply(script),
        delete=f"docker rm --force --volumes {docker_name} >/dev/null",
        triggers=[args.settings.image, *attachment.values()],
        logging=local.Logging.STDERR,
        add_previous_output_in_env=False,
        opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(delete_before_replace=True)),
    )
    results = container.stdout.apply(shell.parse_results)
    address = results.apply(lambda values: values["address"])
    leave = pulumi.Output.all(results=results, key=args.key.private)
    return Host(
        address=address,
        instance_id=results.apply(lambda values: values["id"]),
        connection=remote.ConnectionArgs(
            host=address,
            user=names.SSH_USER,
            private_key=args.key.private,
            host_key=results.apply(lambda values: values["hostKey"]),
            # A container's sshd answers within seconds. Half a minute of refusals is a failure.
            dial_error_limit=14,
            per_dial_timeout=10,
        ),
        resource=container,
        # Docker removes a container without shutting it down, and clients behind a gateway keep
        # their connections until the agent ends them.
        leave_script=leave.apply(lambda inputs: _leave(name, args.settings, inputs["results"], inputs["key"])),
    )


def _leave(name: str, settings: DockerMachine, results: Mapping[str, str], private_key: str) -> str:
    machine = SshMachine(
        platform="ssh",
        name=name,
        workload=settings.workload,
        network=settings.network,
        host=results["address"],
        user=names.SSH_USER,
        host_key=results["hostKey"],
    )
    return ssh_leave.leave_over_ssh_script(name, machine, private_key)
