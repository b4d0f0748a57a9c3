"""Refuses what others have on a Docker engine under a name of this stack."""

from __future__ import annotations

from ....local import scripting


def require_owner(thing: str, label: str, stack: str) -> None:
    """Require that a container or a network is of this stack.

    The stack `a` and its machine `b-c` have the name of the stack `a-b` and its machine `c`.

    thing: its kind and its name, such as `container istio-vm-mesh-a-b-c`.
    label: `key=value`, for what belongs to this stack. stack: the value in the thing; "" without one.

    Raises scripting.Failed.
    """
    if stack != label.partition("=")[2]:
        whose = f"of the stack {stack}" if stack else "not of this program"
        raise scripting.Failed(
            f"Docker has a {thing}, which is {whose}, and it was not changed: change the name in the stack file, or remove the {thing}"
        )


def is_in_network(container: str, network: str) -> bool:
    """Return whether a container is in a network, as the node of a cluster is from its creation.

    kind gives a node no label of ours. The network has the label of its stack. A container that is
    missing is in none.
    """
    template = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}"
    return network in scripting.call(["docker", "container", "inspect", "--format", template, container]).text.split()
