"""What the proof on a machine makes of its script: evidence, or a cause with the policies of the pods that it calls."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from components.local import over_ssh, scripting
from components.local.cluster_access import ClusterAccess
from components.local.openssh import Hop, Target
from components.shell import assignments
from components.verification.scripts import prove_machine
from components.verification.scripts.prove_machine import CalledPods, Payload, Proof
from components.verification.target import CALL_SCRIPT
from tests.support.fake_programs import ProgramsInMemory

CALLED = CalledPods(ClusterAccess(context="theirs"), "shop", "product", 8080, "192.0.2.7")
PAYLOAD = Payload(Target("product-1", Hop("192.0.2.7", host_key="ssh-ed25519 AAAA")), "script", proof=Proof(CALLED))
NEAR = "machine product-1: no answer from 10.244.0.9:8080: it takes no connection (timeout)"
FAR = "machine product-1: no answer from 172.31.0.1:15443: it takes connections: does the application answer"
DENY = {"metadata": {"name": "deny", "namespace": "shop"}, "spec": {"podSelector": {}}}
REFUSED = "the NetworkPolicy shop/deny selects the pod 10.244.0.9 and does not let 192.0.2.7 in on port 8080"
LIMITED = "the NetworkPolicy shop/deny selects the pod 10.244.0.9 and lets in only some connections: the gateway of its network has to reach its port 8080"


def pod(name: str, address: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"app": "product"}}, "spec": {"containers": []}, "status": {"podIP": address}}


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> ProgramsInMemory:
    fakes = ProgramsInMemory()
    monkeypatch.setattr(scripting, "call", fakes.call)
    answer(fakes, [DENY])
    return fakes


def answer(programs: ProgramsInMemory, policies: list[dict[str, Any]], status: int = 0, of_cilium: Sequence[dict[str, Any]] = ()) -> None:
    pods = [pod("product-a", "10.244.0.9"), pod("product-b", "10.244.0.10")]
    programs.add(
        "kubectl",
        ("get networkpolicies", status, json.dumps({"items": policies}), ""),
        ("get --raw /apis", status, json.dumps({"groups": [{"name": "cilium.io"}] if of_cilium else []}), ""),
        ("get ciliumnetworkpolicies", status, json.dumps({"items": of_cilium}), ""),
        ("get pods --selector istio-vm-mesh/workload=product ", status, json.dumps({"items": pods}), ""),
        ("get namespace shop ", status, "{}", ""),
    )


def fails(monkeypatch: pytest.MonkeyPatch, cause: str) -> None:
    def run(_: over_ssh.Payload) -> over_ssh.Result:
        raise scripting.Failed(cause)

    monkeypatch.setattr(over_ssh, "run", run)


def prints(monkeypatch: pytest.MonkeyPatch, *causes: str) -> None:
    rows = [{"calls": {"endpoint": "10.244.0.9:8080", "cause": cause}} for cause in causes]
    monkeypatch.setattr(over_ssh, "run", lambda _: over_ssh.Result("\n".join(map(json.dumps, rows))))


def far(payload: Payload) -> Payload:
    return replace(payload, proof=replace(payload.proof, called=replace(CALLED, address="")))


@pytest.mark.parametrize(
    ("is_far", "cause", "sentence"),
    [(False, NEAR, REFUSED), (True, FAR, LIMITED), (False, FAR, ""), (True, NEAR, ""), (False, "/ returns 404", "")],
)
def test_a_policy_that_refuses_a_machines_calls_is_named(
    programs: ProgramsInMemory, monkeypatch: pytest.MonkeyPatch, is_far: bool, cause: str, sentence: str
) -> None:
    """Once, whatever the number of pods. Nothing is looked up where an endpoint has answered."""
    payload = far(PAYLOAD) if is_far else PAYLOAD
    fails(monkeypatch, cause)
    with pytest.raises(scripting.Failed) as raised:
        prove_machine.run(payload)
    assert str(raised.value) == "; ".join(filter(None, [cause, sentence]))
    assert bool(programs.lines("kubectl")) == bool(sentence)
    prints(monkeypatch, cause, "")
    assert [call.cause for call in prove_machine.run(payload).calls] == [str(raised.value), ""], "a warning, too"


def test_policies_are_read_once_for_all_calls_that_fail(programs: ProgramsInMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    prints(monkeypatch, NEAR, "/ returns 404", NEAR)
    causes = [call.cause for call in prove_machine.run(PAYLOAD).calls]
    assert causes == [f"{NEAR}; {REFUSED}", "/ returns 404", f"{NEAR}; {REFUSED}"]
    assert sum("get networkpolicies" in line for line in programs.lines("kubectl")) == 1


@pytest.mark.parametrize("cause", [NEAR, FAR])
def test_a_machine_that_calls_no_pods_has_no_policies(programs: ProgramsInMemory, monkeypatch: pytest.MonkeyPatch, cause: str) -> None:
    fails(monkeypatch, cause)
    with pytest.raises(scripting.Failed, match=f"^{re.escape(cause)}$"):
        prove_machine.run(replace(PAYLOAD, proof=Proof()))
    assert programs.lines("kubectl") == []


@pytest.mark.parametrize("status", [0, 1])
def test_a_cluster_without_policies_hides_no_cause(programs: ProgramsInMemory, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    fails(monkeypatch, NEAR)
    answer(programs, [], status)
    with pytest.raises(scripting.Failed, match=r"\(timeout\)$"):
        prove_machine.run(PAYLOAD)
    asked = [line.split(" get ")[1].split(" --output")[0].split(" --namespace")[0] for line in programs.lines("kubectl")]
    assert asked == ["networkpolicies.networking.k8s.io", "--raw /apis"], "pods are not looked at"


def test_a_policy_of_cilium_is_named_where_there_are_none_of_kubernetes(
    programs: ProgramsInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", **DENY, "spec": {"endpointSelector": {}, "ingress": [{}]}}
    fails(monkeypatch, NEAR)
    answer(programs, [], of_cilium=[limit])
    with pytest.raises(scripting.Failed, match=r"; the CiliumNetworkPolicy shop/deny selects the pod 10.244.0.9: .* let 192.0.2.7 in on"):
        prove_machine.run(PAYLOAD)


def test_another_cluster_hides_no_cause(programs: ProgramsInMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    fails(monkeypatch, NEAR)
    called = replace(CALLED, access=ClusterAccess(context="theirs", uid="ours"))
    with pytest.raises(scripting.Failed, match=r"\(timeout\)$"):
        prove_machine.run(replace(PAYLOAD, proof=Proof(called)))


def test_pods_without_the_port_are_passed_over(programs: ProgramsInMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    fails(monkeypatch, NEAR)
    called = replace(CALLED, port="web")
    with pytest.raises(scripting.Failed, match=r"\(timeout\)$"):
        prove_machine.run(replace(PAYLOAD, proof=Proof(called)))


def test_a_proof_that_only_warns_fails_no_update(programs: ProgramsInMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it fails by: SSH, a proxy that does not run, a call."""
    fails(monkeypatch, f"machine product-1: Envoy does not answer\n{NEAR}")
    [call] = prove_machine.run(replace(PAYLOAD, proof=replace(PAYLOAD.proof, warn_only=True))).calls
    assert (call.verdict, call.caller, call.object) == ("failed", "machine product-1", "machine product-1")
    assert call.cause == f"machine product-1: Envoy does not answer {NEAR}; {REFUSED}"


