"""The evidence of a verification as records."""

from __future__ import annotations

import json

from components.local import scripting
from components.verification.evidence import (
    Call,
    Entry,
    Evidence,
    GatewayTraffic,
    Inbound,
    Plaintext,
    Pod,
    merge,
    parse,
    with_paths,
)

HOST = "product.shop.svc.cluster.local:80"
LINES = (
    "noise\n"
    f"call\tJob verify-product\tspiffe://a\t{HOST}\t172.31.6.130:8080\tspiffe://x\t3\n"
    f"call\tJob verify-product\tspiffe://a\t{HOST}\t172.31.6.2:15443\tspiffe://x\t1\n"
    "call\ttoo few\n"
    "answered\tmachine product-1\t3\n"
    f"carried\tfar-gateway-1\t{HOST}\t172.31.7.130:8080\t2\n"
    "outside\t172.31.6.130:8080\trefused\n"
)


def test_what_scripts_print_becomes_records_and_noise_is_left_out() -> None:
    evidence = parse(LINES)
    assert evidence.calls[0] == Call("Job verify-product", "spiffe://a", HOST, "172.31.6.130:8080", "spiffe://x", 3)
    assert len(evidence.calls) == 2
    assert evidence.inbound == (Inbound("product-1", 3),)
    assert evidence.gateway_traffic == (GatewayTraffic("far-gateway-1", HOST, "172.31.7.130:8080", 2),)
    assert evidence.plaintext == (Plaintext("172.31.6.130:8080", "refused"),)


def test_calls_through_a_gateway_say_which() -> None:
    def paths(gateways: dict[str, str]) -> list[str]:
        return [call.path for call in with_paths(parse(LINES), gateways, 15443).calls]

    assert paths({"172.31.6.2": "istio-vm-mesh-gateway"}) == ["direct", "through istio-vm-mesh-gateway"]
    assert paths({"gateway.mesh.internal": "by-name"}) == ["direct", "through by-name"], "a DNS name stands for every other address"
    assert paths({}) == ["direct", "through 172.31.6.2"]


def test_evidence_survives_a_stacks_outputs_and_parts_are_merged() -> None:
    entries = Evidence(entries=(Entry("m", "e", "1.2.3.4:80"),), pods=(Pod("p", "10.0.0.1", True),))
    merged = merge([entries, parse(LINES), entries])
    assert len(merged.entries) == 2 and len(merged.calls) == 2
    assert scripting.decode(Evidence, json.loads(scripting.encode(merged))) == merged
