"""Which NetworkPolicies are named where calls fail."""

from __future__ import annotations

from typing import Any

import pytest

from components.verification.network_policies import JOB_LABELS, End, call_sentences, refusing, restricting, selects, sentences

CALLED = {"app": "product"}
PRODUCT = {"matchLabels": CALLED}


def policy(name: str = "theirs", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "shop"}, "spec": {"podSelector": {}, **spec}}


def test_one_that_denies_everything_is_named_for_both_ends() -> None:
    called, calls = sentences([policy("deny", policyTypes=["Ingress", "Egress"])], CALLED, 8080)
    assert called.startswith("the NetworkPolicy shop/deny selects its pods") and "port 8080" in called
    assert calls.startswith("the NetworkPolicy shop/deny selects the Jobs that verify it") and "istiod (15012)" in calls


@pytest.mark.parametrize(
    ("spec", "directions"),
    [
        ({"policyTypes": ["Ingress"]}, ["Ingress"]),
        ({}, ["Ingress"]),
        ({"egress": [{"ports": [{"port": 53}]}]}, ["Ingress", "Egress"]),
        ({"policyTypes": ["Egress"]}, ["Egress"]),
        ({"policyTypes": ["Ingress"], "ingress": [{"from": [{"podSelector": {}}]}]}, ["Ingress"]),
        ({"policyTypes": ["Ingress"], "ingress": [{}]}, []),
        ({"podSelector": PRODUCT, "policyTypes": ["Ingress", "Egress"]}, ["Ingress"]),
        ({"podSelector": {"matchLabels": {"app": "other"}}, "policyTypes": ["Ingress", "Egress"]}, []),
        ({"podSelector": {"matchLabels": JOB_LABELS}, "policyTypes": ["Ingress", "Egress"]}, ["Egress"]),
    ],
)
def test_those_that_select_neither_end_are_not_named(spec: dict[str, Any], directions: list[str]) -> None:
    text = " ".join(sentences([policy(**spec)], CALLED, 8080))
    words = {"Ingress": "selects its pods", "Egress": "selects the Jobs"}
    assert [each for each in words if words[each] in text] == directions


def test_one_that_allows_everything_makes_the_others_harmless() -> None:
    every = [policy("deny"), policy("allow", podSelector=PRODUCT, ingress=[{}])]
    assert restricting(every, CALLED, "Ingress") == []
    assert restricting(every, {"app": "other"}, "Ingress") == ["shop/deny"]


@pytest.mark.parametrize(
    ("operator", "values", "chosen"),
    [
        ("In", ["product"], True),
        ("In", ["x"], False),
        ("NotIn", ["x"], True),
        ("NotIn", ["product"], False),
        ("Exists", None, True),
        ("DoesNotExist", None, False),
    ],
)
def test_selectors_are_read_as_kubernetes_reads_them(operator: str, values: list[str] | None, chosen: bool) -> None:
    expression = {"key": "app", "operator": operator, **({"values": values} if values else {})}
    assert selects({"matchExpressions": [expression]}, CALLED) is chosen
    absent = operator in ("NotIn", "DoesNotExist")
    assert selects({"matchExpressions": [expression]}, {}) is absent


JOB = End("10.244.0.3", "shop", {"app": "verify"}, {"team": "a"})
MACHINE = End("192.0.2.7")


