"""Creates a Docker network, or keeps the one of that name if its CIDR is the same."""

from __future__ import annotations

from dataclasses import dataclass

from ....local import scripting


@dataclass(frozen=True)
class Payload:
    """A Docker network.

    name: its name.
    cidr: its addresses.
    dynamic_cidr: the part of `cidr` from which Docker assigns dynamic addresses.
    label: `key=value`, for what belongs to a stack.
    """

    name: str
    cidr: str
    dynamic_cidr: str
    label: str


@dataclass(frozen=True)
class Result:
    """The network's name, once it exists."""

    name: str


def run(payload: Payload) -> Result:
    """Create the network. Raises scripting.Failed for one of that name with another CIDR."""
    subnets = "{{range .IPAM.Config}}{{.Subnet}}{{end}}"
    existing = scripting.call(["docker", "network", "inspect", "--format", subnets, payload.name])
    if existing.status == 0 and existing.text != payload.cidr:
        raise scripting.Failed(
            f"the Docker network {payload.name} exists with CIDR {existing.text} instead of "
            f"{payload.cidr}: remove it (docker network rm {payload.name}) or change networks in "
            "the stack file"
        )
    if existing.status:
        words = ["docker", "network", "create", "--driver", "bridge", "--subnet", payload.cidr]
        words += ["--ip-range", payload.dynamic_cidr, "--label", payload.label, payload.name]
        scripting.check(words, f"Docker could not create the network {payload.name}")
    return Result(payload.name)
