"""Machines that exist, reached by SSH. They are not made and not removed: they join, and leave."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pulumi
from pulumi_command import remote

from ...config.existing import SshMachine
from ...config.problems import Problem, SettingsError
from ...machines import ssh_leave
from ...machines.host import Host


def private_key(name: str, machine: SshMachine) -> pulumi.Output[str]:
    """The private key for a machine: from its file, else the stack's secret. Raises SettingsError for a file that cannot be read."""
    if machine.private_key is None:
        return pulumi.Config().require_secret("sshPrivateKey")
    try:
        return pulumi.Output.secret(Path(machine.private_key).expanduser().read_text())
    except OSError as error:
        raise SettingsError([Problem(f"machines.{name}.privateKey", f"cannot read {error.filename}: {error.strerror}")]) from None


def ssh_host_factories(machines: Mapping[str, SshMachine]) -> Mapping[str, Callable[[pulumi.ResourceOptions], Host]]:
    """How each machine is found, by its name. Nothing is made, so options go unused."""
    hosts = {name: host(name, machine) for name, machine in machines.items()}
    return {name: lambda _, found=found: found for name, found in hosts.items()}  # type: ignore[misc]


def host(name: str, machine: SshMachine) -> Host:
    """The machine `name`."""
    key, bastion = private_key(name, machine), machine.bastion
    proxy = None
    if bastion:
        proxy = remote.ProxyConnectionArgs(
            host=bastion.host, port=bastion.port, user=bastion.user, private_key=key, host_key=bastion.host_key, dial_error_limit=5
        )
    return Host(
        address=pulumi.Output.from_input(machine.address or machine.host),
        # Another key is another machine, also under the same address.
        identity=pulumi.Output.from_input(f"{machine.host}:{machine.port} {machine.host_key or ''}".strip()),
        connection=remote.ConnectionArgs(
            host=machine.host,
            port=machine.port,
            user=machine.user,
            private_key=key,
            host_key=machine.host_key,
            proxy=proxy,
            dial_error_limit=5,
            per_dial_timeout=10,
        ),
        as_root=ssh_leave.root_shell(machine),
        leave=key.apply(lambda text: ssh_leave.leave_over_ssh_script(name, machine, text)),
    )
