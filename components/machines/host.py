"""What a platform provides for a machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pulumi
from pulumi_command import remote

from .. import shell


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
    as_root: str = shell.REMOTE
    resource: pulumi.Resource | None = None
    leave: pulumi.Output[str] | None = None


# Makes a machine, with the options that it is given.
HostFactory = Callable[[pulumi.ResourceOptions], Host]
