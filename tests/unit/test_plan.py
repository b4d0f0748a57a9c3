"""What follows from the settings: machine files as istioctl writes them, manifests, chart values, scripts."""

from __future__ import annotations

import json
import subprocess

import pytest
import yaml

from components import names, shell
from components.config import load
from components.config.mesh import ChartValues, MeshSettings
from components.config.workload import HttpProbe, Pods, Probe, Service, ServiceAccount, TcpProbe, WorkloadSettings
from components.istio import charts, manifests
from components.machines import bootstrap, files
from components.platforms.docker.names import docker_cidr, dynamic_cidr, machine_addresses
from components.verification import evidence, jobs, targets
from tests.unit.config.test_reader import GOOD

MESH = MeshSettings(id="lab", version="1.31.0")
PRODUCT = WorkloadSettings(
    name="product",
    namespace="shop",
    labels={"app": "product", "version": "v1"},
    ports={"http": 8080, "tcp-db": 5432},
    probe=Probe(http=HttpProbe(port=8080, path="/healthz")),
    services={"product": Service(name="product", ports={"http": 80})},
    pods=Pods(image="echo"),
)


def test_the_product_leaves_istio_as_istio_is() -> None:
    """The switches that a stock Envoy needs come from the lab's stack file, never from the program."""
    everything = json.dumps([charts.base_values(MESH), charts.istiod_values(MESH, "pods"), charts.gateway_values(MESH, "pods", {}, True)])
    for word in ("ALPN", "METADATA", "telemetry", "accessLog", "resources"):
        assert word not in everything
    config = files.proxy_config(MESH, "product", PRODUCT, "pods")
    assert "PEER_METADATA_DISCOVERY" not in config["proxyMetadata"]


def test_cluster_env_is_sorted_and_quoted_as_istioctl_does() -> None:
    text = files.cluster_env("product", PRODUCT, files.proxy_config(MESH, "product", PRODUCT, "pods"))
    assert text.splitlines() == [
        "CANONICAL_REVISION='v1'",
        "CANONICAL_SERVICE='product'",
        "ISTIO_INBOUND_PORTS='5432,8080'",
        "ISTIO_LOCAL_EXCLUDE_PORTS='22,15090,15021,15020'",
        """ISTIO_METAJSON_LABELS='{"app":"product","service.istio.io/canonical-name":"product","service.istio.io/canonical-revision":"v1","version":"v1"}'""",
        "ISTIO_META_AUTO_REGISTER_GROUP='product'",
        "ISTIO_META_CLUSTER_ID='Kubernetes'",
        "ISTIO_META_DNS_CAPTURE='true'",
        "ISTIO_META_MESH_ID='lab'",
        "ISTIO_META_NETWORK='pods'",
        """ISTIO_META_POD_PORTS='[{"name":"http","containerPort":8080,"protocol":""},{"name":"tcp-db","containerPort":5432,"protocol":""}]'""",
        "ISTIO_META_WORKLOAD_NAME='product'",
        "ISTIO_NAMESPACE='shop'",
        "ISTIO_SERVICE='product.shop'",
        "ISTIO_SERVICE_CIDR='*'",
        "POD_NAMESPACE='shop'",
        "SERVICE_ACCOUNT='product'",
        "TRUST_DOMAIN='cluster.local'",
    ]


def test_the_machine_reports_its_probe_or_istiod_would_not_watch_its_health() -> None:
    config = yaml.safe_load(files.mesh_config(files.proxy_config(MESH, "product", PRODUCT, "pods")))["defaultConfig"]
    assert config["readinessProbe"] == manifests.workload_group("product", PRODUCT, "pods")["spec"]["probe"]
    assert config["readinessProbe"]["failureThreshold"] == 3
    assert config["discoveryAddress"] == "istiod.istio-system.svc:15012"


def test_the_stacks_mesh_configuration_reaches_the_machines() -> None:
    values = ChartValues(istiod={"meshConfig": {"defaultConfig": {"proxyMetadata": {"SECRET_TTL": "168h"}, "statusPort": 15099}}})
    custom = MeshSettings(id="lab", version="1.31.0", values=values)
    text = files.cluster_env("product", PRODUCT, files.proxy_config(custom, "product", PRODUCT, "pods"))
    assert "SECRET_TTL='168h'\n" in text
    assert "ISTIO_LOCAL_EXCLUDE_PORTS='22,15090,15021,15099'" in text


def test_every_port_of_a_machine_is_captured_whatever_the_group_names() -> None:
    assert "ISTIO_INBOUND_PORTS='*'\n" in files.overrides_env("product-1", "172.31.6.130", "172.31.6.2")


def test_the_machine_dials_the_gateway_and_asks_the_certificate_authority_there_too() -> None:
    text = files.overrides_env("product-1", "172.31.6.130", "gateway.example.internal")
    assert """PROXY_CONFIG='{"discoveryAddress": "gateway.example.internal:15012"}'""" in text
    assert "ISTIOD_SAN='istiod.istio-system.svc'" in text
    assert "CA_ADDR" not in text  # with it the agent ignores ISTIOD_SAN for certificate requests


