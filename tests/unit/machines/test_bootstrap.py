"""What a machine is joined with, and when it must be restarted or registered again."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from components.config.mesh import Package
from components.config.workload import ServiceAccount
from components.machines import bootstrap
from components.machines.bootstrap import JoinInputs
from tests.support.samples import MESH, PRODUCT
from tests.support.scripts import machine_files

INPUTS = JoinInputs(
    machine="product-1",
    network="pods",
    address="172.31.6.130",
    gateway="172.31.6.2",
    root_certificate="-----BEGIN CERTIFICATE-----\n",
    workload=PRODUCT,
    mesh=MESH,
    token="a.b.c",
)


@pytest.mark.parametrize("change", [{"labels": {"app": "other"}}, {"ports": {"http": 8081}}, {"service_account": ServiceAccount(name="x")}])
def test_what_istiod_reads_once_needs_a_new_registration(change: dict[str, Any]) -> None:
    before = bootstrap.registration(PRODUCT, "pods")
    assert before != bootstrap.registration(PRODUCT.model_copy(update=change), "pods")
    assert before != bootstrap.registration(PRODUCT, "far")


def test_a_new_token_alone_restarts_nothing() -> None:
    assert bootstrap.join_digest(replace(INPUTS, token="d.e.f")) == bootstrap.join_digest(INPUTS)


@pytest.mark.parametrize(
    "change",
    [
        {"address": "172.31.6.131"},
        {"machine": "product-2"},
        {"gateway": "gateway.example.com"},
        {"root_certificate": "another"},
        {"network": "far"},
        {"workload": PRODUCT.model_copy(update={"name": "other"})},
        {"workload": PRODUCT.model_copy(update={"labels": {"app": "product", "version": "v2"}})},
        {"mesh": MESH.model_copy(update={"version": "1.31.1"})},
        {"mesh": MESH.model_copy(update={"package": Package(sha256="0" * 64)})},
        {"mesh": MESH.model_copy(update={"id": "other"})},
    ],
)
def test_all_else_that_the_agent_depends_on_restarts_it(change: dict[str, Any]) -> None:
    assert bootstrap.join_digest(replace(INPUTS, **change)) != bootstrap.join_digest(INPUTS)


def test_the_digest_is_the_one_that_the_machine_prints() -> None:
    script = bootstrap.join_script(INPUTS)
    assert re.findall(r"^DIGEST=(.*)$", script, re.MULTILINE) == [bootstrap.join_digest(INPUTS)]
    assert script.rstrip().endswith("then main </dev/null; fi")


def test_a_join_carries_every_file_and_the_token_apart() -> None:
    script = bootstrap.join_script(INPUTS)
    assert sorted(machine_files(script)) == [
        "/etc/certs/root-cert.pem",
        "/etc/systemd/system/istio.service",
        "/etc/systemd/system/istio.service.d/sidecar.conf",
        "/var/lib/istio/config/mesh",
        "/var/lib/istio/envoy/cluster.env",
        "/var/lib/istio/envoy/overrides.env",
        "/var/lib/istio/envoy/redirect.sh",
        "/var/lib/istio/envoy/withdraw.sh",
    ]
    assert "TOKEN=a.b.c\n" in script
    assert not [path for path, text in machine_files(script).items() if "a.b.c" in text]
    assert "a.b.c" not in repr(INPUTS)
