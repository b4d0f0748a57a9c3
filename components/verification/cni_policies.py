"""Policies of Cilium, Calico and the Network Policy API that select who calls or is called.

They are named as questions: what their rules allow is not computed here. Pure, and of the standard
library alone: scripts that run beside Pulumi import it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..manifest import Manifest
from ..names import CROSS_NETWORK_PORT, XDS_PORT
from . import calico_selectors
from .network_policies import Direction, End, selects

_CALICO = ("networkpolicies", "globalnetworkpolicies")
_KINDS: Mapping[str, Sequence[str]] = {
    "cilium.io": ("ciliumnetworkpolicies", "ciliumclusterwidenetworkpolicies"),
    "crd.projectcalico.org": _CALICO,
    "projectcalico.org": _CALICO,
    "policy.networking.k8s.io": ("adminnetworkpolicies", "baselineadminnetworkpolicies", "clusternetworkpolicies"),
}
"""The kinds that are read, by their API groups."""


def kinds(groups: Iterable[str]) -> list[str]:
    """Return what an API server with these groups may have, as `kubectl get` takes it.

    Calico's own API server has the same policies as its CRDs: then the CRDs are read.
    """
    there = [group for group in _KINDS if group in {*groups}]
    if "crd.projectcalico.org" in there and "projectcalico.org" in there:
        there.remove("projectcalico.org")
    return [f"{kind}.{group}" for group in there for kind in _KINDS[group]]


def start_sentences(policies: Iterable[Manifest], caller: End, port: int) -> list[str]:
    """Return a sentence for each policy that may keep a pod that calls from starting.

    policies: as the API server returns them. caller: the pod. port: the endpoints'.
    """
    return [
        f"the {name} selects the Jobs that verify it: does it let them out to DNS (53), istiod ({XDS_PORT}), its endpoints "
        f"(port {port}) and gateways ({CROSS_NETWORK_PORT})?"
        for name in _limiting(policies, caller, "Egress")
    ]


def call_sentences(policies: Iterable[Manifest], caller: End, callee: End, port: int) -> list[str]:
    """Return a sentence for each policy that may not let a caller reach an endpoint.

    policies, port: as for `start_sentences`. caller, callee: as for `network_policies.call_sentences`.
    """
    every = list(policies)
    place = f"{callee.address}:{port}"
    return [
        *(f"the {name} selects the caller's pod: does it let it out to {place}?" for name in _limiting(every, caller, "Egress")),
        *(
            f"the {name} selects the pod {callee.address}: does it let {caller.title} in on port {port}?"
            for name in _limiting(every, callee, "Ingress")
        ),
    ]


def _limiting(policies: Iterable[Manifest], end: End, direction: Direction) -> Iterator[str]:
    """Yield the policies that select a pod and limit what it receives or sends, as kind and name."""
    for policy in policies:
        metadata = policy["metadata"]
        namespace = metadata.get("namespace", end.namespace)
        if end.namespace and namespace == end.namespace and _RULES[_group(policy)](policy, end, direction):
            yield f"{_title(policy)} {'/'.join(filter(None, (metadata.get('namespace'), metadata['name'])))}"


def _group(policy: Manifest) -> str:
    return str(policy["apiVersion"]).partition("/")[0]


def _title(policy: Manifest) -> str:
    """Return a kind, of Calico's with its name: Kubernetes' own has the same."""
    return f"Calico {policy['kind']}" if "calico" in _group(policy) else str(policy["kind"])


def _is_limited_by_cilium(policy: Manifest, end: End, direction: Direction) -> bool:
    return any(_is_limited_by_rule(rule, end, direction.lower()) for rule in (policy.get("spec"), *(policy.get("specs") or ())) if rule)


def _is_limited_by_rule(rule: Manifest, end: End, direction: str) -> bool:
    """Return whether a rule of Cilium selects a pod, and denies what no rule allows.

    Source: cilium/cilium, pkg/policy/api/rule_validation.go.
    """
    denied = rule.get(f"{direction}Deny")
    by_default = bool(rule.get(direction))
    is_limit = (rule.get("enableDefaultDeny") or {}).get(direction, by_default) or bool(denied)
    selector = rule.get("endpointSelector")
    return is_limit and selector is not None and selects(_without_prefixes(selector), _labels_of_cilium(end))


def _without_prefixes(selector: Manifest) -> Manifest:
    """Return a selector of Cilium's in Kubernetes' words, without what cannot be compared here."""

    def key(text: str) -> str:
        return text.removeprefix("any:").removeprefix("k8s:")

    labels = selector.get("matchLabels") or {}
    expressions = selector.get("matchExpressions") or []
    return {
        "matchLabels": {key(each): value for each, value in labels.items() if not key(each).startswith(_OF_CILIUM)},
        "matchExpressions": [{**each, "key": key(each["key"])} for each in expressions if not key(each["key"]).startswith(_OF_CILIUM)],
    }


_OF_CILIUM = "io.cilium.k8s.policy."
"""Labels that Cilium adds to pods: their cluster and service account."""


def _labels_of_cilium(end: End) -> dict[str, str]:
    of_namespace = {f"io.cilium.k8s.namespace.labels.{key}": value for key, value in end.namespace_labels.items()}
    return {**end.labels, **of_namespace, "io.kubernetes.pod.namespace": end.namespace}


def _is_limited_by_calico(policy: Manifest, end: End, direction: Direction) -> bool:
    """Return whether a policy of Calico selects a pod, and its rules do not begin with one for everything.

    What no policy of a tier allows is denied, also where one has no rules. Kubernetes' own policies,
    which Calico's API server lists too, are left out.
    """
    if policy["metadata"]["name"].startswith("knp."):
        return False
    spec = policy["spec"]
    return direction in _types_of_calico(spec) and not _is_open(spec.get(direction.lower())) and _is_chosen(spec, end)


def _types_of_calico(spec: Manifest) -> Sequence[str]:
    """Return the directions of a policy. Without `types` it is of egress alone where it has only such rules."""
    has_egress = ["Egress"] if spec.get("egress") else []
    has_ingress = ["Ingress"] if spec.get("ingress") or not has_egress else []
    return spec.get("types") or [*has_ingress, *has_egress]


def _is_open(rules: Sequence[Mapping[str, Any]] | None) -> bool:
    first = {key: value for key, value in rules[0].items() if value and key != "metadata"} if rules else {}
    return first in ({"action": "Allow"}, {"action": "Pass"})


def _is_chosen(spec: Manifest, end: End) -> bool:
    """Return whether Calico's selectors match a pod; also where they cannot be read, or are of service accounts."""
    of_pod = {**end.labels, "projectcalico.org/namespace": end.namespace, "projectcalico.org/orchestrator": "k8s"}
    of_namespace = {**end.namespace_labels, "projectcalico.org/name": end.namespace}
    pairs = ((spec.get("selector", ""), of_pod), (spec.get("namespaceSelector", ""), of_namespace))
    try:
        return all(calico_selectors.selects(selector, labels) for selector, labels in pairs)
    except ValueError:
        return True


def _is_limited_by_admin(policy: Manifest, end: End, direction: Direction) -> bool:
    """Return whether a policy of the Network Policy API selects a pod, and has a rule that denies."""
    spec, pods = policy["spec"], policy["spec"]["subject"].get("pods")
    of_namespace = pods["namespaceSelector"] if pods else spec["subject"].get("namespaces") or {}
    is_chosen = selects(of_namespace, end.namespace_labels) and selects((pods or {}).get("podSelector") or {}, end.labels)
    return is_chosen and any(rule["action"] == "Deny" for rule in spec.get(direction.lower()) or ())


_RULES: Mapping[str, Callable[[Manifest, End, Direction], bool]] = {
    "cilium.io": _is_limited_by_cilium,
    "crd.projectcalico.org": _is_limited_by_calico,
    "projectcalico.org": _is_limited_by_calico,
    "policy.networking.k8s.io": _is_limited_by_admin,
}
"""By API group: whether a policy selects a pod and limits a direction."""
