"""Settings of what a machine's proxy does not capture."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .record import Items, Record

Firewall = Literal["report", "manage"]
"""What a join does where a firewall of its machine drops connections of the mesh."""


class Capture(Record):
    """Declare what of a machine's traffic bypasses the proxy.

    What a workload and its machine exclude is added together.
    """

    exclude_inbound_ports: Items[int] = Field(
        default=(),
        description="TCP ports (1 to 65535) on which connections from outside reach the "
        "application without the proxy, such as those of monitoring. As in Istio's annotation "
        "there are no ranges. Default: SSH's, and the agent's own.",
    )
    exclude_outbound_ports: Items[int] = Field(
        default=(),
        description="Ports (1 to 65535) to which the machine's connections go without the proxy, "
        "such as those of backups or NFS. Default: none.",
    )
    exclude_outbound_cidrs: Items[str] = Field(
        default=(),
        description="IPv4 and IPv6 CIDRs to which the machine's connections go without the proxy. "
        "Default: link-local addresses, among them the metadata servers of clouds.",
    )
    exclude_interfaces: Items[str] = Field(
        default=(),
        description="Network interfaces, such as `eth1`, by which connections come and go without "
        "the proxy. DNS queries still go to it. Default: none; bridges of containers and VMs are "
        "left out for the machine's own connections to them.",
    )
