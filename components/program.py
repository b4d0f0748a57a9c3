"""The whole program: from settings to resources, in one direction."""

from __future__ import annotations

import json
from typing import Any

import pulumi
from pulumi.runtime.config import get_config, get_config_env

from components import clusters, machines, networks, verification
from components import mesh as mesh_component
from components.gateway import Gateway, gateway
from components.machine import Machine
from components.plan import router
from components.settings import SECRETS, Problem, Settings, SettingsError
from components.workload import Workload, namespaces


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
    settings = router.expand(settings)
    for note in router.notes(settings):
        pulumi.log.info(note)
    in_networks = networks.make(stack, settings)
    cluster = clusters.make(stack, settings, in_networks)
    in_cluster = pulumi.ResourceOptions(provider=mesh_component.provider(settings, cluster), deleted_with=cluster.whole)
    mesh = mesh_component.Mesh(settings, cluster, in_cluster)
    spaces = namespaces(settings, mesh, in_cluster)
    workloads = {
        name: Workload(name, settings, spaces[workload.namespace], mesh.ready, in_cluster) for name, workload in settings.workloads.items()
    }
    joined = {
        name: Machine(name, settings, make_host, cluster, mesh, workloads[settings.machines[name].workload])
        for name, make_host in machines.makers(stack, settings, in_networks, cluster).items()
    }
    gateways = {
        network: gateway(network, settings, in_networks, {name: joined[name] for name in router.machine_names(settings, network)})
        for network in router.networks(settings)
    }
    told = [_tell_addresses(network, known, in_cluster) for network, known in gateways.items()]

    if settings.google and in_networks.google and settings.groups:
        from components.fleet import fleets

        told += fleets(stack, settings, settings.google, in_networks.google, cluster, mesh, workloads, in_cluster)

    outputs: dict[str, Any] = {
        "gateway": mesh.gateway,
        "machines": {name: {"address": machine.address, "entry": machine.entry} for name, machine in joined.items()},
    }
    if settings.verify != "none":
        outputs["verification"] = verification.verify(settings, cluster, mesh, workloads, joined, gateways, told)
    return outputs


def _tell_addresses(network: str, gateway: Gateway, opts: pulumi.ResourceOptions) -> pulumi.Resource:
    """Tell istiod where calls into `network` go, once its gateway can take them."""
    known = pulumi.Output.all(*gateway.addresses.values())
    spec = known.apply(lambda addresses: router.addresses(network, addresses)["spec"])
    manifest = {**router.addresses(network, []), "spec": spec}
    after = pulumi.ResourceOptions(depends_on=list(gateway.ready))
    return mesh_component.custom_resource(f"{network}-gateway-addresses", manifest, pulumi.ResourceOptions.merge(opts, after))
