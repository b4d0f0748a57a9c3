"""Kubernetes and Istio that do not fit: what the look at the cluster gets, and when every update warns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pulumi
import pytest

from tests.support import harness
from tests.support.tiers import first_quick

Updated = Callable[[str, str, str | None], tuple[dict[str, Any], list[str]]]


@pytest.fixture
def updated(monkeypatch: pytest.MonkeyPatch) -> Updated:
    """Updates a stack whose cluster has a version of Kubernetes, with a reason for the rule or None."""

    def run(stack: str, kubernetes: str, reason: str | None) -> tuple[dict[str, Any], list[str]]:
        warnings: list[str] = []
        monkeypatch.setattr(pulumi.log, "warn", lambda text, *_: warnings.append(text))
        monkeypatch.setitem(harness.ANSWERS, "cluster-check", harness.THEIR_CLUSTER | {"kubernetes": kubernetes})
        config = harness.configuration(stack)
        if reason is not None:
            config["rules"] = {"disabled": {"kubernetesVersion": reason}}
        return harness.run(config).graph["cluster-check"].inputs, warnings

    return run


@first_quick(("stack", "installs"), [("lab", "1.31.0"), ("fleet", "1.31.0"), ("existing", "")], 1)
def test_a_cluster_that_left_the_range_of_its_istio_is_warned_of(updated: Updated, stack: str, installs: str) -> None:
    """Whoever installed the mesh. What would install it is refused by the look at the cluster."""
    inputs, warnings = updated(stack, "1.38", None)
    assert warnings == [
        "the cluster has Kubernetes 1.38; Istio 1.31 supports Kubernetes 1.32 to 1.37: upgrade Istio (docs/how-to/upgrades.md)"
    ]
    assert inputs["istio"] == installs
    assert updated(stack, "1.37", None)[1] == updated(stack, "", None)[1] == []


@pytest.mark.slow
def test_a_reason_permits_any_kubernetes(updated: Updated) -> None:
    inputs, warnings = updated("fleet", "1.38", "Istio 1.32 comes next week")
    assert (inputs["istio"], warnings) == ("", [])
