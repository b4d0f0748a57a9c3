"""The evidence of a verification as records."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from components.local import scripting
from components.verification.evidence import (
    Call,
    Entry,
    Evidence,
    GatewayTraffic,
    Plaintext,
    Pod,
    merge,
    parse,
    with_paths,
)

HOST = "product.shop.svc.cluster.local"
GATEWAY_CALL = {"service": HOST, "port": 80, "endpoint": "172.31.6.2:15443", "answers": 1}
LINES = "\n".join(
    [
        "noise",
        json.dumps({"calls": {"service": HOST, "port": 80, "endpoint": "172.31.6.130:8080", "answers": 3, "status": {"200": 3}}}),
        json.dumps({"calls": GATEWAY_CALL}),
        json.dumps({"gateway_traffic": {"gateway": "far-gateway-1", "service": HOST, "endpoint": "172.31.7.130:8080", "connections": 2}}),
        json.dumps({"plaintext": {"endpoint": "172.31.6.130:8080", "result": "refused"}}),
    ]
)


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ("", "machine m-1 is silent"),
        ("machine m-1", "machine m-1 is silent"),
        ("Service shop/x", "machine m-1 is silent; look at Service shop/x"),
    ],
)
def test_what_to_look_at_is_named_once(place: str, problem: str) -> None:
    assert Call(cause="machine m-1 is silent", object=place).problem == problem


def test_what_scripts_print_becomes_records() -> None:
    evidence = parse(LINES)
    assert evidence.calls[0] == Call(service=HOST, port=80, endpoint="172.31.6.130:8080", answers=3, status={"200": 3})
    assert len(evidence.calls) == 2
    assert evidence.gateway_traffic == (GatewayTraffic("far-gateway-1", HOST, "172.31.7.130:8080", 2),)
    assert evidence.plaintext == (Plaintext("172.31.6.130:8080", "refused"),)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "7",
        "[]",
        '{"calls": [1]}',
        '{"calls": {}, "plaintext": {}}',
        '{"nothing": {}}',
        '{"plaintext": {"endpoint": "192.0.2.7:1"}}',
        '{"calls": {"answers": "3"}}',
        '{"calls": {"answers": true}}',
        '{"calls": {"status": 200}}',
        '{"calls": {"endpoints": "192.0.2.7:1"}}',
        '{"calls": {"answers": 3}',
    ],
)
def test_what_is_no_record_is_left_out(line: str) -> None:
    assert parse(f"{line}\n{json.dumps({'calls': GATEWAY_CALL})}\n").calls == (Call(**GATEWAY_CALL),)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "is_one"),
    [({}, True), ({"endpoint": ""}, False), ({"verdict": "failed"}, False), ({"kind": "counter"}, False), ({"kind": "open"}, True)],
)
def test_an_answer_of_an_endpoint_is_a_path(values: dict[str, str], is_one: bool) -> None:
    assert replace(Call(endpoint="192.0.2.7:80"), **values).is_path == is_one  # type: ignore[arg-type]


def test_calls_through_a_gateway_say_which() -> None:
    def paths(gateways: dict[str, str]) -> list[str]:
        return [call.path for call in with_paths(parse(LINES), gateways, 15443).calls]

    assert paths({"172.31.6.2": "istio-vm-mesh-gateway"}) == ["direct", "through istio-vm-mesh-gateway"]
    assert paths({"gateway.mesh.internal": "by-name"}) == ["direct", "through by-name"], "a DNS name stands for every other address"
    assert paths({}) == ["direct", "through 172.31.6.2"]
    assert paths({"172.31.7.3": "far-gateway"}) == ["direct", "through 172.31.6.2"], "another gateway's address stands for itself alone"


def test_evidence_survives_a_stacks_outputs_and_parts_are_merged() -> None:
    entries = Evidence(entries=(Entry("m", "e", "1.2.3.4:80"),), pods=(Pod("p", "10.0.0.1", True),))
    merged = merge([entries, parse(LINES), entries])
    assert len(merged.entries) == 2 and len(merged.calls) == 2
    assert scripting.decode(Evidence, json.loads(scripting.encode(merged))) == merged


def test_calls_state_once_what_they_share() -> None:
    calls = (Call(service=HOST, endpoint="1.2.3.4:80", calls=2, answers=2), Call(service=HOST, endpoint="1.2.3.5:80", answers=1))
    failed = Call(service=HOST, endpoint="1.2.3.6:80", verdict="failed", cause="no answer")
    document = json.loads(scripting.encode(Evidence(calls=(calls[0], failed, calls[1]))))
    assert document == {
        "calls": [
            {
                "service": HOST,
                "verdict": "proved",
                "endpoints": [{"endpoint": "1.2.3.4:80", "calls": 2, "answers": 2}, {"endpoint": "1.2.3.5:80", "answers": 1}],
            },
            {"service": HOST, "verdict": "failed", "endpoints": [{"endpoint": "1.2.3.6:80", "cause": "no answer"}]},
        ]
    }
    assert scripting.decode(Evidence, document).calls == (*calls, failed)
