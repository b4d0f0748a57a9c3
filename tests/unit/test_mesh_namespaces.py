"""Which namespaces istiod sees, and whether sidecars are admitted and injected there, by Kubernetes' own rules for labels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from components import mesh_namespaces
from components.mesh_facts import BASELINE, RESTRICTED
from tests.support.samples import FACTS

NAMESPACES = {"shop": {"mesh": "yes", "tier": "web"}, "billing": {"mesh": "no"}, "bare": {}}


def expression(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, **({"values": list(values)} if values else {})}]}


@pytest.mark.parametrize(
    ("selectors", "left_out"),
    [
        ([], []),
        ([{}], []),
        ([{"matchLabels": None, "matchExpressions": None}], []),
        ([{"matchLabels": {"mesh": "yes"}}], ["billing", "bare"]),
        ([{"matchLabels": {"mesh": "yes", "tier": "db"}}], ["shop", "billing", "bare"]),
        ([{"matchLabels": {"mesh": "no"}}, {"matchLabels": {"mesh": "yes"}}], ["bare"]),
        ([{"matchLabels": {"kubernetes.io/metadata.name": "bare"}}], ["shop", "billing"]),
        ([expression("mesh", "In", "yes", "no")], ["bare"]),
        ([expression("mesh", "NotIn", "no")], ["billing"]),
        ([expression("mesh", "Exists")], ["bare"]),
        ([expression("mesh", "DoesNotExist")], ["shop", "billing"]),
        ([{"matchLabels": {"mesh": "yes"}, **expression("tier", "NotIn", "web")}], ["shop", "billing", "bare"]),
    ],
)
def test_istiod_sees_the_namespaces_that_one_of_its_selectors_selects(selectors: list[dict[str, Any]], left_out: list[str]) -> None:
    assert mesh_namespaces.left_out(selectors, NAMESPACES) == left_out


@pytest.mark.parametrize(
    ("privileges", "refusing"),
    [({}, []), ({RESTRICTED: "root"}, ["restricted"]), ({BASELINE: "NET_ADMIN"}, ["baseline", "restricted"])],
)
def test_a_level_refuses_what_a_more_permissive_one_refuses(privileges: dict[str, str], refusing: list[str]) -> None:
    facts = replace(FACTS, sidecar_privileges=privileges)
    levels = ("privileged", "baseline", "restricted", "", "unknown")
    refused = [each for each in levels if mesh_namespaces.refusal_of_sidecars(facts, {"pod-security.kubernetes.io/enforce": each})]
    assert refused == refusing
    assert mesh_namespaces.refusal_of_sidecars(facts, {"pod-security.kubernetes.io/warn": "restricted"}) == ""


def test_a_pod_asks_the_control_plane_that_the_mesh_names() -> None:
    """By labels of its own, where its namespace has none."""
    assert mesh_namespaces.injected_pod_labels(replace(FACTS, injection_labels={"istio-injection": "enabled"})) == {
        "sidecar.istio.io/inject": "true"
    }
    assert mesh_namespaces.injected_pod_labels(replace(FACTS, injection_labels={"istio.io/rev": "stable"})) == {
        "sidecar.istio.io/inject": "true",
        "istio.io/rev": "stable",
    }
