"""Takes a machine out of the mesh before it is removed: its entry first, then its agent.

The script on the machine sends a request before it stops the agent. The entry is deleted then. So a
machine that cannot leave stays in the mesh as it was.

Both carry the identifier of the registration that ends, and nothing else is changed. A machine that
was renamed, or that another stack has taken over, has another identifier by now.

A machine that is dead does not block its removal. It is reported, and it is kept out of the mesh by
an entry of this program (`entries`). A machine is dead if SSH does not reach it and its agent has no
connection to istiod: otherwise the way to it is what is missing. Any other machine that did not
leave is an error, unless a person forgets it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass, field
from time import sleep

from ... import shell
from ...local import cluster_access, openssh, scripting
from ...local.cluster_access import ClusterAccess, Kubectl
from ...local.conversation import Pause
from ...local.ssh_log import Reach
from .. import entries
from ..bundle import Owner, leave_script
from . import machine_lock
from .machine_lock import LockWait

LEAVE_TIME_LIMIT_S = machine_lock.WAIT_S + 120
"""Seconds that leaving the mesh may take on the machine, with the wait for another join there."""
LEAVE_TIMEOUT_S = 150
LEAVE_PATIENCE_S = 10
"""Seconds in which a connection that fails is tried again. A bastion drops some of many connections
that begin at once (sshd_config: MaxStartups), and an sshd may be about to restart.
"""
DEAD, FORGOTTEN = "dead", "forgotten"
"""Why a machine did not leave (names.REASON_ANNOTATION)."""
LOOKS, PAUSE_S = 13, 5
"""How often, and after how many seconds each, an entry is read until its agent is disconnected.

istiod notices after at most 40 s that a machine is gone (istio/istio: pkg/keepalive, 30 s and 10 s).
"""
FAILURES = 3
"""Looks without an answer after which the cluster counts as out of reach."""
NOT_OURS = "not-ours "
"""How the script's last line begins on a machine that is of another registration."""
FORGET_VARIABLE = "ISTIO_VM_MESH_FORGET"
"""Environment variable with the names of machines, by commas, that are forgotten."""


@dataclass(frozen=True)
class Leave:
    """How a machine leaves the mesh over SSH.

    target: the machine.
    required: whether a failure is an error; it is none where the machine is removed anyway.
    forget: whether the machine is given up without a connection to it.
    """

    target: openssh.Target = field(metadata={"record": openssh.Target})
    required: bool
    forget: bool = False


@dataclass(frozen=True)
class Payload:
    """A machine.

    access: how kubectl reaches the cluster.
    owner: the registration that ends.
    drain_s: seconds for requests that are under way once the entry is deleted.
    entry: the name of its WorkloadEntry.
    address: its address.
    leave: how it leaves; None for a machine that is shut down, and leaves by its unit. Only with it
        are `entry` and `address` needed.
    """

    access: ClusterAccess = field(metadata={"record": ClusterAccess})
    owner: Owner = field(metadata={"record": Owner})
    drain_s: float
    entry: str = ""
    address: str = ""
    leave: Leave | None = field(default=None, metadata={"record": Leave})


def run(payload: Payload) -> None:
    """Drain the machine, and have it leave. Raises scripting.Failed (see `leave`)."""
    if payload.leave is None:
        drain(payload)
        return
    try:
        leave(payload, payload.leave)
    except scripting.Failed as error:
        if payload.leave.required:
            raise
        drain(payload)
        report(str(error))


def report(sentence: str) -> None:
    """Print a sentence that Pulumi shows with the update."""
    print(sentence, file=sys.stderr)


def drain(payload: Payload) -> None:
    """Delete the WorkloadEntry of the registration, and wait for requests that are under way.

    An API server that does not answer is reported.
    """
    owner = payload.owner
    try:
        with cluster_access.kubectl(payload.access) as kubectl:
            deleted = entries.delete_registered(kubectl, owner.namespace, owner.registration)
            if deleted:
                _report_pause(kubectl, owner)
    except cluster_access.OtherCluster:
        raise
    except scripting.Failed as error:
        report(f"the WorkloadEntry of machine {owner.machine} was not deleted first; istiod removes it after its grace period: {error}")
    else:
        if deleted:
            sleep(payload.drain_s)


def _report_pause(kubectl: Kubectl, owner: Owner) -> None:
    """Report where no machine of a workload answers any more."""
    with contextlib.suppress(scripting.Failed):  # the machine leaves all the same
        if not entries.serving(kubectl, owner.namespace, owner.workload):
            report(
                f"machine {owner.machine}: no other machine of the workload "
                f"{owner.namespace}/{owner.workload} is in the mesh. Unless it has pods, its Services "
                "have no endpoint until a machine joins"
            )


def is_forgotten(machine: str) -> bool:
    """Return whether the environment names a machine among those that are forgotten."""
    return machine in (name.strip() for name in os.environ.get(FORGET_VARIABLE, "").split(","))


