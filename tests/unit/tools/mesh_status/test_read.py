"""What is read of state, cluster and machines, and what becomes of those that cannot be read."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components import names
from components.config.stack import Settings
from components.local import openssh, scripting
from components.local.cluster_access import ClusterAccess
from components.verification.evidence import Call, Evidence
from tests.support.waiting import wait_until
from tests.unit.tools.mesh_status import meshes
from tools.lab import paths, pulumi_cli
from tools.mesh_status import assess, pulumi, read_cluster, read_machines, read_state
from tools.mesh_status.model import Verification
from tools.plan import preview


def test_the_state_gives_workloads_machines_and_how_to_reach_them() -> None:
    state = read_state.parse(meshes.recorded("single", "export"))
    assert (state.name, state.cluster, state.facts.network, state.facts.mesh_id, state.facts.image_tag, state.gateway) == (
        "lab", "kind-lab", "pods", "lab", "1.31.0", "172.31.26.2",
    )  # fmt: skip
    product, machine = state.workloads["product"], state.machines["product-1"]
    assert (product.namespace, product.labels, product.services, product.replicas) == ("shop", {"app": "product"}, {"product": (80,)}, 1)
    assert product.revisions == {name: state.machines[name].revision for name in ("product-1", "product-2")}
    assert (machine.workload, machine.address, machine.entry) == ("product", "172.31.26.129", "product-172.31.26.129-pods")
    assert machine.target and machine.target.hop.identity_file == "state:organization/istio-vm-mesh/lab/ssh-key"
    assert machine.joined and machine.proven and product.verified
    assert sorted(urn.rpartition(":")[2] for urn in state.proofs) == [
        "ledger-1-proof", "ledger-verification", "product-1-proof", "product-2-proof", "product-verification",
    ]  # fmt: skip


def test_the_state_gives_what_the_last_verification_did_not_prove() -> None:
    exported = meshes.recorded("single", "export")
    assert read_state.parse(exported).unproven == ()
    failed = Call(endpoint="10.0.0.9:80", verdict="failed", cause="no answer", object="machine product-1")
    output = json.dumps({"product": json.loads(scripting.encode(Evidence(calls=(failed, failed, Call(endpoint="10.0.0.8:80")))))})
    next(each for each in exported["deployment"]["resources"] if each["type"] == "pulumi:pulumi:Stack")["outputs"]["verification"] = output
    assert read_state.parse(exported).unproven == ("no answer; look at machine product-1",)


def test_a_machine_is_of_the_workload_whose_last_object_it_waits_for() -> None:
    """A registration names no object that another one waits for."""
    exported = meshes.recorded("single", "export")
    urns = {each["urn"].rpartition("::")[2]: each for each in exported["deployment"]["resources"]}
    urns["product-1-registration"]["dependencies"] = [urns["product-service-product"]["urn"]]
    urns["product-1-join"]["dependencies"] = [urns["product-1-registration"]["urn"]]
    assert read_state.parse(exported).machines["product-1"].workload == "product"


@pytest.mark.parametrize("inputs", [{}, "spec"])
def test_a_service_of_others_is_shown_by_what_was_read_of_it(inputs: Any) -> None:
    """The state has a resource that is only read by its outputs; some providers add inputs."""
    exported = meshes.recorded("single", "export")
    service = next(each for each in exported["deployment"]["resources"] if each["urn"].endswith("product-service-product"))
    read = service["inputs"]
    service |= {"external": True, "outputs": read, "inputs": read if inputs else {}}
    assert read_state.parse(exported).workloads["product"].services == {"product": (80,)}


def test_what_is_about_to_be_deleted_does_not_count() -> None:
    exported = meshes.recorded("single", "export")
    join = next(each for each in exported["deployment"]["resources"] if each["urn"].endswith("product-1-join"))
    exported["deployment"]["resources"].append({**join, "delete": True, "modified": "2020-01-01T00:00:00Z"})
    joined = read_state.parse(exported).machines["product-1"].joined
    assert joined and joined.year == 2026


def test_a_stack_that_was_never_brought_up_says_so() -> None:
    with pytest.raises(pulumi.StackError, match="no mesh"):
        read_state.parse({"deployment": {"manifest": {}}})


def test_a_stack_whose_first_update_failed_is_shown() -> None:
    exported = meshes.recorded("single", "export")
    kept = [each for each in exported["deployment"]["resources"] if not each["urn"].endswith(("-join", "-proof", "-verification"))]
    kept[0].pop("outputs")
    state = read_state.parse({"deployment": {"resources": kept, "pending_operations": [{}]}})
    assert state.pending and not state.calls and not state.proofs
    assert [each.target for each in state.machines.values()] == [None, None, None]
    assert state.machines["product-1"].entry == "product-172.31.26.129-pods"


def test_the_environment_is_used_as_it_is_if_it_names_a_backend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert paths.STATE / "environment.json" == pulumi.LAB_ENVIRONMENT
    monkeypatch.setattr(paths, "STATE", tmp_path)
    monkeypatch.setattr(pulumi, "LAB_ENVIRONMENT", tmp_path / "environment.json")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
    monkeypatch.setenv("PULUMI_BACKEND_URL", "gs://theirs")
    pulumi_cli.write_environment()
    assert pulumi.environment() == dict(os.environ)
    monkeypatch.delenv("PULUMI_BACKEND_URL")
    assert pulumi.environment() == paths.environment()
    pulumi.LAB_ENVIRONMENT.unlink()
    assert pulumi.environment() == dict(os.environ)


ACCESS = ClusterAccess(context="theirs")


class Programs:
    """Programs on PATH that answer as they were recorded, and keep note of how they were called."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.variables = {"PATH": str(directory)}

    def add(self, name: str, body: str) -> None:
        program = self.directory / name
        program.write_text(f"#!{sys.executable}\nimport json, os, stat, sys\narguments = sys.argv[1:]\n{body}\n")
        program.chmod(0o755)

    def noted(self) -> list[Any]:
        return [json.loads(line) for line in (self.directory / "notes").read_text().splitlines()]


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(tmp_path)


