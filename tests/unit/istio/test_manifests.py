"""Manifests of Istio's and Kubernetes' objects."""

from __future__ import annotations

from components.istio import manifests
from tests.support.samples import FACTS, PRODUCT


def test_istiod_is_exposed_by_its_own_name_only() -> None:
    gateway, route = manifests.istiod_gateway(FACTS), manifests.istiod_route(FACTS)
    assert gateway["spec"]["servers"][0]["hosts"] == ["istiod.istio-system.svc"]
    assert gateway["spec"]["servers"][0]["tls"] == {"mode": "PASSTHROUGH"}
    assert route["spec"]["tls"][0]["match"] == [{"port": 15012, "sniHosts": ["istiod.istio-system.svc"]}]


def test_services_do_not_wait_for_endpoints_that_kubernetes_never_lists() -> None:
    manifest = manifests.services(PRODUCT)["product"]
    assert manifest["metadata"]["annotations"] == {"pulumi.com/skipAwait": "true"}
    assert manifest["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]
