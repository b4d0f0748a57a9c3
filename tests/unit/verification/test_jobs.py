"""What verifications call, and the Jobs whose pods call it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from components.config.workload import HttpProbe, OfferedPort, Probe, Service, TcpProbe, WorkloadSettings, WorkloadVerification
from components.names import CALLED_ANNOTATION, REVISION_LABEL
from components.verification import jobs
from components.verification.scripts.cluster_objects import WorkloadPods
from components.verification.target import Caller, Target, call_variables, plaintext_variables
from tests.support.samples import FACTS, PRODUCT

CALLER = Caller("Job verify-product", "pods", 30, 15088)


def product(ports: dict[str, int], app_protocols: dict[str, str] | None = None, **changes: Any) -> WorkloadSettings:
    service = Service(name="product", ports=ports, app_protocols=app_protocols or {})
    return PRODUCT.model_copy(update={"services": {"product": service}, **changes})


def target_of(workload: WorkloadSettings) -> Target:
    target = jobs.target(jobs.Called(workload, FACTS), "fail")
    assert target
    return target


def test_the_probes_port_is_called_through_its_service() -> None:
    assert PRODUCT.verified_port == OfferedPort("product", 80, 8080, "http")
    assert target_of(PRODUCT) == Target(
        service="product.shop.svc.cluster.local",
        port=80,
        protocol="http",
        path="/healthz",
        expect=("200-399",),
        timeout_s=3,
        mode="fail",
        identities=("spiffe://cluster.local/ns/shop/sa/product",),
    )


EXISTING = {"product": {"ports": [{"port": 80, "targetPort": "web"}]}}


@pytest.mark.parametrize(
    ("changes", "existing", "port", "of_machines"),
    [
        ({}, EXISTING, "web", 8080),
        ({}, {"other": EXISTING["product"]}, 8080, 8080),
        ({"services": {}, "probe": Probe(tcp=TcpProbe(port=5432))}, EXISTING, 5432, 5432),
        ({"probe": Probe(tcp=TcpProbe(port=5432))}, {}, 8080, 8080),
    ],
)
def test_a_service_of_others_leads_to_its_own_port_of_pods(
    changes: dict[str, Any], existing: dict[str, Any], port: int | str, of_machines: int
) -> None:
    called = jobs.Called(PRODUCT.model_copy(update=changes), FACTS)
    assert called.pods(existing) == WorkloadPods("shop", {"app": "product", "version": "v1"}, port)
    assert called.port == of_machines


@pytest.mark.parametrize("probe", [Probe(tcp=TcpProbe(port=8080)), Probe(tcp=TcpProbe(port=5432))])
def test_the_ports_protocol_decides_and_not_the_probe(probe: Probe) -> None:
    """An HTTP port with a TCP probe, or with a probe of another port, gets a request."""
    target = target_of(product({"http": 80}, probe=probe))
    assert (target.port, target.protocol, target.path, target.expect) == (80, "http", "/", ("200-399",))


@pytest.mark.parametrize(
    ("port", "app_protocol", "protocol"),
    [
        ("http", None, "http"),
        ("http", "kubernetes.io/h2c", "http2"),
        ("http", "kubernetes.io/ws", "http"),
        ("http", "http_proxy", "http"),
        ("http", "kubernetes.io/wss", "tls"),
        ("http", "grpc", "grpc"),
        ("http", "https", "tls"),
        ("http", "tcp", "tcp"),
        ("tcp-db", None, "tcp"),
        ("tcp-db", "mysql", "tcp"),
    ],
)
def test_protocols_are_those_that_istio_selects(port: str, app_protocol: str | None, protocol: str) -> None:
    target = target_of(product({port: 80}, {port: app_protocol} if app_protocol else {}, probe=Probe(tcp=TcpProbe(port=1))))
    assert target.protocol == protocol
    is_http = protocol in ("http", "http2")
    assert bool(target.path) == bool(target.expect) == is_http


@pytest.mark.parametrize(("protocol", "headers"), [("http", ("x-probe: yes",)), ("tcp", ())])
def test_headers_of_a_probe_are_in_no_call_for_bytes(protocol: str, headers: tuple[str, ...]) -> None:
    probe = Probe(http=HttpProbe(port=8080, headers={"x-probe": "yes"}))
    assert target_of(product({"http": 80}, {"http": protocol}, probe=probe)).headers == headers


def test_the_proxy_of_the_jobs_leads_nowhere_for_a_port_that_no_service_has() -> None:
    called = [jobs.Called(PRODUCT.model_copy(update={"verify": WorkloadVerification(port=port)}), FACTS) for port in (9, 8080)]
    listeners = [str(jobs.pair("x", some, "lab").inside).count("istio-vm-mesh|80||product") for some in (called[:1], called)]
    assert listeners[0] == 0 < listeners[1]


def test_pods_that_call_run_on_nodes_with_linux() -> None:
    """Those with Windows may have no taint."""
    pair = jobs.pair("x", [jobs.Called(PRODUCT, FACTS)], "lab")
    selectors = [job["spec"]["template"]["spec"]["nodeSelector"] for job in (pair.inside, pair.outside)]
    assert selectors == [{"kubernetes.io/os": "linux"}] * 2


def test_a_workload_states_what_is_called() -> None:
    verify = WorkloadVerification(port=5432, timeout=9)
    target = target_of(product({"http": 80, "tcp-db": 5432}, verify=verify))
    assert (target.port, target.protocol, target.timeout_s) == (5432, "tcp", 9)
    verify = WorkloadVerification(path="/ready", expect_status=("204", "400-404"))
    target = target_of(product({"http": 80}, verify=verify))
    assert (target.path, target.expect) == ("/ready", ("204", "400-404"))
    called = jobs.Called(product({"http": 80}, verify=WorkloadVerification(port=5432)), FACTS)
    assert jobs.target(called, "fail") is None, "no Service leads to the port"


def test_a_target_is_a_line_of_columns_and_none_is_empty() -> None:
    target = replace(target_of(PRODUCT), endpoints=("10.0.0.1:8080", "10.0.0.2:8080"), machines=("product-1=10.0.0.1:8080",))
    variables = call_variables(CALLER, target, {8080: "http"})
    first = str(variables["TARGETS"])
    second = str(call_variables(CALLER, target_of(product({"tcp-db": 5432}, probe=Probe(tcp=TcpProbe(port=5432)))))["TARGETS"])
    assert first.split("\t") == [
        *("product.shop.svc.cluster.local", "80", "http", "/healthz", "200-399", "3", "fail"),
        *("spiffe://cluster.local/ns/shop/sa/product", "10.0.0.1:8080,10.0.0.2:8080", "-", "-", "-", "product-1=10.0.0.1:8080"),
    ]
    assert second.split("\t")[2:5] == ["tcp", "-", "-"]
    assert (variables["LISTENER"], variables["INBOUND"], variables["NETWORK"]) == (15088, "8080\thttp", "pods")


def test_a_call_has_the_headers_of_the_probe_but_the_host() -> None:
    """The application answers as it answers the probe. Another host would lead to another Service."""
    headers = {"Host": "other.example.com", "X-Probe": "a 'quoted' $(word)", "Accept": "text/plain"}
    target = target_of(product({"http": 80}, probe=Probe(http=HttpProbe(port=8080, headers=headers))))
    assert call_variables(CALLER, target)["HEADERS"] == "X-Probe: a 'quoted' $(word)\nAccept: text/plain"


def test_an_application_that_ends_tls_itself_is_called_by_a_connection() -> None:
    """Its TLS goes through Envoy as it is, so a plain request would be no request."""
    target = target_of(product({"http": 80}, probe=Probe(http=HttpProbe(port=8080, path="/healthz", scheme="HTTPS"))))
    assert (target.protocol, target.path, target.expect) == ("tls", "", ())


def test_strangers_reach_gateways_by_the_name_of_the_port() -> None:
    variables = plaintext_variables(target_of(PRODUCT), ["10.0.0.1:8080", "10.0.0.1:8080"])
    assert variables == {"ENDPOINTS": "10.0.0.1:8080", "SNI": "outbound_.80_._.product.shop.svc.cluster.local", "SCHEME": "http"}


def test_pods_inside_are_injected_by_a_label_of_their_own() -> None:
    """An annotation has no effect where the namespace has no label; a revision is selected by its own."""
    for facts, revision in ((FACTS, None), (replace(FACTS, injection_labels={REVISION_LABEL: "blue"}), "blue")):
        pair = jobs.pair("verify-product", [jobs.Called(PRODUCT, facts)], "lab")
        inside, outside = (job["spec"]["template"]["metadata"]["labels"] for job in (pair.inside, pair.outside))
        assert inside["sidecar.istio.io/inject"] == "true"
        assert inside.get(REVISION_LABEL) == revision
        assert outside["sidecar.istio.io/inject"] == "false" and REVISION_LABEL not in outside


def test_the_meshs_secrets_of_images_are_for_pods_that_are_not_injected() -> None:
    """The injector adds them to the others."""
    called = jobs.Called(PRODUCT.model_copy(update={"image_pull_secrets": ("mine",)}), replace(FACTS, pull_secrets=("corp",)))
    pair = jobs.pair("verify-product", [called], "lab")
    inside, outside = (job["spec"]["template"]["spec"]["imagePullSecrets"] for job in (pair.inside, pair.outside))
    assert (inside, outside) == ([{"name": "mine"}], [{"name": "mine"}, {"name": "corp"}])


def test_secrets_of_the_account_pull_the_images_of_both_pods() -> None:
    """A pod that states none has those of its ServiceAccount."""
    pair = jobs.pair("verify-product", [jobs.Called(PRODUCT, FACTS)], "lab")
    for job in (pair.inside, pair.outside):
        pod = job["spec"]["template"]["spec"]
        assert pod["serviceAccountName"] == "product" and "imagePullSecrets" not in pod


def test_the_pod_inside_waits_for_a_classic_sidecar_and_has_the_workloads_identity() -> None:
    pair = jobs.pair("verify-product", [jobs.Called(PRODUCT, FACTS)], "lab")
    inside, outside = (job["spec"]["template"] for job in (pair.inside, pair.outside))
    assert "holdApplicationUntilProxyStarts" in inside["metadata"]["annotations"]["proxy.istio.io/config"]
    assert inside["spec"]["serviceAccountName"] == "product"
    assert outside["spec"]["automountServiceAccountToken"] is False, "it has no identity"
    assert "annotations" not in outside["metadata"]


def test_workloads_of_one_account_share_a_pair_with_all_their_secrets() -> None:
    orders = PRODUCT.model_copy(update={"name": "orders", "image_pull_secrets": ("theirs",)})
    pair = jobs.pair("verify-shared", [jobs.Called(PRODUCT, FACTS), jobs.Called(orders, FACTS)], "lab")
    for job in (pair.inside, pair.outside):
        assert job["metadata"]["annotations"] == {CALLED_ANNOTATION: "product,orders"}
        assert job["spec"]["template"]["spec"]["imagePullSecrets"] == [{"name": "theirs"}]
