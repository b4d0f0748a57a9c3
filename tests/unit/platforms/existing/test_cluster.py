"""The Service of the gateway in a cluster that exists."""

from __future__ import annotations

from typing import Any

import pytest

from components.config.existing import ExistingGateway
from components.platforms.existing.cluster import gateway_service

MACHINES = ["10.11.0.0/24"]
INTERNAL = {"networking.gke.io/load-balancer-type": "Internal"}
BY_ANNOTATION = {"service.beta.kubernetes.io/load-balancer-source-ranges": "192.0.2.0/24"}


@pytest.mark.parametrize(
    ("service", "admitted"),
    [
        ({}, MACHINES),
        ({"annotations": INTERNAL}, MACHINES),
        ({"annotations": None}, MACHINES),
        ({"type": "LoadBalancer", "loadBalancerIP": "10.10.0.9"}, MACHINES),
        ({"loadBalancerSourceRanges": ["192.0.2.0/24"]}, ["192.0.2.0/24"]),
        ({"loadBalancerSourceRanges": []}, []),
        ({"annotations": BY_ANNOTATION}, None),
        ({"type": "NodePort"}, None),  # the API server takes CIDRs of load balancers alone
        ({"type": "ClusterIP", "externalIPs": ["10.10.0.250"]}, None),
    ],
)
def test_a_load_balancer_admits_the_machines_unless_its_values_say_whom(service: dict[str, Any], admitted: list[str] | None) -> None:
    values = gateway_service(ExistingGateway(address="10.10.0.250", service=service), MACHINES)
    assert values.get("loadBalancerSourceRanges") == admitted
    assert service.items() <= values.items()


def test_an_address_is_asked_for_unless_the_values_may_ask_for_one() -> None:
    gateway = ExistingGateway(address="10.10.0.250")
    assert gateway_service(gateway, MACHINES)["loadBalancerIP"] == "10.10.0.250"
    stated = gateway.model_copy(update={"service": {"annotations": {"metallb.io/loadBalancerIPs": "10.10.0.250"}}})
    assert "loadBalancerIP" not in gateway_service(stated, MACHINES)
    for other in ({"address": "gateway.example.com"}, {"behind_nat": True}):
        assert "loadBalancerIP" not in gateway_service(gateway.model_copy(update=other), MACHINES)
