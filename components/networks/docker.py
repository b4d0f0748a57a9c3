"""Docker networks that stand for the networks of a stack."""

from __future__ import annotations

import pulumi
from pulumi_command import local

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
