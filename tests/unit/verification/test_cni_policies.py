"""Which policies of Cilium, Calico and the Network Policy API are named where calls fail."""

from __future__ import annotations

from typing import Any

import pytest

from components.verification.cni_policies import call_sentences, kinds, start_sentences
from components.verification.network_policies import End

JOB = End("", "shop", {"app": "verify"}, {"team": "a"})
PRODUCT = End("10.244.0.9", "shop", {"app": "product"}, {"team": "a"})
MACHINE = End("192.0.2.7")
PRODUCT_LABELS = {"matchLabels": {"app": "product"}}


def policy(kind: str, group: str, spec: dict[str, Any], namespace: str = "", name: str = "theirs") -> dict[str, Any]:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": f"{group}/v1", "kind": kind, "metadata": metadata, "spec": spec}


def cilium(namespace: str = "shop", **spec: Any) -> dict[str, Any]:
    kind = "CiliumNetworkPolicy" if namespace else "CiliumClusterwideNetworkPolicy"
    return policy(kind, "cilium.io", spec, namespace)


def calico(namespace: str = "shop", name: str = "default.theirs", group: str = "crd.projectcalico.org", **spec: Any) -> dict[str, Any]:
    return policy("NetworkPolicy" if namespace else "GlobalNetworkPolicy", group, spec, namespace, name)


def admin(kind: str = "AdminNetworkPolicy", **spec: Any) -> dict[str, Any]:
    return policy(kind, "policy.networking.k8s.io", spec)


def directions(each: dict[str, Any], callee: End = PRODUCT) -> str:
    """`E` where the caller is limited, `I` where the callee is."""
    texts = call_sentences([each], JOB, callee, 8080)
    return "".join("E" if "selects the caller's pod" in text else "I" for text in texts)


def test_both_ends_are_named_as_questions() -> None:
    out, into = call_sentences([cilium(endpointSelector={}, ingress=[{}], egress=[{}])], JOB, PRODUCT, 8080)
    assert out == "the CiliumNetworkPolicy shop/theirs selects the caller's pod: does it let it out to 10.244.0.9:8080?"
    assert into == "the CiliumNetworkPolicy shop/theirs selects the pod 10.244.0.9: does it let the caller's pod in on port 8080?"
    for caller, title in ((MACHINE, "192.0.2.7"), (End(), "the gateway of its network")):
        [into] = call_sentences([cilium(endpointSelector={}, ingress=[{}], egress=[{}])], caller, PRODUCT, 8080)
        assert into == f"the CiliumNetworkPolicy shop/theirs selects the pod 10.244.0.9: does it let {title} in on port 8080?"
    [start] = start_sentences([calico("", types=["Ingress", "Egress"])], JOB, 8080)
    assert start == (
        "the Calico GlobalNetworkPolicy default.theirs selects the Jobs that verify it: does it let them out to DNS (53), istiod (15012), "
        "its endpoints (port 8080) and gateways (15443)?"
    )


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"endpointSelector": {}, "ingress": [{}]}, "I"),
        ({"endpointSelector": {}, "egress": [{"toEntities": ["world"]}]}, "E"),
        ({"endpointSelector": {}, "egressDeny": [{"toEntities": ["world"]}]}, "E"),
        ({"endpointSelector": {}, "ingress": [], "egress": []}, ""),
        ({"endpointSelector": {}, "ingress": [{}], "enableDefaultDeny": {"ingress": False}}, ""),
        ({"endpointSelector": {}, "ingressDeny": [{}], "enableDefaultDeny": {"ingress": False}}, "I"),
        ({"endpointSelector": {}, "enableDefaultDeny": {"egress": True}}, "E"),
        ({"nodeSelector": {}, "ingress": [{}], "egress": [{}]}, ""),
        ({"endpointSelector": PRODUCT_LABELS, "ingress": [{}], "egress": [{}]}, "I"),
        ({"endpointSelector": {"matchLabels": {"k8s:app": "verify"}}, "ingress": [{}], "egress": [{}]}, "E"),
        ({"endpointSelector": {"matchLabels": {"any:app": "other"}}, "ingress": [{}], "egress": [{}]}, ""),
        ({"endpointSelector": {"matchExpressions": [{"key": "k8s:app", "operator": "Exists"}]}, "ingress": [{}]}, "I"),
        ({"endpointSelector": {"matchExpressions": [{"key": "k8s:app", "operator": "DoesNotExist"}]}, "ingress": [{}]}, ""),
        ({"endpointSelector": {"matchExpressions": [{"key": "io.cilium.k8s.policy.cluster", "operator": "Exists"}]}, "ingress": [{}]}, "I"),
        ({"endpointSelector": {"matchLabels": {"k8s:io.cilium.k8s.policy.serviceaccount": "x"}}, "ingress": [{}]}, "I"),
        ({"endpointSelector": {"matchLabels": {"k8s:io.kubernetes.pod.namespace": "shop"}}, "ingress": [{}]}, "I"),
        ({"endpointSelector": {"matchLabels": {"k8s:io.kubernetes.pod.namespace": "else"}}, "ingress": [{}]}, ""),
        ({"endpointSelector": {"matchLabels": {"io.cilium.k8s.namespace.labels.team": "a"}}, "ingress": [{}]}, "I"),
        ({"endpointSelector": {"matchLabels": {"io.cilium.k8s.namespace.labels.team": "b"}}, "ingress": [{}]}, ""),
    ],
)
def test_rules_of_cilium_that_select_and_limit_an_end_are_named(spec: dict[str, Any], expected: str) -> None:
    assert directions(cilium(**spec)) == directions(cilium("", **spec)) == expected
    several = cilium() | {"spec": None, "specs": [{"nodeSelector": {}}, spec]}
    assert directions(several) == expected
    assert directions(cilium("else", **spec)) == "", "another namespace"
    assert "I" not in directions(cilium("", **spec), MACHINE), "no pod"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, "I"),
        ({"egress": [{"action": "Deny"}]}, "E"),
        ({"ingress": [{"action": "Deny"}], "egress": [{"action": "Deny"}]}, "EI"),
        ({"types": ["Ingress", "Egress"]}, "EI"),
        ({"types": ["Egress"], "selector": "app == 'verify'"}, "E"),
        ({"types": ["Ingress", "Egress"], "selector": "app == 'product'"}, "I"),
        ({"types": ["Ingress"], "ingress": [{"action": "Allow"}]}, ""),
        ({"types": ["Ingress"], "ingress": [{"action": "Pass", "metadata": {"annotations": {}}, "source": {}}]}, ""),
        ({"types": ["Ingress"], "ingress": [{"action": "Allow", "protocol": "TCP"}]}, "I"),
        ({"types": ["Ingress"], "ingress": [{"action": "Log"}, {"action": "Allow"}]}, "I"),
        ({"namespaceSelector": "projectcalico.org/name == 'shop' && team == 'a'"}, "I"),
        ({"namespaceSelector": "team == 'b'"}, ""),
        ({"namespaceSelector": "global()"}, ""),
        ({"selector": "projectcalico.org/namespace == 'shop' && projectcalico.org/orchestrator == 'k8s'"}, "I"),
        ({"selector": "what is this"}, "I"),
        ({"serviceAccountSelector": "app == 'else'"}, "I"),
    ],
)
def test_policies_of_calico_that_select_and_limit_an_end_are_named(spec: dict[str, Any], expected: str) -> None:
    assert directions(calico("", **spec)) == directions(calico(**spec, group="projectcalico.org")) == expected
    assert directions(calico("else", **spec)) == "", "another namespace"
    assert directions(calico(name="knp.default.deny", **spec)) == "", "Kubernetes' own"


