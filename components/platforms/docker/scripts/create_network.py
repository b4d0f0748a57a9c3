"""Creates a Docker network, or keeps the one of that name if it is of the same stack, with the same CIDR."""

from __future__ import annotations

from dataclasses import dataclass

from ....local import scripting
from .owner import require_owner


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
    """Create the network.

    Raises scripting.Failed for one of that name with another CIDR, or of others: the stack would
    remove it with its own.
    """
    template = f'{{{{range .IPAM.Config}}}}{{{{.Subnet}}}}{{{{end}}}}\n{{{{index .Labels "{payload.label.partition("=")[0]}"}}}}'
    existing = scripting.call(["docker", "network", "inspect", "--format", template, payload.name])
    if existing.status == 0:
        cidr, _, stack = existing.text.partition("\n")
        require_owner(f"network {payload.name}", payload.label, stack)
        if cidr != payload.cidr:
            raise scripting.Failed(
                f"the Docker network {payload.name} exists with CIDR {cidr} instead of {payload.cidr}: "
                f"remove it (docker network rm {payload.name}) or change networks in the stack file"
            )
    else:
        words = ["docker", "network", "create", "--driver", "bridge", "--subnet", payload.cidr]
        words += ["--ip-range", payload.dynamic_cidr, "--label", payload.label, payload.name]
        scripting.check(words, f"Docker could not create the network {payload.name}")
    return Result(payload.name)
