"""Containers with systemd and sshd as machines, on a Docker engine of the machine that runs Pulumi."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from ipaddress import IPv4Network

import pulumi
from pulumi_command import local, remote

from ... import shell
from ...config.docker import DockerMachine
from ...config.existing import SshMachine
from ...config.stack import Settings
from ...kubernetes import Cluster
from ...machines import ssh_leave
from ...machines.host import Host
from ...machines.ssh_key import SshKey, ssh_key
from . import names


def docker_host_factories(
    stack: str, machines: Mapping[str, DockerMachine], settings: Settings, networks: Mapping[str, pulumi.Output[str]], cluster: Cluster
) -> Mapping[str, Callable[[pulumi.ResourceOptions], Host]]:
    """How each container is made, by the machine's name.

    Machines beside the cluster reach the pods through its node. Others reach nothing of the cluster but its gateway's address; a network's
    gateway is in both.
    """
    key = ssh_key()
    near, gateway, pods = settings.cluster.network, cluster.gateway_address, settings.cluster.pod_range
    to_pods = gateway.apply(lambda node: f"{pods} via {node}")
    made = {}
    for name, machine in machines.items():
        router = settings.workloads[machine.workload].role == "router"
        own = networks[machine.network]
        if router:
            place = {"network": networks[near], "second": own, "routes": to_pods}
        elif machine.network == near:
            place = {"network": own, "routes": to_pods}
        else:
            place = {"network": own, "routes": pulumi.Output.format("{0}/32 via {1}", gateway, cluster.nodes[machine.network])}
        made[name] = partial(_host, stack, name, machine, names.docker_cidr(settings, near if router else machine.network), place, key)
    return made


def _host(
    stack: str,
    name: str,
    machine: DockerMachine,
    addresses: IPv4Network,
    place: Mapping[str, pulumi.Output[str]],
    key: SshKey,
    opts: pulumi.ResourceOptions,
) -> Host:
    """Make the container of machine `name`. `place`: the Docker `network` that its address is from, perhaps a `second` one, and `routes`."""
    docker_name = names.docker_name(stack, name)
    first, last = names.machine_addresses(addresses)

    def create(found: dict[str, str]) -> str:
        variables = {
            "NAME": docker_name,
            "HOSTNAME_OF_MACHINE": name,
            "IMAGE": machine.image,
            "NETWORK": found["network"],
            "SECOND_NETWORK": found.get("second", ""),
            "FIRST": first,
            "LAST": last,
            "LABEL": names.stack_label(stack),
            "PUBLIC_KEY": found["public"],
            "ROUTES": found["routes"],
            "SSH_USER": names.SSH_USER,
        }
        return shell.local_script("platforms/docker/docker-machine", variables)

    made = local.Command(
        f"{name}-container",
        create=shell.LOCAL,
        stdin=pulumi.Output.all(**place, public=key.public).apply(create),
        delete=f"docker rm --force --volumes {docker_name} >/dev/null",
        triggers=[machine.image, *place.values()],
        logging=local.Logging.STDERR,
        add_previous_output_in_env=False,
        opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(delete_before_replace=True)),
    )
    results = made.stdout.apply(shell.parse_results)
    address = results.apply(lambda found: found["address"])
    return Host(
        address=address,
        identity=results.apply(lambda found: found["id"]),
        connection=remote.ConnectionArgs(
            host=address,
            user=names.SSH_USER,
            private_key=key.private,
            host_key=results.apply(lambda found: found["hostKey"]),
            # A container's sshd answers within seconds; this is given up after half a minute of refusals.
            dial_error_limit=14,
            per_dial_timeout=10,
        ),
        resource=made,
        # It is removed at once, without being shut down. What comes through a gateway keeps its connections until the agent ends them.
        leave=pulumi.Output.all(found=results, key=key.private).apply(lambda known: _leave(name, machine, known["found"], known["key"])),
    )


def _leave(name: str, machine: DockerMachine, found: Mapping[str, str], private_key: str) -> str:
    reached = SshMachine(
        platform="ssh",
        workload=machine.workload,
        network=machine.network,
        host=found["address"],
        user=names.SSH_USER,
        host_key=found["hostKey"],
    )
    return ssh_leave.leave_over_ssh_script(name, reached, private_key)
