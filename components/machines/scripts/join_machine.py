"""Joins a machine to the mesh over SSH, and waits until the mesh has it.

The token is minted here, with the credentials of the user who runs Pulumi. It goes to the machine
with the script, and is in no input and in no result. The script on the machine sends a request
before it takes over a machine of another owner, and before it stops an agent. The second request
takes one of the workload's slots (`slots`), which is held until the machine's entry is Healthy.
What keeps the machine out of the mesh (`entries`) is removed when the script requests to start the
agent. Once the redirection is on, a second SSH connection over the same hops confirms the join.
Otherwise the machine takes the join back.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from time import monotonic, sleep

from ... import names, shell
from ...local import cluster_access, openssh, scripting, update_id
from ...local.cluster_access import ClusterAccess, Kubectl
from ...local.conversation import Pause
from ...local.ssh_log import Reach
from .. import entries
from ..bundle import (
    CONFIRMED,
    DEADLINE_S,
    WAIT_LIMIT_S,
    Bundle,
    Standing,
    confirm_script,
    digest,
    join_script,
    slower_s,
    with_root_certificate,
)
from ..entries import Entry
from ..files import configuration_files
from . import machine_lock, slots
from .machine_lock import LockWait
from .slot_decision import SlotRequest
from .slot_lease import NoLease

TOKEN_LIFETIME_S = WAIT_LIMIT_S + 3600
"""Seconds: the agent may start only after the wait for a slot."""
CREDENTIALS_VARIABLE = "ISTIO_VM_MESH_PACKAGE_CREDENTIALS"
"""Environment variable with `USER:PASSWORD` for the server of Istio's package."""
TIMEOUT_S = DEADLINE_S + 60
"""Seconds for one connection, without its questions and `slower_s`: more than the machine's own deadline."""
ENTRY_TIMEOUT_S = 60
"""Seconds from the end of the script until istiod must have registered the machine."""
PROBE_TIMEOUT_S = 20
"""Seconds for the first success of a probe that did not succeed before the join either."""
PAUSE_S = 1.0
"""Seconds between two looks at the entry."""


@dataclass(frozen=True)
class Payload:
    """A machine and what it is joined with.

    access: how kubectl reaches the cluster.
    target: the machine.
    bundle: what it is joined with, but the files.
    root_sha256: the trust anchor's SHA-256. Its text is read from the cluster: it would be in
        every state.
    patience_s: seconds in which a connection that fails is tried again.
    root_config_map: the ConfigMap with it: its namespace and its name, by a slash.
    take_over: `<project>/<stack>` whose machine it may be until now; "" none.
    changes: what else has the machine joined again; it is returned with the result.
    """

    access: ClusterAccess = field(metadata={"record": ClusterAccess})
    target: openssh.Target = field(metadata={"record": openssh.Target})
    bundle: Bundle = field(metadata={"record": Bundle})
    root_sha256: str
    patience_s: int
    root_config_map: str = f"{names.ISTIO_NAMESPACE}/{names.DEFAULT_ROOT_CONFIG_MAP}"
    take_over: str = ""
    changes: str = ""

    @property
    def entry(self) -> str:
        """The name of its WorkloadEntry."""
        metadata = self.bundle.proxy["proxyMetadata"]
        return names.entry_name(self.bundle.owner.workload, self.bundle.address, metadata["ISTIO_META_NETWORK"])


@dataclass(frozen=True)
class Result:
    """What the machine was joined with.

    digest: what the machine is compared by: the last line of the script.
    changes: that of the payload.
    """

    digest: str
    changes: str = ""


def run(payload: Payload) -> Result:
    """Join the machine.

    Raises scripting.Failed where the script did not run to its end. Also where the machine is not
    in the mesh afterwards, or is unhealthy and was not before.
    """
    return _Join(payload).run()


