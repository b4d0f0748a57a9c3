"""Settings of the platforms `kind` and `docker`: a cluster and machines on a Docker engine."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .capture import Capture, Firewall
from .record import MAP_KEY, Items, Record


class KindCluster(Record):
    """Declare a Kubernetes cluster of one node that kind creates on the local Docker engine."""

    platform: Literal["kind"] = Field(
        description="`kind` for a cluster on the Docker engine of the computer that runs Pulumi."
    )
    network: str = Field(
        description="Name of the network that the kind cluster's pods and its node are in."
    )
    image: str = Field(
        default="kindest/node:v1.35.4",
        description="Node image of kind, which determines the Kubernetes version. "
        "Default: Kubernetes 1.35.4.",
    )
    pod_cidr: str = Field(
        default="10.244.0.0/16",
        description="IPv4 CIDR of the pods of the kind cluster. Default: that of kind itself.",
    )
    service_cidr: str = Field(
        default="10.96.0.0/16",
        description="IPv4 CIDR of the Services of the kind cluster. Default: that of kind itself.",
    )
    preload_images: Items[str] = Field(
        default=(),
        description="Images of the Docker engine that are copied into the node, for hosts that "
        "cannot pull them. Default: the node pulls every image.",
    )


class DockerMachine(Record):
    """Declare a container with systemd and sshd on the local Docker engine as a machine."""

    platform: Literal["docker"] = Field(
        description="`docker` for a container beside a cluster of the platform `kind`."
    )
    name: str = Field(alias=MAP_KEY, description="Name of the container, as in `machines`.")
    workload: str = Field(description="Name of the workload that runs in the container.")
    network: str = Field(
        description="Name of the network whose Docker network the container is attached to."
    )
    image: str = Field(
        default="istio-vm-mesh/machine:bookworm",
        description="Image of the container, with systemd, sshd and the application. "
        "Default: the one that `./scripts/lab` builds.",
    )
    connect_within: int = Field(
        default=30,
        description="Seconds in which the container must accept SSH, from 1 to 3600. One that runs "
        "a virtual machine boots for minutes where the kernel has no KVM. Default: 30 seconds.",
    )
    rotation: int = Field(
        default=0,
        description="Any number; a change runs the join of the container again, with a new token. "
        "It repairs what differs, and does not restart an agent that is as it must be. Default: 0.",
    )
    firewall: Firewall | None = Field(
        default=None,
        description="`report` or `manage`: what a join of the container does where "
        "a firewall of its own drops redirected connections. Default: the workload's `firewall`.",
    )
    capture: Capture = Field(
        default_factory=Capture,
        description="What of the traffic of the container bypasses the proxy, besides what "
        "its workload excludes. Default: nothing more.",
    )
