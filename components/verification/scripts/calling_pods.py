"""Starts the pods that call workloads, beside the joins, so that no verification waits for them.

A pair of Jobs, one inside the mesh and one outside, is for all workloads of one service account.
Its pods run nothing but what verifications run in them. A verification without a pair starts one of
its own.
"""

from __future__ import annotations

import contextlib
import copy
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from ... import names
from ...local import scripting, update_id
from ...local.cluster_access import FROM_STDIN, ClusterAccess, Kubectl, kubectl
from ...manifest import Manifest
from .. import resource_limits

START_TIMEOUT_S = 300
"""Seconds for a pod's way to running. GKE's Autopilot and autoscaler take minutes to add a node."""
SIDECAR = "istio-proxy"
_CONTAINER = "calls"
"""The container of a Job's pod; the sidecar beside it drains for longer."""
_MESSAGE_LENGTH = 500
"""Characters of a message of the cluster that are shown."""
_REMOVER = "verification/scripts/remove_calling_pods.py"


class NotRunning(scripting.Failed):
    """A pod that calls does not run."""


class NotStarted(NotRunning):
    """A pod that calls has not come to run."""


@dataclass(frozen=True)
class Pair:
    """Two Jobs whose pods call.

    name: how their names begin; `job_name` adds the update. namespace: that of the Jobs.
    inside, outside: their manifests without names: with a sidecar and without.
    stack: whose they are, as in labels (`names.stack_label`).
    """

    name: str
    namespace: str
    inside: Manifest
    outside: Manifest
    stack: str

    @property
    def calling_labels(self) -> Mapping[str, str]:
        """The labels of the pod inside the mesh."""
        labels: Mapping[str, str] = self.inside["spec"]["template"].get("metadata", {}).get("labels", {})
        return labels


@dataclass(frozen=True)
class Payload:
    """A pair that is started.

    access: the cluster.
    pair: the Jobs.
    """

    access: ClusterAccess = field(metadata={"record": ClusterAccess})
    pair: Pair = field(metadata={"record": Pair})


@dataclass(frozen=True)
class Result:
    """The pair that was started: how its names begin."""

    pair: str


def run(payload: Payload) -> Result:
    """Start the pair.

    A cluster that refuses it is no failure here: a verification then starts its own, and reports
    why not. Raises scripting.Failed where the cluster does not answer.
    """
    pair = payload.pair
    with kubectl(payload.access) as program, contextlib.suppress(NotRunning):
        jobs = Jobs(program, payload.access, pair.namespace)
        jobs.remove_left(pair.stack)
        jobs.start(pair)
    return Result(pair.name)


def _remove_after_the_update(access: ClusterAccess, pair: Pair) -> None:
    """Have a process of its own remove what is left of a pair when the update has ended.

    A verification removes it as soon as nothing else calls from it. But the update may end without
    one, because a join fails. Or a process of the update is killed.
    """
    process = update_id.chosen(update_id.ancestors())
    if process is None:
        return
    runner = Path(scripting.__file__).resolve().with_name("run.py")
    words = [sys.executable, "-I", str(runner), _REMOVER, "create"]
    remover = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    values = {
        "access": asdict(access),
        "namespace": pair.namespace,
        "label": label(pair.name),
        "update": asdict(process),
    }
    _REMOVERS.append(remover)
    assert remover.stdin
    with contextlib.suppress(BrokenPipeError), remover.stdin as stdin:
        stdin.write(json.dumps({"create": values}).encode())


_REMOVERS: list[subprocess.Popen[bytes]] = []
"""Processes that outlive this one: none waits for them."""


def label(pair: str) -> str:
    """Return the label of the Jobs of a pair in this update, as a selector has it."""
    return f"{names.CALLERS_LABEL}={_of_update(pair)}"


def _of_update(pair: str) -> str:
    return f"{pair}-{_update()}"


def _update() -> str:
    return update_id.update_id()[:8]


