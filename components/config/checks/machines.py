"""Rules for machines of every platform."""

from __future__ import annotations

from collections.abc import Iterator

from ..docker import DockerMachine
from ..existing import SshMachine
from ..problems import Problem, suggestion
from ..stack import Settings
from .names import check_names


def check(settings: Settings) -> Iterator[Problem]:
    """Yield machines whose name is invalid, or whose workload or network does not exist."""
    yield from check_names("machines", settings.machines)
    for name, machine in settings.machines.items():
        if machine.workload not in settings.workloads:
            hint = suggestion(machine.workload, settings.workloads)
            yield Problem(
                f"machines.{name}.workload",
                f"{machine.workload!r} is not a workload of this stack{hint}",
            )
        if machine.network not in settings.networks:
            hint = suggestion(machine.network, settings.networks)
            yield Problem(
                f"machines.{name}.network",
                f"{machine.network!r} is not a network of this stack{hint}",
            )
        if (
            isinstance(machine, (DockerMachine, SshMachine))
            and not 1 <= machine.connect_within <= 3600
        ):
            yield Problem(
                f"machines.{name}.connectWithin",
                f"expected 1 to 3600 seconds; got {machine.connect_within}",
            )