class _Join:
    """One join: the requests of its script share a slot with what follows."""

    def __init__(self, payload: Payload) -> None:
        self._payload = payload
        self._owner, self._bundle = payload.bundle.owner, payload.bundle
        self._held = contextlib.ExitStack()
        self._slots: list[SlotRequest] = []
        self._is_joined = False
        self._before: Entry | None = None
        self._unconfirmed = ""
        self._stamp: _Stamp | None = None
        self._lock_wait = LockWait(self._owner.machine)

    def run(self) -> Result:
        with self._held:
            try:
                done = self._run_script()
                is_healthy = self._wait_for_entry()
            except scripting.Failed as error:
                self._halt(error)
                raise
            self._is_joined = is_healthy or self._was_joined()
            if self._is_joined and not self._slots:
                slots.joined(self._kubectl, self._slot_request())
            self._settle()
        return done

    def _was_joined(self) -> bool:
        """Return whether the machine has been in the mesh, as far as that can be read. Its registration
        may be another one since.
        """
        try:
            return bool(slots.declared(self._kubectl, self._slot_request()).registration)
        except scripting.Failed as error:
            report(f"machine {self._owner.machine}: it is not recorded as joined: {error}")
            return False

    def _settle(self) -> None:
        """Delete what keeps out the machine that this host was until now, by its entry of then."""
        if not self._stamp or not self._stamp.namespace:
            return
        try:
            entries.settle(self._kubectl, self._stamp.namespace, self._stamp.machine, self._stamp.address)
        except scripting.Failed as error:
            report(f"machine {self._owner.machine}: what kept out {self._stamp.machine} at its address was not removed: {error}")

    def _halt(self, error: scripting.Failed) -> None:
        """Halt the other joins of this update, where an agent that ran was stopped."""
        for request in self._slots:
            try:
                slots.halt(self._kubectl, request, scripting.last_words(str(error)))
            except scripting.Failed as problem:
                report(str(problem))

    def _run_script(self) -> Result:
        payload = self._payload
        # The cluster is read while ssh connects.
        outcome = openssh.run_script(payload.target, lambda: self._script, _timeout_s(payload), payload.patience_s, answer=self._answer)
        problem = _problem(payload, self._bundle, outcome)
        if problem:
            if self._unconfirmed not in problem:  # the answer did not reach the machine
                problem += f"\nmachine {self._owner.machine}: {self._unconfirmed}"
            raise scripting.Failed(problem)
        if outcome.stderr:
            report(outcome.stderr)
        return Result(digest(self._bundle), payload.changes)

    @cached_property
    def _kubectl(self) -> Kubectl:
        """kubectl for the cluster, until the join ends. `_read_cluster` checks which cluster it is."""
        access = cluster_access.moved(self._payload.access)
        return self._held.enter_context(cluster_access.unchecked_kubectl(access))

    @cached_property
    def _script(self) -> str:
        """What runs on the machine, whichever attempt to connect succeeds."""
        kubectl = self._kubectl
        with ThreadPoolExecutor(1) as beside:
            token = beside.submit(self._token, kubectl)
            root_certificate = self._read_cluster()
        complete = replace(self._bundle, files=configuration_files(self._bundle))
        self._bundle = with_root_certificate(complete, root_certificate)
        credentials = os.environ.get(CREDENTIALS_VARIABLE, "")
        text = join_script(self._bundle, token.result(), credentials, self._standing)
        return shell.run_as_root(text, 0)  # it keeps to its deadline by itself

    @property
    def _standing(self) -> Standing:
        """What the cluster had under the name of the machine's entry."""
        before = self._before
        if before is None:
            return Standing.NO_ENTRY
        if before.quarantine:
            return Standing.KEPT_OUT
        return Standing.REGISTERED if before.registration == self._owner.registration else Standing.OTHER_ENTRY

    def _read_cluster(self) -> str:
        """Read the machine's entry; return the mesh's root certificate."""
        namespace, _, name = self._payload.root_config_map.partition("/")
        root = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": namespace, "name": name}}
        entry = entries.reference(self._owner.namespace, self._payload.entry)
        objects, problem = cluster_access.read_objects(self._kubectl, self._payload.access, [root, entry])
        machine = self._owner.machine
        if problem:
            raise scripting.Failed(f"machine {machine}: its entry and the root certificate of the mesh cannot be read: {problem}")
        if "ConfigMap" not in objects:
            raise scripting.Failed(f"machine {machine}: no root certificate of the mesh: there is no ConfigMap {namespace}/{name}")
        if "WorkloadEntry" in objects:
            self._before = entries.parse(objects["WorkloadEntry"])
        text: str = objects["ConfigMap"]["data"]["root-cert.pem"]
        if hashlib.sha256(text.encode()).hexdigest() != self._payload.root_sha256:
            raise scripting.Failed(f"machine {machine}: the mesh's root certificate changed while this update ran: run the update again")
        return text

    def _token(self, kubectl: Kubectl) -> str:
        """Mint a token with which the machine requests its first certificate."""
        account, namespace = self._bundle.proxy["proxyMetadata"]["SERVICE_ACCOUNT"], self._owner.namespace
        words = ["create", "token", account, "--namespace", namespace]
        words += ["--audience", names.TOKEN_AUDIENCE, "--duration", f"{TOKEN_LIFETIME_S}s"]
        minted = kubectl.call("--request-timeout=20s", *words, timeout_s=60)
        if minted.status or not minted.text:
            raise scripting.Failed(
                f"machine {self._owner.machine}: no token of the service account "
                f"{namespace}/{account}: {scripting.last_words(minted.error)}"
            )
        return minted.text

    def _answer(self, words: str, pause: Pause) -> str:
        """Answer a question of the script: `yes`, or `no` with the reason and the fix."""
        topic, *rest = ("" if word == "-" else word for word in words.split())
        if topic == machine_lock.TOPIC and len(rest) == 1:
            return self._lock_wait.answer(rest[0], pause)
        if topic == "owner" and len(rest) == len(fields(_Stamp)):
            return self._may_take(_Stamp(*rest))
        if topic == "changes" and len(rest) == 1:
            return self._report_changes(rest[0])
        if topic == "stop":
            return self._take_slots(pause, *rest[:3])
        if topic == "gone":
            return self._delete_entry()
        if topic == "start":
            return self._let_in()
        if topic == "confirm" and len(rest) == 1 and re.fullmatch(r"[0-9.]+", rest[0]):
            return self._confirm(rest[0])
        return f"no the request {topic} is of another version of this program: run the update again"

    def _report_changes(self, encoded: str) -> str:
        """Report what the join is about to change of the host's traffic.

        encoded: lines of text, in base64.
        """
        lines = base64.b64decode(encoded).decode(errors="replace").splitlines()
        changes = "".join(f"\n  - {line}" for line in lines)
        report(f"machine {self._owner.machine}: this host, from now on:{changes}")
        return "yes"

    def _may_take(self, stamp: _Stamp) -> str:
        """Answer whether the machine with another one's stamp may be joined."""
        owner, stamped = self._owner, f"{stamp.project}/{stamp.stack}"
        self._stamp = stamp
        if stamped == self._payload.take_over:
            return "yes"
        if (stamp.project, stamp.stack) != (owner.project, owner.stack):
            return (
                f"no this is the machine {stamp.machine} of the stack {stamped}: remove it there first, or "
                f"set machines.{owner.machine}.takeOver: {stamped}, and nothing was changed"
            )
        if stamp.machine == owner.machine:
            return "yes"
        try:
            is_twice = self._is_twice_in_stack(stamp)
        except scripting.Failed as error:
            return f"no {error}"
        if is_twice:
            return (
                f"no this is the machine {stamp.machine} of this stack, which joined it by the address "
                f"{stamp.address}: {owner.machine} and {stamp.machine} are one host. Remove one of them from "
                f"the stack file, and nothing was changed. Where {owner.machine} and {stamp.machine} swap their "
                "hosts, swap them by the addresses of before, and change the addresses in another update. A copy "
                f"of that machine's disk is a host of its own: set machines.{owner.machine}.takeOver: {stamped} for it"
            )
        report(f"machine {owner.machine}: its host was the machine {stamp.machine} of this stack until now")
        return "yes"

    def _is_twice_in_stack(self, stamp: _Stamp) -> bool:
        """Return whether another machine of this stack still is the host that this one came to.

        Hosts that two machines swap have the same addresses as before. A machine that was renamed is
        not in the stack any more, and one that went to another host has another registration there.
        Raises scripting.Failed.
        """
        if not stamp.address or stamp.address == self._bundle.address:
            return False
        request = replace(self._slot_request(), namespace=stamp.namespace, workload=stamp.workload, machine=stamp.machine)
        try:
            declared = slots.declared(self._kubectl, request)
        except NoLease:
            return False  # no machine of that workload is in the stack any more
        return declared.is_in_stack and declared.registration in ("", stamp.registration)

    def _take_slots(self, pause: Pause, namespace: str = "", workload: str = "", registration: str = "") -> str:
        """Take the slots that the stop of an agent needs.

        namespace, workload, registration: of the agent, by the machine's stamp; "" without one.

        A machine that moves leaves one workload and comes to another. It waits for a slot of the
        old one first: only there its agent serves. So no two machines wait for each other.
        """
        if self._slots:
            return "yes"
        request = replace(self._slot_request(), stops=registration)
        requests = [request]
        if workload and (namespace, workload) != (request.namespace, request.workload):
            entry = f"{workload}{request.entry.removeprefix(request.workload)}"
            old = replace(request, namespace=namespace, workload=workload, entry=entry)
            requests.insert(0, old)
        taken = []
        for each in requests:
            try:
                is_alone = self._held.enter_context(slots.slot(self._kubectl, each, report, pause, lambda: self._is_joined))
            except NoLease as error:
                if each is request:
                    return f"no {error}"
                report(_last_leaves(each))  # no machine of the old workload is left in the stack
                continue
            except scripting.Failed as error:
                return f"no {error}"
            if is_alone:
                report(_alone_restarts(each) if each is request else _last_leaves(each))
            taken.append(each)
        pause(0)  # what has ended by now stops no agent, so its failure halts nothing
        self._slots = taken
        return "yes"

    def _delete_entry(self) -> str:
        """Delete what istiod has left of this machine's registration, whose agent was stopped.

        Another registration's entry stays: its agent may run on the host whose disk was copied.
        """
        try:
            is_left = entries.delete_registered(self._kubectl, self._owner.namespace, self._owner.registration)
        except scripting.Failed as error:
            return f"no its WorkloadEntry of before was not deleted: {error}"
        if is_left:
            report(f"machine {self._owner.machine}: istiod had left its WorkloadEntry of before, which is deleted now")
        return "yes"

    def _let_in(self) -> str:
        """Remove what keeps the machine out, until the join fails.

        Not before: this process may be killed, and then nothing puts it back.
        """
        try:
            self._held.enter_context(entries.lifted(self._kubectl, self._owner, self._payload.entry))
        except scripting.Failed as error:
            return f"no what keeps the machine out of the mesh was not removed: {error}"
        return "yes"

    def _confirm(self, nonce: str) -> str:
        """Answer whether a second connection reaches the machine now, and finds its join there.

        Its attempts take at most the time that the machine waits for one.
        """
        payload, half_s = self._payload, self._bundle.confirm_s / 2
        script = shell.run_as_root(confirm_script(self._owner.machine, nonce), half_s)
        outcome = openssh.run_script(payload.target, script, half_s, half_s, new_connection=True)
        if outcome.reach is Reach.DONE and scripting.last_words(outcome.stdout) == CONFIRMED:
            return "yes"
        if not outcome.began:
            cause = openssh.explain(payload.target, outcome, "confirmation")
        else:
            words = scripting.last_words(outcome.stderr).removeprefix(f"machine {self._owner.machine}: ")
            cause = words or outcome.reason or f"it ended with status {outcome.status}"
        self._unconfirmed = f"with the redirection on, a second SSH connection to it failed, so the join was taken back: {cause}"
        return f"no {self._unconfirmed}"

    def _slot_request(self) -> SlotRequest:
        owner = self._owner
        return SlotRequest(
            namespace=owner.namespace,
            workload=owner.workload,
            machine=owner.machine,
            registration=owner.registration,
            entry=self._payload.entry,
            update=update_id.update_id(),
        )

    def _wait_for_entry(self) -> bool:
        """Wait until the machine's entry is Healthy, and return whether it is.

        One that was not Healthy before the join is only reported: a machine may join before its
        application is installed.
        """
        begin, was_healthy = monotonic(), bool(self._before and self._before.healthy)
        while True:
            entry = self._read_entry()
            joined = entry is not None and entry.is_joined(self._owner.registration)
            if entry and joined and entry.healthy:
                return True
            limit_s = ENTRY_TIMEOUT_S if was_healthy or not joined else PROBE_TIMEOUT_S
            if monotonic() - begin > limit_s:
                break
            sleep(PAUSE_S)
        machine, name = self._owner.machine, f"{self._owner.namespace}/{self._payload.entry}"
        if not joined:
            raise scripting.Failed(
                f"machine {machine} joined, but istiod has not registered it within "
                f"{ENTRY_TIMEOUT_S} s: there is no WorkloadEntry {name} of this registration with "
                "a connection. See the log of its agent (journalctl --unit istio-vm-mesh)"
            )
        why = f" ({entry.message})" if entry and entry.message else ""
        sentence = (
            f"machine {machine} joined, but its probe does not succeed{why}: is the application running on it, and on the probe's port?"
        )
        if was_healthy:
            raise scripting.Failed(sentence)
        report(sentence)
        return False

    def _read_entry(self) -> Entry | None:
        with contextlib.suppress(scripting.Failed):
            return entries.read(self._kubectl, self._owner.namespace, self._payload.entry)
        return None


