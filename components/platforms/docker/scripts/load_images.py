"""Loads images of the Docker engine into a kind cluster's node."""

from __future__ import annotations

from dataclasses import dataclass

from ....local import scripting


@dataclass(frozen=True)
class Payload:
    """Images for a cluster.

    cluster: the kind cluster.
    images: names of images that the Docker engine has.
    """

    cluster: str
    images: tuple[str, ...]


def run(payload: Payload) -> None:
    """Load the images. Raises scripting.Failed where the engine has not all of them."""
    words = ["kind", "load", "docker-image", "--name", payload.cluster, *payload.images]
    scripting.check(words, f"kind could not load images into the cluster {payload.cluster}")
