"""Names and labels on a Docker engine, and of the platforms' resources. Pure: scripts use it
too.
"""

from __future__ import annotations

from ...names import PROJECT

SSH_USER = "admin"
STACK_LABEL = f"{PROJECT}.stack"
"""The label of everything that stacks make on a Docker engine; its value is the stack's name."""
IDENTITY_LABEL = f"{PROJECT}.identity"
"""The label of a machine's container; its value is a digest of what Docker fixes then."""
CLUSTER = "cluster"
"""The name of a stack's cluster."""

KIND_TYPE = f"{PROJECT}:clusters:Kind"
"""The type of the component."""

# What the names of Pulumi resources end with (components/names.py: `part_name`).
CONTAINER = "container"
"""Of a machine."""
KIND, IMAGES = "kind", "images"
"""Of a cluster."""


def docker_name(stack: str, name: str) -> str:
    """Return the name of a container, network or cluster of a stack."""
    return f"{PROJECT}-{stack}-{name}"


def kind_node(kind_cluster: str) -> str:
    """Return the name of the container that is a cluster's node, as kind names it."""
    return f"{kind_cluster}-control-plane"


def node_name(stack: str, cluster: str = CLUSTER) -> str:
    """Return the name of the container that is the node of a stack's cluster."""
    return kind_node(docker_name(stack, cluster))


def stack_label(stack: str) -> str:
    """Return the label of everything that a stack makes on a Docker engine."""
    return f"{STACK_LABEL}={stack}"


def attachment_name(cluster: str, network: str) -> str:
    """Return the resource name of what attaches a cluster's node to another network."""
    return f"{cluster}-in-{network}"


def network_resource_name(network: str) -> str:
    """Return the resource name of a Docker network."""
    return f"network-{network}"