def _kubectl(directory: Path, name: meshes.Name) -> str:
    answers = meshes.RECORDED / name / "kubectl.json"
    return f"""
assert arguments[:2] == ["--context", "theirs"]
arguments = arguments[2:]
if arguments[-2:] == ["--raw", "/version"]:
    sys.exit(print('{{"gitVersion": "v1.35.4-gke.1"}}'))
assert arguments[:2] == ["--request-timeout=10s", "get"] and arguments[-2:] == ["--output", "json"]
found = json.load(open({str(answers)!r}))[" ".join(arguments[2:-2])]
print(json.dumps({{"kind": "List", "items": found}}))
"""


def test_the_cluster_is_read_by_its_context(programs: Programs) -> None:
    programs.add("kubectl", _kubectl(programs.directory, "broken"))
    state = read_state.parse(meshes.recorded("broken", "export"))
    cluster = read_cluster.read(programs.variables, ACCESS, state.facts, state.workloads)
    assert not cluster.problem
    assert [(entry.name, entry.healthy) for entry in cluster.entries] == [("product-172.31.26.130-pods", False)]
    assert [(pod.ready, pod.proxy, pod.network) for pod in cluster.pods["product"]] == [(True, "1.31.0", "pods")]
    assert cluster.kubernetes == "v1.35.4-gke.1"
    assert (cluster.control_plane[0].proxy, cluster.gateway[0].ready, cluster.gateway_addresses) == ("1.31.0", True, ("172.31.26.2",))


