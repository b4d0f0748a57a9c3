"""Docker networks that stand for the networks of a stack."""

from __future__ import annotations

import pulumi
from pulumi_command import local

from ... import shell
from ...config.stack import Settings
from . import names


def docker_network(stack: str, name: str, settings: Settings) -> pulumi.Output[str]:
    """Make the Docker network for the stack's network `name`; returns its Docker name once it exists."""
    docker_name = names.docker_name(stack, name)
    whole = names.docker_cidr(settings, name)
    variables = {
        "NAME": docker_name,
        "RANGE": str(whole),
        "DYNAMIC_RANGE": str(names.dynamic_cidr(whole)),
        "LABEL": names.stack_label(stack),
    }
    made = local.Command(
        f"network-{name}",
        create=shell.LOCAL,
        stdin=shell.local_script("platforms/docker/docker-network", variables),
        delete=f"docker network rm {docker_name} >/dev/null",
        triggers=[str(whole)],
        logging=local.Logging.STDERR,
        add_previous_output_in_env=False,
        opts=pulumi.ResourceOptions(delete_before_replace=True),
    )
    return made.stdout
