"""Compute Engine machines without public addresses, reached by SSH."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import pulumi
from pulumi_gcp import compute

from ... import shell
from ...commands import Script
from ...config.google import GceMachine
from ...config.google_machine_types import default_disk_type
from ...config.problems import SettingsError
from ...dependencies import without_dependencies
from ...local import openssh
from ...machines.host import Host, HostFactory
from ...machines.ssh_key import SshKey
from ...machines.ssh_server import hop_of, key_problems, require_ssh
from ...names import SSH_PORT, part_name
from . import names
from .instance_options import machine_metadata, scheduling, shielding
from .network import GoogleNetworks
from .scripts import host_key

PATIENCE_S = 420
"""Seconds for which SSH may be refused: sshd runs before Google's agent has authorised the key."""

# What a machine may write at most. It writes nothing until its account is given the roles
# (docs/google.md), and calls nothing else of Google's.
SCOPES = ["https://www.googleapis.com/auth/logging.write", "https://www.googleapis.com/auth/monitoring.write"]


GATEWAY_SETUP = f"#!/bin/bash\n{shell.read_script('platforms/google/gateway-setup')}"
"""Installs what Istio's package needs. A gateway's machines run the agent alone, without a setup of the stack's."""


@dataclass(frozen=True, kw_only=True)
class GoogleHostArgs:
    """What a Compute Engine machine is made from.

    settings: the machine. networks: the VPCs that it is in. subnet: the name of its subnet.
    key: the SSH key that opens it.
    """

    settings: GceMachine
    networks: GoogleNetworks
    subnet: str
    key: SshKey


def google_host(args: GoogleHostArgs) -> HostFactory:
    """Return what creates a machine."""
    return partial(_host, args)


def _host(args: GoogleHostArgs, name: str, opts: pulumi.ResourceOptions) -> Host:
    """Create the machine. Its name on Google Cloud is fixed, because SSH through Identity-Aware Proxy needs it. Its address is kept until it is replaced."""
    machine, networks = args.settings, args.networks
    require_ssh()
    bastion = networks.settings.ssh.bastion
    if problems := list(key_problems("google.ssh.bastion", bastion)) if bastion else []:
        raise SettingsError(problems)
    google_name = names.resource_name(networks.stack, name)
    shielded, stops = shielding(machine.machine_type), scheduling(machine)
    instance = compute.Instance(
        part_name(name, names.INSTANCE),
        name=google_name,
        zone=machine.zone,
        machine_type=machine.machine_type,
        boot_disk=compute.InstanceBootDiskArgs(
            initialize_params=compute.InstanceBootDiskInitializeParamsArgs(
                image=machine.image, size=machine.disk_size, type=machine.disk_type or default_disk_type(machine.machine_type)
            )
        ),
        # No access configuration: no public address.
        network_interfaces=[compute.InstanceNetworkInterfaceArgs(subnetwork=networks.subnets[args.subnet])],
        # What `depends_on` names waits for the account. It names the key, once.
        service_account=compute.InstanceServiceAccountArgs(
            email=without_dependencies(networks.accounts[machine.workload].email), scopes=SCOPES
        ),
        metadata=without_dependencies(args.key.public.apply(lambda public: machine_metadata(machine, public))),
        shielded_instance_config=compute.InstanceShieldedInstanceConfigArgs(**shielded) if shielded else None,
        scheduling=compute.InstanceSchedulingArgs(**stops) if stops else None,
        # Google stops a Spot VM, and nothing else starts it again.
        desired_status="RUNNING" if machine.spot else None,
        allow_stopping_for_update=True,
        opts=pulumi.ResourceOptions.merge(
            opts,
            pulumi.ResourceOptions(
                provider=networks.provider,
                delete_before_replace=True,
                # The provider would move it into another subnet in place, with another address.
                replace_on_changes=["networkInterfaces[*].subnetwork"],
                depends_on=[*networks.ready_for(machine.workload), args.key.resource],
            ),
        ),
    )
    address = instance.network_interfaces.apply(lambda interfaces: interfaces[0].network_ip or "")
    return Host(
        address=address,
        instance_id=instance.instance_id,
        target=_target(name, args, address),
        patience_s=PATIENCE_S,
        host_key=Script(
            host_key,
            host_key.Payload(
                project=networks.settings.project,
                zone=machine.zone,
                instance=google_name,
                key_type=names.HOST_KEY_TYPES[networks.settings.ssh.key_type],
            ),
        ),
        resource=instance,
        leaves=False,
    )


def _target(name: str, args: GoogleHostArgs, address: pulumi.Output[str]) -> pulumi.Output[openssh.Target]:
    """Return how SSH reaches the machine. Its host key is not known yet."""
    networks, bastion = args.networks, args.networks.settings.ssh.bastion
    jumps = (hop_of(bastion, "google-bastion"),) if bastion else ()
    google_name = names.resource_name(networks.stack, name)
    iap = openssh.Iap(networks.settings.project, args.settings.zone) if networks.settings.ssh.via == "iap" else None

    def target(values: Mapping[str, str]) -> openssh.Target:
        # The proxy connects to the machine by its name.
        host = google_name if iap else values["address"]
        hop = openssh.Hop(host, SSH_PORT, names.SSH_USER, identity_file=values["key"])
        return openssh.Target(machine=name, hop=hop, jumps=jumps, iap=iap)

    return pulumi.Output.all(address=address, key=args.key.file).apply(target)
