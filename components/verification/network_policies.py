"""NetworkPolicies that may be the cause of calls that fail: those that select who calls or is called.

Pure, and of the standard library alone: scripts that run beside Pulumi import it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..manifest import Manifest
from ..names import CROSS_NETWORK_PORT, MANAGED_BY_LABEL, PROJECT, XDS_PORT

Direction = Literal["Ingress", "Egress"]
JOB_LABELS = {MANAGED_BY_LABEL: PROJECT}
"""Labels that the Jobs that verify have besides their name."""


@dataclass(frozen=True)
class End:
    """The other end of a connection of a pod.

    address: its IP address; "" where it is unknown.
    namespace: a pod's; "" for what is no pod.
    labels, namespace_labels: a pod's, and those of its namespace.
    """

    address: str = ""
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    namespace_labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What a caller is, for sentences."""
        if self.namespace:
            return "the caller's pod"
        return self.address or "the gateway of its network"


def sentences(policies: Iterable[Manifest], called: Mapping[str, str], port: int) -> list[str]:
    """Return a sentence for each policy that may refuse calls to a workload.

    policies: the NetworkPolicies of its namespace, as the API server returns them.
    called: the labels of its pods.
    port: the port of the application that is called.

    Empty where nothing selects its pods or the Jobs that call them, or all is allowed.
    """
    every = list(policies)
    return [
        *(
            f"the NetworkPolicy {name} selects its pods and lets in only some connections: callers of other namespaces, "
            f"machines and gateways have to reach their port {port}"
            for name in restricting(every, called, "Ingress")
        ),
        *start_sentences(every, JOB_LABELS, port),
    ]


def start_sentences(policies: Iterable[Manifest], calling: Mapping[str, str], port: int) -> list[str]:
    """Return a sentence for each policy that may keep the pods that call from starting, or from calling.

    calling: their labels. policies, port: as for `sentences`.
    """
    return [
        f"the NetworkPolicy {name} selects the Jobs that verify it and restricts their connections. They must reach "
        f"DNS (53), istiod ({XDS_PORT}), its endpoints (port {port}) and gateways ({CROSS_NETWORK_PORT})"
        for name in restricting(policies, calling, "Egress")
    ]


def call_sentences(policies: Iterable[Manifest], caller: End, callee: End, port: int) -> list[str]:
    """Return a sentence for each policy that does not let a caller reach an endpoint.

    policies: the NetworkPolicies of the workload's namespace.
    caller: a pod of this namespace, a machine by its address, or an unknown gateway: `End()`.
    callee: the endpoint, with the namespace where it is a pod of it. port: the endpoint's.
    """
    every = list(policies)
    place, selected = f"{callee.address}:{port}", f"selects the pod {callee.address} and"
    egress = refusing(every, caller.labels, "Egress", callee, port) if caller.namespace else []
    refusals = [f"the NetworkPolicy {name} selects the caller's pod and does not let it out to {place}" for name in egress]
    if callee.namespace and caller == End():
        limits = f"lets in only some connections: the gateway of its network has to reach its port {port}"
        refusals += [f"the NetworkPolicy {name} {selected} {limits}" for name in restricting(every, callee.labels, "Ingress")]
    elif callee.namespace:
        limits = f"does not let {caller.title} in on port {port}"
        refusals += [f"the NetworkPolicy {name} {selected} {limits}" for name in refusing(every, callee.labels, "Ingress", caller, port)]
    return refusals


def restricting(policies: Iterable[Manifest], labels: Mapping[str, str], direction: Direction) -> list[str]:
    """Return the policies that limit what pods with these labels receive or send, as `namespace/name`.

    Policies add up: one that allows everything makes the others harmless.
    Source: Kubernetes, documentation of NetworkPolicy ("Policies are additive").
    """
    chosen = _selecting(policies, labels, direction)
    return [] if any({} in _rules(each, direction) for each in chosen) else _names(chosen)


def refusing(policies: Iterable[Manifest], labels: Mapping[str, str], direction: Direction, other: End, port: int) -> list[str]:
    """Return the policies that select pods with these labels where no policy allows a TCP connection.

    other: the other end. port: that the connection is to.

    What cannot be decided from here (a port by name, an unknown address) counts as allowed.
    """
    chosen = _selecting(policies, labels, direction)
    peers = "from" if direction == "Ingress" else "to"
    for policy in chosen:
        for rule in _rules(policy, direction):
            ports, ends = rule.get("ports"), rule.get(peers)
            has_port = not ports or any(_is_port(each, port) for each in ports)
            if has_port and (not ends or any(_is_end(each, other, policy) for each in ends)):
                return []
    return _names(chosen)


def _selecting(policies: Iterable[Manifest], labels: Mapping[str, str], direction: Direction) -> list[Manifest]:
    return [each for each in policies if direction in _types(each["spec"]) and selects(each["spec"].get("podSelector") or {}, labels)]


def _rules(policy: Manifest, direction: Direction) -> list[Manifest]:
    return policy["spec"].get(direction.lower()) or []


def _names(policies: Iterable[Manifest]) -> list[str]:
    return sorted(f"{each['metadata']['namespace']}/{each['metadata']['name']}" for each in policies)


def _is_port(allowed: Mapping[str, Any], port: int) -> bool:
    if allowed.get("protocol", "TCP") != "TCP":
        return False
    first = allowed.get("port")
    if not isinstance(first, int):  # all ports, or one by name
        return True
    return first <= port <= allowed.get("endPort", first)


def _is_end(peer: Manifest, end: End, policy: Manifest) -> bool:
    if "ipBlock" in peer:
        return _is_in(peer["ipBlock"], end.address)
    if not end.namespace:
        return False
    if peer.get("namespaceSelector") is None:
        if end.namespace != policy["metadata"]["namespace"]:
            return False
    elif not selects(peer["namespaceSelector"], end.namespace_labels):
        return False
    return selects(peer.get("podSelector") or {}, end.labels)


def _is_in(block: Mapping[str, Any], address: str) -> bool:
    try:
        there = ipaddress.ip_address(address)
    except ValueError:  # unknown, or a DNS name
        return True
    inside, *outside = (ipaddress.ip_network(each, strict=False) for each in (block["cidr"], *(block.get("except") or ())))
    return there in inside and not any(there in each for each in outside)


def _types(spec: Manifest) -> list[str]:
    default = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
    return list(spec.get("policyTypes") or default)


def selects(selector: Manifest, labels: Mapping[str, str]) -> bool:
    """Return whether a label selector matches. An empty one matches everything."""
    expressions = selector.get("matchExpressions") or []
    return (selector.get("matchLabels") or {}).items() <= labels.items() and all(_holds(each, labels) for each in expressions)


def _holds(expression: Manifest, labels: Mapping[str, str]) -> bool:
    operator, key = expression["operator"], expression["key"]
    if operator in ("Exists", "DoesNotExist"):
        return (key in labels) == (operator == "Exists")
    return (labels.get(key) in expression["values"]) == (operator == "In")
