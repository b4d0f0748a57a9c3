"""Deletes a kind cluster, and its kubeconfig that scripts of the last update share."""

from __future__ import annotations

from dataclasses import dataclass

from ....local import cluster_access, scripting


@dataclass(frozen=True)
class Payload:
    """A cluster.

    name: as kind has it.
    """

    name: str


def run(payload: Payload) -> None:
    """Delete the cluster, where it exists. Raises scripting.Failed with kind's last words."""
    words = ["kind", "delete", "cluster", "--name", payload.name]
    scripting.check(words, f"kind could not delete the cluster {payload.name}")
    cluster_access.forget_kind_kubeconfig(payload.name)
