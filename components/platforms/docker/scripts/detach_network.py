"""Detaches a cluster's node from a Docker network.

A node or a network that is missing is no error, and neither is a node that is not attached.
"""

from __future__ import annotations

from dataclasses import dataclass

from ....local import scripting


@dataclass(frozen=True)
class Payload:
    """A node and a network.

    node: the node's container.
    network: the Docker network.
    """

    node: str
    network: str


def run(payload: Payload) -> None:
    """Detach the node, where it is attached. Raises scripting.Failed with Docker's last words."""
    node, network = payload.node, payload.network
    words = ["docker", "ps", "--all", "--no-trunc", "--filter", f"name=^{node}$", "--format", "{{.Networks}}"]
    attached = scripting.check(words, f"Docker does not list {node}").text
    if network in attached.split(","):
        words = ["docker", "network", "disconnect", "--force", network, node]
        scripting.check(words, f"Docker could not detach {node} from {network}")
