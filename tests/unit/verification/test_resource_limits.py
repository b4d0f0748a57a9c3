"""The pods that call have resources that their namespace's LimitRanges admit."""

from __future__ import annotations

from typing import Any

import pytest

from components.verification.resource_limits import fitted

RESOURCES = {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "500m", "memory": "128Mi"}}


def limit_range(kind: str = "Container", **rules: dict[str, str]) -> dict[str, Any]:
    return {"metadata": {"name": "limits"}, "spec": {"limits": [{"type": kind, **rules}]}}


@pytest.mark.parametrize(
    ("ranges", "requests", "limits"),
    [
        ([], ("10m", "32Mi"), ("500m", "128Mi")),
        ([limit_range()], ("10m", "32Mi"), ("500m", "128Mi")),
        ([limit_range(maxLimitRequestRatio={"cpu": "10", "memory": "1"})], ("50m", "134217728"), ("500m", "128Mi")),
        ([limit_range(maxLimitRequestRatio={"cpu": "3"})], ("167m", "32Mi"), ("500m", "128Mi")),
        ([limit_range(min={"cpu": "0.1", "memory": "64M"}, max={"cpu": "2", "memory": "1Gi"})], ("100m", "64000000"), ("500m", "128Mi")),
        ([limit_range(max={"cpu": "200m", "memory": "1e8"})], ("10m", "32Mi"), ("200m", "100000000")),
        ([limit_range(max={"cpu": "5m"})], ("5m", "32Mi"), ("5m", "128Mi")),
        ([limit_range(min={"memory": "256Mi"})], ("10m", "268435456"), ("500m", "268435456")),
        ([limit_range(max={"cpu": "200m"}), limit_range(maxLimitRequestRatio={"cpu": "2"})], ("100m", "32Mi"), ("200m", "128Mi")),
        (
            [limit_range("Pod", max={"cpu": "1m"}), limit_range("PersistentVolumeClaim", max={"storage": "1Gi"})],
            ("10m", "32Mi"),
            ("500m", "128Mi"),
        ),
    ],
)
def test_requests_and_limits_are_those_that_a_namespace_admits(
    ranges: list[dict[str, Any]], requests: tuple[str, str], limits: tuple[str, str]
) -> None:
    fit = fitted(RESOURCES, ranges)
    assert (tuple(fit["requests"].values()), tuple(fit["limits"].values())) == (requests, limits)
    assert [*fit["requests"]] == [*fit["limits"]] == ["cpu", "memory"]
