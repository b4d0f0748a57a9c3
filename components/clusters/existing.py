"""A Kubernetes cluster that exists, by its kubeconfig. There is nothing to make, so nothing to remove."""

from __future__ import annotations

from pathlib import Path

import pulumi

from components.clusters import Cluster
from components.plan import kubeconfig
from components.plan import mesh as mesh_plan
from components.settings import ExistingCluster, Problem, Settings, SettingsError


def existing(settings: Settings, cluster: ExistingCluster) -> Cluster:
    """The cluster of a stack. Raises SettingsError where its kubeconfig cannot be read or has no such context."""
    return Cluster(
        kubeconfig=_from_file(cluster.kubeconfig, cluster.context) if cluster.kubeconfig else _from_secret(cluster.context),
        identifier=cluster.context,
        gateway_service=mesh_plan.existing_gateway_service(settings, cluster.gateway) if cluster.gateway.install else None,
        gateway_address=pulumi.Output.from_input(cluster.gateway.address),
        ready=[],
    )


def _from_file(name: str, context: str) -> pulumi.Output[str]:
    path = Path(name).expanduser()
    try:
        text = kubeconfig.one_context(path.read_text(), context, lambda file: (path.parent / file).read_bytes())
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
            return kubeconfig.one_context(text, context, refuse)
        except ValueError as error:
            raise pulumi.RunError(f"the secret istio-vm-mesh:kubeconfig {error}") from None

    return pulumi.Config().require_secret("kubeconfig").apply(select)