def leave(payload: Payload, how: Leave) -> None:
    """Have the machine leave the mesh.

    Raises scripting.Failed where it did not, and is neither dead nor forgotten.
    """
    machine, place = payload.owner.machine, openssh.describe(how.target)
    if how.forget or is_forgotten(machine):
        give_up(payload, f"machine {machine} is forgotten: nothing was changed on it", FORGOTTEN)
        return
    script = shell.run_as_root(leave_script(payload.owner), LEAVE_TIME_LIMIT_S)

    lock_wait = LockWait(machine)

    def answer(words: str, pause: Pause) -> str:
        topic, *rest = words.split()
        if topic == machine_lock.TOPIC and len(rest) == 1:
            return lock_wait.answer(rest[0], pause)
        drain(payload)
        return "yes"

    outcome = openssh.run_script(how.target, script, LEAVE_TIMEOUT_S, LEAVE_PATIENCE_S, answer=answer)
    if outcome.began and outcome.stderr:
        report(outcome.stderr)
    if outcome.reach is Reach.DEAD:
        cause = openssh.explain(how.target, outcome, "leave")
        if how.required and stays_connected(payload):
            raise scripting.Failed(
                f"machine {machine} did not leave the mesh: {cause}. It is not dead, because its agent "
                f"is connected to istiod: check the route from here to it. {ways_out(machine)}"
            )
        give_up(payload, f"machine {machine} is dead: {cause}", DEAD)
        return
    end = scripting.last_words(outcome.stdout)
    if outcome.reach is not Reach.DONE:
        raise scripting.Failed(f"{_failure(machine, how.target, outcome)}. {ways_out(machine)}")
    if end.startswith(NOT_OURS):
        present = end[len(NOT_OURS) :]
        report(f"machine {machine} at {place} is now {present}: nothing was changed on it")
    elif end not in ("left", "not-joined"):
        raise scripting.Failed(
            f"machine {machine} may not have left the mesh: the leave at {place} ended before its last step. {ways_out(machine)}"
        )
    if end != "left":
        drain(payload)  # an entry of this registration can only be left over


def stays_connected(payload: Payload) -> bool:
    """Return whether the agent has a connection to istiod, also after istiod must have noticed that
    a machine is gone. It has none where the cluster does not say so, also when it is read again.
    """
    failures = 0
    for look in range(LOOKS):
        try:
            with cluster_access.kubectl(payload.access) as kubectl:
                entry = entries.read(kubectl, payload.owner.namespace, payload.entry)
            if entry is None or not entry.is_joined(payload.owner.registration):
                return False
        except scripting.Failed:
            failures += 1
            if failures == FAILURES:
                return False  # then it cannot be kept out either, which is an error
        if look == 0:
            report(
                f"machine {payload.owner.machine} does not answer: waiting until istiod finds its agent disconnected, {LOOKS * PAUSE_S} s at most"
            )
        sleep(PAUSE_S)
    return True


def give_up(payload: Payload, cause: str, reason: str) -> None:
    """Keep a machine out of the mesh that did not leave, and report what it still can do.

    A machine that is removed anyway is only reported. So is one that is forgotten and cannot be
    kept out, as where its cluster is gone. Raises scripting.Failed where another cannot be.
    """
    owner = payload.owner
    if payload.leave is None or not payload.leave.required:
        drain(payload)
        report(cause)
        return
    kept_out = entries.Quarantine(owner, payload.entry, payload.address, reason)
    try:
        with cluster_access.kubectl(payload.access) as kubectl:
            effect = entries.quarantine(kubectl, kept_out)
    except scripting.Failed as error:
        sentence = f"{cause}. It cannot be kept out of the mesh either: {error}"
        if reason == FORGOTTEN:
            report(sentence)
            return
        fix = "Run the update again where the cluster can be reached"
        raise scripting.Failed(f"{sentence}. {fix}. {ways_out(owner.machine)}") from None
    report(
        f"{cause}. It did not leave the mesh by itself, but {effect}, so it gets no requests. If "
        "its agent runs, it can still send requests with its certificate, which it renews for as "
        f"long as it reaches the east-west gateway. To settle it, stop the agent "
        "there (systemctl disable --now istio-vm-mesh), or join a machine at its address"
    )


def ways_out(machine: str) -> str:
    """Return how a person gives up a machine that cannot leave."""
    return (
        f"To give the machine up without a connection to it, set machines.{machine}.forget: true "
        f"in an update before its removal, or run this one with {FORGET_VARIABLE}={machine}"
    )


def _failure(machine: str, target: openssh.Target, outcome: openssh.Outcome) -> str:
    place = openssh.describe(target)
    if not outcome.began:
        cause = openssh.explain(target, outcome, "leave")
        return f"machine {machine} did not leave the mesh: {cause}"
    if outcome.reach is Reach.FAILED:
        status = f"status {outcome.status}"
        return f"machine {machine} did not leave the mesh ({status}): see above"
    end = "took too long" if outcome.reach is Reach.TIMED_OUT else "ended before its script did"
    cause = f": {outcome.reason}" if outcome.reason else ""
    return f"machine {machine} may not have left the mesh: the SSH connection to {place} {end}{cause}"
