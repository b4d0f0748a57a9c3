"""What a stack file may say: frozen dataclasses, and the checks that reach across them.

`load` turns the stack's configuration into `Settings` or raises `SettingsError` with **all** problems, before anything is created.
Plain data only: no Pulumi, no look-ups. The keys in a stack file are the fields' names in camelCase. `mesh` has what holds everywhere,
one module a platform the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from components.decode import Problem, decode, key_of, suggestion
from components.settings.checks import check
from components.settings.existing import Bastion, ExistingCluster, ExistingGateway, SshMachine, is_address, within
from components.settings.google import (
    GceMachine,
    GkeCluster,
    Google,
    GoogleMachine,
    GroupMachine,
    Ssh,
    Subnet,
    google_machines,
    local_port,
    machine_subnets,
    of_platform,
    subnet_of,
)
from components.settings.kind import DockerMachine, KindCluster, docker_networks, machine_ranges
from components.settings.mesh import (
    ChartValues,
    HttpProbe,
    Mesh,
    Network,
    NetworkGateway,
    Package,
    Pods,
    Probe,
    Service,
    TcpProbe,
    Workload,
)
from components.settings.stack import Cluster, Machine, Settings

# Secrets of a stack, each a key of its own in the configuration (`pulumi config set --secret`).
SECRETS = frozenset({"kubeconfig", "sshPrivateKey"})


class SettingsError(Exception):
    """The stack file is wrong; the text lists every problem, one a line."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        many = f"{len(problems)} problems" if len(problems) > 1 else "1 problem"
        super().__init__(f"the stack file has {many}:\n" + "\n".join(f"  {problem}" for problem in problems))


def load(raw: Mapping[str, Any], secrets: Collection[str] = ()) -> Settings:
    """Decode and check a stack's configuration (keys without the project's name, values as plain data).

    `secrets` names the secrets of `SECRETS` that are set; their values stay where they are.

    Raises SettingsError with every problem that was found. Checks that reach across run only on what could be decoded.
    """
    problems: list[Problem] = []
    known = {key_of(name): name for name in Settings.__dataclass_fields__}
    problems.extend(Problem(key, "unknown key" + suggestion(key, known)) for key in raw if key not in known)
    settings = decode(Settings, {key: value for key, value in raw.items() if key in known}, "", problems)
    problems = [Problem(problem.path.removeprefix("."), problem.message) for problem in problems]
    if settings is not None:
        problems.extend(check(settings, secrets))
    if problems:
        raise SettingsError(problems)
    return settings


__all__ = [
    "SECRETS", "Bastion", "ChartValues", "Cluster", "DockerMachine", "ExistingCluster", "ExistingGateway", "GceMachine", "GkeCluster", "Google",
    "GoogleMachine", "GroupMachine", "HttpProbe", "KindCluster", "Machine", "Mesh", "Network", "NetworkGateway", "Package", "Pods", "Probe",
    "Problem", "Service", "Settings", "SettingsError", "Ssh", "SshMachine", "Subnet", "TcpProbe", "Workload", "docker_networks",
    "google_machines", "is_address", "load", "local_port", "machine_ranges", "machine_subnets", "of_platform", "subnet_of", "within",
]  # fmt: skip
