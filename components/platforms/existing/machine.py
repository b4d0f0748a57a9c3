"""Machines that exist, reached by SSH. They join and leave; they are neither created nor removed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pulumi

from ...config.checks.existing import check_server
from ...config.existing import Bastion, SshMachine
from ...config.problems import Problem, SettingsError
from ...local import openssh
from ...machines.host import Host, HostFactory

PATIENCE_S = 10
"""Seconds in which a connection that fails is tried again: some five attempts."""


@dataclass(frozen=True, kw_only=True)
class SshHostArgs:
    """How a machine that exists is reached.

    host: the IP address or DNS name that SSH connects to.
    private_key: the SSH key's text. It opens the bastion too, and is kept secret.
    port: the port of its SSH server.
    user: the user of the login: root, or one with sudo and no password prompt.
    host_key: its public host key, such as `ssh-ed25519 AAAA...`.
    accept_any_host_key: whether the host key goes unchecked, where `host_key` is not given.
    address: the IP address by which pods reach it; None: `host`.
    bastion: the SSH server that the connection goes through; None: a direct connection.
    """

    host: str
    private_key: pulumi.Input[str]
    port: int = 22
    user: str = "root"
    host_key: str | None = None
    accept_any_host_key: bool = False
    address: str | None = None
    bastion: Bastion | None = None


def ssh_host(args: SshHostArgs) -> HostFactory:
    """Return what adopts a machine. Nothing is created.

    The factory raises SettingsError for a host key that is missing or invalid.
    """
    return partial(_host, args)


def private_key_of(settings: SshMachine) -> pulumi.Output[str]:
    """Return the SSH key of a stack's machine: from its file, else the secret `sshPrivateKey`.

    Raises SettingsError for a key file that cannot be read.
    """
    if settings.private_key is None:
        return pulumi.Config().require_secret("sshPrivateKey")
    try:
        return pulumi.Output.secret(Path(settings.private_key).expanduser().read_text())
    except OSError as error:
        problem = f"cannot read {error.filename}: {error.strerror}"
        path = f"machines.{settings.name}.privateKey"
        raise SettingsError([Problem(path, problem)]) from None


def _host(args: SshHostArgs, name: str, _opts: pulumi.ResourceOptions) -> Host:
    path = f"machines.{name}"
    problems = list(check_server(path, args))
    if args.bastion:
        problems += check_server(f"{path}.bastion", args.bastion)
    if problems:
        raise SettingsError(problems)
    key = pulumi.Output.secret(args.private_key)
    return Host(
        address=pulumi.Output.from_input(args.address or args.host),
        # Another host key is another machine, also at the same address.
        instance_id=pulumi.Output.from_input(f"{args.host}:{args.port} {args.host_key or ''}".strip()),
        target=key.apply(partial(_target, name, args)),
        patience_s=PATIENCE_S,
    )


def _target(name: str, args: SshHostArgs, key: str) -> openssh.Target:
    """Return how SSH reaches a machine. Its bastion takes the same key."""
    bastion, jump = args.bastion, None
    hop = openssh.Hop(args.host, args.port, args.user, key, args.host_key)
    if bastion:
        jump = openssh.Hop(bastion.host, bastion.port, bastion.user, key, bastion.host_key)
    return openssh.Target(machine=name, hop=hop, bastion=jump)
