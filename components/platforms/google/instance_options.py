"""Options of instances: single machines, and those of instance groups. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from ...config.google import GoogleMachine
from ...config.google_machine_types import is_arm64, is_metal, migrates
from .names import SSH_USER


class Scheduling(TypedDict, total=False):
    """What states when Google stops an instance, by the names that its resources have."""

    provisioning_model: str
    preemptible: bool
    automatic_restart: bool
    instance_termination_action: str
    on_host_maintenance: str


def scheduling(machine: GoogleMachine) -> Scheduling | None:
    """Return when Google stops a machine, or those of an instance group; None: its default."""
    if machine.spot:
        return {
            "provisioning_model": "SPOT",
            "preemptible": True,
            "automatic_restart": False,
            "instance_termination_action": "STOP",
        }
    return None if migrates(machine.machine_type) else {"on_host_maintenance": "TERMINATE"}


def shielding(machine_type: str) -> Mapping[str, bool] | None:
    """Return what of Shielded VM a machine type and the images for it take; None for nothing.

    Bare metal supports none. Secure Boot is for x86. Debian's, Red Hat's and Rocky's images for ARM
    have no signed boot loader, and do not start with it (GoogleCloudPlatform/guest-test-infra, pull
    request 772).
    """
    if is_metal(machine_type):
        return None
    return {
        "enable_secure_boot": not is_arm64(machine_type),
        "enable_vtpm": True,
        "enable_integrity_monitoring": True,
    }


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
