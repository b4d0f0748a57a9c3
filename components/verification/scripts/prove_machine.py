"""Runs a script of the verification on a machine over SSH, and returns the evidence that it prints."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ... import names
from ...local import over_ssh, scripting
from ...local.cluster_access import ClusterAccess, kubectl
from ..evidence import Evidence, parse, unproven
from . import policy_causes
from .cluster_objects import Cluster, WorkloadPods


@dataclass(frozen=True)
class CalledPods:
    """Pods that the machine calls.

    access: their cluster.
    namespace, workload: whose they are: the pods that this program runs for that workload.
    port: the Service's target port (`WorkloadPods`).
    address: the machine's, as they see it; "" where its calls come from a gateway.

    The labels of the workload are not here: a state holds them twice for each machine.
    """

    access: ClusterAccess = field(metadata={"record": ClusterAccess})
    namespace: str
    workload: str
    port: int | str
    address: str = ""

    @property
    def pods(self) -> WorkloadPods:
        """Which pods they are."""
        return WorkloadPods(self.namespace, {names.WORKLOAD_LABEL: self.workload}, self.port)


@dataclass(frozen=True)
class Proof:
    """What a failure does, and what it is explained by.

    called: the pods that the machine calls; None: it calls none.
    warn_only: whether a failure is a part of the evidence alone.
    """

    called: CalledPods | None = field(default=None, metadata={"record": CalledPods})
    warn_only: bool = False


@dataclass(frozen=True)
class Payload(over_ssh.Payload):
    """A script on a machine, and what its failure does."""

    proof: Proof = field(default_factory=Proof, metadata={"record": Proof})


def run(payload: Payload) -> Evidence:
    """Run the script.

    Returns what was shown. With `warn_only` that includes a script that did not run to its end.
    Without it, such a script raises scripting.Failed.
    """
    proof = payload.proof
    try:
        shown = parse(over_ssh.run(payload).stdout)
        _check_rows(payload, shown)
    except scripting.Failed as error:
        (cause,) = _with_policies([str(error)], proof.called)
        if not proof.warn_only:
            raise scripting.Failed(cause) from None
        caller = f"machine {payload.target.machine}"
        return Evidence(calls=(unproven(" ".join(cause.split()), caller=caller, object=caller),))
    causes = _with_policies([call.cause for call in shown.calls], proof.called)
    return replace(shown, calls=tuple(replace(call, cause=causes[number]) for number, call in enumerate(shown.calls)))


def _check_rows(payload: Payload, shown: Evidence) -> None:
    """Raise scripting.Failed where a script that succeeded shows nothing of what it had to.

    A row may be lost: bash goes on where it gets no file descriptor, and other programs print, too.
    """
    given = dict(word.partition("=")[::2] for word in shlex.split(payload.script))
    services = {tuple(line.split("\t")[:2]) for line in given.get("TARGETS", "").splitlines()}
    ports = {line.split("\t")[0] for line in given.get("INBOUND", "").splitlines()}
    services -= {(call.service, str(call.port)) for call in shown.calls if call.kind != "counter" and not call.endpoint}
    ports -= {str(call.port) for call in shown.calls if call.kind == "counter"}
    missing = [
        *(f"calls of {service} port {port}" for service, port in sorted(services)),
        *(f"calls on port {port}" for port in sorted(ports)),
    ]
    if missing:
        machine = payload.target.machine
        raise scripting.Failed(
            f"machine {machine}: {payload.body} shows nothing of {', '.join(missing)}: do its login scripts print, "
            "or has it too few file descriptors (ulimit -n)?"
        )


def _with_policies(causes: Sequence[str], called: CalledPods | None) -> list[str]:
    """Return causes, with the policies that refuse the machine's calls where pods do not answer.

    A gateway takes connections whatever becomes of them. The policies are read once for all causes.
    """
    silent = "it takes no connection" if called and called.address else "it takes connections"
    if called is None or not any(silent in cause for cause in causes):
        return [*causes]
    policies: list[str] = []
    with contextlib.suppress(scripting.Failed), kubectl(called.access) as program:
        cluster = Cluster(program, called.pods)
        policies = policy_causes.refusing_machine(cluster, called.namespace, called.address)
    return ["; ".join([cause, *policies]) if silent in cause else cause for cause in causes]