def test_a_cluster_that_does_not_answer_is_a_fact(programs: Programs) -> None:
    state = read_state.parse(meshes.recorded("single", "export"))
    assert (
        read_cluster.read(programs.variables, ACCESS, state.facts, state.workloads).problem
        == "kubectl is not on PATH: install it on the computer that runs Pulumi"
    )
    programs.add("kubectl", "print('E1123 noise', file=sys.stderr); sys.exit('The connection was refused')")
    problem = read_cluster.read(programs.variables, ACCESS, state.facts, state.workloads).problem
    assert problem.startswith("`kubectl get ") and problem.endswith(" failed: The connection was refused")


def test_pods_say_why_they_are_not_ready() -> None:
    base: dict[str, Any] = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "app", "image": "app"}]}, "status": {}}
    waiting = {"containerStatuses": [{"name": "app", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]}
    unschedulable = {"conditions": [{"type": "PodScheduled", "status": "False", "message": "no node has room"}]}
    for status, problem in (
        (waiting, "container app: ImagePullBackOff"),
        (unschedulable, "no node has room"),
        ({"phase": "Pending"}, "is Pending"),
    ):
        pod = read_cluster._pod({**base, "status": status})
        assert (pod.ready, pod.problem, pod.proxy) == (False, problem, "")


def test_the_stack_file_is_asked_from_pulumi(programs: Programs) -> None:
    programs.add("pulumi", f"print(open({str(meshes.RECORDED / 'multi' / 'config.json')!r}).read())")
    settings = read_state.settings(programs.variables, None)
    assert isinstance(settings, Settings) and settings.networks["far"].gateway
    programs.add("pulumi", "print('{}')")
    assert "no stack file" in str(read_state.settings(programs.variables, None))
    programs.add("pulumi", """print(json.dumps({"istio-vm-mesh:networks": {"objectValue": {"pods": {"range": []}}}}))""")
    assert "networks.pods.range" in str(read_state.settings(programs.variables, None))


def test_what_pulumi_says_is_passed_on(programs: Programs) -> None:
    with pytest.raises(pulumi.StackError, match="pulumi is not on PATH"):
        read_state.read(programs.variables, None)
    programs.add("pulumi", "sys.exit(\"error: no stack named 'x' found\")")
    with pytest.raises(pulumi.StackError, match=r"`pulumi stack export` failed: no stack named 'x' found"):
        read_state.read(programs.variables, "x")


@pytest.mark.parametrize(
    ("printed", "fix"),
    [
        ("PULUMI_ACCESS_TOKEN must be set for login during non-interactive CLI sessions", "run `pulumi login`"),
        ("no stack named 'x' found", "create it by `pulumi stack init`"),
        ("no stack named 'lab' found", "create it by `pulumi stack init`"),
        ("no stack selected; please use `pulumi stack select` to choose one", "give one with --stack"),
        ("the disk is full", ""),
    ],
)
def test_what_pulumi_says_without_a_fix_gets_one(programs: Programs, printed: str, fix: str) -> None:
    programs.add("pulumi", f"sys.exit({'error: ' + printed!r})")
    with pytest.raises(pulumi.StackError) as error:
        read_state.read(programs.variables, "x")
    reason = str(preview.failure("", f"error: {printed}\n"))
    for text in (reason, str(error.value).partition("failed: ")[2]):
        assert text == printed if not fix else text.startswith(f"{printed}: {fix}")


@pytest.mark.parametrize("stack", ["labb", "organization/istio-vm-mesh/labb"])
def test_a_mistyped_stack_is_answered_with_the_one_that_has_a_file(stack: str) -> None:
    expected = f"no stack named '{stack}' found (did you mean 'lab'?): create it"
    assert pulumi.with_fix(f"no stack named '{stack}' found").startswith(expected)


def test_a_machine_is_understood() -> None:
    output = meshes.recorded("multi", "machines")["product-2"]["output"]
    asked = float(output.splitlines()[0].removeprefix("time=")) + 90
    report = read_machines.parse(output, asked, asked + 1)
    assert (report.problem, round(report.offset), report.unit, report.restarts, report.ready, report.gateway) == (
        "",
        -90,
        "active",
        0,
        True,
        True,
    )
    assert (report.agent, report.envoy) == ("1.31.0", "1.39.3")
    assert report.certificate and report.certificate.identity == "spiffe://cluster.local/ns/shop/sa/product"
    assert (report.certificate.ends - report.certificate.begins).total_seconds() == 24 * 3600 + 120
    assert report.token_expires and report.active and report.up


def test_a_machine_that_has_nothing_is_understood() -> None:
    text = "time=100.5\nLoadState=not-found\nActiveState=inactive\nNRestarts=0\nup=7\nagent=\nenvoy=\nready=000\nredirection=\nfiles=\n"
    report = read_machines.parse(text, 99.0, 100.0)
    assert report == read_machines.MachineReport(offset=0.5, up=7)
    assert read_machines.certificate(base64.b64encode(b"no certificate").decode()) is None


def test_a_machine_that_refuses_is_a_row_with_the_reason() -> None:
    hop = openssh.Hop("127.0.0.2", 1, "admin", "ssh-ed25519 AAAA")
    there, behind = (
        read_state.Machine(target.machine, "product", target=target)
        for target in (
            openssh.Target("product-1", hop),
            openssh.Target("product-4", replace(hop, host="10.9.9.9"), (hop,)),
        )
    )
    reports = read_machines.probe([there, read_state.Machine("product-2", "product"), behind], "")
    assert {name: seen.problem for name, seen in reports.items()} == {
        "product-1": "cannot be reached: SSH did not reach admin@127.0.0.2 port 1: Connection refused",
        "product-4": "cannot be reached: SSH did not reach admin@10.9.9.9 port 1 through 127.0.0.2: jump host 127.0.0.2: Connection refused",
    }


def test_machines_that_answer_late_are_named_meanwhile(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    named, progress = threading.Event(), read_machines._progress

    def progress_once(late: Sequence[str]) -> str:
        named.set()
        return progress(late)

    monkeypatch.setattr(read_machines, "PROGRESS_S", 0.01)
    monkeypatch.setattr(read_machines, "_progress", progress_once)
    monkeypatch.setattr(read_machines, "_probe", lambda *_: read_machines.MachineReport(str(named.wait())))
    target = openssh.Target("m", openssh.Hop("127.0.0.2"))
    machines = [read_state.Machine(f"m-{number}", "product", target=target) for number in range(7)]
    assert set(read_machines.probe(machines, "")) == {each.name for each in machines}
    first, *_ = capsys.readouterr().err.splitlines()
    assert first == "Waiting for machines over SSH: m-0, m-1, m-2, m-3, m-4 and 2 more"


def test_a_clock_is_right_that_shows_a_time_of_the_connection() -> None:
    assert [read_machines.parse("time=100.5\n", *times).offset for times in ((99.0, 102.0), (101.0, 102.0), (98.0, 100.0))] == [
        0,
        -0.5,
        0.5,
    ]


def test_an_update_ends_before_its_caller_does(programs: Programs) -> None:
    notes = programs.directory / "notes"
    programs.add("pulumi", "print('updating'); sys.exit(arguments[-1] == 'never' and 3)")
    assert pulumi.update(programs.variables, "--stack", "lab") == (3, "updating\n")
    waits = f"""
import signal
def end(*_):
    open({str(notes)!r}, "a").write('"ended in order"\\n')
    sys.exit(1)
signal.signal(signal.SIGINT, end)
os.kill(os.getppid(), signal.SIGINT)
signal.pause()
"""
    programs.add("pulumi", waits)
    with pytest.raises(KeyboardInterrupt):
        pulumi.update(programs.variables)
    assert programs.noted() == ["ended in order"]


def test_an_update_that_is_interrupted_as_it_starts_ends_too(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    ready, notes = programs.directory / "ready", programs.directory / "notes"
    waits = f"""
import signal
def end(*_):
    open({str(notes)!r}, "a").write('"ended in order"\\n')
    sys.exit(1)
signal.signal(signal.SIGINT, end)
open({str(ready)!r}, "w").close()
signal.pause()
"""
    programs.add("pulumi", waits)

    class Started(subprocess.Popen[str]):
        def __init__(self, *words: Any, **options: Any) -> None:
            super().__init__(*words, **options)
            wait_until(ready.exists, description="the program has begun")
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(pulumi.subprocess, "Popen", Started)
    with pytest.raises(KeyboardInterrupt):
        pulumi.update(programs.variables)
    assert programs.noted() == ["ended in order"]


POLICY = {"metadata": {"name": "deny", "namespace": "shop"}, "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}


@pytest.mark.parametrize(("error", "named"), [("no answer", True), ("", False)])
def test_a_network_policy_is_named_where_a_verification_fails(error: str, named: bool) -> None:
    facts = meshes.facts("single")
    facts = replace(facts, cluster=replace(facts.cluster, policies=(POLICY,)))
    advised = {each.name: " ".join(each.advice) for each in assess.mesh(facts, Verification(error=error)).workloads}
    assert ("the NetworkPolicy shop/deny selects its pods" in advised["product"]) is named
    assert "NetworkPolicy" not in advised["ledger"], "that is in another namespace"


@pytest.mark.parametrize(("mode", "named"), [("fail", True), ("none", False)])
def test_no_policy_is_named_of_a_workload_that_is_never_verified(mode: str, named: bool) -> None:
    facts = meshes.facts("single")
    assert isinstance(facts.settings, Settings)
    product = replace(facts.state.workloads["product"], verified=None)
    facts = replace(
        facts,
        cluster=replace(facts.cluster, policies=(POLICY,)),
        state=replace(facts.state, workloads={**facts.state.workloads, "product": product}),
        settings=facts.settings.model_copy(update={"verify": facts.settings.verify.model_copy(update={"mode": mode})}),
    )
    advised = {each.name: " ".join(each.advice) for each in assess.mesh(facts).workloads}
    assert ("NetworkPolicy" in advised["product"]) is named


def test_pods_are_found_by_labels_that_machines_do_not_have() -> None:
    export = meshes.recorded("single", "export")
    specs = [each["inputs"]["spec"] for each in export["deployment"]["resources"] if each["urn"].endswith("::product-pods")]
    assert len(specs) == 1
    specs[0]["template"] = {"metadata": {"labels": {"app": "product-pods", "of": "pods"}}}
    workload = read_state.parse(export).workloads["product"]
    assert workload.labels == {"app": "product-pods"}


def test_policies_that_may_not_be_read_hide_nothing_else() -> None:
    answers, state = meshes.recorded("single", "kubectl"), meshes.facts("single").state

    def get(*arguments: str) -> Any:
        if arguments[0] == refused:
            raise read_cluster.ClusterError("forbidden")
        return answers[" ".join(arguments)]

    refused = "networkpolicies.networking.k8s.io"
    cluster = read_cluster.answered(get, state.facts, state.workloads)
    assert (cluster.policies, len(cluster.entries) > 0) == ((), True)
    refused = "service"
    with pytest.raises(read_cluster.ClusterError):
        read_cluster.answered(get, state.facts, state.workloads)


def test_the_registration_of_an_entrys_machine_is_read() -> None:
    """Machines of instance groups have none."""
    state, answers = meshes.facts("single").state, meshes.recorded("single", "kubectl")
    entries = [item for items in answers.values() for item in items if item["kind"] == "WorkloadEntry"]
    entries[0]["metadata"]["labels"][names.REGISTRATION_LABEL] = "0123"
    cluster = read_cluster.answered(lambda *arguments: answers[" ".join(arguments)], state.facts, state.workloads)
    registrations = {entry.name: entry.registration for entry in cluster.entries}
    assert registrations == {item["metadata"]["name"]: "0123" if item is entries[0] else "" for item in entries}
