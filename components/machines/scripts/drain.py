"""Takes a machine out of the mesh before it is removed: its entry first, then its agent.

Neither a dead machine nor an API server that does not answer stands in the way of the removal; both
are reported on standard error. A machine that answered and did not leave is an error.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from time import sleep

from ...local import openssh, scripting
from ...local.cluster_access import ClusterAccess, kubectl

LEAVE_TIMEOUT_S = 150


@dataclass(frozen=True)
class Leave:
    """How a machine leaves the mesh over SSH.

    target: the machine.
    script: what runs there.
    required: whether a failure is an error; it is none where the machine is removed anyway.
    """

    target: openssh.Target = field(metadata={"record": openssh.Target})
    script: str
    required: bool


@dataclass(frozen=True)
class Payload:
    """A machine.

    access: the cluster.
    namespace, entry: its WorkloadEntry.
    drain_s: seconds for requests that are under way once the entry is deleted.
    leave: how it leaves; None for a machine that is shut down, and leaves by its unit.
    """

    access: ClusterAccess = field(metadata={"record": ClusterAccess})
    namespace: str
    entry: str
    drain_s: float
    leave: Leave | None = field(default=None, metadata={"record": Leave})


def run(payload: Payload) -> None:
    """Drain the machine, then have it leave. Raises scripting.Failed (see `leave`)."""
    drain(payload)
    if payload.leave is None:
        return
    try:
        leave(payload.leave)
    except scripting.Failed as error:
        if payload.leave.required:
            raise
        print(error, file=sys.stderr)


def drain(payload: Payload) -> None:
    """Delete the WorkloadEntry, and wait for requests that are under way."""
    words = ["delete", "workloadentry", payload.entry, "--namespace", payload.namespace]
    try:
        with kubectl(payload.access) as program:
            words += ["--ignore-not-found", "--output", "name"]
            deleted = program.call("--request-timeout=10s", *words, timeout_s=30)
    except scripting.Failed as error:
        deleted = scripting.Done(1, b"", str(error).encode())
    if deleted.status:
        print(
            f"WorkloadEntry {payload.namespace}/{payload.entry} was not deleted first; istiod "
            f"removes it after its grace period: {scripting.last_words(deleted.error)}",
            file=sys.stderr,
        )
    elif deleted.text:
        sleep(payload.drain_s)


def leave(payload: Leave) -> None:
    """Have the machine leave the mesh.

    A machine that cannot be reached is reported on standard error. Raises scripting.Failed where
    the script failed, or did not run although the login succeeded.
    """
    machine, place = payload.target.machine, openssh.describe(payload.target)
    outcome = openssh.run_script(payload.target, payload.script, LEAVE_TIMEOUT_S)
    if outcome.stderr:
        print(outcome.stderr, file=sys.stderr)
    if not outcome.began and outcome.status in (openssh.NOT_CONNECTED, scripting.TIMED_OUT):
        print(
            f"machine {machine} was not reached at {place}, so it did not leave by itself: if it "
            "still exists, its agent runs and its key is good for as long as its certificate",
            file=sys.stderr,
        )
    elif not outcome.began:
        raise scripting.Failed(
            f"machine {machine} did not leave the mesh: the login shell of {place} ran nothing of "
            f"it and ended with status {outcome.status} (look into its start-up files)"
        )
    elif outcome.status in (openssh.NOT_CONNECTED, scripting.TIMED_OUT):
        raise scripting.Failed(
            f"machine {machine} may not have left the mesh: the SSH connection to {place} ended before its script did: run the update again"
        )
    elif outcome.status:
        status = f"status {outcome.status}"
        raise scripting.Failed(f"machine {machine} did not leave the mesh ({status}): see above")
