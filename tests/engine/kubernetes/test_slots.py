"""Joins share the slots of a workload: as processes, with a Lease at a real API server."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pulumi
import pytest
from pulumi_kubernetes import Provider

from components import names
from components.config.stack import NamespaceSettings
from components.config.workload import HttpProbe, Probe, Service, WorkloadSettings
from components.istio import manifests
from components.kubernetes import KubernetesObject
from components.local import cluster_access, scripting
from components.machines import entries
from components.machines.scripts import slots
from tests.support.cli_stack import STACK, Stack
from tests.support.control_plane import MACHINE_TOKEN, MACHINE_USER, ControlPlane, program
from tests.support.slot_join import MARK_S, Kubectl, Payload, request_of
from tests.support.waiting import wait_until
from tools.standins import provider
from tools.standins.kubernetes.client import Object
from tools.standins.kubernetes.plugin import Kubernetes

ROOT = Path(__file__).parents[3]
LEASE = ("coordination.k8s.io/v1", "Lease")
ENTRY = ("networking.istio.io/v1", "WorkloadEntry")
PULUMI = "pulumi-kubernetes-0123abcd"


class Join:
    """A join that runs as a process."""

    def __init__(self, directory: Path, payload: Payload) -> None:
        self.machine = payload.machine
        file = directory / f"{payload.machine}-{len(list(directory.iterdir()))}.json"
        file.write_text(json.dumps({"create": asdict(payload)}))
        words = [sys.executable, "-m", "tests.support.slot_join", str(file)]
        self._log, self._errors = file.with_suffix(".log"), file.with_suffix(".err")
        with self._log.open("w") as log, self._errors.open("w") as errors:
            self.process = subprocess.Popen(words, cwd=ROOT, stdout=log, stderr=errors)

    def time(self, step: str) -> float | None:
        """Return when a step was taken, by the system's own clock."""
        steps = map(json.loads, self._log.read_text().splitlines())
        return next((each["time"] for each in steps if each["step"] == step), None)

    def has_slot(self) -> bool:
        return self.time("begin") is not None

    def waits(self) -> bool:
        return "waits for a slot" in self.errors

    @property
    def errors(self) -> str:
        return self._errors.read_text()

    @property
    def calls(self) -> list[str]:
        steps: list[dict[str, Any]] = [json.loads(line) for line in self._log.read_text().splitlines()]
        calls: list[str] = steps[-1]["calls"]
        return calls

    @property
    def looks(self) -> int:
        """How often it has begun to read the Lease, while it waits."""
        return self._log.read_text().count('"call"')

    def wait_for_look(self) -> None:
        """Wait until it has read and judged the Lease as it is now."""
        before = self.looks
        wait_until(lambda: self.looks >= before + 2)

    def wait(self, status: int = 0) -> Join:
        assert self.process.wait() == status, self.errors
        return self


