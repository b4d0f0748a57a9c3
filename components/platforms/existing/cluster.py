"""A Kubernetes cluster that exists, by its kubeconfig. Nothing is created, so nothing is removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pulumi

from ...config.addresses import is_address
from ...config.existing import ExistingCluster, ExistingGateway
from ...config.problems import Problem, SettingsError
from ...kubernetes import Cluster
from ...local.cluster_access import ClusterAccess
from ...manifest import Manifest
from .. import kubeconfig


@dataclass(frozen=True, kw_only=True)
class ExistingClusterArgs:
    """How a cluster that exists is reached.

    network: the network of its pods, as in istiod's value `global.network`.
    pod_cidr: the IPv4 CIDR of its pods.
    context: the context of the kubeconfig; it also identifies the cluster.
    path: the kubeconfig of whoever runs Pulumi; None: as kubectl finds it.
    kubeconfig: the kubeconfig's text, all files in it replaced by their content
        (`kubectl config view --flatten`). It is kept secret.
    gateway: the east-west gateway.
    gateway_clients: the CIDRs that the gateway's load balancer admits: those of the machines.
    """

    network: str
    pod_cidr: str
    context: str
    kubeconfig: pulumi.Input[str]
    gateway: ExistingGateway
    path: str | None = None
    gateway_clients: Sequence[str] = ()


def existing_cluster(args: ExistingClusterArgs) -> Cluster:
    """Adopt a cluster. Nothing is created.

    A kubeconfig without the context fails the update with a RunError.
    """

    def select(text: str) -> str:
        try:
            return kubeconfig.extract_context(text, args.context, _refuse)
        except ValueError as error:
            raise pulumi.RunError(f"the kubeconfig of the cluster {error}") from None

    gateway = args.gateway
    return Cluster(
        network=args.network,
        pod_cidr=args.pod_cidr,
        access=pulumi.Output.from_input(ClusterAccess(context=args.context, path=args.path)),
        kubeconfig=pulumi.Output.secret(pulumi.Output.from_input(args.kubeconfig).apply(select)),
        identifier=args.context,
        gateway_service=gateway_service(gateway, args.gateway_clients) if gateway.install else None,
        gateway_address=pulumi.Output.from_input(gateway.address),
    )


def _refuse(file: str) -> bytes:
    raise ValueError(f"names the file {file}: put its content in (`kubectl config view --flatten`)")


def kubeconfig_of(settings: ExistingCluster) -> pulumi.Output[str]:
    """Return the kubeconfig of a stack's cluster: from its file, else from the secret `kubeconfig`.

    Raises SettingsError where the file cannot be read or has no such context.
    """
    if settings.kubeconfig is None:
        return pulumi.Config().require_secret("kubeconfig")
    path = Path(settings.kubeconfig).expanduser()
    try:
        text = kubeconfig.extract_context(path.read_text(), settings.context, lambda file: (path.parent / file).read_bytes())
    except OSError as error:
        problem = f"cannot read {error.filename}: {error.strerror}"
        raise SettingsError([Problem("cluster.kubeconfig", problem)]) from None
    except ValueError as error:
        problem = f"{settings.kubeconfig} {error}"
        raise SettingsError([Problem("cluster.kubeconfig", problem)]) from None
    return pulumi.Output.secret(text)


def gateway_service(gateway: ExistingGateway, clients: Sequence[str]) -> Manifest:
    """Return the `service` values of the gateway chart.

    clients: the CIDRs that a load balancer admits, where the gateway has no values of its own;
        without any, it admits all.
    """
    if gateway.service:
        return dict(gateway.service)
    address = {"loadBalancerIP": gateway.address} if is_address(gateway.address) else {}
    return {"type": "LoadBalancer", **address, "loadBalancerSourceRanges": list(clients)}
