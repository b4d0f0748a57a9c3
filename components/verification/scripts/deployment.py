"""The Deployment of a workload that this program creates: whether a pod of it is ready."""

from __future__ import annotations

from time import monotonic, sleep

from ... import names
from ..evidence import Call, unproven
from .cluster_objects import Cluster, Running


def wait_for_pod(cluster: Cluster, namespace: str, workload: str, until: float) -> tuple[tuple[Running, ...], list[Call]]:
    """Wait until a pod of the Deployment is ready; return the workload's pods, and what is wrong.

    until: when the wait ends (`monotonic`). Pods of others may have the workload's labels, too.

    Raises scripting.Failed where the cluster does not answer.
    """
    while True:
        pods = cluster.pods()
        is_ready = any(each.pod.ready and each.labels.get(names.WORKLOAD_LABEL) == workload for each in pods)
        if is_ready or monotonic() >= until:
            break
        sleep(2)
    return pods, [] if is_ready else [unproven("no pod is ready", object=f"Deployment {namespace}/{workload}")]
