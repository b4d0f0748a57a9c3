"""A Kubernetes cluster that exists, by its kubeconfig. Nothing is created, so nothing is
removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi

from ...config.addresses import is_address
from ...config.existing import ExistingGateway
from ...kubernetes import Cluster
from ...local.cluster_access import ClusterAccess
from ...manifest import Manifest

LOAD_BALANCER = "LoadBalancer"
"""The type of a gateway's Service by default, also in Istio's chart."""
SOURCE_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"
"""An annotation of Kubernetes' with the CIDRs that a load balancer admits."""


@dataclass(frozen=True, kw_only=True)
class ExistingClusterArgs:
    """How a cluster that exists is reached.

    network: the network of its pods, as in istiod's value `global.network`.
    pod_cidr, additional_pod_cidrs: the IPv4 CIDRs of its pods.
    context: the context of the kubeconfig.
    path: the kubeconfig of the user who runs Pulumi; None: as kubectl finds it ($KUBECONFIG,
        ~/.kube/config).
    gateway: the east-west gateway.
    gateway_clients: the CIDRs that the gateway's load balancer admits: those of the machines.
    """

    network: str
    pod_cidr: str
    context: str
    gateway: ExistingGateway
    path: str | None = None
    gateway_clients: Sequence[str] = ()
    additional_pod_cidrs: Sequence[str] = ()


def existing_cluster(args: ExistingClusterArgs) -> Cluster:
    """Adopt a cluster. Nothing is created."""
    gateway = args.gateway
    return Cluster(
        network=args.network,
        pod_cidr=args.pod_cidr,
        additional_pod_cidrs=args.additional_pod_cidrs,
        access=pulumi.Output.from_input(ClusterAccess(context=args.context, path=args.path)),
        gateway_service=gateway_service(gateway, args.gateway_clients) if gateway.install else None,
        gateway_address=pulumi.Output.from_input(gateway.address),
        gateway_port=gateway.port,
        gateway_behind_nat=gateway.behind_nat,
    )


def gateway_service(gateway: ExistingGateway, clients: Sequence[str]) -> Manifest:
    """Return the `service` values of the gateway chart.

    clients: the CIDRs that a load balancer admits, unless the gateway's own values say which.
        Without any, it admits all.
    """
    stated = gateway.service
    if stated.get("type", LOAD_BALANCER) != LOAD_BALANCER:
        return dict(stated)
    # An annotation may give the address, and some controllers refuse it in two places.
    is_its_own = is_address(gateway.address) and not gateway.behind_nat and not stated
    address = {"loadBalancerIP": gateway.address} if is_its_own else {}
    # The field overrules the annotation (kubernetes/cloud-provider, service/helpers).
    admitted = {} if SOURCE_RANGES in (stated.get("annotations") or {}) else {"loadBalancerSourceRanges": list(clients)}
    return {"type": LOAD_BALANCER, **address, **admitted, **stated}
