"""What Compute Engine's machine types take, and what they refuse. Pure."""

from __future__ import annotations

import re
from typing import Literal

DiskType = Literal["pd-balanced", "pd-ssd", "pd-standard", "hyperdisk-balanced"]
_SERIES = re.compile(r"[a-z]+(\d+)")


def default_disk_type(machine_type: str) -> DiskType:
    """Return the type of boot disk that a machine type takes: Persistent Disk where it can.

    Source: Compute Engine, "Machine family resource and comparison guide": series from the fourth
    generation on, metal machines and the largest accelerators take Hyperdisk alone.
    """
    return "hyperdisk-balanced" if needs_hyperdisk(machine_type) else "pd-balanced"


def needs_hyperdisk(machine_type: str) -> bool:
    """Return whether a machine type takes no Persistent Disk."""
    series = _SERIES.match(machine_type)
    is_late = series is not None and int(series[1]) >= 4
    return is_late or is_metal(machine_type) or machine_type.startswith("a3-ultragpu")


def takes_hyperdisk(machine_type: str) -> bool:
    """Return whether a machine type boots from Hyperdisk Balanced."""
    series = machine_type.partition("-")[0]
    without = ("a2", "c2", "c2d", "custom", "e2", "f1", "g1", "g2", "n1", "n2", "n2d", "t2a", "t2d")
    return series not in without


def refused_disks(machine_type: str) -> tuple[str, ...]:
    """Return the types of Persistent Disk that a machine type does not take, besides others."""
    series = machine_type.partition("-")[0]
    if series == "h3":
        return ("pd-standard", "pd-ssd")
    return ("pd-standard",) if series in ("a3", "c3", "c3d", "g2", "m3", "z3") else ()


def is_arm64(machine_type: str) -> bool:
    """Return whether machines of a type have ARM processors."""
    return machine_type.partition("-")[0] in ("a4x", "c4a", "n4a", "t2a")


def has_accelerators(machine_type: str) -> bool:
    """Return whether a machine type comes with GPUs."""
    return machine_type.partition("-")[0] in ("a2", "a3", "a4", "a4x", "g2", "g4")


def migrates(machine_type: str) -> bool:
    """Return whether Google moves running machines of a type to other hosts.

    It refuses to create others unless they say that they stop instead.
    Source: Compute Engine, "Live migration process", limitations.
    """
    stays = machine_type.partition("-")[0] in ("h3", "h4d", "x4") or is_metal(machine_type)
    return not stays and not has_accelerators(machine_type)


def is_metal(machine_type: str) -> bool:
    """Return whether a machine of a type has a host of its own without a hypervisor."""
    return machine_type.endswith("-metal")
