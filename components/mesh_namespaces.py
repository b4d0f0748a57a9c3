"""Namespaces in a mesh: whether istiod sees them, injects pods there, and may run them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .manifest import Manifest
from .mesh_facts import BASELINE, RESTRICTED, MeshFacts
from .names import INJECT_LABEL, POD_SECURITY_LABEL, REVISION_LABEL

NAME_LABEL = "kubernetes.io/metadata.name"
"""The label that Kubernetes gives each namespace: its name."""
_REFUSING = {BASELINE: (BASELINE,), RESTRICTED: (BASELINE, RESTRICTED)}


def refusal_of_sidecars(facts: MeshFacts, labels: Mapping[str, str]) -> str:
    """Return why Pod Security refuses pods with sidecars in a namespace; "" where it does not.

    labels: of the namespace.
    """
    levels = _REFUSING.get(labels.get(POD_SECURITY_LABEL, ""), ())
    return next((facts.sidecar_privileges[level] for level in levels if level in facts.sidecar_privileges), "")


def left_out(selectors: Sequence[Manifest], namespaces: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return the namespaces that istiod does not see.

    selectors: `discoverySelectors` of the MeshConfig. namespaces: their labels by name.
    """
    return [
        name for name, labels in namespaces.items()
        if selectors and not any(_matches(selector, {NAME_LABEL: name, **labels}) for selector in selectors)
    ]  # fmt: skip


def is_injected(webhooks: Iterable[Manifest], namespace: Mapping[str, str], pod: Mapping[str, str]) -> bool:
    """Return whether a pod gets a sidecar.

    webhooks: the objects MutatingWebhookConfiguration of sidecar injectors.
    namespace, pod: the labels of the pod's namespace, with its name, and of the pod.
    """
    return any(
        _matches(webhook.get("namespaceSelector") or {}, namespace) and _matches(webhook.get("objectSelector") or {}, pod)
        for configuration in webhooks
        for webhook in configuration.get("webhooks") or ()
    )


def injected_pod_labels(facts: MeshFacts) -> dict[str, str]:
    """Return the labels by which a pod requests a sidecar where its namespace states nothing.

    Annotations are not seen there (istio/istio: the webhook's `objectSelector`).
    """
    revision = {key: value for key, value in facts.injection_labels.items() if key == REVISION_LABEL}
    return {INJECT_LABEL: "true", **revision}


def _matches(selector: Manifest, labels: Mapping[str, str]) -> bool:
    """Return whether a label selector of Kubernetes selects labels."""
    exact = selector.get("matchLabels") or {}
    return exact.items() <= labels.items() and all(_meets(each, labels) for each in selector.get("matchExpressions") or ())


def _meets(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, operator, values = expression["key"], expression["operator"], expression.get("values") or ()
    if operator in ("In", "NotIn"):
        return (labels.get(key) in values) == (operator == "In")
    return (key in labels) == (operator == "Exists")