class Workload:
    """A workload with a Lease and with machines, in a namespace of its own."""

    def __init__(self, plane: ControlPlane, namespace: str, directory: Path) -> None:
        self.plane, self.namespace, self._directory = plane, namespace, directory
        self.kubeconfig = directory / "kubeconfig"
        self.kubeconfig.write_text(plane.kubeconfig)
        self.processes: list[subprocess.Popen[bytes]] = []

    def declare(self, machines: list[str], max_unavailable: str) -> None:
        """Write the Lease as Pulumi does."""
        self.plane.cluster.apply(manifests.slots_lease(self.settings(max_unavailable), machines), PULUMI)

    def settings(self, max_unavailable: str) -> WorkloadSettings:
        return WorkloadSettings(
            name="product",
            namespace=self.namespace,
            labels={"app": "product"},
            ports={"http": 80},
            probe=Probe(http=HttpProbe(port=80)),
            services={"product": Service(ports={"http": 80})},
            max_unavailable=max_unavailable,
        )

    def add(self, machine: str) -> None:
        """Add a machine's entry, and record that it is in the mesh."""
        metadata = {
            "name": f"product-{machine}",
            "namespace": self.namespace,
            "labels": {names.MACHINE_LABEL: machine, names.REGISTRATION_LABEL: f"r-{machine}"},
            "annotations": {names.GROUP_ANNOTATION: "product"},
        }
        entry = {"apiVersion": ENTRY[0], "kind": ENTRY[1], "metadata": metadata, "spec": {"address": "10.0.0.1"}}
        self.plane.cluster.apply(entry, "istiod")
        self.set_health(machine, "True")
        path = self.plane.cluster.endpoint(*LEASE).path(self.namespace, "product-slots")
        annotation = {f"{names.JOINED_ANNOTATION_PREFIX}{machine}": f"r-{machine}"}
        self.plane.patch(path, {"metadata": {"annotations": annotation}})

    def record_joined(self, machine: str) -> None:
        """Do what a new machine's join does at its end."""
        slots.joined(Kubectl(str(self.kubeconfig)), request_of(self.payload(machine)))

    def set_health(self, machine: str, status: str) -> None:
        conditions = [{"type": "Healthy", "status": status}]
        path = self.plane.cluster.endpoint(*ENTRY).path(self.namespace, f"product-{machine}")
        self.plane.patch(f"{path}/status", {"status": {"conditions": conditions}})

    def remove(self, machine: str) -> None:
        """Remove an entry, as istiod does for an agent that is gone."""
        self.plane.cluster.delete(*ENTRY, self.namespace, f"product-{machine}", "Background")

    def payload(self, machine: str, **values: Any) -> Payload:
        values = {"kubeconfig": str(self.kubeconfig), **values}
        return Payload(namespace=self.namespace, machine=machine, **values)

    def join(self, machine: str, **values: Any) -> Join:
        """Start the join of a machine whose agent is to be stopped."""
        join = Join(self._directory, self.payload(machine, **values))
        self.processes.append(join.process)
        return join

    def holding(self, machine: str, **values: Any) -> Join:
        """Start a join, and return when it holds its slot."""
        join = self.join(machine, **{"until": "/never", **values})
        wait_until(join.has_slot)
        return join

    @property
    def lease(self) -> Object:
        lease = self.plane.cluster.get(*LEASE, self.namespace, "product-slots")
        assert lease
        return lease

    @property
    def slots(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.lease["metadata"]["annotations"][names.SLOTS_ANNOTATION])
        return value


