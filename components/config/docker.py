"""The platforms `kind` and `docker`: cluster and machines on a Docker engine of the machine that runs Pulumi."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .problems import Problem

if TYPE_CHECKING:
    from .stack import Settings


@dataclass(frozen=True, kw_only=True)
class KindCluster:
    """A Kubernetes cluster of one node, made by kind on a Docker engine of this machine.

    `image` is kind's node image. `load` lists images of the engine that are copied into the node, for machines that pull none.
    """

    platform: Literal["kind"]
    network: str
    image: str = "kindest/node:v1.35.4"
    pod_range: str = "10.244.0.0/16"
    service_range: str = "10.96.0.0/16"
    load: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DockerMachine:
    """A container with systemd and sshd on this machine's Docker engine, as a machine of the mesh."""

    platform: Literal["docker"]
    workload: str
    network: str
    image: str = "istio-vm-mesh/machine:bookworm"
    rotation: int = 0


def machine_cidrs(settings: Settings, network: str) -> tuple[str, ...]:
    """The ranges of a network in which machines live: all but those of the cluster's pods and Services."""
    of_cluster = {settings.cluster.pod_range, settings.cluster.service_range}
    return tuple(text for text in settings.networks[network].ranges if text not in of_cluster)


def docker_networks(settings: Settings) -> set[str]:
    """The networks of a stack for which a Docker network is made: those of the kind cluster and of its machines."""
    names = {machine.network for machine in settings.machines.values() if isinstance(machine, DockerMachine)}
    return names | {settings.cluster.network} if isinstance(settings.cluster, KindCluster) else names


def check(settings: Settings) -> Iterator[Problem]:
    """What is wrong with a kind cluster and machines in containers."""
    for name in sorted(docker_networks(settings) & set(settings.networks)):
        if not machine_cidrs(settings, name):
            yield Problem(
                f"networks.{name}.ranges", "no range is left for nodes and machines besides the cluster's pods and Services: add one"
            )
    if not isinstance(settings.cluster, KindCluster):
        for name, machine in settings.machines.items():
            if isinstance(machine, DockerMachine):
                yield Problem(f"machines.{name}.platform", "docker needs a cluster of the platform kind, on the same Docker engine")