DENIES = [{"action": "Allow"}, {"action": "Deny"}]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"subject": {"namespaces": {}}, "ingress": DENIES, "egress": DENIES}, "EI"),
        ({"subject": {"namespaces": {"matchLabels": {"team": "b"}}}, "ingress": DENIES}, ""),
        ({"subject": {"namespaces": {}}, "ingress": [{"action": "Allow"}, {"action": "Pass"}]}, ""),
        ({"subject": {"namespaces": {}}}, ""),
        ({"subject": {"pods": {"namespaceSelector": {}, "podSelector": PRODUCT_LABELS}}, "ingress": DENIES, "egress": DENIES}, "I"),
        ({"subject": {"pods": {"namespaceSelector": {"matchLabels": {"team": "b"}}, "podSelector": {}}}, "ingress": DENIES}, ""),
    ],
)
def test_policies_of_the_network_policy_api_that_deny_are_named(spec: dict[str, Any], expected: str) -> None:
    assert directions(admin(**spec)) == directions(admin("BaselineAdminNetworkPolicy", **spec)) == expected


def test_what_an_api_server_does_not_have_is_not_asked_for() -> None:
    assert kinds(["apps", "networking.k8s.io"]) == []
    assert kinds(["cilium.io"]) == ["ciliumnetworkpolicies.cilium.io", "ciliumclusterwidenetworkpolicies.cilium.io"]
    assert kinds(["projectcalico.org"]) == ["networkpolicies.projectcalico.org", "globalnetworkpolicies.projectcalico.org"]
    assert len(kinds(["crd.projectcalico.org"])) == 2
    both = kinds(["projectcalico.org", "crd.projectcalico.org"])
    assert both == ["networkpolicies.crd.projectcalico.org", "globalnetworkpolicies.crd.projectcalico.org"], "each policy once"
    assert len(kinds(["policy.networking.k8s.io"])) == 3