@dataclass(frozen=True)
class _Stamp:
    """Who joined the machine until now, and by which address; "" where its stamp does not say."""

    project: str
    stack: str
    machine: str
    registration: str
    address: str
    namespace: str
    workload: str


def report(sentence: str) -> None:
    """Print a line that Pulumi shows with the update."""
    print(sentence, file=sys.stderr, flush=True)


def _alone_restarts(request: SlotRequest) -> str:
    return (
        f"machine {request.machine}: no other machine of the workload {request.namespace}/{request.workload} is "
        "in the mesh. Unless it has pods, its Services pause until this agent has restarted"
    )


def _last_leaves(request: SlotRequest) -> str:
    return (
        f"machine {request.machine} leaves the workload {request.namespace}/{request.workload}, and no other "
        "machine of it is in the mesh. Unless it has pods, its Services have no endpoint from now on"
    )


def _timeout_s(payload: Payload) -> int:
    return TIMEOUT_S + slower_s(payload.bundle)


def _problem(payload: Payload, joined: Bundle, outcome: openssh.Outcome) -> str:
    """Return what is wrong with the script's end; "" where nothing is."""
    machine, place = payload.bundle.owner.machine, openssh.describe(payload.target)
    if not outcome.began:
        cause = openssh.explain(payload.target, outcome, "join")
        return f"machine {machine}: {cause}, so the join did not run"
    if outcome.reach is Reach.FAILED:
        return outcome.stderr or (f"machine {machine}: the join at {place} ended with status {outcome.status} without output")
    if outcome.reach is Reach.TIMED_OUT:
        words = f"machine {machine}: the join at {place} did not end within {_timeout_s(payload)} s"
    elif outcome.reach is Reach.CUT_OFF:
        words = f"machine {machine}: the SSH connection to {place} ended before the join did"
    elif scripting.last_words(outcome.stdout) != digest(joined):
        words = f"machine {machine}: the join at {place} ended before its last step"
    else:
        return ""
    return "\n".join(filter(None, [outcome.stderr, words]))
