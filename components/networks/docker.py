"""Docker networks that stand for the networks of a stack."""

from __future__ import annotations

import pulumi
from pulumi_command import local

from components.clusters import Cluster
from components.plan import lab, script
from components.settings import Settings


def network(stack: str, name: str, settings: Settings) -> pulumi.Output[str]:
    """Make the Docker network for the stack's network `name`; returns its Docker name once it exists."""
    docker_name = lab.docker_name(stack, name)
    whole = lab.docker_range(settings, name)
    variables = {"NAME": docker_name, "RANGE": str(whole), "DYNAMIC_RANGE": str(lab.dynamic_range(whole)), "LABEL": lab.label(stack)}
    made = local.Command(
        f"network-{name}",
        create=script.LOCAL,
        stdin=script.local("docker-network", variables),
        delete=f"docker network rm {docker_name} >/dev/null",
        triggers=[str(whole)],
        logging=local.Logging.STDERR,
        add_previous_output_in_env=False,
        opts=pulumi.ResourceOptions(delete_before_replace=True),
    )
    return made.stdout


def attach_node(stack: str, name: str, settings: Settings, docker_network: pulumi.Output[str], cluster: Cluster) -> pulumi.Output[str]:
    """Put the cluster's node into another network, for its gateway address alone; returns the node's address there.

    Packets between that network and the pods are dropped on the node: only gateways connect the two.
    """
    variables = {
        "NODE": lab.node_name(stack),
        "NETWORK": lab.docker_name(stack, name),
        "PODS": settings.cluster.pod_range,
        "RANGE": str(lab.docker_range(settings, name)),
    }
    made = local.Command(
        f"network-{name}-node",
        create=script.LOCAL,
        stdin=script.local("docker-attach", variables),
        triggers=[docker_network, cluster.gateway_address],
        logging=local.Logging.STDERR,
        add_previous_output_in_env=False,
        delete=f"docker network disconnect --force {variables['NETWORK']} {variables['NODE']} >/dev/null 2>&1 || true",
        opts=pulumi.ResourceOptions(delete_before_replace=True, depends_on=cluster.ready),
    )
    return made.stdout
