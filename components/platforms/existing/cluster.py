"""A Kubernetes cluster that exists, by its kubeconfig. There is nothing to make, so nothing to remove."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pulumi

from ...config.addresses import is_address
from ...config.existing import ExistingCluster, ExistingGateway
from ...config.problems import Problem, SettingsError
from ...config.stack import Settings
from ...kubernetes import Cluster
from .. import kubeconfig


def existing_cluster(settings: Settings, cluster: ExistingCluster) -> Cluster:
    """The cluster of a stack. Raises SettingsError where its kubeconfig cannot be read or has no such context."""
    return Cluster(
        kubeconfig=_from_file(cluster.kubeconfig, cluster.context) if cluster.kubeconfig else _from_secret(cluster.context),
        identifier=cluster.context,
        gateway_service=gateway_service(settings, cluster.gateway) if cluster.gateway.install else None,
        gateway_address=pulumi.Output.from_input(cluster.gateway.address),
        ready=[],
    )


def _from_file(name: str, context: str) -> pulumi.Output[str]:
    path = Path(name).expanduser()
    try:
        text = kubeconfig.extract_context(path.read_text(), context, lambda file: (path.parent / file).read_bytes())
    except OSError as error:
        raise SettingsError([Problem("cluster.kubeconfig", f"cannot read {error.filename}: {error.strerror}")]) from None
    except ValueError as error:
        raise SettingsError([Problem("cluster.kubeconfig", f"{name} {error}")]) from None
    return pulumi.Output.secret(text)


def _from_secret(context: str) -> pulumi.Output[str]:
    def refuse(file: str) -> bytes:
        raise ValueError(f"names the file {file}: put its content in (`kubectl config view --flatten`)")

    def select(text: str) -> str:
        try:
            return kubeconfig.extract_context(text, context, refuse)
        except ValueError as error:
            raise pulumi.RunError(f"the secret istio-vm-mesh:kubeconfig {error}") from None

    return pulumi.Config().require_secret("kubeconfig").apply(select)


def gateway_service(settings: Settings, gateway: ExistingGateway) -> dict[str, Any]:
    """How the gateway is exposed in a cluster that exists: as the stack says, else by a balancer that lets machines' networks in alone."""
    if gateway.service:
        return dict(gateway.service)
    sources = sorted({text for machine in settings.machines.values() for text in settings.networks[machine.network].ranges})
    address = {"loadBalancerIP": gateway.address} if is_address(gateway.address) else {}
    return {"type": "LoadBalancer", **address, "loadBalancerSourceRanges": sources}
