"""Where Istio's charts come from, and the values that they get."""

from __future__ import annotations

import json

from components.config.mesh import MeshSettings
from components.istio import charts
from components.machines import bootstrap
from tests.support.samples import FACTS, MESH, PRODUCT


def test_the_product_leaves_istio_as_istio_is() -> None:
    """The switches that a stock Envoy needs come from the lab's stack file, never from the program."""
    everything = json.dumps(
        [
            charts.base_values(MESH),
            charts.istiod_values(MESH, "pods"),
            charts.gateway_values(MESH, FACTS, charts.Entrance(service={}, cross_network=True)),
        ]
    )
    for word in ("ALPN", "METADATA", "telemetry", "accessLog", "resources"):
        assert word not in everything
    config = bootstrap.proxy_config(FACTS, PRODUCT, "pods")
    assert "PEER_METADATA_DISCOVERY" not in config["proxyMetadata"]


def test_the_east_west_gateway_opens_its_mesh_port_for_other_networks_alone() -> None:
    one = charts.gateway_values(MESH, FACTS, charts.Entrance(service={"type": "ClusterIP"}))
    assert "networkGateway" not in one
    assert [port["port"] for port in one["service"]["ports"]] == [15021, 15012]
    assert one["service"]["type"] == "ClusterIP"
    assert charts.gateway_values(MESH, FACTS, charts.Entrance(service={}, cross_network=True))["networkGateway"] == "pods"


def ports_of(entrance: charts.Entrance) -> dict[str, tuple[int, int, int | None]]:
    """Return a Service's ports: port, targetPort and nodePort by name."""
    ports = charts.gateway_values(MESH, FACTS, entrance)["service"]["ports"]
    return {port["name"]: (port["port"], port["targetPort"], port.get("nodePort")) for port in ports}


def test_another_port_leads_to_the_port_that_the_gateway_has_for_istiod() -> None:
    balancer = charts.Entrance(service={"type": "LoadBalancer"}, port=443)
    assert ports_of(balancer)["tls-istiod"] == (443, 15012, None)
    assert ports_of(charts.Entrance(service={"type": "NodePort"}, port=31012))["tls-istiod"] == (15012, 15012, 31012)


def test_at_another_port_the_gateway_still_carries_calls_of_other_networks() -> None:
    """The chart's value networkGateway would fix the ports, so its parts are said one by one."""
    entrance = charts.Entrance(service={}, port=443, cross_network=True)
    values = charts.gateway_values(MESH, FACTS, entrance)
    assert "networkGateway" not in values
    assert ports_of(entrance)["tls"] == (15443, 15443, None)
    assert values["env"] == {"ISTIO_META_REQUESTED_NETWORK_VIEW": "pods"}
    assert values["labels"] == {"topology.istio.io/network": "pods"}


def test_behind_nat_istiod_does_not_give_out_the_address_of_the_service() -> None:
    values = charts.gateway_values(MESH, FACTS, charts.Entrance(service={}, behind_nat=True, cross_network=True))
    assert "networkGateway" not in values and "labels" not in values
    assert values["env"] == {"ISTIO_META_REQUESTED_NETWORK_VIEW": "pods"}


def test_charts_come_from_a_repository_a_registry_or_a_directory() -> None:
    assert charts.chart(MESH, "base") == ("base", "https://blob.istio.io/istio-release/charts", "1.31.0")
    assert charts.chart(MeshSettings(id="a", version="1.31.0", charts="oci://example/charts"), "base") == (
        "oci://example/charts/base",
        None,
        "1.31.0",
    )
    assert charts.chart(MeshSettings(id="a", version="1.31.0", charts=".lab/charts"), "base") == (".lab/charts/base", None, None)
