"""Names and metadata on Google Cloud."""

from __future__ import annotations

import re
from zlib import crc32

from ...config.google import GceMachine, GkeCluster, GoogleMachine
from ...config.stack import Settings

SSH_USER = "mesh"
NODES = "nodes"  # the firewall's target for the cluster's nodes; others are workloads


def slug(text: str) -> str:
    """A stack's name as Google takes names: lower-case letters, digits and '-', a letter first. Pulumi takes '.' and '_' too."""
    name = re.sub("[^a-z0-9-]", "-", text.lower())
    return name if name[:1].isalpha() else f"s{name}"


def resource_name(stack: str, name: str) -> str:
    """The name on Google Cloud of something whose name must be known beforehand: at most 63 characters, and unique in a project."""
    full_name = slug(f"{stack}-{name}")
    return full_name if len(full_name) <= 63 else f"{full_name[:54].rstrip('-')}-{crc32(full_name.encode()):08x}"


def cluster_name(stack: str) -> str:
    """The cluster's name; GKE takes 40 characters."""
    return resource_name(stack, "mesh")[:40].rstrip("-")


def account_id(stack: str, name: str) -> str:
    """The ID of a service account: 6 to 30 characters."""
    full_name = slug(f"{stack}-{name}")
    return full_name if 6 <= len(full_name) <= 30 else f"{full_name[:21].rstrip('-')}-{crc32(full_name.encode()):08x}"


def vpcs(settings: Settings) -> list[str]:
    """The VPCs of a stack, the cluster's first: it is the one that others are peered with."""
    subnets = settings.google.subnets if settings.google else {}
    first = subnets[settings.cluster.subnet].vpc if isinstance(settings.cluster, GkeCluster) else ""
    return sorted({subnet.vpc for subnet in subnets.values()}, key=lambda vpc: (vpc != first, vpc))


def workloads_with_machines(settings: Settings) -> list[str]:
    """The workloads with machines on Google Cloud, sorted. Each has a service account of its own."""
    return sorted({machine.workload for machine in settings.google_machines.values()})


def machine_metadata(machine: GoogleMachine, public_key: str) -> dict[str, str]:
    """Metadata of a machine that is reached by SSH: our key alone opens it, and it publishes its host keys as guest attributes."""
    setup = {"startup-script": machine.startup_script} if machine.startup_script else {}
    return {
        "ssh-keys": f"{SSH_USER}:{public_key}",
        "block-project-ssh-keys": "TRUE",
        "enable-oslogin": "FALSE",
        "enable-guest-attributes": "TRUE",
        "serial-port-enable": "FALSE",
        **setup,
    }


def iap_tunnels(settings: Settings, stack: str) -> dict[int, tuple[str, str]]:
    """The machines that are reached through Identity-Aware Proxy, as (name, zone) on Google Cloud, by the local port of their tunnel."""
    if settings.google is None or settings.google.ssh.via != "iap":
        return {}
    machines = settings.machines_of_type(GceMachine)
    return {machine.tunnel_port: (resource_name(stack, name), machine.zone) for name, machine in machines.items()}
