"""Compute Engine machines without public addresses, reached by SSH."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import pulumi
from pulumi_command import remote
from pulumi_gcp import compute

from ... import shell
from ...config.google import GceMachine, Google, local_port, subnet_of
from ...config.stack import Settings
from ...machines.host import Host
from ...machines.ssh_key import SshKey, ssh_key
from . import names
from .network import GoogleNetworks

# A machine writes its own logs and metrics, and calls nothing else of Google's.
SCOPES = ["https://www.googleapis.com/auth/logging.write", "https://www.googleapis.com/auth/monitoring.write"]


def gce_host_factories(
    stack: str, machines: Mapping[str, GceMachine], settings: Settings, google: Google, networks: GoogleNetworks
) -> Mapping[str, Callable[[pulumi.ResourceOptions], Host]]:
    """How each machine is made, by its name."""
    key = ssh_key()
    # A gateway's machines run the agent alone, so their startup script installs what Istio's package needs.
    gateway_setup = f"#!/bin/bash\n{shell.read_script('platforms/google/gateway-setup')}"
    machines = {
        name: replace(machine, setup=gateway_setup) if settings.workloads[machine.workload].role == "router" else machine
        for name, machine in machines.items()
    }
    return {name: partial(_host, stack, name, machine, settings, google, networks, key) for name, machine in machines.items()}


def _host(
    stack: str,
    name: str,
    machine: GceMachine,
    settings: Settings,
    google: Google,
    networks: GoogleNetworks,
    key: SshKey,
    opts: pulumi.ResourceOptions,
) -> Host:
    """Make machine `name`. Its name on Google Cloud is fixed, because tunnels must know it; its address is kept until it is replaced."""
    google_name = names.resource_name(stack, name)
    made = compute.Instance(
        f"{name}-instance",
        name=google_name,
        zone=machine.zone,
        machine_type=machine.machine_type,
        boot_disk=compute.InstanceBootDiskArgs(
            initialize_params=compute.InstanceBootDiskInitializeParamsArgs(image=machine.image, size=machine.disk_size, type="pd-balanced")
        ),
        # No access configuration: no public address.
        network_interfaces=[compute.InstanceNetworkInterfaceArgs(subnetwork=networks.subnets[subnet_of(settings, machine)])],
        service_account=compute.InstanceServiceAccountArgs(email=networks.accounts[machine.workload].email, scopes=SCOPES),
        metadata=key.public.apply(lambda public: names.machine_metadata(machine, public)),
        shielded_instance_config=compute.InstanceShieldedInstanceConfigArgs(
            enable_secure_boot=True, enable_vtpm=True, enable_integrity_monitoring=True
        ),
        scheduling=_spot() if machine.spot else None,
        allow_stopping_for_update=True,
        opts=pulumi.ResourceOptions.merge(
            opts,
            pulumi.ResourceOptions(provider=networks.provider, delete_before_replace=True, depends_on=list(networks.ready)),
        ),
    )
    address = made.network_interfaces.apply(lambda interfaces: interfaces[0].network_ip or "")
    return Host(
        address=address,
        identity=made.instance_id,
        connection=_connection(name, machine, google, address, key),
        prepare=names.host_key_script(google.project, machine.zone, google_name),
        resource=made,
    )


def _spot() -> compute.InstanceSchedulingArgs:
    return compute.InstanceSchedulingArgs(
        provisioning_model="SPOT", preemptible=True, automatic_restart=False, instance_termination_action="STOP"
    )


def _connection(
    name: str, machine: GceMachine, google: Google, address: pulumi.Output[str], key: SshKey
) -> Callable[[pulumi.Output[str]], remote.ConnectionArgs]:
    """How SSH gets there, once the host key is known. sshd is up before Google's agent has let our key in, hence the patience."""
    ssh = google.ssh
    proxy = None
    if ssh.bastion:
        bastion, own_key = ssh.bastion, pulumi.Config().require_secret("sshPrivateKey")
        proxy = remote.ProxyConnectionArgs(
            host=bastion.host, port=bastion.port, user=bastion.user, private_key=own_key, host_key=bastion.host_key
        )
    return lambda host_key: remote.ConnectionArgs(
        host="127.0.0.1" if ssh.by == "iap" else address,
        port=local_port(name, machine) if ssh.by == "iap" else 22,
        user=names.SSH_USER,
        private_key=key.private,
        host_key=host_key,
        proxy=proxy,
        dial_error_limit=30,
        per_dial_timeout=15,
    )
