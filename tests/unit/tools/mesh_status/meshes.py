"""Meshes as they were read once from real labs, secrets replaced: one network and two, healthy, and one with three things broken on purpose."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from components.config import load
from tools.mesh_status import assess, read_cluster, read_machines, read_state
from tools.mesh_status.model import Mesh

RECORDED = Path(__file__).parent / "recorded"
Name = Literal["single", "broken", "multi"]
CANARIES = ("canary-kubeconfig", "canary-private-key", "canary-token")
"""Where the recordings had secrets; in the tests none of them may come out again."""


def recorded(name: Name, file: str) -> Any:
    """One recorded file. `broken` is the stack of `single`: the agent of product-1 stopped, product-2's application too, ledger-1 off."""
    directory = "single" if name == "broken" and file in ("export", "config") else name
    return json.loads((RECORDED / directory / f"{file}.json").read_text())


def facts(name: Name) -> assess.Facts:
    """What the collecting parts made of it."""
    state = read_state.parse(recorded(name, "export"))
    config = {key.partition(":")[2]: value.get("objectValue", value.get("value")) for key, value in recorded(name, "config").items()}
    answers = recorded(name, "kubectl")

    def get(*arguments: str) -> list[Any]:
        items: list[Any] = answers[" ".join(arguments)]
        return items

    reports: dict[str, read_machines.MachineReport] = {}
    times: list[float] = []
    for machine, recording in recorded(name, "machines").items():
        if "output" in recording:
            times.append(float(recording["output"].splitlines()[0].removeprefix("time=")))
            reports[machine] = read_machines.parse(recording["output"], times[-1], times[-1])
        else:
            reports[machine] = read_machines.MachineReport(problem=recording["problem"])
    read = datetime.fromtimestamp(max(times), UTC) + timedelta(seconds=1)
    return assess.Facts(state, load(config), read_cluster.answered(get, state.facts, state.workloads), read, reports)


def mesh(name: Name, **changes: Any) -> Mesh:
    """The mesh as it is shown; `changes` are other facts than the recorded ones."""
    return assess.mesh(replace(facts(name), **changes))
