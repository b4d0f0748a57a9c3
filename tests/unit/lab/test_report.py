"""What is shown at the end of `up`."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from lab import report

IDENTITY = "spiffe://cluster.local/ns/shop/sa/product"
SERVICE = "product.shop.svc.cluster.local:80"
POD = "product-6c9f8d7b5d-x2x4q"


def call(caller: str, endpoint: str, path: str = "direct") -> dict[str, str]:
    return {
        "caller": caller, "callerIdentity": IDENTITY, "service": SERVICE, "endpoint": endpoint, "identity": IDENTITY, "answers": "6", "path": path,
    }  # fmt: skip


def outputs(health: str = "Healthy") -> dict[str, Any]:
    endpoints = [
        {"kind": "machine", "name": "product-1", "entry": "product-172.31.6.129-pods", "address": "172.31.6.129:8080", "health": health},
        {"kind": "pod", "name": POD, "entry": "-", "address": "10.244.0.7", "health": "Ready"},
    ]
    calls = [
        call("Job verify-product", "172.31.6.129:8080"),
        call("machine product-1", "10.244.0.7:8080"),
        call("machine product-1", "172.31.6.2:15443", "through istio-eastwestgateway"),
    ]
    return {
        "gateway": "172.31.6.2",
        "machines": {"product-1": {"address": "172.31.6.129", "entry": "product-172.31.6.129-pods"}},
        "verification": {"product": {"endpoints": endpoints, "calls": calls, "answered": [], "carried": []}},
    }


def shown(values: dict[str, Any], *, width: int = 100, terminal: bool = False) -> str:
    stream = io.StringIO()
    console = Console(
        file=stream, width=width, force_terminal=terminal, color_system="standard" if terminal else None, legacy_windows=False
    )
    report.show(values, console)
    return stream.getvalue()


def test_everything_behind_the_service_is_listed_with_its_health() -> None:
    rows = [" ".join(line.split()) for line in shown(outputs()).splitlines()]
    assert f"Behind {SERVICE}" in rows
    assert "machine product-1 product-172.31.6.129-pods 172.31.6.129:8080 Healthy" in rows
    assert f"pod {POD} - 10.244.0.7 Ready" in rows


def test_calls_name_caller_callee_path_and_both_identities() -> None:
    rows = [" ".join(line.split()) for line in shown(outputs()).splitlines()]
    assert "Job verify-product machine product-1 (172.31.6.129:8080) direct" in rows
    assert f"machine product-1 pod {POD} (10.244.0.7:8080) direct" in rows
    assert "machine product-1 istio-eastwestgateway (172.31.6.2:15443) gateway" in rows
    assert rows.count(f"{IDENTITY} {IDENTITY} 6 answers") == 3


@pytest.mark.parametrize(("health", "colour"), [("Healthy", 32), ("NotReady", 31)])
def test_health_is_green_or_red_on_a_terminal(health: str, colour: int) -> None:
    assert f"\x1b[{colour}m{health}\x1b[0m" in shown(outputs(health), terminal=True)


def test_a_terminal_of_100_columns_shows_whole_identities() -> None:
    text = shown(outputs(), terminal=True)
    assert text.count(IDENTITY) == 6


def test_a_narrow_pipe_folds_nothing() -> None:
    assert shown(outputs(), width=40).count(IDENTITY) == 6


def test_without_verification_the_machines_are_listed() -> None:
    values = outputs()
    del values["verification"]
    assert "product-172.31.6.129-pods" in shown(values)


def test_a_verification_that_only_warned_is_named() -> None:
    values = outputs()
    values["verification"]["product"] = {"endpoints": [], "calls": []}
    assert "product: nothing was verified" in shown(values)


def test_what_reached_machines_and_what_gateways_carried() -> None:
    values = outputs()
    gateway = {
        "kind": "machine",
        "name": "far-gateway-1",
        "entry": "far-gateway-172.31.9.130-far",
        "address": "172.31.9.130:15443",
        "health": "Healthy",
    }
    carried = {"gateway": "far-gateway-1", "service": SERVICE, "endpoint": "172.31.9.131:8080", "connections": "12"}
    values["verification"]["product"]["answered"] = [{"machine": "product-1", "requests": "17"}]
    values["verification"]["far-gateway"] = {"endpoints": [gateway], "calls": [], "answered": [], "carried": [carried]}
    rows = [" ".join(line.split()) for line in shown(values).splitlines()]
    assert "machine product-1 product-172.31.6.129-pods 172.31.6.129:8080 Healthy 17" in rows
    assert f"far-gateway-1 {SERVICE} 172.31.9.131:8080 12" in rows
