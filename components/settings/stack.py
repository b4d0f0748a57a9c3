"""A whole stack file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from components.settings.existing import ExistingCluster, SshMachine
from components.settings.kind import DockerMachine, KindCluster
from components.settings.mesh import Mesh, Network, Workload

# What a platform is plugs in here: one settings class per cluster or machine platform, told apart by `platform`.
Cluster = KindCluster | ExistingCluster
Machine = DockerMachine | SshMachine


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A whole stack file. `verify` says what a failed verification does: fail the update, warn, or not run at all."""

    networks: Mapping[str, Network]
    cluster: Cluster
    mesh: Mesh
    workloads: Mapping[str, Workload] = field(default_factory=dict)
    machines: Mapping[str, Machine] = field(default_factory=dict)
    verify: Literal["fail", "warn", "none"] = "fail"

    def machines_of(self, workload: str) -> dict[str, Machine]:
        """The machines that run `workload`, by name."""
        return {name: machine for name, machine in self.machines.items() if machine.workload == workload}
