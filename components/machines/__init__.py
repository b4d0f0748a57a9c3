"""Machines, one module a platform. Each gives a `Host`; none knows Istio."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_command import remote


@dataclass(frozen=True, kw_only=True)
class Host:
    """What the rest of the program needs of a machine.

    `address` is what others in its network reach it by; `identity` changes when the machine is another one; `connection` is how SSH
    gets to it, with the host's key; `resource` is the machine itself.
    """

    address: pulumi.Output[str]
    identity: pulumi.Output[str]
    connection: remote.ConnectionArgs
    resource: pulumi.Resource
