"""Deletes a kind cluster, and its kubeconfig that scripts of the last update share."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from ....local import cluster_access, scripting
from ..names import kind_node
from .owner import is_in_network


@dataclass(frozen=True)
class Payload:
    """A cluster.

    name: as kind has it.
    network: the Docker network of its node.
    """

    name: str
    network: str


def run(payload: Payload) -> None:
    """Delete the cluster, where it exists. One of others, which has the name by now, stays.

    Raises scripting.Failed with kind's last words.
    """
    node = kind_node(payload.name)
    exists = scripting.check(["docker", "ps", "--all", "--quiet", "--filter", f"name=^{node}$"], f"Docker does not list {node}").text
    if exists and not is_in_network(node, payload.network):
        print(f"the kind cluster {payload.name} is not of this program by now, and stays", file=sys.stderr)
        return
    words = ["kind", "delete", "cluster", "--name", payload.name]
    scripting.check(words, f"kind could not delete the cluster {payload.name}")
    cluster_access.forget_kind_kubeconfig(payload.name)
