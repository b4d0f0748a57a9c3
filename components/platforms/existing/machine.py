"""Machines that exist, reached by SSH. They are not made and not removed: they join, and leave."""

from __future__ import annotations

from pathlib import Path

import pulumi
from pulumi_command import remote

from ...config.existing import SshMachine
from ...config.problems import Problem, SettingsError
from ...machines import ssh_leave
from ...machines.host import Host, HostFactory


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
    bastion, proxy = settings.bastion, None
    if bastion:
        proxy = remote.ProxyConnectionArgs(
            host=bastion.host,
            port=bastion.port,
            user=bastion.user,
            private_key=key,
            host_key=bastion.host_key,
            dial_error_limit=5,
        )
    return Host(
        address=pulumi.Output.from_input(settings.address or settings.host),
        # Another host key is another machine, also at the same address.
        instance_id=pulumi.Output.from_input(f"{settings.host}:{settings.port} {settings.host_key or ''}".strip()),
        connection=remote.ConnectionArgs(
            host=settings.host,
            port=settings.port,
            user=settings.user,
            private_key=key,
            host_key=settings.host_key,
            proxy=proxy,
            dial_error_limit=5,
            per_dial_timeout=10,
        ),
        leave_script=key.apply(lambda text: ssh_leave.leave_over_ssh_script(name, settings, text)),
    )