class Jobs:
    """The Jobs of one namespace whose pods call.

    problem: kubectl's words of the last time that objects could not be read; "" for none.
    """

    def __init__(self, program: Kubectl, access: ClusterAccess, namespace: str) -> None:
        self._kubectl, self._access, self._namespace = program, access, ("--namespace", namespace)
        self.problem = ""

    def start(self, pair: Pair) -> None:
        """Create the Jobs of a pair, unless this update has them. Nothing of them outlives it.

        Raises NotRunning.
        """
        _remove_after_the_update(self._access, pair)
        ranges = self.items("limitranges")
        self.problem = ""  # without them the Jobs are as they are
        for each in ("outside", "inside"):
            self._create(pair, each, ranges)

    def _create(self, pair: Pair, which: str, ranges: Sequence[Manifest]) -> None:
        manifest = copy.deepcopy(dict(pair.inside if which == "inside" else pair.outside))
        metadata = manifest["metadata"]
        if ranges:
            for container in manifest["spec"]["template"]["spec"]["containers"]:
                container["resources"] = resource_limits.fitted(container["resources"], ranges)
        metadata["name"] = _job_name(pair.name, which)
        of_update = {names.CALLERS_LABEL: _of_update(pair.name), names.STACK_LABEL: pair.stack, names.UPDATE_LABEL: _update()}
        metadata["labels"] = {**metadata["labels"], **of_update}
        words = ("create", *FROM_STDIN, "--output", "name", *self._namespace)
        stdin = json.dumps(manifest).encode()
        created = self._kubectl.call("--request-timeout=20s", *words, stdin=stdin, timeout_s=60)
        if created.status and "already exists" not in created.error:
            reason = scripting.last_words(created.error)
            raise NotRunning(f"cannot create the Job that calls from {which} the mesh: {reason}")

    @contextlib.contextmanager
    def use(self, shared: str, pair: Pair) -> Iterator[tuple[CallingPod, CallingPod]]:
        """Give the pods inside and outside the mesh, and remove them where nothing else needs them.

        shared: the name of the pair that was started in this update, if any.
        pair: the pair of one workload that is started where there is none.

        Raises NotRunning.
        """
        workloads = self._workloads(shared)
        name = shared if workloads else pair.name
        try:
            if not workloads:
                self.start(pair)
            yield CallingPod(self, name, "inside"), CallingPod(self, name, "outside")
        finally:
            if len(workloads) < 2:
                self.remove(name)

    def _workloads(self, pair: str) -> list[str]:
        """Return the workloads that a pair of this update calls; none where it does not run."""
        there = [job for job in self.items("job", "--selector", label(pair)) if not _is_over(job)]
        if {job["metadata"]["name"] for job in there} < {_job_name(pair, each) for each in ("inside", "outside")}:
            return []
        annotations: Mapping[str, str] = there[0]["metadata"]["annotations"]
        return annotations[names.CALLED_ANNOTATION].split(",")

    def remove(self, pair: str) -> None:
        """Delete the Jobs of a pair with their pods."""
        self._delete(label(pair))

    def remove_left(self, stack: str) -> None:
        """Delete the Jobs that an earlier update of a stack has left, as where its container ended with it.

        No two updates of a stack run at once: Pulumi locks its state.
        """
        self._delete(f"{names.STACK_LABEL}={stack},{names.UPDATE_LABEL},{names.UPDATE_LABEL}!={_update()}")

    def _delete(self, selector: str) -> None:
        words = ("delete", "job", "--selector", selector, "--wait=false", *self._namespace)
        self._kubectl.call("--request-timeout=20s", *words, timeout_s=60)

    def items(self, kind: str, *options: str) -> list[Manifest]:
        """Return the objects of a kind; none, and a `problem`, without an answer."""
        words = ("--request-timeout=20s", "get", kind, *options, *self._namespace, "--output", "json")
        done = self._kubectl.call(*words, timeout_s=60)
        if done.status:
            self.problem = scripting.last_words(done.error)
            return []
        return list(json.loads(done.text)["items"]) if done.text else []

    def execute(self, pod: str, text: str, timeout_s: float) -> scripting.Done:
        """Run a script in a pod.

        kubectl ends with status 0, too, where its connection is cut off. So bash runs nothing before
        it has read the script to its end, and a last line shows that all output has arrived.
        """
        words = ("exec", "--stdin", pod, "--container", _CONTAINER, *self._namespace, "--", "bash", "-s")
        complete = f"{{\n{text}\necho {DONE}\nexit\n}}\n"
        return self._kubectl.call(*words, stdin=complete.encode(), timeout_s=timeout_s)


def _is_over(job: Mapping[str, Any]) -> bool:
    """Return whether a Job has ended, or is being deleted. A queue suspends it, and has it go on."""
    conditions = job.get("status", {}).get("conditions") or []
    has_ended = any(each["type"] != "Suspended" and each["status"] == "True" for each in conditions)
    return "deletionTimestamp" in job["metadata"] or has_ended


def _job_name(pair: str, which: str) -> str:
    return f"{_of_update(pair)}-{which}"


