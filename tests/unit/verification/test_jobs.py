"""The scripts that verify a workload."""

from __future__ import annotations

from components.config.workload import OfferedPort, Probe, Service, TcpProbe
from components.verification import jobs
from tests.support.samples import FACTS, PRODUCT


def test_verification_calls_the_probes_port_through_its_service() -> None:
    assert PRODUCT.verified_port == OfferedPort("product", 80, 8080, "http")
    text = jobs.call_script(
        jobs.Called(PRODUCT, FACTS), caller="a pod", mode="fail", wanted=["172.31.6.130:8080"], ranges=["10.244.0.0/16"]
    )
    for line in (
        "HOST=product.shop.svc.cluster.local",
        "URL_PATH=/healthz",
        "EXPECTED=172.31.6.130:8080",
        "IDENTITY=spiffe://cluster.local/ns/shop/sa/product",
    ):
        assert line in text.splitlines()
    services = {"db": Service(name="db", ports={"tcp-db": 5432})}
    tcp = PRODUCT.model_copy(update={"probe": Probe(tcp=TcpProbe(port=5432)), "services": services})
    assert "URL_PATH=''" in jobs.call_script(jobs.Called(tcp, FACTS), caller="a pod", mode="fail").splitlines()