CALLING = assignments({"TARGETS": "product.shop.svc\t80\thttp\t/", "HEADERS": "", "INBOUND": "80\thttp"})
BY_NAME = {"calls": {"service": "product.shop.svc", "port": 80, "how": "by-chance"}}
COUNTER = {"calls": {"service": "product.shop.svc", "port": 80, "kind": "counter", "machine": "product-1"}}


@pytest.mark.parametrize(
    ("rows", "missing"),
    [
        ([BY_NAME, COUNTER], ""),
        ([], "calls of product.shop.svc port 80, calls on port 80"),
        ([COUNTER], "calls of product.shop.svc port 80"),
        ([BY_NAME], "calls on port 80"),
        ([{"calls": {**BY_NAME["calls"], "endpoint": "10.244.0.9:8080"}}, COUNTER], "calls of product.shop.svc port 80"),
        ([{"calls": {**BY_NAME["calls"], "port": 81}}, COUNTER], "calls of product.shop.svc port 80"),
    ],
)
def test_a_script_that_ends_well_but_shows_nothing_of_its_calls_fails(
    monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]], missing: str
) -> None:
    """bash goes on where it gets no file descriptor, and what another program prints may be in a row's line."""
    monkeypatch.setattr(over_ssh, "run", lambda _: over_ssh.Result("\n".join(map(json.dumps, rows))))
    payload = replace(PAYLOAD, script=CALLING, body=CALL_SCRIPT, proof=Proof())
    if not missing:
        assert len(prove_machine.run(payload).calls) == 2
        return
    with pytest.raises(scripting.Failed, match=f"^machine product-1: verification/call-service shows nothing of {missing}: "):
        prove_machine.run(payload)
    [call] = prove_machine.run(replace(payload, proof=Proof(warn_only=True))).calls
    assert (call.verdict, missing in call.cause) == ("failed", True)
