"""The whole program: from settings to resources, in one direction."""

from __future__ import annotations

import json
from typing import Any

import pulumi
from pulumi.runtime.config import get_config, get_config_env

from . import kubernetes
from .config import gateway_machines
from .config.problems import Problem, SettingsError
from .config.reader import SECRETS
from .config.stack import Settings
from .istio import control_plane, network_gateways
from .istio.workload import Workload, namespaces
from .machines.machine import Machine
from .platforms import dispatch
from .platforms.dispatch import network_gateway
from .platforms.gateway import Gateway
from .verification import component


def configuration() -> tuple[dict[str, Any], set[str]]:
    """The stack's configuration as plain data, keys without the project's name, and which of the program's secrets it has.

    Raises SettingsError for other values that are secret, and for secrets that are not.
    """
    project = f"{pulumi.get_project()}:"
    keys = sorted({key for key in {**get_config_env(), **pulumi.runtime.config.CONFIG.get()} if key.startswith(project)})
    names = {key.removeprefix(project): pulumi.runtime.is_config_secret(key) for key in keys}
    problems = [
        Problem(name, "must not be secret: it would be readable in names" if secret else "must be secret: set it with `--secret`")
        for name, secret in names.items()
        if secret != (name in SECRETS)
    ]
    if problems:
        raise SettingsError(problems)
    return {name: _plain(get_config(project + name)) for name in names if name not in SECRETS}, set(names) & SECRETS


def _plain(text: str) -> Any:
    """Pulumi hands maps over as JSON and everything else as text."""
    return json.loads(text) if text[:1] in "{[" else text


def build(settings: Settings, stack: str) -> dict[str, Any]:
    """Declare everything; returns the stack's outputs by name."""
    settings = gateway_machines.add_gateway_machines(settings)
    for note in network_gateways.connectivity_notes(settings):
        pulumi.log.info(note)
    in_networks = dispatch.networks(stack, settings)
    cluster = dispatch.cluster(stack, settings, in_networks)
    in_cluster = pulumi.ResourceOptions(provider=kubernetes.provider(settings, cluster), deleted_with=cluster.whole)
    mesh = control_plane.Mesh(settings, cluster, in_cluster)
    spaces = namespaces(settings, mesh, in_cluster)
    workloads = {
        name: Workload(name, settings, spaces[workload.namespace], mesh.ready, in_cluster) for name, workload in settings.workloads.items()
    }
    joined = {
        name: Machine(name, settings, make_host, cluster, mesh, workloads[settings.machines[name].workload])
        for name, make_host in dispatch.host_factories(stack, settings, in_networks, cluster).items()
    }
    gateways = {
        network: network_gateway(
            network, settings, in_networks, {name: joined[name] for name in gateway_machines.gateway_machine_names(settings, network)}
        )
        for network in gateway_machines.networks_with_gateway(settings)
    }
    told = [_tell_addresses(network, known, in_cluster) for network, known in gateways.items()]

    if settings.google and in_networks.google and settings.groups:
        from .platforms.google.instance_group import instance_groups

        told += instance_groups(stack, settings, settings.google, in_networks.google, cluster, mesh, workloads, in_cluster)

    outputs: dict[str, Any] = {
        "gateway": mesh.gateway,
        "machines": {name: {"address": machine.address, "entry": machine.entry} for name, machine in joined.items()},
    }
    if settings.verify != "none":
        outputs["verification"] = component.verify_workloads(settings, cluster, mesh, workloads, joined, gateways, told)
    return outputs


def _tell_addresses(network: str, gateway: Gateway, opts: pulumi.ResourceOptions) -> pulumi.Resource:
    """Tell istiod where calls into `network` go, once its gateway can take them."""
    known = pulumi.Output.all(*gateway.addresses.values())
    spec = known.apply(lambda addresses: network_gateways.remote_gateway(network, addresses)["spec"])
    manifest = {**network_gateways.remote_gateway(network, []), "spec": spec}
    after = pulumi.ResourceOptions(depends_on=list(gateway.ready))
    return kubernetes.custom_resource(f"{network}-gateway-addresses", manifest, pulumi.ResourceOptions.merge(opts, after))
