"""Containers with systemd and sshd as machines, on a Docker engine of the machine that runs Pulumi."""

from __future__ import annotations

from typing import NamedTuple

import pulumi
from pulumi_command import local, remote

from components.machines import Host
from components.plan import lab, script
from components.settings import DockerMachine, Settings


class SshKey(NamedTuple):
    """The key that the program reaches its containers with; `private` is secret."""

    private: pulumi.Output[str]
    public: pulumi.Output[str]


def ssh_key() -> SshKey:
    """Make the stack's SSH key, once; it lives in the state, encrypted, and in no file."""
    made = local.Command(
        "ssh-key",
        create=script.LOCAL,
        stdin=script.local("ssh-key", {}),
        logging=local.Logging.NONE,
        add_previous_output_in_env=False,
        opts=pulumi.ResourceOptions(additional_secret_outputs=["stdout"]),
    )
    results = made.stdout.apply(script.results)
    return SshKey(
        private=results.apply(lambda found: script.decoded(found["private"])),
        public=pulumi.Output.unsecret(results.apply(lambda found: script.decoded(found["public"]).strip())),
    )


def host(
    stack: str,
    name: str,
    machine: DockerMachine,
    settings: Settings,
    *,
    network: pulumi.Output[str],
    node: pulumi.Output[str],
    key: SshKey,
    opts: pulumi.ResourceOptions,
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