def test_an_entry_is_called_as_istiod_calls_it() -> None:
    assert names.entry_name("product", "172.31.6.130", "pods") == "product-172.31.6.130-pods"
    assert names.entry_name("product", "fd00::1", "pods") == "product-fd00--1-pods"


@pytest.mark.parametrize("change", [{"labels": {"app": "other"}}, {"ports": {"http": 8081}}, {"service_account": ServiceAccount(name="x")}])
def test_what_istiod_reads_once_needs_a_new_registration(change: dict) -> None:
    before = bootstrap.registration("product", PRODUCT, "pods")
    after = bootstrap.registration("product", PRODUCT.model_copy(update=change), "pods")
    assert before != after
    assert before != bootstrap.registration("product", PRODUCT, "far")


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


def test_a_gateway_listens_for_calls_only_where_other_networks_have_machines() -> None:
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


@pytest.mark.parametrize("text", ["it's", "a\nb", "$(touch /tmp/x) `id`", "ünï—code", "", '"\\', "-n"])
def test_any_text_survives_the_way_into_a_script(text: str) -> None:
    program = shell.assignments({"VALUE": text}) + 'printf %s "$VALUE"'
    assert subprocess.run(["bash", "-s"], input=program.encode(), capture_output=True, check=True).stdout.decode() == text


def test_a_join_cut_in_transit_does_nothing() -> None:
    text = bootstrap.join_script("m", [], token="t", gateway="g", package=MESH.package, version="1", registration="r")
    cut = text[: text.rindex("main </dev/null")]
    for part in (cut, cut[: len(cut) * 3 // 4]):
        done = subprocess.run(["bash", "-s"], input=part, text=True, capture_output=True)
        assert done.stdout == ""


def test_the_digest_leaves_the_token_out_and_everything_else_in() -> None:
    def digest_of(**change: str) -> str:
        arguments = {"token": "t", "gateway": "g", "registration": "r", **change}
        text = bootstrap.join_script("m", [files.MachineFile("/a", change.get("text", "x"), "0644")], package=MESH.package, version="1", **{k: v for k, v in arguments.items() if k != "text"})  # fmt: skip
        return next(line for line in text.splitlines() if line.startswith("DIGEST="))

    assert digest_of() == digest_of(token="another")
    assert digest_of() != digest_of(text="y")
    assert digest_of() != digest_of(registration="s")


def test_what_is_verified_is_the_probes_port_over_the_service_that_offers_it() -> None:
    assert targets.probe_target(PRODUCT) == ("product", 80, 8080)
    text = jobs.call_script("product", PRODUCT, caller="a pod", mode="fail", wanted=["172.31.6.130:8080"], ranges=["10.244.0.0/16"])
    for line in (
        "HOST=product.shop.svc.cluster.local",
        "URL_PATH=/healthz",
        "WANTED=172.31.6.130:8080",
        "IDENTITY=spiffe://cluster.local/ns/shop/sa/product",
    ):
        assert line in text.splitlines()
    services = {"db": Service(name="db", ports={"tcp-db": 5432})}
    tcp = PRODUCT.model_copy(update={"probe": Probe(tcp=TcpProbe(port=5432)), "services": services})
    assert "URL_PATH=''" in jobs.call_script("product", tcp, caller="a pod", mode="fail").splitlines()


def test_evidence_is_data() -> None:
    found = evidence.parse_evidence(
        "entry\tproduct-1\tproduct-172.31.6.130-pods\t172.31.6.130:8080\tHealthy\n"
        "pod\tproduct-abc\t-\t10.244.0.9\tReady\nnoise\n"
        "call\ta pod\tspiffe://cluster.local/ns/shop/sa/product\tproduct.shop.svc.cluster.local:80\t172.31.6.130:8080\tspiffe://x\t3\n"
        "call\ta pod\ta\tb:80\t172.31.6.2:15443\tspiffe://x\t1\n"
        "answered\tmachine product-1\t3\ncarried\tfar-gateway-1\tproduct.shop:80\t172.31.7.130:8080\t2\n"
        "outside\t172.31.6.130:8080\trefused\n",
        {"172.31.6.2": "istio-eastwestgateway"},
    )
    assert [endpoint["kind"] for endpoint in found["endpoints"]] == ["machine", "pod"]
    assert [call["path"] for call in found["calls"]] == ["direct", "through istio-eastwestgateway"]
    assert found["answered"] == [{"machine": "product-1", "requests": "3"}]
    assert found["carried"][0]["connections"] == "2"
    assert found["outside"] == [{"endpoint": "172.31.6.130:8080", "result": "refused"}]


def test_docker_addresses_of_machines_and_of_docker_do_not_meet() -> None:
    whole = docker_cidr(load(GOOD), "pods")
    assert str(whole) == "172.31.6.0/24"
    assert str(dynamic_cidr(whole)) == "172.31.6.0/25"
    assert machine_addresses(whole) == ("172.31.6.129", "172.31.6.254")
