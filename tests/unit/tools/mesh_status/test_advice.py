"""What is said about a machine or a pod, and its health, for everything that can be wrong with it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tools.mesh_status import advice, read_cluster, read_state
from tools.mesh_status.model import Health
from tools.mesh_status.read_machines import Certificate, MachineReport

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
IDENTITY, FORMER = (f"spiffe://{domain}/ns/shop/sa/product" for domain in ("cluster.local", "former.example"))


def at(hours: float) -> datetime:
    return NOW + timedelta(hours=hours)


STATE = read_state.Machine("product-1", "product", entry="product-10.0.0.5-pods", joined=at(-9))
ENTRY = read_cluster.Entry("product-10.0.0.5-pods", "shop", "product", "10.0.0.5", "pods", healthy=True)
CERTIFICATE = Certificate(at(-2), at(22), IDENTITY)
SEEN = MachineReport(unit="active", agent="1.31.0", envoy="1.39.3", ready=True, certificate=CERTIFICATE, token_expires=at(-8), gateway=True)
ENDED = Certificate(at(-27), at(-3), IDENTITY)
OFF = MachineReport(problem="cannot be reached by SSH at 10.0.0.5: timed out")
HEALTHY: dict[str, Any] = {
    "name": "product-1", "state": STATE, "entry": ENTRY, "report": SEEN, "identities": (IDENTITY, FORMER), "control_plane": "1.31.0",
    "rotation": "machines.product-1.rotation", "gateway": "10.0.0.2",
}  # fmt: skip


def judged(**changes: Any) -> tuple[Health, list[str]]:
    return advice.machine(advice.MachineFacts(**{**HEALTHY, **changes}), NOW)


def seen(**changes: Any) -> dict[str, Any]:
    return {"report": replace(SEEN, **changes)}


def test_there_is_nothing_to_say_about_a_healthy_machine() -> None:
    assert judged() == ("healthy", [])


def test_changed_files_are_named_with_their_repair() -> None:
    """What runs was started before."""
    health, sentences = judged(**seen(files=("/etc/systemd/system/istio-vm-mesh.service", "istio-vm-mesh.service, which is not enabled")))
    assert health == "healthy"
    assert sentences == [
        "differs from what its join wrote (/etc/systemd/system/istio-vm-mesh.service, istio-vm-mesh.service, which is not enabled): "
        "raise `machines.product-1.rotation` in the stack file and run `pulumi up`"
    ]


def test_redirection_that_is_missing_is_named() -> None:
    missing = "22 rules of iptables-nft are missing"
    health, sentences = judged(**seen(redirection=(missing,)))
    assert health == "unhealthy" and len(sentences) == 1 and missing in sentences[0]
    # A stopped agent redirects nothing, and its own sentence says that it is stopped.
    _, sentences = judged(**seen(unit="inactive", redirection=("no traffic is redirected",)))
    assert not any("redirect" in sentence for sentence in sentences)


@pytest.mark.parametrize(
    ("changes", "health", "sentences"),
    [
        (
            {"entry": None, **seen(certificate=ENDED, ready=False, unit="active")},
            "unhealthy",
            ["needs `pulumi up`: its certificate ended 3 h ago, and its token expired 8 h ago"],
        ),
        (
            {"entry": None, **seen(certificate=None, ready=False)},
            "unhealthy",
            ["needs `pulumi up`: it has no certificate, and its token expired 8 h ago"],
        ),
        (
            {"entry": None, **seen(certificate=ENDED, token_expires=None)},
            "unhealthy",
            ["needs `pulumi up`: its certificate ended 3 h ago, and it has no token"],
        ),
        (
            {"entry": None, **seen(certificate=ENDED, token_expires=at(0.5), ready=False)},
            "unhealthy",
            ["its certificate ended 3 h ago; its token is good for another 30 min, with which it gets one as soon as it reaches istiod"],
        ),
        (
            {"entry": None, "report": OFF},
            "missing",
            [
                "cannot be reached by SSH at 10.0.0.5: timed out",
                "when it is back, it needs `pulumi up` if it was away for longer than its certificate lived (24 h unless the mesh sets another lifetime)",
                "is not registered: there is no WorkloadEntry product-10.0.0.5-pods",
            ],
        ),
        ({"report": OFF}, "unknown", ["cannot be reached by SSH at 10.0.0.5: timed out"]),
        ({"report": None}, "healthy", []),
        ({"entry": None, **seen(unit="inactive", ready=False)}, "unhealthy", ["its agent is stopped: run `sudo systemctl start istio-vm-mesh` on it"]),
        (
            {"entry": None, **seen(unit="activating", restarts=41, ready=False)},
            "unhealthy",
            ["its agent does not stay up (41 restarts): `journalctl --unit istio-vm-mesh` on it has the cause"],
        ),
        ({"entry": None, **seen(unit="")}, "unhealthy", ["Istio's agent is not installed on it: run `pulumi up`"]),
        (
            seen(unit=""),
            "unhealthy",
            ["Istio's agent is not installed on it: raise `machines.product-1.rotation` in the stack file and run `pulumi up`"],
        ),
        (
            seen(gateway=False),
            "unhealthy",
            ["cannot reach the east-west gateway at 10.0.0.2 port 15012: check the gateway, and the firewall between the two"],
        ),
        (seen(ready=False), "unhealthy", ["its proxy is not ready: `journalctl --unit istio-vm-mesh` on it has the cause"]),
        (
            seen(certificate=replace(CERTIFICATE, identity="spiffe://cluster.local/ns/shop/sa/other")),
            "unhealthy",
            ["its certificate is for spiffe://cluster.local/ns/shop/sa/other and not for spiffe://cluster.local/ns/shop/sa/product: "
             "raise `machines.product-1.rotation` in the stack file and run `pulumi up`"],
        ),
        (
            seen(certificate=replace(CERTIFICATE, identity=FORMER)),
            "healthy",
            ["its certificate is for spiffe://former.example/ns/shop/sa/product, which callers accept by the mesh's trustDomainAliases: "
             "before you remove that alias, raise `machines.product-1.rotation` in the stack file and run `pulumi up`"],
        ),
        (
            seen(certificate=Certificate(at(-20), at(4), IDENTITY)),
            "healthy",
            ["has not renewed its certificate, which ends in 4 h: does its agent reach istiod?"],
        ),
        (seen(offset=-150.0), "healthy", ["its clock is 2 min behind: certificates need clocks that agree, let it run an NTP client"]),
        (seen(offset=7200.0), "healthy", ["its clock is 2 h ahead: certificates need clocks that agree, let it run an NTP client"]),
        (seen(offset=5.0), "healthy", []),
        (
            seen(agent="1.30.4"),
            "healthy",
            ["its agent 1.30.4 is older than the control plane 1.31.0: `pulumi up` installs the version of `mesh.version`"],
        ),
        (
            {**seen(agent="1.30.4"), "stated_version": "1.30.4"},
            "healthy",
            ["its agent 1.30.4 is older than the control plane 1.31.0: set `mesh.version` to that one and run `pulumi up`"],
        ),
        (
            {**seen(agent="1.30.4"), "stated_version": "1.31.0"},
            "healthy",
            ["its agent 1.30.4 is older than the control plane 1.31.0: `pulumi up` installs the version of `mesh.version`"],
        ),
        (
            {"entry": replace(ENTRY, disconnected=NOW - timedelta(seconds=7))},
            "unhealthy",
            ["its agent has had no connection to istiod for 7 s"],
        ),
        (
            {"entry": replace(ENTRY, healthy=False, message="connection refused\n")},
            "unhealthy",
            ["its probe fails (connection refused): is the application running on it, and on the probe's port?"],
        ),
        ({"entry": replace(ENTRY, healthy=None)}, "unknown", ["no result of its probe has reached istiod yet"]),
        (
            {"entry": None},
            "missing",
            ["is not registered: there is no WorkloadEntry product-10.0.0.5-pods though its proxy is ready: see `journalctl --unit istio-vm-mesh` on it"],
        ),
        ({"entry": None, "cluster_answers": False}, "unknown", []),
        ({"state": replace(STATE, joined=None)}, "missing", ["its join has not succeeded yet: run `pulumi up`"]),
        ({"state": None, "entry": None, "report": None}, "missing", ["is in the stack file and not in the stack yet: run `pulumi up`"]),
        (
            {"state": replace(STATE, joined=None, forgotten=True)},
            "healthy",
            ["is given up by `forget: true`: nothing connects to it; take it out of the stack file, and the next `pulumi up` keeps it out"],
        ),
        ({"declared": False}, "healthy", ["is no longer in the stack file: the next `pulumi up` removes it"]),
        (
            {"declared": False, **seen(certificate=replace(CERTIFICATE, identity=FORMER))},
            "healthy",
            ["is no longer in the stack file: the next `pulumi up` removes it"],
        ),
        (
            {"declared": False, **seen(unit="")},
            "unhealthy",
            ["Istio's agent is not installed on it: the next `pulumi up` removes it"],
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_cure(changes: dict[str, Any], health: Health, sentences: list[str]) -> None:
    judged_health, judged_advice = judged(**changes)
    assert (judged_health, judged_advice[: len(sentences)]) == (health, sentences)
    if not sentences:
        assert not judged_advice


@pytest.mark.parametrize(
    ("reason", "why"), [("dead", "was dead when it was removed"), ("forgotten", "was forgotten"), ("", "did not leave")]
)
def test_a_machine_that_was_given_up_is_named_until_it_is_settled(reason: str, why: str) -> None:
    entry = read_cluster.Entry(ENTRY.name, "shop", "", "10.0.0.5", "", quarantine="product-1", stack="istio-vm-mesh/lab", reason=reason)
    sentence = advice.kept_out(entry)
    assert sentence.startswith(f"machine product-1 at 10.0.0.5 {why}") and "istio-vm-mesh/lab" in sentence
    assert "WorkloadEntry shop/product-10.0.0.5-pods keeps it out" in sentence and "reaches the east-west gateway" in sentence


def test_a_pod_without_a_sidecar_is_not_in_the_mesh() -> None:
    pod = read_cluster.Pod("product-x", "10.244.0.9", "pods", ready=True, started=None, proxy="1.31.0")
    assert advice.pod(pod, "1.31.0") == ("healthy", [])
    assert advice.pod(replace(pod, proxy=""), "1.31.0")[0] == "unhealthy"
    assert advice.pod(replace(pod, ready=False, problem="container product: ErrImagePull"), "1.31.0") == (
        "unhealthy", ["is not ready: container product: ErrImagePull"],
    )  # fmt: skip
    assert advice.pod(replace(pod, proxy="1.30.1"), "1.31.0") == (
        "healthy", ["its agent 1.30.1 is older than the control plane 1.31.0: delete it, and its successor has that one"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "2 h"), (-90000, "25 h"), (400000, "5 days")]
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert advice.duration(seconds) == advice.duration(timedelta(seconds=seconds)) == text
