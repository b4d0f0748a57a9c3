"""Removes the pods that call when the update that started them has ended, however it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import sleep

from ...local import update_id
from ...local.cluster_access import ClusterAccess, kubectl

PAUSE_S = 0.5


@dataclass(frozen=True)
class Payload:
    """What is removed, and when.

    access: the cluster. namespace: the Jobs'. label: their label, as a selector.
    update: the process whose life is the update's.
    """

    access: ClusterAccess = field(metadata={"record": ClusterAccess})
    namespace: str
    label: str
    update: update_id.Process = field(metadata={"record": update_id.Process})


def run(payload: Payload) -> None:
    """Wait for the end of the update, then delete the Jobs with their pods."""
    while update_id.is_running(payload.update):
        sleep(PAUSE_S)
    words = ["delete", "job", "--selector", payload.label, "--namespace", payload.namespace]
    with kubectl(payload.access) as program:
        program.call("--request-timeout=20s", *words, "--wait=false", timeout_s=60)
