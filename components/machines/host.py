"""What a platform provides for a machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pulumi

from ..commands import Script
from ..local import openssh


@dataclass(frozen=True, kw_only=True)
class Host:
    """A machine as the rest of the program sees it, on any platform.

    address: the IP address by which it is reached in its network.
    instance_id: changes when the machine is another one.
    target: how SSH reaches it. It names the key, and does not hold it.
    patience_s: seconds for which SSH may be refused while the machine starts.
    host_key: where the machine creates its host key, the script that waits for the key and returns
        it; `target` has none then.
    resource: the machine itself, where this program creates it.
    leaves: whether it leaves the mesh over SSH. A machine that is shut down leaves by its unit.
    """

    address: pulumi.Output[str]
    instance_id: pulumi.Output[str]
    target: pulumi.Output[openssh.Target]
    patience_s: int
    host_key: Script | None = None
    resource: pulumi.Resource | None = None
    leaves: bool = True


HostFactory = Callable[[str, pulumi.ResourceOptions], Host]
"""Creates or adopts the machine of a name, with the options that it is given."""
