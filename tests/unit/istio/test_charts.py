"""Where Istio's charts come from, and the values that they get."""

from __future__ import annotations

import json

from components.config.mesh import MeshSettings
from components.istio import charts
from components.machines import bootstrap
from tests.support.samples import FACTS, MESH, PRODUCT


def test_the_product_leaves_istio_as_istio_is() -> None:
    """The switches that a stock Envoy needs come from the lab's stack file, never from the program."""
    everything = json.dumps([charts.base_values(MESH), charts.istiod_values(MESH, "pods"), charts.gateway_values(MESH, FACTS, {}, True)])
    for word in ("ALPN", "METADATA", "telemetry", "accessLog", "resources"):
        assert word not in everything
    config = bootstrap.proxy_config(FACTS, PRODUCT, "pods")
    assert "PEER_METADATA_DISCOVERY" not in config["proxyMetadata"]


def test_the_east_west_gateway_opens_its_mesh_port_for_other_networks_alone() -> None:
    one = charts.gateway_values(MESH, FACTS, {"type": "ClusterIP"}, cross_network=False)
    assert "networkGateway" not in one
    assert [port["port"] for port in one["service"]["ports"]] == [15021, 15012]
    assert one["service"]["type"] == "ClusterIP"
    assert charts.gateway_values(MESH, FACTS, {}, cross_network=True)["networkGateway"] == "pods"


def test_charts_come_from_a_repository_a_registry_or_a_directory() -> None:
    assert charts.chart(MESH, "base") == ("base", "https://blob.istio.io/istio-release/charts", "1.31.0")
    assert charts.chart(MeshSettings(id="a", version="1.31.0", charts="oci://example/charts"), "base") == (
        "oci://example/charts/base",
        None,
        "1.31.0",
    )
    assert charts.chart(MeshSettings(id="a", version="1.31.0", charts=".lab/charts"), "base") == (".lab/charts/base", None, None)
