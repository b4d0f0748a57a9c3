"""A namespace that does not end, without a cluster; `tests/engine/kubernetes/test_cluster_scripts.py` has the rest."""

from __future__ import annotations

import json

import pytest

from components.istio.scripts import remove_namespace
from components.local import scripting
from components.local.cluster_access import ClusterAccess
from tests.support.fake_programs import Programs

PAYLOAD = remove_namespace.Payload(ClusterAccess(context="theirs"), "shop", "mesh.lab")
LABELS = {"app.kubernetes.io/managed-by": "istio-vm-mesh", "istio-vm-mesh/stack": "mesh.lab"}
CONDITIONS = [
    {"type": "NamespaceDeletionDiscoveryFailure", "status": "False", "message": "All resources successfully discovered"},
    {"type": "NamespaceFinalizersRemaining", "status": "True", "message": "example.com/hold in 1 resource instances"},
]


def test_what_keeps_a_namespace_that_is_being_removed_is_named(programs: Programs) -> None:
    namespace = {"kind": "Namespace", "metadata": {"name": "shop", "labels": LABELS}, "status": {"conditions": CONDITIONS}}
    groups = ("get --raw /apis", 0, '{"groups": []}', "")
    deletion = ("delete namespace shop", 1, "", "error: timed out waiting for the condition on namespaces/shop")
    context = json.dumps({"clusters": [{"cluster": {"server": "s"}}], "users": [{"user": {"token": "a-token"}}]})
    objects = ("--request-timeout=60s get", 0, '{"items": []}', "")
    programs.add(
        "kubectl", ("config view", 0, context, ""), groups, objects, ("get namespace shop", 0, json.dumps(namespace), ""), deletion
    )
    with pytest.raises(scripting.Failed) as failure:
        remove_namespace.run(PAYLOAD)
    assert str(failure.value) == (
        "the namespace shop was not removed: error: timed out waiting for the condition on namespaces/shop; "
        "example.com/hold in 1 resource instances. Remove what keeps it, such as a finalizer whose controller is gone, "
        "and run the update again"
    )
