"""Manifests of Istio's and Kubernetes' objects."""

from __future__ import annotations

from dataclasses import replace

from components.config.workload import HttpProbe, OfferedPort, Probe
from components.istio import manifests, network_gateways
from tests.support.samples import FACTS, PRODUCT


def test_istiod_is_exposed_by_its_own_name_only() -> None:
    gateway, route = manifests.istiod_gateway(FACTS), manifests.istiod_route(FACTS)
    assert gateway["spec"]["servers"][0]["hosts"] == ["istiod.istio-system.svc"]
    assert gateway["spec"]["servers"][0]["tls"] == {"mode": "PASSTHROUGH"}
    assert route["spec"]["tls"][0]["match"] == [{"port": 15012, "sniHosts": ["istiod.istio-system.svc"]}]


def test_a_probe_asks_by_https_and_with_headers_as_istio_and_kubernetes_have_them() -> None:
    """The agent compares `Host` by its case: istio/istio, pkg/istio-agent/health/health_probers.go."""
    http = HttpProbe(port=8443, path="/ready", scheme="HTTPS", headers={"x-probe": "yes", "host": "a.example.com"})
    asked = manifests.probe_method(Probe(http=http))["httpGet"]
    assert asked == {
        "path": "/ready",
        "port": 8443,
        "scheme": "HTTPS",
        "httpHeaders": [{"name": "Host", "value": "a.example.com"}, {"name": "X-Probe", "value": "yes"}],
    }
    workload = PRODUCT.model_copy(update={"ports": {"https": 8443}, "probe": Probe(http=http)})
    deployment = manifests.deployment(workload, FACTS)
    assert deployment is not None
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["readinessProbe"]["httpGet"] == asked
    assert manifests.workload_group(workload, "pods")["spec"]["probe"]["httpGet"] == asked
    assert manifests.probe_method(PRODUCT.probe) == {"httpGet": {"path": "/healthz", "port": 8080}}


def test_pods_request_their_sidecar_where_their_namespace_states_nothing() -> None:
    """A namespace of others may have no label of injection."""
    labels = []
    for injection in ({"istio-injection": "enabled"}, {"istio.io/rev": "stable"}):
        deployment = manifests.deployment(PRODUCT, replace(FACTS, injection_labels=injection))
        assert deployment is not None
        labels.append(deployment["spec"]["template"]["metadata"]["labels"])
    plain, revised = labels
    assert plain["sidecar.istio.io/inject"] == revised["sidecar.istio.io/inject"] == "true"
    assert "istio.io/rev" not in plain and revised["istio.io/rev"] == "stable"


def test_services_do_not_wait_for_endpoints_that_kubernetes_never_lists() -> None:
    manifest = manifests.services(PRODUCT)["product"]
    assert manifest["metadata"]["annotations"] == {"pulumi.com/skipAwait": "true"}
    assert manifest["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]


def test_a_service_has_the_annotations_and_protocols_of_its_settings() -> None:
    settings = {"annotations": {"networking.istio.io/exportTo": "."}, "app_protocols": {"http": "kubernetes.io/h2c"}}
    service = PRODUCT.services["product"].model_copy(update=settings)
    manifest = manifests.services(PRODUCT.model_copy(update={"services": {"product": service}}))["product"]
    assert manifest["metadata"]["annotations"] == {"networking.istio.io/exportTo": ".", "pulumi.com/skipAwait": "true"}
    assert manifest["spec"]["ports"][0]["appProtocol"] == "kubernetes.io/h2c"
    assert "clusterIP" not in manifest["spec"]


def test_machines_are_called_by_a_service_that_is_not_headless() -> None:
    peers = PRODUCT.services["product"].model_copy(update={"name": "peers", "headless": True})
    workload = PRODUCT.model_copy(update={"services": {"peers": peers, **PRODUCT.services}})
    assert manifests.services(workload)["peers"]["spec"]["clusterIP"] == "None"
    assert workload.verified_port == OfferedPort("product", 80, 8080, "http")
    alone = PRODUCT.model_copy(update={"services": {"peers": peers}})
    assert alone.verified_port is None


def test_connections_through_gateways_follow_the_protocol_of_a_port() -> None:
    """Envoy replaces connections of protocols whose requests it sees; `appProtocol` comes before the name."""
    ports = {"http": 80, "tcp-db": 5432}
    service = PRODUCT.services["product"].model_copy(update={"ports": ports, "app_protocols": {"http": "tcp", "tcp-db": "grpc"}})
    rule = network_gateways.failover_rule("product", PRODUCT.model_copy(update={"services": {"product": service}}), "cluster.local")
    assert [each["port"]["number"] for each in rule["spec"]["trafficPolicy"]["portLevelSettings"]] == [5432]
