"""What a platform provides for a machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pulumi
from pulumi_command import remote


@dataclass(frozen=True, kw_only=True)
class Host:
    """A machine as the rest of the program sees it, on any platform.

    address: the IP address by which it is reached in its network.
    instance_id: changes when the machine is another one.
    connection: how SSH reaches it, with the host key; a function of the host key where the
        machine creates that key.
    host_key_script: where the machine creates its host key, the local script that waits for the
        key and prints it.
    resource: the machine itself, where this program creates it.
    leave_script: the local script that takes the machine out of the mesh over SSH. A machine that
        is shut down needs none.
    """

    address: pulumi.Output[str]
    instance_id: pulumi.Output[str]
    connection: remote.ConnectionArgs | Callable[[pulumi.Output[str]], remote.ConnectionArgs]
    host_key_script: str | None = None
    resource: pulumi.Resource | None = None
    leave_script: pulumi.Output[str] | None = None


HostFactory = Callable[[pulumi.ResourceOptions], Host]
"""Creates or adopts a machine, with the options that it is given."""
