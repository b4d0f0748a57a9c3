"""Services and ServiceAccounts of others: those that cannot lead to machines are refused by name, with the fix."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from components import existing_objects
from components.config.workload import OfferedPort
from components.existing_objects import SERVICE, SERVICE_ACCOUNT, ExistingObject
from components.istio.workload import with_existing_ports
from components.local import scripting
from components.local.cluster_access import Kubectl
from tests.support.fake_programs import Programs
from tests.support.samples import PRODUCT

LABELS = {"app": "product", "version": "v1"}
USED = ExistingObject(
    workload="product", kind=SERVICE, namespace="shop", name="web", labels=LABELS, pod_labels=LABELS, ports={"http": 8080, "tcp-db": 5432}
)
ACCOUNT = replace(USED, kind=SERVICE_ACCOUNT, name="product-app")


def service(**spec: Any) -> dict[str, Any]:
    ports = [{"name": "web", "port": 80, "targetPort": "http", "protocol": "TCP"}]
    metadata = {"name": "web", "namespace": "shop"}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"selector": {"app": "product"}, "ports": ports, **spec}}


def account(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": "shop"}}


def look(programs: Programs, items: list[dict[str, Any]], *used: ExistingObject) -> None:
    programs.add("kubectl", ("get ", 0, json.dumps({"items": items}), ""))
    existing_objects.refuse_unfit(Kubectl(), used)


def port(number: int, target: Any, name: str = "", protocol: str = "TCP") -> dict[str, Any]:
    return {"name": name, "port": number, "targetPort": target, "protocol": protocol}


@pytest.mark.parametrize(
    "ports",
    [
        [port(80, 8080)],
        [port(80, "http")],
        [port(80, 8080), port(5432, "tcp-db"), port(53, 53, "dns", "UDP")],
        [port(80, 9999, "http")],  # istiod prefers the WorkloadEntry's port of the Service port's name
        [{"port": 8080}],
    ],
)
def test_a_service_that_leads_to_machines_is_used(programs: Programs, ports: list[dict[str, Any]]) -> None:
    look(programs, [service(ports=ports), account("product-app")], USED, ACCOUNT)
    (call,) = programs.calls("kubectl")
    assert "get serviceaccounts,services --namespace shop" in call.line


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"selector": {"app": "shop"}}, "selects app: shop, so machines would never be its endpoints: give workloads.product.labels these labels"),
        ({"selector": {"app": "product", "tier": "web"}}, "selects tier: web, so machines would never"),
        ({"selector": None}, "has no selector, so machines cannot be its endpoints"),
        ({"clusterIP": "None"}, "is headless, so the cluster's DNS would never give clients a machine: name a Service with a cluster IP"),
        ({"type": "ExternalName", "selector": None}, "is of the type ExternalName, which has no endpoints"),
        ({"internalTrafficPolicy": "Local"}, "has internalTrafficPolicy: Local, so each proxy calls endpoints of its own node alone"),
        ({"ports": [port(80, 8081)]}, "leads its port 80 to 8081, which is none of the workload's ports (http: 8080, tcp-db: 5432): add the port"),
        ({"ports": [port(80, "web")]}, "leads its port 80 to web, which is none of the workload's ports (http: 8080, tcp-db: 5432): add the port that machines listen on under the name web to"),
        ({"ports": [port(80, 8080), port(9090, 9090)]}, "leads its port 9090 to 9090"),
        ({"ports": [port(53, 53, "dns", "UDP")]}, "has no TCP port"),
    ],
)  # fmt: skip
def test_a_service_that_cannot_lead_to_machines_is_named_with_the_fix(programs: Programs, spec: dict[str, Any], problem: str) -> None:
    with pytest.raises(scripting.Failed) as raised:
        look(programs, [service(**spec)], USED)
    assert "workloads.product.services.web: the Service shop/web " + problem in str(raised.value)
    assert str(raised.value).count("\n") == 1, "one cause, one line"


def test_a_service_that_this_programs_pods_would_leave_is_refused(programs: Programs) -> None:
    with pytest.raises(scripting.Failed, match=r"so this program's pods would never be its endpoints: give workloads.product.pods.labels"):
        look(programs, [service(selector={"version": "v1"})], replace(USED, pod_labels={**LABELS, "version": "v2"}))


def test_all_that_is_missing_is_named_at_once(programs: Programs) -> None:
    with pytest.raises(scripting.Failed) as raised:
        look(programs, [account("default"), account("other")], USED, ACCOUNT)
    for text in (
        "workloads.product.services.web: the namespace shop has no Service web: correct the name",
        "workloads.product.serviceAccount: the namespace shop has no ServiceAccount product-app (it has default, other): correct the name",
    ):
        assert text in str(raised.value)


def test_a_cluster_that_refuses_to_list_is_no_empty_cluster(programs: Programs) -> None:
    programs.add("kubectl", ("get ", 1, "", "Error from server (Forbidden): services is forbidden\n"))
    with pytest.raises(scripting.Failed, match="Forbidden"):
        existing_objects.refuse_unfit(Kubectl(), [USED])


def test_an_existing_service_is_called_by_its_own_port() -> None:
    services = {"web": PRODUCT.services["product"].model_copy(update={"name": "web", "existing": True, "ports": {}})}
    workload = PRODUCT.model_copy(update={"services": services})
    specs = {"web": {"selector": {"app": "product"}, "ports": [port(5000, "tcp-db"), port(8088, 8080), port(8089, 8080)]}}
    effective = with_existing_ports(workload, specs)
    assert dict(effective.services["web"].ports) == {"tcp-db": 5000, "http": 8088}
    assert effective.verified_port == OfferedPort("web", 8088, 8080, "tcp"), "its name is none of a protocol"


@pytest.mark.parametrize(
    ("ports", "target"),
    [
        ([port(53, 53, protocol="UDP"), port(53, 9090, "http")], 9090),
        ([port(80, "web"), port(53, "dns")], "dns"),
        ([{"name": "http", "port": 53}], 53),
    ],
)
def test_a_service_leads_to_a_port_of_pods_by_number_or_name(ports: list[dict[str, Any]], target: int | str) -> None:
    """Machines have their own port of the name `http`."""
    assert existing_objects.pod_port({"ports": ports}, 53) == target


@pytest.mark.parametrize(
    ("stated", "protocol"),
    [({"name": "http-web"}, "http"), ({"name": "web", "appProtocol": "grpc"}, "grpc"), ({"name": "http", "appProtocol": "tcp"}, "tcp")],
)
def test_an_existing_service_is_called_by_its_own_protocol(stated: dict[str, str], protocol: str) -> None:
    """The workload's port has a name of its own."""
    services = {"web": PRODUCT.services["product"].model_copy(update={"name": "web", "existing": True, "ports": {}})}
    workload = PRODUCT.model_copy(update={"services": services})
    effective = with_existing_ports(workload, {"web": {"ports": [{**port(8088, 8080), **stated}]}})
    assert effective.verified_port and effective.verified_port.protocol == protocol
