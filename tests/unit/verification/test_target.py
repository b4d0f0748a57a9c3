"""How the script that calls is given what it calls."""

from __future__ import annotations

from dataclasses import replace

import pytest

from components.verification.target import Caller, Target, call_variables, connections_for, plaintext_variables

CALLER = Caller("machine product-1", "vms", 30)
TARGET = Target(
    "a.b.svc", 80, "http", "", ("200", "404"), 3, "fail", ("spiffe://x", "spiffe://y"), endpoints=("10.0.0.1:80",), headers=("a: b", "c: d")
)


def test_a_target_is_a_line_of_columns_none_of_which_is_empty() -> None:
    values = call_variables(CALLER, TARGET)
    assert values["TARGETS"] == "a.b.svc\t80\thttp\t-\t200,404\t3\tfail\tspiffe://x,spiffe://y\t10.0.0.1:80\t-\t-\t-\t-"
    assert (values["HEADERS"], values["INBOUND"], values["LISTENER"]) == ("a: b\nc: d", "", "")


def test_a_machine_that_calls_nothing_may_have_to_be_called() -> None:
    values = call_variables(Caller("machine product-1", "vms", 30, 15088), None, {8080: "http", 9090: "tcp"})
    assert (values["TARGETS"], values["HEADERS"], values["INBOUND"]) == ("", "", "8080\thttp\n9090\ttcp")
    assert values["LISTENER"] == 15088


def test_each_endpoint_is_called_once_from_outside() -> None:
    variables = {"ENDPOINTS": "a:1 b:1", "SNI": "outbound_.80_._.a.b.svc", "SCHEME": "http"}
    assert plaintext_variables(TARGET, ["a:1", "b:1", "a:1"]) == variables


@pytest.mark.parametrize(("protocol", "scheme"), [("http", "http"), ("grpc", "http"), ("tcp", "http"), ("tls", "https")])
def test_an_application_that_ends_tls_is_called_by_tls_from_outside(protocol: str, scheme: str) -> None:
    """Where its proxy lets a request of HTTP pass, it hangs up itself."""
    assert plaintext_variables(replace(TARGET, protocol=protocol), ["a:1"])["SCHEME"] == scheme


def test_connections_follow_from_the_endpoints() -> None:
    assert [connections_for(number) for number in (0, 1, 5, 300)] == [4, 4, 29, 2912]
