"""Machines that exist, reached by SSH. They are not made and not removed: they join, and leave."""

from __future__ import annotations

from pathlib import Path

import pulumi

from ...config.existing import SshMachine
from ...config.problems import Problem, SettingsError
from ...local import openssh
from ...machines.host import Host, HostFactory

PATIENCE_S = 10
"""Seconds in which a connection that fails is tried again: some five attempts."""


def ssh_host(name: str, settings: SshMachine, private_key: pulumi.Output[str] | None = None) -> HostFactory:
    """Return what adopts machine `name`. Nothing is created.

    private_key: the SSH key, where the settings name no file.
    Raises SettingsError for a key file that cannot be read.
    """
    host = _host(name, settings, _key_from_file(name, settings) if settings.private_key else private_key)
    return lambda _opts: host


def _key_from_file(name: str, settings: SshMachine) -> pulumi.Output[str]:
    try:
        return pulumi.Output.secret(Path(settings.private_key or "").expanduser().read_text())
    except OSError as error:
        raise SettingsError([Problem(f"machines.{name}.privateKey", f"cannot read {error.filename}: {error.strerror}")]) from None


def _host(name: str, settings: SshMachine, private_key: pulumi.Output[str] | None) -> Host:
    key = private_key if private_key is not None else pulumi.Config().require_secret("sshPrivateKey")
    return Host(
        address=pulumi.Output.from_input(settings.address or settings.host),
        # Another host key is another machine, also at the same address.
        instance_id=pulumi.Output.from_input(f"{settings.host}:{settings.port} {settings.host_key or ''}".strip()),
        target=key.apply(lambda text: _target(name, settings, text)),
        patience_s=PATIENCE_S,
    )


def _target(name: str, settings: SshMachine, key: str) -> openssh.Target:
    """Return how SSH reaches a machine. Its bastion takes the same key."""
    bastion, jump = settings.bastion, None
    hop = openssh.Hop(settings.host, settings.port, settings.user, key, settings.host_key)
    if bastion:
        jump = openssh.Hop(bastion.host, bastion.port, bastion.user, key, bastion.host_key)
    return openssh.Target(machine=name, hop=hop, bastion=jump)
