"""Networks, one module a platform. They know nothing of Istio."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pulumi

from components.settings import Settings, docker_networks

if TYPE_CHECKING:
    from components.networks.google import GoogleNetworks


@dataclass(frozen=True, kw_only=True)
class Networks:
    """What was made for clusters and machines to be in. `docker`: the Docker network's name, by the stack's; `google`: VPCs."""

    docker: Mapping[str, pulumi.Output[str]] = field(default_factory=dict)
    google: GoogleNetworks | None = None


def make(stack: str, settings: Settings) -> Networks:
    """Make the networks of a stack; what exists already (platforms `existing` and `ssh`) needs none."""
    in_docker, in_google = docker_networks(settings), None
    if settings.google:
        from components.networks.google import Vpcs

        in_google = Vpcs(stack, settings, settings.google).networks
    if not in_docker:
        return Networks(google=in_google)
    from components.networks import docker

    return Networks(docker={name: docker.network(stack, name, settings) for name in sorted(in_docker)}, google=in_google)
