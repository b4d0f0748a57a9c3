"""The platforms `kind` and `docker`: cluster and machines on a Docker engine of the machine that runs Pulumi."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


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
