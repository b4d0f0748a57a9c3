"""The VPCs of a stack, and its workloads with machines in them, from its settings. Pure."""

from __future__ import annotations

from ...config.google import GkeCluster
from ...config.stack import Settings


def vpcs(settings: Settings) -> list[str]:
    """Return the VPCs of a stack, the cluster's first."""
    subnets = settings.google.subnets if settings.google else {}
    first = cluster_vpc(settings)
    return sorted({subnet.vpc for subnet in subnets.values()}, key=lambda vpc: (vpc != first, vpc))


def cluster_vpc(settings: Settings) -> str:
    """Return the VPC of the cluster; "" where it is not one of the stack's.

    A cluster of others is in an existing VPC that has a subnet of its network.
    """
    google, cluster = settings.google, settings.cluster
    if google is None:
        return ""
    if isinstance(cluster, GkeCluster):
        return google.subnets[cluster.subnet].vpc
    of_network = {subnet.vpc for subnet in google.subnets.values() if subnet.network == cluster.network}
    return min(of_network & google.vpcs.keys(), default="")


def workloads_with_machines(settings: Settings) -> list[str]:
    """Return the workloads with machines on Google Cloud, sorted. Each has a service account."""
    return sorted({machine.workload for machine in settings.google_machines.values()})
