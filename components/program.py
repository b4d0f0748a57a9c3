"""The whole program: from settings to resources, in one direction."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pulumi
from pulumi.runtime.config import get_config, get_config_env

from components import mesh as mesh_component
from components import verification
from components.clusters.kind import KindCluster
from components.machine import Machine
from components.machines import docker as docker_machines
from components.networks import docker as docker_networks
from components.settings import Problem, Settings, SettingsError
from components.workload import Workload, namespaces


def configuration() -> dict[str, Any]:
    """The stack's configuration as plain data, keys without the project's name. Raises SettingsError for values that are secret or no YAML."""
    project = f"{pulumi.get_project()}:"
    keys = sorted({key for key in {**get_config_env(), **pulumi.runtime.config.CONFIG.get()} if key.startswith(project)})
    secret = [
        Problem(key.removeprefix(project), "must not be secret: it would be readable in names")
        for key in keys
        if pulumi.runtime.is_config_secret(key)
    ]
    if secret:
        raise SettingsError(secret)
    return {key.removeprefix(project): _plain(get_config(key)) for key in keys}


def _plain(text: str) -> Any:
    """Pulumi hands maps over as JSON and everything else as text."""
    return json.loads(text) if text[:1] in "{[" else text


def build(settings: Settings, stack: str) -> dict[str, Any]:
    """Declare everything; returns the stack's outputs by name."""
    docker = {machine.network for machine in settings.machines.values()} | {settings.cluster.network}
    networks = {name: docker_networks.network(stack, name, settings) for name in sorted(docker)}
    kind = KindCluster(stack, settings.cluster, networks[settings.cluster.network])
    cluster = kind.cluster
    in_cluster = pulumi.ResourceOptions(provider=mesh_component.provider(cluster))
    mesh = mesh_component.Mesh(settings, cluster, in_cluster)
    spaces = namespaces(settings, mesh.ready, in_cluster)
    workloads = {
        name: Workload(name, settings, spaces[workload.namespace], mesh.ready, in_cluster) for name, workload in settings.workloads.items()
    }
    key = docker_machines.ssh_key() if settings.machines else None
    machines: dict[str, Machine] = {}
    for name, machine in settings.machines.items():
        assert key is not None
        make = partial(_docker_host, stack, name, settings, networks[machine.network], cluster.gateway_address, key)
        machines[name] = Machine(name, settings, make, cluster, mesh, workloads[machine.workload])

    outputs: dict[str, Any] = {
        "gateway": mesh.gateway,
        "machines": {name: {"address": made.address, "entry": made.entry} for name, made in machines.items()},
    }
    if settings.verify != "none":
        outputs["verification"] = {
            name: verification.verify(
                name, settings, cluster, mesh, workload, {machine: machines[machine] for machine in settings.machines_of(name)}
            )
            for name, workload in workloads.items()
        }
    return outputs


def _docker_host(
    stack: str,
    name: str,
    settings: Settings,
    network: pulumi.Output[str],
    node: pulumi.Output[str],
    key: docker_machines.SshKey,
    opts: pulumi.ResourceOptions,
) -> docker_machines.Host:
    return docker_machines.host(stack, name, settings.machines[name], settings, network=network, node=node, key=key, opts=opts)
