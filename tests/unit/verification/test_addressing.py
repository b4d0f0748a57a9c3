"""The listener by which a pod calls endpoints that it names: what Istio's injection and Envoy make of it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from components.local import over_ssh
from components.names import LISTENER_PORT
from components.verification import addressing
from components.verification.addressing import Destination
from components.verification.target import CALL_SCRIPT
from tests.support import envoys

IDENTITIES = (envoys.IDENTITY, envoys.ALIAS)
DESTINATIONS = [Destination(f"{name}.shop.svc.cluster.local", 80, name, IDENTITIES, 3) for name in ("http", "http2", "grpc", "tcp", "tls")]


def test_the_sidecar_reads_the_listener_from_a_file_of_the_pods_annotations() -> None:
    """A pod needs no object of its own in the cluster: nothing stays when it is gone."""
    values = addressing.pod_annotations(DESTINATIONS)
    proxy = json.loads(values["proxy.istio.io/config"])
    (volume,) = json.loads(values["sidecar.istio.io/userVolume"]).items()
    (mount,) = json.loads(values["sidecar.istio.io/userVolumeMount"]).items()
    assert volume[0] == mount[0]
    (item,) = volume[1]["downwardAPI"]["items"]
    assert proxy["proxyMetadata"]["ISTIO_BOOTSTRAP_OVERRIDE"] == f"{mount[1]['mountPath']}/{item['path']}"
    assert proxy["holdApplicationUntilProxyStarts"] is True
    assert f"\nADMIN=http://127.0.0.1:{proxy['proxyAdminPort']}\n" in over_ssh.text("", CALL_SCRIPT), "whatever the mesh states"
    name = item["fieldRef"]["fieldPath"].removeprefix("metadata.annotations['").removesuffix("']")
    assert json.loads(values[name]) == addressing.bootstrap(DESTINATIONS)


def test_the_listener_is_on_loopback_alone_and_every_cluster_expects_the_identities() -> None:
    resources = addressing.bootstrap(DESTINATIONS)["static_resources"]
    (listener,) = resources["listeners"]
    assert listener["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": LISTENER_PORT}
    for cluster, destination in zip(resources["clusters"], DESTINATIONS, strict=True):
        tls = cluster["transport_socket"]["typed_config"]
        assert tls["sni"] == f"outbound_.80_._.{destination.service}"
        validation = tls["common_tls_context"]["combined_validation_context"]["default_validation_context"]
        sans = [{"san_type": "URI", "matcher": {"exact": identity}} for identity in IDENTITIES]
        assert validation == {"match_typed_subject_alt_names": sans}
    versions = [cluster["transport_socket"]["typed_config"]["common_tls_context"]["alpn_protocols"][0] for cluster in resources["clusters"]]
    assert versions == ["istio-http/1.1", "istio-h2", "istio-h2", "istio", "istio"]


def test_http_is_routed_by_requests_and_bytes_by_connect() -> None:
    (listener,) = addressing.bootstrap(DESTINATIONS)["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    routes = manager["route_config"]["virtual_hosts"][0]["routes"]
    takes_requests = ["prefix" in route["match"] for route in routes]
    opens_connections = ["connect_matcher" in route["match"] and "upgrade_configs" in route["route"] for route in routes]
    assert takes_requests == [True, True, True, False, False]
    assert opens_connections == [False, False, False, True, True]


def test_a_port_of_http2_gets_http2() -> None:
    clusters = addressing.bootstrap(DESTINATIONS)["static_resources"]["clusters"]
    options = [next(iter(cluster["typed_extension_protocol_options"].values()))["explicit_http_config"] for cluster in clusters]
    assert ["http2_protocol_options" in each for each in options] == [False, True, True, False, False]


@pytest.mark.slow
def test_envoy_takes_the_listener_beside_the_bootstrap_of_an_agent(tmp_path: Path) -> None:
    """The agent starts Envoy with both: pkg/envoy/proxy.go of istio/istio."""
    member = {"endpoint": {"address": {"pipe": {"path": "./socket"}}}}
    agent = {
        "name": "sds-grpc",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "sds-grpc", "endpoints": [{"lb_endpoints": [member]}]},
    }
    (tmp_path / "agent.json").write_text(json.dumps({"node": {"id": "x", "cluster": "x"}, "static_resources": {"clusters": [agent]}}))
    added = json.dumps(addressing.bootstrap(DESTINATIONS))
    words = [str(envoys.envoy()), "--mode", "validate", "-c", str(tmp_path / "agent.json"), "--config-yaml", added, "--use-dynamic-base-id"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