@pytest.mark.parametrize(
    ("rule", "other", "is_allowed"),
    [
        ({"from": [{"podSelector": {}}]}, JOB, True),
        ({"from": [{"podSelector": {}}]}, MACHINE, False),
        ({"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}, JOB, False),
        ({"from": [{"namespaceSelector": {}}]}, JOB, True),
        ({"from": [{"namespaceSelector": {"matchLabels": {"team": "b"}}}]}, JOB, False),
        ({"from": [{"namespaceSelector": {"matchLabels": {"team": "a"}}, "podSelector": {"matchLabels": {"app": "verify"}}}]}, JOB, True),
        ({"from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "web"}}}]}, JOB, False),
        ({"from": [{"podSelector": {"matchLabels": {"app": "web"}}}, {"ipBlock": {"cidr": "192.0.2.0/24"}}]}, MACHINE, True),
        ({"from": [{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.0/28"]}}]}, MACHINE, False),
        ({"from": [{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.128/28", "192.0.2.64/28"]}}]}, MACHINE, True),
        ({"from": [{"ipBlock": {"cidr": "2001:db8::/32"}}]}, MACHINE, False),
        ({"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}, End("gateway.example.com"), True),
        ({"ports": [{"port": 8080}]}, JOB, True),
        ({"ports": [{"port": 8081}, {"protocol": "UDP", "port": 8080}]}, JOB, False),
        ({"ports": [{"port": 8000, "endPort": 8090}]}, JOB, True),
        ({"ports": [{"port": 8000, "endPort": 8079}]}, JOB, False),
        ({"ports": [{"port": "http"}]}, JOB, True),
        ({"ports": [{"port": 8080}], "from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}, JOB, False),
    ],
)
def test_what_a_policy_allows_is_read_as_kubernetes_reads_it(rule: dict[str, Any], other: End, is_allowed: bool) -> None:
    assert refusing([policy(ingress=[rule])], CALLED, "Ingress", other, 8080) == ([] if is_allowed else ["shop/theirs"])
    to = {"to" if key == "from" else key: value for key, value in rule.items()}
    every = [policy("deny", policyTypes=["Egress"]), policy(egress=[to], policyTypes=["Egress"])]
    assert refusing(every, {}, "Egress", other, 8080) == ([] if is_allowed else ["shop/deny", "shop/theirs"])


def test_pods_that_no_policy_selects_are_free() -> None:
    assert refusing([policy(podSelector={"matchLabels": {"app": "other"}})], CALLED, "Ingress", JOB, 8080) == []


def test_a_machine_that_is_called_is_limited_by_no_policy() -> None:
    """Without labels, a policy for all pods would select it."""
    deny = policy("deny", policyTypes=["Ingress"])
    pod = End("10.244.0.9", "shop", CALLED)
    assert call_sentences([deny, policy("none", policyTypes=["Egress"])], MACHINE, MACHINE, 8080) == []
    assert call_sentences([deny], JOB, MACHINE, 8080) == call_sentences([deny], End(), MACHINE, 8080) == []
    [sentence] = call_sentences([deny], JOB, pod, 8080)
    assert sentence == "the NetworkPolicy shop/deny selects the pod 10.244.0.9 and does not let the caller's pod in on port 8080"


FROM_MACHINES = policy(
    "machines", podSelector=PRODUCT, ingress=[{"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}], "ports": [{"port": 8080}]}]
)
OUT = policy("out", policyTypes=["Egress"])


@pytest.mark.parametrize(
    ("policies", "caller", "port", "limits"),
    [
        ([policy("deny")], MACHINE, 8080, "shop/deny selects the pod 10.244.0.9 and does not let 192.0.2.7 in on port 8080"),
        ([policy("deny"), FROM_MACHINES], MACHINE, 8080, ""),
        ([FROM_MACHINES], End("10.9.0.1"), 8080, "shop/machines selects the pod 10.244.0.9 and does not let 10.9.0.1 in on port 8080"),
        ([FROM_MACHINES], MACHINE, 8081, "shop/machines selects the pod 10.244.0.9 and does not let 192.0.2.7 in on port 8081"),
        ([OUT], MACHINE, 8080, ""),
        (
            [FROM_MACHINES, OUT],
            End(),
            8080,
            "shop/machines selects the pod 10.244.0.9 and lets in only some connections: the gateway of its network has to reach its port 8080",
        ),
        ([FROM_MACHINES, policy("allow", ingress=[{}])], End(), 8080, ""),
    ],
)
def test_a_policy_that_does_not_let_a_machine_in_is_named(policies: list[dict[str, Any]], caller: End, port: int, limits: str) -> None:
    """By its address; or, behind a gateway that is unknown, each one that limits who may call."""
    pod = End("10.244.0.9", "shop", CALLED)
    assert call_sentences(policies, caller, pod, port) == ([f"the NetworkPolicy {limits}"] if limits else [])
