"""Networks, one module a platform. They know nothing of Istio."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pulumi

from components.settings import Settings, docker_networks


@dataclass(frozen=True, kw_only=True)
class Networks:
    """What was made for clusters and machines to be in. `docker`: the Docker network's name, by the stack's."""

    docker: Mapping[str, pulumi.Output[str]] = field(default_factory=dict)


def make(stack: str, settings: Settings) -> Networks:
    """Make the networks of a stack; what exists already (platforms `existing` and `ssh`) needs none."""
    in_docker = docker_networks(settings)
    if not in_docker:
        return Networks()
    from components.networks import docker

    return Networks(docker={name: docker.network(stack, name, settings) for name in sorted(in_docker)})
