"""NetworkPolicies that may be the cause of calls that fail: those that select who calls or is called.

Pure, and of the standard library alone: scripts that run beside Pulumi import it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from ..manifest import Manifest
from ..names import CROSS_NETWORK_PORT, PROJECT, XDS_PORT

Direction = Literal["Ingress", "Egress"]
JOB_LABELS = {"app.kubernetes.io/managed-by": PROJECT}
"""Labels that the Jobs that verify have besides their name."""


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
        *(
            f"the NetworkPolicy {name} selects the Jobs that verify it and lets out only some connections: they have to reach "
            f"DNS (53), istiod ({XDS_PORT}), its endpoints (port {port}) and gateways ({CROSS_NETWORK_PORT})"
            for name in restricting(every, JOB_LABELS, "Egress")
        ),
    ]


def restricting(policies: Iterable[Manifest], labels: Mapping[str, str], direction: Direction) -> list[str]:
    """Return the policies that limit what pods with these labels receive or send, as `namespace/name`.

    Policies add up: one that allows everything makes the others harmless.
    Source: Kubernetes, documentation of NetworkPolicy ("Policies are additive").
    """
    chosen = [each for each in policies if direction in _types(each["spec"]) and selects(each["spec"].get("podSelector") or {}, labels)]
    if any({} in (each["spec"].get(direction.lower()) or []) for each in chosen):
        return []
    return sorted(f"{each['metadata']['namespace']}/{each['metadata']['name']}" for each in chosen)


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
    return (labels.get(key) in (expression.get("values") or [])) == (operator == "In")
