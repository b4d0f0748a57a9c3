"""Whether this machine can run the lab at all, and the packages that it needs first. Standard
library only: the launcher calls it before anything is installed.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.steps import Step

from . import engine, paths
from .offline import debian

GIB = 1024**3
DISK_COLD, DISK_WARM = 15 * GIB, 3 * GIB
"""Free space for building everything (Go's caches included), and for running what is built."""
MEMORY_COLD, MEMORY_WARM = 7 * GIB, 4 * GIB
"""Memory for two builds at the same time, whose processes take up to 2.3 GB each, and for running
the lab.
"""
CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}
"""What dockerd cannot do without; the numbers are the kernel's (linux/capability.h)."""


def _status(name: str) -> int:
    """A hexadecimal field of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((int(line.split()[1], 16) for line in lines if line.startswith(f"{name}:")), -1)


def memory() -> int:
    """Bytes of memory and swap that this process may use: the machine's, or its control group's
    limit.
    """
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    total = sum(int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "SwapTotal"))
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(limit).read_text()))
        except (OSError, ValueError):
            continue  # another version of control groups, or "max"
    return total


def cold() -> bool:
    """Return whether the tools have to be got: the CLI is neither in the cache nor on PATH."""
    return not any(paths.cache().glob("*pulumi/*")) and not shutil.which("pulumi")


def free(directories: Mapping[str, Path]) -> dict[str, tuple[Path, int]]:
    """For each file system below the directories: the first directory on it, and its free bytes."""
    systems: dict[str, tuple[Path, int]] = {}
    for directory in directories.values():
        existing = next(parent for parent in (directory, *directory.parents) if parent.exists())
        systems.setdefault(str(existing.stat().st_dev), (directory, shutil.disk_usage(existing).free))
    return systems


@dataclass(frozen=True)
class Machine:
    """What the check looks at; tests put their own answers in."""

    system: str = field(default_factory=platform.system)
    architecture: str = field(default_factory=platform.machine)
    root: bool = field(default_factory=lambda: os.geteuid() == 0)
    capabilities: Callable[[], int] = lambda: _status("CapEff")
    engine_answers: Callable[[], bool] = lambda: engine.find() is not None
    engine_requirement: Callable[[], str | None] = engine.unmet_requirement
    memory: Callable[[], int] = memory
    cold: Callable[[], bool] = cold
    free: Callable[[Mapping[str, Path]], Mapping[str, tuple[Path, int]]] = free


def unmet_requirements(machine: Machine | None = None) -> list[str]:
    """Why this machine cannot run the lab, each with what to do; empty if it can."""
    machine = machine or Machine()
    if machine.system != "Linux":
        return [f"the lab needs Linux, this is {machine.system}: use a Linux machine or virtual machine (Debian 12, 2 cores, 8 GB)"]
    if machine.architecture != "x86_64":
        return [f"the lab needs an x86_64 processor (Envoy and Go are pinned for it), this is {machine.architecture}: use such a machine"]
    return [*_engine(machine), *_room(machine)]


def _engine(machine: Machine) -> list[str]:
    if not machine.root:
        return [why] if (why := machine.engine_requirement()) else []
    effective = machine.capabilities()
    absent = [name for name, bit in CAPABILITIES.items() if not effective >> bit & 1]
    if absent and not machine.engine_answers():
        names = " and ".join(absent)
        return [
            f"no Docker engine answers, and this root has no {names} to start one: start Docker here, or use a (virtual) machine of its own"
        ]
    return []


def _room(machine: Machine) -> list[str]:
    building = machine.cold()
    what = "build everything once" if building else "run the lab"
    shortages = []
    if (there := machine.memory()) < (needed := MEMORY_COLD if building else MEMORY_WARM):
        shortages.append(
            f"{there / GIB:.1f} GiB of memory are too little to {what} ({needed // GIB} GiB): use a larger machine or add swap"
        )
    needed = DISK_COLD if building else DISK_WARM
    directories = {"cache": paths.cache(), "state": paths.ROOT} | ({"home": Path.home()} if building else {})
    for place, there in machine.free(directories).values():
        if there < needed:
            cure = (
                "" if place == paths.ROOT else ", or set ISTIO_VM_MESH_CACHE (and Go's GOCACHE, GOMODCACHE) to a directory on a larger disk"
            )
            shortages.append(f"{there / GIB:.1f} GiB free for {place} are too little to {what} ({needed // GIB} GiB): free some{cure}")
    return shortages


def install(step: Step, packages: Sequence[str]) -> None:
    """Install what is missing of Debian packages. Raises StepError where that is not possible."""
    debian.ensure(step, packages)
