"""Rules for kind clusters and for machines in containers."""

from __future__ import annotations

from collections.abc import Iterator

from ..docker import DockerMachine, KindCluster
from ..problems import Problem
from ..stack import Settings
from .texts import check_image


def check(settings: Settings) -> Iterator[Problem]:
    """Yield what is wrong with a kind cluster and with machines in containers."""
    for name in sorted(settings.docker_networks & settings.networks.keys()):
        if settings.cidrs(name) and not settings.machine_cidrs(name):
            yield Problem(
                f"networks.{name}.cidrs",
                "is missing: give the CIDR of the Docker network, for nodes and machines",
            )
    for name, machine in settings.machines_of_type(DockerMachine).items():
        yield from check_image(f"machines.{name}.image", machine.image)
    if isinstance(settings.cluster, KindCluster):
        yield from check_image("cluster.image", settings.cluster.image)
        for index, image in enumerate(settings.cluster.preload_images):
            yield from check_image(f"cluster.preloadImages[{index}]", image)
    else:
        for name in settings.machines_of_type(DockerMachine):
            yield Problem(
                f"machines.{name}.platform",
                "docker needs a cluster of the platform kind, on the same Docker engine",
            )
