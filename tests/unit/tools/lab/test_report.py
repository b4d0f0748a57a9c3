"""What is shown at the end of `up`."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from components.local import scripting
from components.verification.evidence import Call, Entry, Evidence, GatewayTraffic, Pod
from tests.unit.tools.mesh_status import meshes
from tools.lab import report

IDENTITY = "spiffe://cluster.local/ns/shop/sa/product"
SERVICE = "product.shop.svc.cluster.local"
POD = "product-6c9f8d7b5d-x2x4q"


def call(caller: str, endpoint: str, path: str = "direct") -> Call:
    return Call(caller=caller, caller_identity=IDENTITY, service=SERVICE, port=80, endpoint=endpoint, peer=IDENTITY, answers=6, path=path)


def outputs(**others: Evidence) -> dict[str, Any]:
    calls = (
        call("Job verify-product", "172.31.6.129:8080"),
        call("machine product-1", "10.244.0.7:8080"),
        call("machine product-1", "172.31.6.2:15443", "through istio-vm-mesh-gateway"),
    )
    evidence = Evidence(
        entries=(Entry("product-1", "product-172.31.6.129-pods", "172.31.6.129:8080"),),
        pods=(Pod(POD, "10.244.0.7", True),),
        calls=calls,
    )
    return {
        "gateway": "172.31.6.2",
        "machines": {"product-1": {"address": "172.31.6.129", "entry": "product-172.31.6.129-pods"}},
        "verification": scripting.encode({"product": evidence, **others}),
    }


def shown(values: dict[str, Any], *, width: int = 100, terminal: bool = False, of: meshes.Name = "single") -> str:
    stream = io.StringIO()
    console = Console(
        file=stream, width=width, force_terminal=terminal, color_system="standard" if terminal else None, legacy_windows=False
    )
    report.show(meshes.mesh(of), values, console)
    return stream.getvalue()


def test_the_picture_has_everything_in_its_network() -> None:
    rows = [" ".join(line.split()) for line in shown(outputs(), of="multi", width=200).splitlines()]
    assert rows[1].startswith("╭─ network pods ") and "╭─ network far ─" in rows[1]
    assert any(row.startswith("│ ● gateway istio-vm-mesh-gateway ") for row in rows) and any(
        "│ ● gateway far-gateway " in row for row in rows
    )
    assert any(row.startswith("│ ● machine product-1 ") for row in rows) and any("● machine product-3 " in row for row in rows)


def test_narrow_terminals_show_networks_one_under_the_other() -> None:
    boxes = [line for line in shown(outputs(), of="multi", width=60, terminal=True).splitlines() if "╭" in line]
    assert [box.count("╭") for box in boxes] == [1, 1]


@pytest.mark.parametrize(
    ("of", "sign"), [("single", "\x1b[32m● \x1b[0mmachine product-1"), ("broken", "\x1b[31m✗ \x1b[0mmachine product-1")]
)
def test_health_is_green_or_red_on_a_terminal(of: meshes.Name, sign: str) -> None:
    assert sign in shown(outputs(), terminal=True, of=of)


def test_what_is_not_healthy_is_said_in_words() -> None:
    text = shown(outputs(), of="broken")
    assert re.search(r"✗ machine product-2  \S+  unhealthy", text) and re.search(r"○ machine ledger-1  \S+  missing", text)


def test_calls_name_caller_callee_path_and_both_identities() -> None:
    rows = [" ".join(line.split()) for line in shown(outputs()).splitlines()]
    assert "Job verify-product machine product-1 (172.31.6.129:8080) direct" in rows
    assert f"machine product-1 pod {POD} (10.244.0.7:8080) direct" in rows
    assert "machine product-1 istio-vm-mesh-gateway (172.31.6.2:15443) gateway" in rows
    assert rows.count(f"{IDENTITY} {IDENTITY} 6 answers") == 3


def test_a_terminal_of_100_columns_shows_whole_identities() -> None:
    text = shown(outputs(), terminal=True)
    assert text.count(IDENTITY) == 6


def test_a_narrow_pipe_folds_nothing() -> None:
    assert shown(outputs(), width=40).count(IDENTITY) == 6


def test_without_verification_the_picture_is_all() -> None:
    values = outputs()
    del values["verification"]
    text = shown(values)
    assert "machine product-1" in text and "the stack has `verify: none`" in text


def test_a_verification_that_only_warned_is_named() -> None:
    assert "product: nothing was verified" in shown(outputs(product=Evidence()))


def test_what_gateways_carried() -> None:
    gateway = Entry("far-gateway-1", "far-gateway-172.31.9.130-far", "172.31.9.130:15443")
    traffic = GatewayTraffic("far-gateway-1", SERVICE, "172.31.9.131:8080", 12)
    values = outputs(**{"far-gateway": Evidence(entries=(gateway,), gateway_traffic=(traffic,))})
    rows = [" ".join(line.split()) for line in shown(values).splitlines()]
    assert f"far-gateway-1 {SERVICE} 172.31.9.131:8080 12" in rows
