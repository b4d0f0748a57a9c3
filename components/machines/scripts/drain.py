"""Takes a machine out of the mesh before it is removed: its entry first, then its agent.

Neither a dead machine nor an API server that does not answer stands in the way of the removal; both
are reported on standard error. A machine that answered and did not leave is an error.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from time import sleep

from ...local import openssh, scripting
from ...local.openssh import Reach

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

    kubeconfig: the kubeconfig's text.
    namespace, entry: its WorkloadEntry.
    drain_s: seconds for requests that are under way once the entry is deleted.
    leave: how it leaves; None for a machine that is shut down, and leaves by its unit.
    """

    kubeconfig: str = field(repr=False)
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
        with scripting.kubectl(payload.kubeconfig) as kubectl:
            words += ["--ignore-not-found", "--output", "name"]
            deleted = kubectl.call("--request-timeout=10s", *words, timeout_s=30)
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

    A dead machine is reported on standard error. Raises scripting.Failed where the script failed,
    or did not run although the machine answered.
    """
    machine, place = payload.target.machine, openssh.describe(payload.target)
    outcome = openssh.run_script(payload.target, payload.script, LEAVE_TIMEOUT_S)
    if outcome.stderr:
        print(outcome.stderr, file=sys.stderr)
    if outcome.reach is Reach.DEAD:
        print(
            f"machine {machine} was not reached at {place} ({outcome.reason}), so it did not leave "
            "by itself: if it still exists, its agent runs and its key is good for as long as its "
            "certificate",
            file=sys.stderr,
        )
    elif not outcome.began:
        cause = openssh.explain(payload.target, outcome, "leave")
        raise scripting.Failed(f"machine {machine} did not leave the mesh: {cause}")
    elif outcome.reach in (Reach.CUT_OFF, Reach.TIMED_OUT):
        raise scripting.Failed(
            f"machine {machine} may not have left the mesh: the SSH connection to {place} ended before its script did: run the update again"
        )
    elif outcome.status:
        status = f"status {outcome.status}"
        raise scripting.Failed(f"machine {machine} did not leave the mesh ({status}): see above")
