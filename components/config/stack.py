"""A whole stack file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from .docker import DockerMachine, KindCluster
from .existing import ExistingCluster, SshMachine
from .google import GceInstanceGroup, GceMachine, GkeCluster, Google
from .mesh import MeshSettings, Network
from .workload import WorkloadSettings

# What a platform is plugs in here: one settings class per cluster or machine platform, told apart by `platform`.
Cluster = KindCluster | GkeCluster | ExistingCluster
SingleMachine = DockerMachine | GceMachine | SshMachine
Machine = SingleMachine | GceInstanceGroup


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A whole stack file.

    `google` says where things are made on Google Cloud. `verify` says what a failed verification does: fail the update, warn, or not run.
    """

    networks: Mapping[str, Network]
    cluster: Cluster
    mesh: MeshSettings
    workloads: Mapping[str, WorkloadSettings] = field(default_factory=dict)
    machines: Mapping[str, Machine] = field(default_factory=dict)
    google: Google | None = None
    verify: Literal["fail", "warn", "none"] = "fail"

    def machines_of(self, workload: str) -> dict[str, SingleMachine]:
        """The single machines that run `workload`, by name."""
        return {name: machine for name, machine in self.singles.items() if machine.workload == workload}

    @property
    def singles(self) -> dict[str, SingleMachine]:
        """The machines that are reached one by one, by name: all but the groups."""
        return {name: machine for name, machine in self.machines.items() if not isinstance(machine, GceInstanceGroup)}

    @property
    def groups(self) -> dict[str, GceInstanceGroup]:
        """The groups of machines that join by themselves, by name."""
        return {name: machine for name, machine in self.machines.items() if isinstance(machine, GceInstanceGroup)}

    def fleet_of(self, workload: str) -> int:
        """How many machines of groups run `workload` at least."""
        return sum(group.minimum for group in self.groups.values() if group.workload == workload)
