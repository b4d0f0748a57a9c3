"""What follows from the settings: machine files as istioctl writes them, manifests, chart values, scripts."""

from __future__ import annotations

import json

from components import names
from components.config import load
from components.config.mesh import MeshSettings
from components.config.workload import Probe, Service, TcpProbe
from components.istio import charts, manifests
from components.machines import files
from components.platforms.docker.configuration import docker_cidr, dynamic_cidr, machine_addresses
from components.verification import jobs, targets
from tests.support.samples import MESH, PRODUCT
from tests.unit.config.test_reader import GOOD


def test_the_product_leaves_istio_as_istio_is() -> None:
    """The switches that a stock Envoy needs come from the lab's stack file, never from the program."""
    everything = json.dumps([charts.base_values(MESH), charts.istiod_values(MESH, "pods"), charts.gateway_values(MESH, "pods", {}, True)])
    for word in ("ALPN", "METADATA", "telemetry", "accessLog", "resources"):
        assert word not in everything
    config = files.proxy_config(MESH, "product", PRODUCT, "pods")
    assert "PEER_METADATA_DISCOVERY" not in config["proxyMetadata"]


def test_an_entry_is_called_as_istiod_calls_it() -> None:
    assert names.entry_name("product", "172.31.6.130", "pods") == "product-172.31.6.130-pods"
    assert names.entry_name("product", "fd00::1", "pods") == "product-fd00--1-pods"


def test_istiod_is_exposed_by_its_own_name_only() -> None:
    gateway, route = manifests.istiod_exposure()
    assert gateway["spec"]["servers"][0]["hosts"] == ["istiod.istio-system.svc"]
    assert gateway["spec"]["servers"][0]["tls"] == {"mode": "PASSTHROUGH"}
    assert route["spec"]["tls"][0]["match"] == [{"port": 15012, "sniHosts": ["istiod.istio-system.svc"]}]


def test_a_service_selects_what_stays_when_other_labels_come_and_go() -> None:
    def selected(labels: dict[str, str], selector: dict[str, str] | None = None) -> dict[str, str]:
        return Service(name="product", ports={}, selector=selector).selected(labels)

    assert selected({"app": "product", "version": "v1"}) == {"app": "product"}
    assert selected({"app.kubernetes.io/name": "product", "tier": "x"}) == {"app.kubernetes.io/name": "product"}
    assert selected({"tier": "x"}) == {"tier": "x"}
    assert selected({"app": "product", "version": "v1"}, selector={"version": "v1"}) == {"version": "v1"}


def test_the_east_west_gateway_opens_its_mesh_port_for_other_networks_alone() -> None:
    one = charts.gateway_values(MESH, "pods", {"type": "ClusterIP"}, cross_network=False)
    assert "networkGateway" not in one
    assert [port["port"] for port in one["service"]["ports"]] == [15021, 15012]
    assert one["service"]["type"] == "ClusterIP"
    assert charts.gateway_values(MESH, "pods", {}, cross_network=True)["networkGateway"] == "pods"


def test_charts_come_from_a_repository_a_registry_or_a_directory() -> None:
    assert charts.chart(MESH, "base") == ("base", "https://blob.istio.io/istio-release/charts", "1.31.0")
    assert charts.chart(MeshSettings(id="a", version="1.31.0", charts="oci://example/charts"), "base") == (
        "oci://example/charts/base",
        None,
        "1.31.0",
    )
    assert charts.chart(MeshSettings(id="a", version="1.31.0", charts=".lab/charts"), "base") == (".lab/charts/base", None, None)


def test_services_do_not_wait_for_endpoints_that_kubernetes_never_lists() -> None:
    manifest = manifests.services(PRODUCT)["product"]
    assert manifest["metadata"]["annotations"] == {"pulumi.com/skipAwait": "true"}
    assert manifest["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]


def test_verification_calls_the_probes_port_through_its_service() -> None:
    assert targets.probe_target(PRODUCT) == ("product", 80, 8080)
    text = jobs.call_script("product", PRODUCT, caller="a pod", mode="fail", wanted=["172.31.6.130:8080"], ranges=["10.244.0.0/16"])
    for line in (
        "HOST=product.shop.svc.cluster.local",
        "URL_PATH=/healthz",
        "EXPECTED=172.31.6.130:8080",
        "IDENTITY=spiffe://cluster.local/ns/shop/sa/product",
    ):
        assert line in text.splitlines()
    services = {"db": Service(name="db", ports={"tcp-db": 5432})}
    tcp = PRODUCT.model_copy(update={"probe": Probe(tcp=TcpProbe(port=5432)), "services": services})
    assert "URL_PATH=''" in jobs.call_script("product", tcp, caller="a pod", mode="fail").splitlines()


def test_docker_addresses_of_machines_and_of_docker_do_not_meet() -> None:
    cidr = docker_cidr(load(GOOD), "pods")
    assert str(cidr) == "172.31.6.0/24"
    assert str(dynamic_cidr(cidr)) == "172.31.6.0/25"
    assert machine_addresses(cidr) == ("172.31.6.129", "172.31.6.254")
