"""Names and metadata on Google Cloud."""

from __future__ import annotations

import re
from zlib import crc32

from ...config.google import GceMachine, GkeCluster, GoogleMachine
from ...config.stack import Settings

SSH_USER = "mesh"
NODES = "nodes"  # the firewall's target for the cluster's nodes; others are workloads


def slug(text: str) -> str:
    """Return a stack's name in Google's grammar: small letters, digits and '-', a letter first.

    Pulumi also permits capital letters, '.' and '_'.
    """
    name = re.sub("[^a-z0-9-]", "-", text.lower())
    return name if name[:1].isalpha() else f"s{name}"


def resource_name(stack: str, name: str) -> str:
    """Return a fixed name on Google Cloud: at most 63 characters, and unique in a project."""
    full_name = slug(f"{stack}-{name}")
    return full_name if len(full_name) <= 63 else f"{full_name[:54].rstrip('-')}-{crc32(full_name.encode()):08x}"


def cluster_name(stack: str) -> str:
    """Return the cluster's name; GKE permits 40 characters."""
    return resource_name(stack, "mesh")[:40].rstrip("-")


def account_id(stack: str, name: str) -> str:
    """Return the ID of a service account: 6 to 30 characters."""
    full_name = slug(f"{stack}-{name}")
    return full_name if 6 <= len(full_name) <= 30 else f"{full_name[:21].rstrip('-')}-{crc32(full_name.encode()):08x}"


def vpcs(settings: Settings) -> list[str]:
    """Return the VPCs of a stack. The cluster's is first: the others are peered with it."""
    subnets = settings.google.subnets if settings.google else {}
    first = subnets[settings.cluster.subnet].vpc if isinstance(settings.cluster, GkeCluster) else ""
    return sorted({subnet.vpc for subnet in subnets.values()}, key=lambda vpc: (vpc != first, vpc))


def workloads_with_machines(settings: Settings) -> list[str]:
    """Return the workloads with machines on Google Cloud, sorted. Each has a service account."""
    return sorted({machine.workload for machine in settings.google_machines.values()})


def machine_metadata(machine: GoogleMachine, public_key: str) -> dict[str, str]:
    """Return the metadata of a machine with SSH.

    Only the stack's key is authorised. The machine publishes its host keys as guest attributes.
    """
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
    """Return name and zone on Google Cloud of machines behind IAP, by local port."""
    if settings.google is None or settings.google.ssh.via != "iap":
        return {}
    machines = settings.machines_of_type(GceMachine)
    return {machine.tunnel_port: (resource_name(stack, name), machine.zone) for name, machine in machines.items()}
