"""Reads everything: the stack's state, then cluster and machines at the same time."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from . import read_cluster, read_machines, read_state
from .assess import Facts


def facts(variables: Mapping[str, str], name: str | None) -> Facts:
    """Return all that is to be read of a stack (None: the selected one), with Pulumi and kubectl in the environment `variables`.

    Raises StackError where the state cannot be read; a cluster or a machine that does not answer is a fact like others.
    """
    with ThreadPoolExecutor() as pool:
        configured = pool.submit(read_state.settings, variables, name)
        state = read_state.read(variables, name)
        if state.access:
            inside = pool.submit(read_cluster.read, variables, state.access, state.facts, state.workloads)
        else:
            inside = pool.submit(read_cluster.Cluster, problem="the stack has no cluster yet: run `pulumi up`")
        reports = read_machines.probe(state.machines.values(), state.gateway, state.gateway_port)
        return Facts(state, configured.result(), inside.result(), datetime.now(UTC), reports)
