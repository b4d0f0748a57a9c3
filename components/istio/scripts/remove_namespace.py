"""Removes a namespace, last of all, unless objects of others are in it.

What keeps it is on standard error, which Pulumi shows. It also stays while objects that this stack
declares are in it: it may be one of `cluster.namespaces` now.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Container, Iterator
from dataclasses import dataclass, field

from ...local import scripting
from ...local.cluster_access import ClusterAccess, Kubectl, kubectl
from ...manifest import Manifest
from ...names import (
    DEFAULT_ROOT_CONFIG_MAP,
    GROUP_ANNOTATION,
    MANAGED_BY_LABEL,
    PROJECT,
    STACK_LABEL,
    UPDATE_LABEL,
)
from ...ownership import is_of, labels_of, list_objects, name_of, served_kinds

DELETION_TIMEOUT_S = 300

# Kubernetes and Istio create these in every namespace.
_DEFAULTS = {
    ("ServiceAccount", "default"),
    ("ConfigMap", "kube-root-ca.crt"),
    ("ConfigMap", DEFAULT_ROOT_CONFIG_MAP),
    ("ConfigMap", "istio-ca-crl"),
}
# Records of what happens to other objects, and what follows from them by name.
_FOLLOWING = {("", "Event"), ("events.k8s.io", "Event"), ("", "Endpoints"), ("metrics.k8s.io", "PodMetrics")}
_SHOWN = 10


@dataclass(frozen=True)
class Payload:
    """A namespace.

    access: its cluster.
    namespace: its name.
    stack: the stack that created it, as the label has it.
    of_istio: whether it is Istio's own, with what istiod keeps in it.
    """

    access: ClusterAccess = field(metadata={"record": ClusterAccess})
    namespace: str
    stack: str
    of_istio: bool = False


def run(payload: Payload) -> None:
    """Remove the namespace, or report what keeps it.

    Raises scripting.Failed where the cluster does not answer, or the namespace does not end.
    """
    namespace = payload.namespace
    with kubectl(payload.access) as program:
        words = ["--request-timeout=20s", "get", "namespace", namespace, "--ignore-not-found"]
        purpose = f"the namespace {namespace} cannot be read"
        text = program.check(*words, "--output", "json", purpose=purpose, timeout_s=60).text
        if not text:
            return
        if not is_of(json.loads(text), payload.stack):
            print(f"the namespace {namespace} stays: it is not this stack's any more", file=sys.stderr)
            return
        try:
            kept_by = [str(name_of(each)) for each in _in_use(program, payload)]
        except scripting.Failed as error:
            print(f"the namespace {namespace} stays: {error}", file=sys.stderr)
            return
        if kept_by:
            more = f" and {len(kept_by) - _SHOWN} more" if len(kept_by) > _SHOWN else ""
            names = ", ".join(sorted(kept_by)[:_SHOWN]) + more
            print(
                f"the namespace {namespace} stays, because it holds {names}: if they are not needed, "
                f"remove it with `kubectl delete namespace {namespace}`",
                file=sys.stderr,
            )
            return
        _delete(program, namespace)


def _delete(program: Kubectl, namespace: str) -> None:
    words = ("delete", "namespace", namespace, "--ignore-not-found", f"--timeout={DELETION_TIMEOUT_S}s")
    done = program.call(*words, timeout_s=DELETION_TIMEOUT_S + 60)
    if done.status == 0:
        return
    present = program.json("get", "namespace", namespace, "--ignore-not-found")
    obstacles = _obstacles(present) if present else []
    cause = scripting.last_words(done.error) or f"kubectl ended with status {done.status}"
    reason = "; ".join([cause, *obstacles])
    raise scripting.Failed(
        f"the namespace {namespace} was not removed: {reason}. Remove what keeps it, such as a finalizer whose controller is gone, and run the update again"
    )


def _obstacles(namespace: Manifest) -> list[str]:
    """Return what Kubernetes states of the objects that keep a namespace that is being removed."""
    conditions = (namespace.get("status") or {}).get("conditions") or ()
    return [each["message"] for each in conditions if each["status"] == "True" and each.get("message")]


def _in_use(program: Kubectl, payload: Payload) -> Iterator[Manifest]:
    """Yield the objects that keep the namespace."""
    kinds = served_kinds(program, "--namespaced", "--verbs=list,delete")
    words = sorted(word for kind, word in kinds.items() if kind not in _FOLLOWING)
    for item in list_objects(program, words, payload.namespace):
        if not _is_owned(item, kinds) and not _goes_with_it(item, payload):
            yield item


def _is_owned(item: Manifest, kinds: Container[tuple[str, str]]) -> bool:
    """Return whether an object goes with another one of its namespace, which is judged itself.

    kinds: API group and kind of all that is in namespaces. An owner of another kind is in none.
    """
    owners = item["metadata"].get("ownerReferences") or ()
    groups = [(each["apiVersion"].rpartition("/")[0], each["kind"]) for each in owners]
    return bool(groups) and all(group in kinds for group in groups)


def _goes_with_it(item: Manifest, payload: Payload) -> bool:
    """Return whether an object is of no use without the namespace."""
    metadata, name = item["metadata"], name_of(item)
    if (name.kind, name.name) in _DEFAULTS:
        return True
    if metadata.get("deletionTimestamp"):
        return True
    if item.get("type") == "kubernetes.io/service-account-token":
        account = (metadata.get("annotations") or {}).get("kubernetes.io/service-account.name")
        return account == "default"
    if name.kind == "WorkloadEntry" and GROUP_ANNOTATION in (metadata.get("annotations") or {}):
        return True  # istiod made it for a machine
    if payload.of_istio and _of_istiod(item):
        return True
    # What commands of this program make besides the objects that the stack declares.
    labels = labels_of(item)
    marked = labels.get(MANAGED_BY_LABEL) == PROJECT or any(key.startswith(f"{PROJECT}/") for key in labels)
    # Pods that call have the stack's label, too, so that its next update removes them.
    return marked and (STACK_LABEL not in labels or UPDATE_LABEL in labels)


def _of_istiod(item: Manifest) -> bool:
    """Return whether istiod made an object in its own namespace: elections, and its certificate."""
    name = name_of(item)
    elections = name.kind in ("ConfigMap", "Lease") and name.name.startswith("istio-")
    return elections or (name.kind, name.name) == ("Secret", "istio-ca-secret")
