"""Slots: how many agents of a workload are stopped at once, over all joins that run anywhere.

A join takes a slot before it stops an agent, and gives it back when its machine answers again. The
slots of a workload are one Lease in its namespace, which the program declares with the workload and
which is deleted with it. Its annotations hold

- `MAX_UNAVAILABLE_ANNOTATION` and `MACHINES_ANNOTATION`, from the stack file: no join has them as
  an input, so a machine that is added changes no other machine's join
- `JOINED_ANNOTATION_PREFIX` and a machine's name, for each machine that has been in the mesh
- `SLOTS_ANNOTATION`: the joins that hold a slot, and the updates that are halted.

Joins write it with the `resourceVersion` that they read, so only one of two writers succeeds. A
join renews its slot while it runs. Clocks of two computers are never compared: a holder is gone
when its record stayed the same for `EXPIRY_S` of the reader's own clock (as in Kubernetes'
client-go, tools/leaderelection).

Kubernetes permissions: `list` workloadentries (networking.istio.io); `list`, `get`, `update` and
`patch` leases (coordination.k8s.io), in the workload's namespace.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from ...local import scripting

RENEWAL_S = 20
"""Seconds from one renewal of a slot to the next."""
EXPIRY_S = 60
"""Seconds without a renewal after which a slot is free again."""
PATIENCE_S = 120
"""Seconds for which a join waits where machines that are out of the mesh take all slots."""
PROGRESS_S = 15
"""Seconds from one message of a join that waits to the next."""


class KubectlCall(Protocol):
    """kubectl for one cluster."""

    def call(
        self, *words: str, stdin: bytes = b"", timeout_s: float | None = None
    ) -> scripting.Done:
        """Run kubectl, and return how it ended."""


@dataclass(frozen=True)
class SlotRequest:
    """The machine whose agent is to be stopped.

    namespace, workload: the workload that it runs.
    machine: the machine's name in the stack.
    registration: the id of its registration.
    update: the update that runs this process (`update_id.update_id()`).
    """

    namespace: str
    workload: str
    machine: str
    registration: str
    update: str


@contextlib.contextmanager
def slot(
    kubectl: KubectlCall, request: SlotRequest, report: Callable[[str], None]
) -> Iterator[None]:
    """Hold a slot of the workload: wait for it, renew it meanwhile, and give it back.

    A machine that is out of the mesh takes no slot and waits for none.

    kubectl: kubectl for the workload's cluster; also called from another thread.
    request: the machine whose agent is to be stopped.
    report: takes one line about the progress.

    Raises scripting.Failed, the machine untouched: where the update is halted, where machines that
    are out of the mesh take all slots for `PATIENCE_S`, and where the Lease cannot be used.
    """
    yield


def halt(kubectl: KubectlCall, request: SlotRequest, cause: str) -> None:
    """Halt the update of the workload: joins that wait for a slot in this update fail untouched.

    To be called while the slot is held, after a join failed and was rolled back. A machine that
    holds no slot halts nothing: it was out of the mesh before.

    cause: one sentence without secrets, for the messages of the other joins.

    Raises scripting.Failed where the Lease cannot be written.
    """


def joined(kubectl: KubectlCall, request: SlotRequest) -> None:
    """Record that a machine is in the mesh: from now on it counts as unavailable when it is not.

    To be called by every join that held no slot, once the machine's entry is Healthy. Without the
    record a machine is new: nothing waits for it.

    Raises scripting.Failed where the Lease cannot be written.
    """
