"""Settings of Google Cloud and of the platforms `gke`, `gce` and `gce-instance-group`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from .capture import Capture, Firewall
from .existing import Bastion
from .google_machine_types import DiskType
from .record import MAP_KEY, Items, Named, Record

DEBIAN = "projects/debian-cloud/global/images/family/debian-12"
ZONES = 3
"""Zones of a region that a regional cluster, or a group without `zones`, is spread over."""
_BATCHES = 5
"""Batches in which a large instance group is replaced. One takes about five minutes."""


def surge(zones: Sequence[str], max_replicas: int) -> int:
    """Return how many machines more an instance group has while an update replaces its machines.

    zones: those that the group names, none for Google's choice.
    max_replicas: its highest number of machines.

    Google takes 0, or at least one a zone. A large group is replaced in a few batches, so that an
    update ends in time.
    """
    return max(len(zones) or ZONES, math.ceil(max_replicas / _BATCHES))


class Vpc(Record):
    """Declare a VPC that exists, in the stack's project or another one, such as a Shared VPC.

    Its owners provide Cloud NAT and Private Google Access.
    """

    name: str = Field(alias=MAP_KEY, description="Name of the VPC, as subnets have it in `vpc`.")
    existing: str = Field(
        description="Path of the VPC, such as projects/net-host/global/networks/shared. Of a "
        "Shared VPC it names the host project."
    )
    managed: bool = Field(
        default=True,
        description="Whether the program creates firewall rules and peerings in the existing VPC. "
        "If false, its owners do, and every preview prints them as commands. Default: it does.",
    )


class Subnet(Record):
    """Declare a subnet of a VPC. VPCs that `google.vpcs` does not have are created."""

    name: str = Field(alias=MAP_KEY, description="Name of the subnet, as in `google.subnets`.")
    vpc: str = Field(
        description="Name of the subnet's VPC: one of `google.vpcs`, or one that is created."
    )
    existing: str | None = Field(
        default=None,
        description="Path of a subnet that exists, such as "
        "projects/net-host/regions/europe-west1/subnetworks/machines. Required in a VPC that "
        "exists; else leave it out.",
    )
    network: str = Field(
        description="Name of the network in Istio's sense that the subnet's addresses belong to."
    )
    cidr: str = Field(
        description="Private IPv4 CIDR of the subnet. It overlaps no other CIDR of the stack."
    )


class Ssh(Record):
    """Declare how the computer that runs Pulumi reaches Compute Engine machines by SSH."""

    via: Literal["iap", "bastion", "direct"] = Field(
        default="iap",
        description="Route of SSH connections. `iap`: Identity-Aware Proxy, by gcloud. "
        "`bastion`: an SSH server. `direct`: the machines' own addresses, from inside the VPC or "
        "over a VPN. Default: Identity-Aware Proxy.",
    )
    cidrs: Items[str] = Field(
        default=(),
        description="IPv4 CIDRs that the firewall admits to SSH. Required unless `via` is `iap`, "
        "whose CIDR is Google's own.",
    )
    key_type: Literal["ed25519", "ecdsa"] = Field(
        default="ed25519",
        description="Type of the machines' host keys, and of the stack's key when it is made. "
        "`ecdsa` (P-256) is for images and computers in FIPS mode, which have no Ed25519. "
        "Default: Ed25519.",
    )
    bastion: Bastion | None = Field(
        default=None,
        description="SSH server in front of all machines. Required by `via: bastion`, else left "
        "out.",
    )


class Google(Record):
    """Declare the Google Cloud project and the networks that clusters and machines are created in.

    VPCs between which declared traffic passes are peered.
    """

    project: str = Field(description="ID of the Google Cloud project that all resources are in.")
    region: str = Field(
        description="Region of subnets, instance groups and a regional cluster, such as "
        "europe-west1."
    )
    subnets: Named[Subnet] = Field(
        description="Subnets of the stack, by name. The cluster has a subnet without machines."
    )
    vpcs: Named[Vpc] = Field(
        default={},
        description="VPCs that exist, by the names that subnets give them. "
        "Default: all VPCs are created.",
    )
    ssh: Ssh = Field(
        default_factory=Ssh,
        description="Route of SSH connections to machines without public addresses. "
        "Default: through Identity-Aware Proxy.",
    )
    labels: Mapping[str, str] = Field(
        default={},
        description="Labels of all resources on Google Cloud that can have them. Default: none.",
    )


class GkeNodes(Record):
    """Declare the nodes of a Standard cluster, which GKE scales between two bounds."""

    machine_type: str = Field(
        default="e2-standard-2",
        description="Compute Engine machine type of a node. Default: two vCPUs and 8 GB.",
    )
    disk_size: int = Field(
        default=50, description="Size of a node's boot disk in GB. Default: 50 GB."
    )
    disk_type: DiskType | None = Field(
        default=None,
        description="Type of a node's boot disk. Default: "
        "`hyperdisk-balanced` where the machine type takes nothing else, else `pd-balanced`.",
    )
    min_nodes: int = Field(
        default=2, description="Lowest number of nodes in all zones together. Default: two."
    )
    max_nodes: int = Field(
        default=4, description="Highest number of nodes in all zones together. Default: four."
    )
    spot: bool = Field(
        default=False,
        description="Whether nodes are Spot VMs, which are cheaper and may stop at any time. "
        "Default: standard VMs.",
    )


class GkeGateway(Record):
    """Declare the internal load balancer in front of the east-west gateway of a GKE cluster."""

    address: str | None = Field(
        default=None,
        description="IPv4 address of the load balancer in the cluster's subnet. "
        "Default: a free one is reserved.",
    )
    dns_name: str | None = Field(
        default=None,
        description="DNS name of the gateway, created in a private zone of all VPCs of the stack. "
        "Without it machines use the address.",
    )


class GkeCluster(Record):
    """Declare a GKE cluster with private nodes.

    Its control plane is reached by its DNS name, with Google identities alone.
    """

    platform: Literal["gke"] = Field(
        description="`gke` for a cluster that is created on Google Kubernetes Engine."
    )
    network: str = Field(description="Name of the network that the GKE cluster's pods are in.")
    subnet: str = Field(
        description="Name of the subnet of the cluster's nodes. It holds no machines, because GKE "
        "opens node ports to all addresses in it."
    )
    pod_cidr: str = Field(
        default="10.20.0.0/16",
        description="Private IPv4 CIDR of the GKE cluster's pods. Default: 10.20.0.0/16.",
    )
    service_cidr: str = Field(
        default="10.30.0.0/20",
        description="Private IPv4 CIDR of the GKE cluster's Services. Default: 10.30.0.0/20.",
    )
    pod_range_name: str = Field(
        default="pods",
        description="Name of the subnet's secondary range that is `podCidr`. Of an existing subnet "
        "it is given by its owners. Default: pods.",
    )
    service_range_name: str = Field(
        default="services",
        description="Name of the subnet's secondary range that is `serviceCidr`. Of an existing "
        "subnet it is given by its owners. Default: services.",
    )
    zone: str | None = Field(
        default=None,
        description="Zone of a zonal cluster. Without it the cluster is regional.",
    )
    autopilot: bool = Field(
        default=False,
        description="Whether Google manages the nodes (Autopilot). Default: a Standard cluster "
        "with `nodes`.",
    )
    channel: Literal["RAPID", "REGULAR", "STABLE", "EXTENDED"] = Field(
        default="REGULAR",
        description="Release channel by which GKE upgrades the cluster. Default: REGULAR.",
    )
    nodes: GkeNodes = Field(
        default_factory=GkeNodes,
        description="Nodes of a Standard cluster; not for Autopilot. Default: two to four nodes.",
    )
    gateway: GkeGateway = Field(
        default_factory=GkeGateway,
        description="Internal load balancer that machines reach the control plane by. "
        "Default: a reserved address without a DNS name.",
    )
    pod_ports: Items[int] = Field(
        default=(),
        description="Ports (1 to 65535) of pods that machines in the cluster's network may call, "
        "besides those of this stack's workloads. Default: no others.",
    )
    deletion_protection: bool = Field(
        default=True,
        description="Whether the cluster is protected from deletion. Before `pulumi destroy` it "
        "must be set to false in an update. Default: protected.",
    )


class GceMachine(Record):
    """Declare a Compute Engine machine without a public address."""

    platform: Literal["gce"] = Field(
        description="`gce` for one Compute Engine machine that is joined by SSH."
    )
    name: str = Field(alias=MAP_KEY, description="Name of the GCE machine, as in `machines`.")
    workload: str = Field(
        description="Name of the workload that runs on the Compute Engine machine."
    )
    network: str = Field(
        description="Name of the network in which the Compute Engine machine has its subnet."
    )
    zone: str = Field(description="Zone of the machine, in the region of `google.region`.")
    subnet: str | None = Field(
        default=None,
        description="Name of the machine's subnet. Required if the network has several subnets "
        "for machines; default: the only one.",
    )
    machine_type: str = Field(
        default="e2-small",
        description="Compute Engine machine type of the machine. Default: two shared vCPUs and "
        "2 GB.",
    )
    image: str = Field(
        default=DEBIAN,
        description="Image or image family of the machine's boot disk. Default: Debian 12.",
    )
    disk_size: int = Field(
        default=20, description="Size of the machine's boot disk in GB. Default: 20 GB."
    )
    disk_type: DiskType | None = Field(
        default=None,
        description="Type of the machine's boot disk. Default: "
        "`hyperdisk-balanced` where the machine type takes nothing else, else `pd-balanced`.",
    )
    startup_script: str | None = Field(
        default=None,
        description="Script that installs the application. It runs as root at every boot, so it "
        "must be idempotent. Default: the image has all that is needed.",
    )
    spot: bool = Field(
        default=False,
        description="Whether the machine is a Spot VM, which is cheaper and may stop at any time. "
        "Default: a standard VM.",
    )
    rotation: int = Field(
        default=0,
        description="Any number; a change runs the join of the Compute Engine machine again, with "
        "a new token. It repairs what differs, and does not restart an agent that is as it must "
        "be. Default: 0.",
    )
    firewall: Firewall | None = Field(
        default=None,
        description="`report` or `manage`: what a join of the Compute Engine machine does where "
        "a firewall of its own drops redirected connections. Default: the workload's `firewall`.",
    )
    capture: Capture = Field(
        default_factory=Capture,
        description="What of the traffic of the Compute Engine machine bypasses the proxy, besides "
        "what its workload excludes. Default: nothing more.",
    )


class GceInstanceGroup(Record):
    """Declare a regional managed instance group whose machines join without SSH.

    They issue their own tokens with their Google identity.
    """

    platform: Literal["gce-instance-group"] = Field(
        description="`gce-instance-group` for Compute Engine machines that an autoscaler adds and "
        "removes."
    )
    name: str = Field(alias=MAP_KEY, description="Name of the instance group, as in `machines`.")
    workload: str = Field(
        description="Name of the workload that runs on every machine of the group."
    )
    network: str = Field(description="Name of the network in which the group's machines are.")
    subnet: str | None = Field(
        default=None,
        description="Name of the group's subnet. Required if the network has several subnets for "
        "machines; default: the only one.",
    )
    machine_type: str = Field(
        default="e2-small",
        description="Compute Engine machine type of the group's machines. Default: two shared "
        "vCPUs and 2 GB.",
    )
    image: str = Field(
        default=DEBIAN,
        description="Image or image family of the boot disks of the group. Default: Debian 12.",
    )
    disk_size: int = Field(
        default=20, description="Size of each boot disk of the group in GB. Default: 20 GB."
    )
    disk_type: DiskType | None = Field(
        default=None,
        description="Type of each boot disk of the group. Default: "
        "`hyperdisk-balanced` where the machine type takes nothing else, else `pd-balanced`.",
    )
    startup_script: str | None = Field(
        default=None,
        description="Script that installs the application. It runs as root at every boot, before "
        "the machine joins. Default: the image has all that is needed.",
    )
    spot: bool = Field(
        default=False,
        description="Whether the group's machines are Spot VMs, which are cheaper and may stop at "
        "any time. Default: standard VMs.",
    )
    zones: Items[str] = Field(
        default=(),
        description="Zones of the region that the group is spread over. Default: Google chooses "
        "them.",
    )
    min_replicas: int = Field(
        default=1, description="Lowest number of machines of the group. Default: one."
    )
    max_replicas: int = Field(
        default=3, description="Highest number of machines of the group. Default: three."
    )
    target_cpu: float = Field(
        default=0.6,
        description="CPU utilisation that the autoscaler aims at, more than 0 and at most 1. "
        "Default: 0.6.",
    )
    rotation: int = Field(
        default=0,
        description="Any number; a change replaces all machines of the group, a few at a time. "
        "Default: 0.",
    )
    firewall: Firewall | None = Field(
        default=None,
        description="`report` or `manage`: what a join of the group's machines does where "
        "a firewall of its own drops redirected connections. Default: the workload's `firewall`.",
    )
    capture: Capture = Field(
        default_factory=Capture,
        description="What of the traffic of the group's machines bypasses the proxy, besides what "
        "its workload excludes. Default: nothing more.",
    )


GoogleMachine = GceMachine | GceInstanceGroup