@pytest.fixture
def kubectl_on_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "kubectl").symlink_to(program("kubectl"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")


@pytest.fixture
def workload(strict: ControlPlane, namespace: str, tmp_path: Path, kubectl_on_path: None) -> Iterator[Workload]:
    """A workload of three machines that are in the mesh, one of which may be out of it."""
    (tmp_path / "joins").mkdir()
    workload = Workload(strict, namespace, tmp_path / "joins")
    workload.declare(["m1", "m2", "m3"], "1")
    for machine in ("m1", "m2", "m3"):
        workload.add(machine)
    yield workload
    for process in workload.processes:
        process.kill()
        process.wait()


def most_at_once(joins: list[Join]) -> int:
    """Return how many joins held a slot at one moment, at most."""
    changes = [(join.time("begin"), 1) for join in joins] + [(join.time("end"), -1) for join in joins]
    now = most = 0
    for _, change in sorted(changes):
        now += change
        most = max(now, most)
    return most


def test_ten_joins_at_once_never_stop_more_agents_than_the_limit(workload: Workload, tmp_path: Path) -> None:
    machines = [f"m{number}" for number in range(1, 11)]
    workload.declare(machines, "30%")
    for machine in machines[3:]:
        workload.add(machine)
    joins = [workload.join(machine, hold_s=0.3, until=str(tmp_path / "begun")) for machine in machines]
    wait_until(lambda: sum(join.has_slot() for join in joins) == 3)
    (tmp_path / "begun").touch()
    for join in joins:
        join.wait()
    assert most_at_once(joins) == 3
    assert workload.slots == {"holders": {}, "halts": {}}


def test_a_join_that_does_not_wait_needs_three_calls_of_kubectl(workload: Workload) -> None:
    join = workload.join("m1").wait()
    assert join.calls == ["get", "replace", "replace"]
    assert join.errors == ""


def test_a_join_reads_the_list_of_api_groups_at_most_once(workload: Workload, tmp_path: Path) -> None:
    """kubectl keeps the list in files, and reads it again where a kind is named without its version."""

    class Logging(cluster_access.Kubectl):
        log = ""

        def call(self, *words: str, stdin: bytes = b"", timeout_s: float | None = None) -> scripting.Done:
            done = super().call("--v=6", *words, stdin=stdin, timeout_s=timeout_s)
            self.log += done.error
            return done

    kubectl = Logging("--kubeconfig", str(workload.kubeconfig), "--cache-dir", str(tmp_path / "cache"))

    def lists() -> int:
        kubectl.log = ""
        assert entries.read(kubectl, workload.namespace, "product-m1")
        slots.joined(kubectl, request_of(workload.payload("m1")))
        with slots.slot(kubectl, request_of(workload.payload("m1")), print):
            pass
        assert "/workloadentries/product-m1" in kubectl.log
        return len(re.findall(r"/apis?\?", kubectl.log))

    assert lists() > 0, "into the files"
    assert lists() == 0


def test_a_slot_is_kept_while_its_join_runs_and_freed_after_it_was_killed(workload: Workload, tmp_path: Path) -> None:
    """The clocks of the two runners are two hours apart. The second one's time passes between its looks alone."""
    passed = tmp_path / "passed"

    def pass_time(seconds: float) -> None:
        new = passed.with_suffix(".new")
        new.write_text(str(float(passed.read_text()) + seconds if passed.exists() else seconds))
        new.rename(passed)

    def renewals() -> int:
        return int(workload.slots["holders"]["m1"]["renewal"])

    pass_time(0)
    first = workload.holding("m1", clock_s=3600)
    second = workload.join("m2", clock_s=-3600, expiry_s=10, passed=str(passed))
    wait_until(second.waits)
    for _ in range(3):
        before = renewals()
        wait_until(lambda before=before: renewals() > before)  # type: ignore[misc]
        second.wait_for_look()
        pass_time(9)
        second.wait_for_look()
        assert not second.has_slot()
    assert "m2 waits for a slot of workload" in second.errors
    assert "(1 at a time): held by m1" in second.errors
    first.process.kill()
    first.process.wait()
    second.wait_for_look()
    pass_time(9)
    second.wait_for_look()
    assert not second.has_slot()
    pass_time(2)
    second.wait()


def test_a_later_join_of_the_same_machine_has_its_slot_at_once(workload: Workload) -> None:
    workload.holding("m1").process.kill()
    waiting = workload.join("m2")
    wait_until(waiting.waits)
    again = workload.holding("m1")
    assert "waits" not in again.errors
    assert not waiting.has_slot()
    again.process.terminate()
    waiting.wait()


def test_an_earlier_join_of_the_same_machine_gives_no_slot_of_the_later_one_back(workload: Workload) -> None:
    first = workload.holding("m1")
    workload.holding("m1", update="another-update")
    first.process.terminate()
    first.wait(128 + signal.SIGTERM)
    assert workload.slots["holders"]["m1"]["update"] == "another-update"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_join_that_is_interrupted_gives_its_slot_back(workload: Workload, number: int) -> None:
    first, second = workload.holding("m1"), workload.join("m2")
    wait_until(second.waits)
    third = workload.join("m3")
    wait_until(third.waits)
    third.process.send_signal(number)
    third.wait(128 + number)
    first.process.send_signal(number)
    first.wait(128 + number)
    second.wait()
    assert workload.slots["holders"] == {}


def test_a_failed_join_halts_those_that_wait_in_this_update_alone(workload: Workload, tmp_path: Path) -> None:
    failing = workload.holding("m1", until=str(tmp_path / "fails"), cause="the agent never became ready")
    waiting = workload.join("m2")
    wait_until(waiting.waits)
    (tmp_path / "fails").touch()
    failing.wait(1)
    waiting.wait(1)
    assert not waiting.has_slot()
    assert "machine m2 was not changed" in waiting.errors
    assert "the join of machine m1 failed: the agent never became ready" in waiting.errors
    late = workload.join("m3").wait(1)
    assert not late.has_slot()
    workload.join("m3", update="a-later-update", hold_s=MARK_S).wait()
    assert workload.slots == {"holders": {}, "halts": {}}


def test_a_failed_join_of_a_machine_that_was_out_of_the_mesh_halts_nothing(workload: Workload) -> None:
    workload.remove("m1")
    workload.join("m1", cause="its disk is full").wait(1)
    assert workload.slots["halts"] == {}


def test_machines_out_of_the_mesh_take_slots_and_a_wait_for_them_alone_ends(workload: Workload) -> None:
    workload.set_health("m2", "False")
    refused = workload.join("m1", patience_s=4).wait(1)
    assert not refused.has_slot()
    assert "held by none; out of the mesh: m2" in refused.errors
    assert "machine m1 was not changed: m2 of the workload" in refused.errors
    assert "--target '**m2-join'" in refused.errors
    assert "maxUnavailable" in refused.errors
    workload.declare(["m1", "m2", "m3"], "2")
    assert workload.join("m1").wait().has_slot()


def test_a_join_goes_on_when_a_machine_is_back_in_the_mesh(workload: Workload) -> None:
    workload.set_health("m2", "False")
    waiting = workload.join("m1")
    wait_until(waiting.waits)
    workload.set_health("m2", "True")
    waiting.wait()
    assert waiting.has_slot()


def test_a_machine_out_of_the_mesh_waits_for_nothing_and_counts_once(workload: Workload) -> None:
    holder = workload.holding("m1")
    workload.remove("m2")
    repair = workload.holding("m2")
    assert repair.errors == ""
    workload.declare(["m1", "m2", "m3"], "2")
    waiting = workload.join("m3")
    wait_until(waiting.waits)
    workload.add("m2")
    repair.process.terminate()
    waiting.wait()
    holder.process.terminate()


def test_new_machines_and_removed_ones_stop_no_join(workload: Workload) -> None:
    workload.remove("m3")
    workload.declare(["m1", "m2", "m4"], "1")
    assert workload.join("m1").wait().errors == ""
    workload.record_joined("m4")
    waiting = workload.join("m1")
    wait_until(lambda: "held by none; out of the mesh: m4" in waiting.errors)


def test_pulumi_changes_its_part_of_the_lease_while_joins_use_theirs(workload: Workload) -> None:
    holder = workload.holding("m1")
    workload.declare(["m1", "m2", "m3", "m4"], "50%")
    second = workload.holding("m2")
    annotations = workload.lease["metadata"]["annotations"]
    assert annotations[names.MAX_UNAVAILABLE_ANNOTATION] == "50%"
    assert annotations[names.MACHINES_ANNOTATION] == "m1,m2,m3,m4"
    assert annotations["joined.istio-vm-mesh/m1"] == "r-m1"
    assert workload.lease["spec"]["holderIdentity"] == "m1, m2"
    for join in (holder, second):
        join.process.terminate()
        join.wait(128 + signal.SIGTERM)


def test_a_lease_that_is_missing_is_an_error_with_its_fix(workload: Workload) -> None:
    workload.plane.cluster.delete(*LEASE, workload.namespace, "product-slots", "Background")
    assert "is missing: run `pulumi refresh`" in workload.join("m1").wait(1).errors
    with pytest.raises(scripting.Failed, match="is missing: run `pulumi refresh`"):
        workload.record_joined("m1")


@pytest.fixture
def allow(workload: Workload, tmp_path: Path) -> Callable[..., str]:
    """Give a user rights, and return a kubeconfig of that user."""
    config = json.loads(workload.plane.kubeconfig)
    config["users"][0]["user"] = {"token": MACHINE_TOKEN}
    file = tmp_path / "user.kubeconfig"
    file.write_text(json.dumps(config))
    api = "rbac.authorization.k8s.io"
    subject = {"kind": "User", "apiGroup": api, "name": MACHINE_USER}
    role_ref = {"kind": "Role", "apiGroup": api, "name": "slots"}
    workload.plane.create(f"{api}/v1", "RoleBinding", workload.namespace, "slots", subjects=[subject], roleRef=role_ref)

    def give(*lease_verbs: str) -> str:
        rules: list[Object] = [{"apiGroups": ["networking.istio.io"], "resources": ["workloadentries"], "verbs": ["list"]}]
        if lease_verbs:
            rules.append({"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": list(lease_verbs)})
        metadata = {"name": "slots", "namespace": workload.namespace}
        workload.plane.cluster.apply({"apiVersion": f"{api}/v1", "kind": "Role", "metadata": metadata, "rules": rules}, "test")
        return str(file)

    return give


def test_the_documented_permissions_suffice_and_a_missing_one_is_named(workload: Workload, allow: Callable[..., str]) -> None:
    kubeconfig = allow("list", "get", "update", "patch")
    user = Kubectl(kubeconfig)

    def may(verb: str) -> bool:
        return user.call("auth", "can-i", verb, "leases", "--namespace", workload.namespace).status == 0

    def refusal() -> str:
        return workload.join("m1", kubeconfig=kubeconfig).wait(1).errors

    wait_until(lambda: may("patch"))
    workload.join("m1", kubeconfig=kubeconfig).wait()
    slots.joined(user, request_of(workload.payload("m1")))
    allow("list", "get")
    wait_until(lambda: not may("update"))
    expected = "grant list, get, update and patch on leases (coordination.k8s.io)"
    assert expected in refusal()
    with pytest.raises(scripting.Failed, match="kubectl may not patch leases"):
        slots.joined(user, request_of(workload.payload("m1")))
    allow()
    wait_until(lambda: not may("list"))
    assert "kubectl may not list leases or workloadentries" in refusal()


def test_a_refresh_shows_nothing_of_slots_and_of_what_others_note(
    workload: Workload, stack: Stack, host: Callable[[provider.Provider], None]
) -> None:
    """Joins annotate the Lease and write its spec; controllers annotate and label the objects of a stack."""
    settings = workload.settings("1")

    def program() -> None:
        cluster = Provider("cluster", kubeconfig=workload.plane.kubeconfig, upsert_existing_objects=True, enable_patch_force=True)
        opts = pulumi.ResourceOptions(provider=cluster)
        stated = NamespaceSettings(name=workload.namespace, annotations={"example.com/team": "shop"})
        metadata = manifests.namespace_metadata(stated, {"istio-injection": "enabled"})
        KubernetesObject("namespace", {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}, opts)
        KubernetesObject("account", manifests.service_account(settings), opts)
        KubernetesObject("group", manifests.workload_group(settings, "pods"), opts)
        KubernetesObject("slots", manifests.slots_lease(settings, ["m1", "m2", "m3"]), opts)
        for name, service in manifests.services(settings).items():
            KubernetesObject(name, service, opts)

    def assert_no_difference() -> None:
        stack.call("refresh", "--stack", STACK, "--preview-only", "--expect-no-changes")
        stack.preview(program, "--refresh", "--expect-no-changes")

    def patch(api_version: str, kind: str, namespace: str, name: str, **metadata: dict[str, str]) -> None:
        workload.plane.patch(workload.plane.cluster.endpoint(api_version, kind).path(namespace, name), {"metadata": metadata})

    host(Kubernetes(settle=0))
    stack.up(program)
    assert_no_difference()
    for machine in ("m1", "m2"):
        workload.join(machine).wait()
    assert workload.lease["spec"]["leaseDurationSeconds"] and names.SLOTS_ANNOTATION in workload.lease["metadata"]["annotations"]
    patch("v1", "Namespace", "", workload.namespace, annotations={"cloud.example/quota": "1"}, labels={"cloud.example/noted": "yes"})
    patch("networking.istio.io/v1", "WorkloadGroup", workload.namespace, "product", annotations={"istio.example/seen": "1"})
    for kind in ("Service", "ServiceAccount"):
        patch("v1", kind, workload.namespace, "product", annotations={"cloud.example/neg": "{}"}, labels={"cloud.example/noted": "yes"})
    assert_no_difference()
    stack.refresh()
    stack.preview(program, "--expect-no-changes")
    patch(*LEASE, workload.namespace, "product-slots", annotations={names.MAX_UNAVAILABLE_ANNOTATION: "7"})
    stack.call("refresh", "--stack", STACK, "--preview-only", "--expect-no-changes", fails=True)
    assert stack.preview(program, "--refresh").changes() == {"update": 1, "unchanged": 6}, "what is the stack's is compared"
