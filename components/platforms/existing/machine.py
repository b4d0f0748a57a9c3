"""Machines that exist, reached by SSH. They join and leave; they are neither created nor
removed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import pulumi

from ...config.checks.existing import SshServer, check_server
from ...config.existing import Bastion, SshMachine
from ...config.problems import Problem, SettingsError
from ...local import openssh
from ...machines.host import Host, HostFactory
from ...machines.ssh_server import hop_of, key_problems, require_ssh

PATIENCE_S = 10
"""Seconds in which a connection that fails is tried again: some five attempts."""


@dataclass(frozen=True, kw_only=True)
class SshHostArgs:
    """How a machine that exists is reached.

    host: the IP address, DNS name or `Host` of ~/.ssh/config that ssh connects to.
    port, user: of its SSH server and the login; None: as ssh has them. The user is root, or one
        with sudo and no password prompt.
    private_key: path of the private key; None: as ssh finds one.
    host_key: its public host key, such as `ssh-ed25519 AAAA...`; None: known_hosts decides.
    accept_any_host_key: whether the host key goes unchecked, where `host_key` is not given.
    address: the IP address by which pods reach it; None: `host`.
    bastion: the SSH server that the connection goes through; None: as ssh has it.
    instance_id: another one is another machine, such as the ID of a VM; None: its address.
    """

    host: str
    port: int | None = None
    user: str | None = None
    private_key: str | None = None
    host_key: str | None = None
    accept_any_host_key: bool = False
    address: str | None = None
    bastion: Bastion | None = None
    instance_id: str | None = None


def ssh_host(args: SshHostArgs | pulumi.Output[SshHostArgs], patience_s: int = PATIENCE_S) -> HostFactory:
    """Return what adopts a machine. Nothing is created.

    args: an output where they follow from a machine that the program creates.
    patience_s: seconds in which a connection that fails is tried again, as while a machine starts.

    The factory raises SettingsError for settings and keys that ssh cannot use. Those of an output
    fail the preview or update in which the output has a value.
    """
    return partial(_host, args, patience_s)


def check_keys(machines: Mapping[str, SshMachine]) -> None:
    """Raise SettingsError for all private keys of machines that ssh cannot use."""
    problems = [
        problem
        for name, machine in machines.items()
        for path, server in _servers(f"machines.{name}", machine)
        for problem in key_problems(path, server)
    ]
    if problems:
        raise SettingsError(list(dict.fromkeys(problems)))


def _host(args: SshHostArgs | pulumi.Output[SshHostArgs], patience_s: int, name: str, _opts: pulumi.ResourceOptions) -> Host:
    require_ssh()
    check = partial(_checked, name)
    server = pulumi.Output.from_input(check(args)) if isinstance(args, SshHostArgs) else args.apply(check)
    address = server.apply(lambda server: server.address or server.host)
    return Host(
        address=address,
        # Another name, port or host key of a machine does not make it another one.
        instance_id=server.apply(lambda server: server.instance_id or server.address or server.host),
        target=server.apply(partial(_target, name)),
        patience_s=patience_s,
    )


def _checked(name: str, args: SshHostArgs) -> SshHostArgs:
    """Return the arguments of a machine. Raises SettingsError for what ssh cannot use."""
    problems: list[Problem] = []
    for path, server in _servers(f"machines.{name}", args):
        problems += list(check_server(path, server)) or list(key_problems(path, server))
    if problems:
        raise SettingsError(problems)
    return args


def _servers(path: str, machine: SshHostArgs | SshMachine) -> Iterator[tuple[str, SshServer]]:
    """Yield the machine and its bastion, with their paths in the settings."""
    yield path, machine
    if machine.bastion:
        yield f"{path}.bastion", machine.bastion


def _target(name: str, args: SshHostArgs) -> openssh.Target:
    jumps = (hop_of(args.bastion, "bastions", name),) if args.bastion else ()
    return openssh.Target(machine=name, hop=hop_of(args, "machines", name), jumps=jumps)