@dataclass(frozen=True)
class CallingPod:
    """A pod that calls.

    jobs: those of its namespace. pair: the pair that it is of. which: "inside" or "outside".
    """

    jobs: Jobs
    pair: str
    which: str

    def run(self, text: str, timeout_s: float) -> scripting.Done:
        """Run a script in the pod once it runs, again where kubectl lost its connection.

        Returns how the script ended, without kubectl's own words. Raises NotRunning where the pod
        does not run, has no sidecar and needs one, or does not run the script to its end.
        """
        for pause_s in (*_PAUSES_S, None):
            pod = self._wait()
            done = self.jobs.execute(pod, text, timeout_s)
            lines = done.error.splitlines()
            if lines and lines[-1].startswith(_ENDED) and not _is_killed(lines[-1]):
                return scripting.Done(done.status, done.stdout, "\n".join(lines[:-1]).encode())
            if done.status == 0 and done.text.endswith(DONE):
                return done
            if done.status == scripting.TIMED_OUT:
                raise NotRunning(f"the script in the pod that calls did not end in {timeout_s:.0f} s")
            if pause_s is None:
                break
            sleep(pause_s)
        reason = scripting.last_words(done.error) or ("its output was cut off" if done.status == 0 else f"status {done.status}")
        raise NotRunning(f"nothing runs in the pod that calls from {self.which} the mesh: `kubectl exec` in pod {pod}: {reason}")

    def _wait(self) -> str:
        """Return the name of the pod once its container runs."""
        end = monotonic() + START_TIMEOUT_S
        state: Mapping[str, Any] = {}
        while monotonic() < end:
            pod: Mapping[str, Any] = next(iter(self.jobs.items("pods", "--selector", f"job-name={self._job}")), {})
            state = _state(pod)
            if "running" in state:
                self._check_sidecar(pod)
                return str(pod["metadata"]["name"])
            if "terminated" in state or pod.get("status", {}).get("phase") == "Failed":
                raise NotRunning(f"the pod that calls from {self.which} the mesh has ended: {_end(pod) or self._obstacle(state)}")
            sleep(0.2)
        raise NotStarted(f"the pod that calls from {self.which} the mesh did not run in {START_TIMEOUT_S} s: {self._obstacle(state)}")

    def _check_sidecar(self, pod: Mapping[str, Any]) -> None:
        spec = pod["spec"]
        containers = [*spec["containers"], *spec.get("initContainers", ())]
        has_sidecar = SIDECAR in [each["name"] for each in containers]
        if self.which == "outside" and has_sidecar:
            raise NotRunning(
                f"the pod that calls from outside the mesh got a sidecar, although its label {names.INJECT_LABEL} is false: "
                "does a webhook of others inject it?"
            )
        if self.which == "inside" and not has_sidecar:
            namespace = pod["metadata"]["namespace"]
            raise NotRunning(
                f"the pod that calls from inside the mesh got no sidecar: check the label {names.INJECTION_LABEL} "
                f"of the namespace {namespace}, and the injector's policies"
            )

    @property
    def _job(self) -> str:
        return _job_name(self.pair, self.which)

    def _obstacle(self, state: Mapping[str, Any]) -> str:
        """Return what the cluster reports of the Job and its pods, or the container's state.

        A Job whose pods are refused (quota, Pod Security, admission) has no pod: the reason is in
        events of the Job alone. That a pod cannot be scheduled is in events of the pod.
        """
        messages = {}
        for event in self.jobs.items("events", "--field-selector", "type=Warning"):
            of = event["involvedObject"].get("name", "")
            if of == self._job or of.startswith(f"{self._job}-"):
                message = " ".join(str(event.get("message", "")).split())
                messages[event.get("reason", "")] = message[:_MESSAGE_LENGTH]
        if messages:
            return "; ".join(f"{reason}: {message}" for reason, message in messages.items())
        reason = self.jobs.problem or "the cluster reports no reason"
        return json.dumps(state)[:_MESSAGE_LENGTH] if state else reason


_ENDED = "command terminated with exit code"
"""What kubectl prints of a program in a pod that failed, after the program's own words."""
DONE = "istio-vm-mesh: done"
"""The last line of a script that has run to its end."""
_PAUSES_S = (1, 3)
"""Seconds before a script is run again."""


def _is_killed(ending: str) -> bool:
    """Return whether a program ended by SIGKILL: of the pod's limit of memory, or with the pod."""
    return ending.endswith(f" {128 + 9}")


def _end(pod: Mapping[str, Any]) -> str:
    """Return why a pod has failed, such as `Evicted: the node was low on memory`; "" where it does not say."""
    status = pod.get("status", {})
    return ": ".join(str(status[key])[:_MESSAGE_LENGTH] for key in ("reason", "message") if status.get(key))


def _state(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the state of the container that calls; empty where there is none, or it is removed."""
    if "deletionTimestamp" in pod.get("metadata", {}):
        return {}
    for status in pod.get("status", {}).get("containerStatuses", []):
        if status["name"] == _CONTAINER:
            state: Mapping[str, Any] = status.get("state", {})
            return state
    return {}
