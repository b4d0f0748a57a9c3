"""A Kubernetes cluster that exists, by its kubeconfig. There is nothing to make, so nothing to remove."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pulumi

from ...config.addresses import is_address
from ...config.existing import ExistingCluster, ExistingGateway
from ...config.problems import Problem, SettingsError
from ...kubernetes import Cluster
from ...manifest import Manifest
from .. import kubeconfig


def existing_cluster(settings: ExistingCluster, machine_cidrs: Sequence[str], kubeconfig_text: pulumi.Output[str] | None = None) -> Cluster:
    """Adopt a cluster. Nothing is created.

    machine_cidrs: the CIDRs that reach the east-west gateway.
    kubeconfig_text: the kubeconfig, where the settings name no file.
    Raises SettingsError where the kubeconfig cannot be read or has no such context.
    """
    gateway = settings.gateway
    return Cluster(
        kubeconfig=_from_file(settings.kubeconfig, settings.context)
        if settings.kubeconfig
        else _from_text(kubeconfig_text, settings.context),
        identifier=settings.context,
        gateway_service=gateway_service(gateway, machine_cidrs) if gateway.install else None,
        gateway_address=pulumi.Output.from_input(gateway.address),
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


def _from_text(kubeconfig_text: pulumi.Output[str] | None, context: str) -> pulumi.Output[str]:
    def refuse(file: str) -> bytes:
        raise ValueError(f"names the file {file}: put its content in (`kubectl config view --flatten`)")

    def select(text: str) -> str:
        try:
            return kubeconfig.extract_context(text, context, refuse)
        except ValueError as error:
            raise pulumi.RunError(f"the secret istio-vm-mesh:kubeconfig {error}") from None

    secret = kubeconfig_text if kubeconfig_text is not None else pulumi.Config().require_secret("kubeconfig")
    return pulumi.Output.secret(secret.apply(select))


def gateway_service(gateway: ExistingGateway, machine_cidrs: Sequence[str]) -> Manifest:
    """Return the `service` values of the gateway chart.

    Without values of the stack's, a load balancer lets in the machines' networks alone.
    """
    if gateway.service:
        return dict(gateway.service)
    address = {"loadBalancerIP": gateway.address} if is_address(gateway.address) else {}
    return {"type": "LoadBalancer", **address, "loadBalancerSourceRanges": list(machine_cidrs)}
