"""Containers with systemd and sshd as machines, on a Docker engine of the machine that runs Pulumi."""

from __future__ import annotations

import pulumi
from pulumi_command import local, remote

from components.machines import Host
from components.machines.key import SshKey
from components.plan import lab, script
from components.settings import DockerMachine, Settings


def host(
    stack: str,
    name: str,
    machine: DockerMachine,
    settings: Settings,
    opts: pulumi.ResourceOptions,
    *,
    network: pulumi.Output[str],
    node: pulumi.Output[str],
    key: SshKey,
) -> Host:
    """Make the container of machine `name`. `network` is its Docker network's name, `node` the cluster's node, which routes to the pods."""
    docker_name = lab.docker_name(stack, name)
    first, last = lab.machine_addresses(lab.docker_range(settings, machine.network))
    near = machine.network == settings.cluster.network

    def create(found: dict[str, str]) -> str:
        variables = {
            "NAME": docker_name,
            "HOSTNAME_OF_MACHINE": name,
            "IMAGE": machine.image,
            "NETWORK": found["network"],
            "FIRST": first,
            "LAST": last,
            "LABEL": lab.label(stack),
            "PUBLIC_KEY": found["public"],
            "ROUTES": f"{settings.cluster.pod_range} via {found['node']}" if near else "",
            "SSH_USER": lab.SSH_USER,
        }
        return script.local("docker-machine", variables)

    made = local.Command(
        f"{name}-container",
        create=script.LOCAL,
        stdin=pulumi.Output.all(network=network, node=node, public=key.public).apply(create),
        delete=f"docker rm --force --volumes {docker_name} >/dev/null",
        triggers=[machine.image, network, node],
        logging=local.Logging.STDERR,
        add_previous_output_in_env=False,
        opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(delete_before_replace=True)),
    )
    results = made.stdout.apply(script.results)
    address = results.apply(lambda found: found["address"])
    return Host(
        address=address,
        identity=results.apply(lambda found: found["id"]),
        connection=remote.ConnectionArgs(
            host=address,
            user=lab.SSH_USER,
            private_key=key.private,
            host_key=results.apply(lambda found: found["hostKey"]),
            dial_error_limit=30,
            per_dial_timeout=10,
        ),
        resource=made,
    )
