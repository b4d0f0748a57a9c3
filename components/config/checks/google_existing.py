"""Rules for VPCs and subnets on Google Cloud that exist."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..existing import ExistingCluster
from ..google import GkeCluster, Google, Subnet, Vpc
from ..problems import Problem, suggestion
from ..stack import Settings

PROJECT_ID = re.compile(r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]")
_NAME = "[a-z]([-a-z0-9]{0,61}[a-z0-9])?"
_VPC_PATH = re.compile(rf"projects/{PROJECT_ID.pattern}/global/networks/{_NAME}")
_SUBNET_PATH = re.compile(
    rf"projects/{PROJECT_ID.pattern}/regions/([a-z0-9-]+)/subnetworks/{_NAME}"
)


def check(settings: Settings, google: Google) -> Iterator[Problem]:
    """Yield what is wrong with VPCs and subnets that exist, and with a cluster in them."""
    cluster = settings.cluster
    for name, vpc in google.vpcs.items():
        yield from _check_vpc(name, vpc, settings, google)
    for name, subnet in google.subnets.items():
        yield from _check_subnet(f"google.subnets.{name}.existing", subnet, google)
    if isinstance(cluster, ExistingCluster) and settings.google_machines:
        of_network = {
            subnet.vpc for subnet in google.subnets.values() if subnet.network == cluster.network
        }
        if not of_network & google.vpcs.keys():
            yield Problem(
                "google.vpcs",
                "is missing: a VPC of this stack has no route to a cluster that exists. Give the "
                f"cluster's VPC, and a subnet of it in the network {cluster.network}",
            )
    if isinstance(cluster, GkeCluster):
        yield from _check_range_names(cluster)


def _check_vpc(name: str, vpc: Vpc, settings: Settings, google: Google) -> Iterator[Problem]:
    cluster, path = settings.cluster, f"google.vpcs.{name}"
    used = {subnet.vpc for subnet in google.subnets.values()}
    if not _VPC_PATH.fullmatch(vpc.existing):
        yield Problem(
            f"{path}.existing",
            f"{vpc.existing!r} is not the path of a VPC: expected one such as "
            "projects/net-host/global/networks/shared",
        )
    if name not in used:
        yield Problem(path, f"no subnet is in this VPC{suggestion(name, used)}")
    if isinstance(cluster, GkeCluster) and cluster.gateway.dns_name and not vpc.managed:
        yield Problem(
            "cluster.gateway.dnsName",
            f"needs a private DNS zone for the VPC {name}, which is not managed: leave it out",
        )


def _check_subnet(path: str, subnet: Subnet, google: Google) -> Iterator[Problem]:
    """Yield problems of the path of a subnet that exists, and of one without a path."""
    if subnet.existing is None:
        if subnet.vpc in google.vpcs:
            yield Problem(
                path, f"is missing: the VPC {subnet.vpc} exists, so give the path of a subnet"
            )
    elif subnet.vpc not in google.vpcs:
        hint = suggestion(subnet.vpc, google.vpcs)
        yield Problem(
            path, f"its VPC {subnet.vpc} is created: name one of google.vpcs as `vpc`{hint}"
        )
    elif (match := _SUBNET_PATH.fullmatch(subnet.existing)) is None:
        yield Problem(
            path,
            f"{subnet.existing!r} is not the path of a subnet: expected one such as "
            "projects/net-host/regions/europe-west1/subnetworks/machines",
        )
    elif f"/regions/{google.region}/" not in match[0]:
        yield Problem(path, f"is not in the region {google.region}")
    else:
        yield from _check_project(path, subnet.existing, google.vpcs[subnet.vpc].existing)


def _check_project(path: str, subnet: str, vpc: str) -> Iterator[Problem]:
    if _VPC_PATH.fullmatch(vpc) and subnet.split("/")[1] != vpc.split("/")[1]:
        yield Problem(
            path,
            f"is not in the project of its VPC ({vpc}): subnets of a Shared VPC are in its host "
            "project",
        )


def _check_range_names(cluster: GkeCluster) -> Iterator[Problem]:
    """Yield problems of the names of secondary ranges, which a subnet that exists has already."""
    names = {"podRangeName": cluster.pod_range_name, "serviceRangeName": cluster.service_range_name}
    for key, name in names.items():
        if not re.fullmatch(_NAME, name):
            yield Problem(
                f"cluster.{key}",
                f"{name!r} is not the name of a secondary range: up to 63 lower-case letters, "
                "digits and '-', a letter first",
            )
    if cluster.pod_range_name == cluster.service_range_name:
        yield Problem(
            "cluster.serviceRangeName", "is the name of the pods' range: give another one"
        )
