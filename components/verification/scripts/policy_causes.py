"""Which policies keep pods that call from starting, or refuse calls.

They are looked up where a call fails, for its cause alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ...local import scripting
from ...manifest import Manifest
from .. import cni_policies, network_policies
from ..network_policies import End
from .cluster_objects import Cluster, Running


def keeping_from_start(cluster: Cluster, caller: End, port: int) -> list[str]:
    """Return a sentence for each policy that may keep a pod that calls from starting.

    caller: the pod, without the labels of its namespace. port: the endpoints'.
    """
    others = cluster.cni_policies()
    labelled = replace(caller, namespace_labels=cluster.labels()) if others else caller
    return [
        *network_policies.start_sentences(cluster.policies(), caller.labels, port),
        *cni_policies.start_sentences(others, labelled, port),
    ]


def refusing_pod(cluster: Cluster, caller: End, endpoints: Iterable[str]) -> dict[str, list[str]]:
    """Return a sentence for each policy that refuses calls of a pod, or may, by endpoint.

    caller: the pod, without the labels of its namespace. endpoints: those that take no connection.
    """
    silent = [*endpoints]
    policies, others = (cluster.policies(), cluster.cni_policies()) if silent else ([], [])
    if not policies and not others:
        return {}
    labelled = replace(caller, namespace_labels=cluster.labels())
    ends = {each.pod.address: _end(each, labelled) for each in _pods(cluster)}
    refused = {}
    for endpoint in silent:
        address, _, port = endpoint.rpartition(":")
        refused[endpoint] = _sentences(policies, others, labelled, ends.get(address, End(address)), int(port))
    return refused


def refusing_machine(cluster: Cluster, namespace: str, address: str) -> list[str]:
    """Return a sentence for each policy that refuses a machine's calls to the pods, or may.

    address: the machine's; "" where its calls come from the gateway of the pods' network.

    The pod that is named is the first one for which there is a policy.
    """
    policies, others = cluster.policies(), cluster.cni_policies()
    if not policies and not others:
        return []
    there = End("", namespace, {}, cluster.labels())
    for each in _pods(cluster):
        if each.port and (sentences := _sentences(policies, others, End(address), _end(each, there), each.port)):
            return sentences
    return []


def _sentences(policies: Sequence[Manifest], others: Sequence[Manifest], caller: End, callee: End, port: int) -> list[str]:
    return [
        *network_policies.call_sentences(policies, caller, callee, port),
        *cni_policies.call_sentences(others, caller, callee, port),
    ]


def _end(running: Running, neighbour: End) -> End:
    """Return a pod as an end of a connection. neighbour: another one of its namespace."""
    return replace(neighbour, address=running.pod.address, labels=running.labels)


def _pods(cluster: Cluster) -> tuple[Running, ...]:
    with contextlib.suppress(scripting.Failed):
        return cluster.pods()
    return ()
