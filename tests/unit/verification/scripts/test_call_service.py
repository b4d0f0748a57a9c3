"""The script that calls a workload: what it takes for proof, and the causes that it names. Envoy is a small program of the test's."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from components.names import CROSS_NETWORK_PORT
from components.verification.evidence import Call, parse, with_paths
from tests.support.samples import FACTS
from tests.support.scripts import COMPONENTS, Sourced, add_program
from tests.support.tiers import first_quick

SCRIPT = COMPONENTS / "verification" / "scripts" / "call-service.sh"
HOST = "product.shop.svc.cluster.local"
IDENTITY = FACTS.spiffe_id("shop", "product")
# All of ANSWERING answer each call, none of SILENT does although it is tried, and IDLE ones are not even tried.
CURL = r"""n=$(wc -l <"$STATE/calls" 2>/dev/null || echo 0)
case "$*" in
*--max-time\ [5-9]\ */clusters*) [ -z "$LARGE" ] || exit 28 ;;
esac
case "$*" in
*/clusters*)
  [ -n "$HIDDEN" ] || echo "outbound|80||{host}::added_via_api::true"
  for endpoint in $ANSWERING; do echo "outbound|80|v1|{host}::$endpoint::rq_success::$n"; echo "outbound|80||{host}::$endpoint::rq_total::$n"; done
  for endpoint in $SILENT; do echo "outbound|80||{host}::$endpoint::rq_success::7"; echo "outbound|80||{host}::$endpoint::cx_total::$n"; done
  for endpoint in $FAR; do echo "outbound|80||{host}::$endpoint::priority::1"; done
  for endpoint in $IDLE; do echo "outbound|80||{host}::$endpoint::rq_success::7"; echo "outbound|80||{host}::$endpoint::cx_total::9"; done ;;
*/certs*) echo '"uri": "spiffe://cluster.local/ns/shop/sa/caller"' ;;
*/config_dump*) echo "\"exact\": \"$CALLEE\"" ;;
*/server_info*) [ -z "$DOWN" ] || exit 7 ;;
esac
"""
GETENT = """[ "$1" = hosts ] || { for address in $RESOLVED; do echo "$address STREAM $2"; echo "$address DGRAM"; done; exit; }
[ -z "$NO_DNS" ]
"""
TRIED = """[ "$4" != true ] || exit "$UNPRIVILEGED"
[ -z "$TRIED" ] || { echo "bash: connect: $TRIED" >&2; exit 1; }
"""
IP = """echo "172.31.6.130 via 10.0.0.1 dev eth0 src 10.0.0.2 uid 0"
"""
# A call, without a socket. An endpoint of SILENT is not answered, by what the test says. The clock
# goes on by a second with every third pause of a third of a second.
CONVERSE = """
unset SECONDS # time passes by sleep alone
SECONDS=0
converse() {
  echo call >>"$STATE/calls"
  if [ $# -gt 0 ] && [[ " $SILENT " == *" $1 "* ]]; then printf '%b\n' "$FAILURE"; else printf '%b\n' "${RESULT:-200\tapplication\t}"; fi
}
SLEPT=0
sleep() { ((++SLEPT % 3)) || SECONDS=$((SECONDS + 1)); }
"""


TARGET = {
    "endpoints": "-",
    "ranges": "-",
    "gateways": "-",
    "calls": "-",
    "mode": "fail",
    "expect": "200-399",
    "protocol": "http",
}
"""What varies of a target, as call-service.sh reads it."""


def run(
    tmp_path: Path, environment: Mapping[str, str], *, timeout_s: int = 0, setup: str = "", **target: str
) -> subprocess.CompletedProcess[str]:
    """Call a target, in one round by default: from a pod if there are `endpoints`, else from a machine."""
    programs = {"curl": CURL.replace("{host}", HOST), "getent": GETENT, "runuser": TRIED, "ip": IP, "id": ""}
    for name, text in programs.items():
        add_program(tmp_path / "bin", name, text)
    assert target.keys() <= TARGET.keys()
    values = {**TARGET, **target}
    columns = [HOST, "80", values["protocol"], "/", values["expect"], "2", values["mode"], IDENTITY]
    columns += [values[name] for name in ("endpoints", "ranges", "gateways", "calls")]
    columns.append("product-1=172.31.6.130:8080")
    is_pod = values["endpoints"] != "-"
    defaults = {
        "ANSWERING": "",
        "SILENT": "",
        "IDLE": "",
        "FAR": "",
        "LARGE": "",
        "CALLEE": IDENTITY,
        "DOWN": "",
        "HIDDEN": "",
        "NO_DNS": "",
        "RESOLVED": "",
        "TRIED": "Connection refused",
        "UNPRIVILEGED": "0",
        "FAILURE": "503\tcaller\tdelayed connect error: 111",
        "RESULT": "",
        "STATE": str(tmp_path),
    }
    (tmp_path / "calls").touch()
    sourced = Sourced(scripts=[SCRIPT], programs=tmp_path / "bin", environment={**defaults, **environment})
    variables: dict[str, str | int] = {
        "CALLER": "Job verify-product" if is_pod else "machine product-1",
        "NETWORK": "pods",
        "TIMEOUT_S": timeout_s,
        "TARGETS": "\t".join(columns),
        "INBOUND": "",
        "LISTENER": "",
    }
    # Nothing listens: what waits for the listener is for the tests with a real Envoy.
    pod = "wait_for_proxy() { LISTENER=1; }" if is_pod else ""
    return sourced.run(f"{CONVERSE}\n{pod}\n{setup}\nmain", variables)


def rows(done: subprocess.CompletedProcess[str]) -> dict[str, Call]:
    """Return the rows of calls by their endpoint, and that of the Service's name under ""."""
    return {row.endpoint: row for row in parse(done.stdout).calls}


def test_each_endpoint_that_a_machine_met_is_evidence(tmp_path: Path) -> None:
    done = run(tmp_path, {"ANSWERING": "172.31.6.130:8080 10.244.0.9:8080"}, ranges="10.244.0.0/16")
    assert done.returncode == 0, done.stderr
    calls = rows(done)
    assert set(calls) == {"172.31.6.130:8080", "10.244.0.9:8080", ""}
    assert {call.caller for call in calls.values()} == {"machine product-1"}
    assert {call.caller_identity for call in calls.values()} == {"spiffe://cluster.local/ns/shop/sa/caller"}
    assert {(call.how, call.verdict, call.answers) for call in calls.values()} == {("by-chance", "proved", 4)}
    assert calls["172.31.6.130:8080"].machine == "product-1"
    assert (calls[""].status, calls[""].service, calls[""].port, calls[""].protocol) == ({"200": 4}, HOST, 80, "http")


@first_quick(
    ("environment", "cause"),
    [
        ({"DOWN": "1"}, "the proxy is not running"),
        ({"NO_DNS": "1", "ANSWERING": "10.244.0.9:8080"}, f"{HOST} does not resolve"),
        ({}, f"the proxy has no endpoint for {HOST} port 80: does the Service select the workload's labels"),
        ({"HIDDEN": "1"}, f"the proxy does not know {HOST} port 80: does a Sidecar (egress.hosts) hide it"),
        ({"ANSWERING": "172.31.6.130:8080"}, "the proxy was given no endpoint in 10.244.0.0/16"),
        ({"ANSWERING": "172.31.6.130:8080", "SILENT": "10.244.0.9:8080"}, "no answer from 10.244.0.9:8080"),
        ({"SILENT": "10.244.0.9:8080", "TRIED": "No route to host"}, "it takes no connection (No route; packets leave via 10.0.0.1 dev eth0): is there a route to 10.244.0.9 and back"),
        ({"SILENT": "10.244.0.9:8080", "TRIED": ""}, "it takes connections"),
        ({"ANSWERING": "10.244.0.9:8080", "RESULT": "404\\tapplication\\t"}, "/ returns 404: set verify.path to a path that returns one of 200-399, or verify.expectStatus"),
        ({"ANSWERING": "10.244.0.9:8080", "CALLEE": "spiffe://cluster.local/ns/shop/sa/other"}, f"without mutual TLS for {IDENTITY} (the proxy accepts: spiffe://cluster.local/ns/shop/sa/other)"),
    ],
)  # fmt: skip
def test_the_cause_is_named_and_the_caller_too(tmp_path: Path, environment: dict[str, str], cause: str) -> None:
    done = run(tmp_path, environment, ranges="10.244.0.0/16")
    assert done.returncode == 1
    assert cause in done.stderr
    assert done.stderr.startswith("machine product-1: ")
    assert done.stderr.count("\n") == 1
    assert "DOWN" in environment or rows(done)[""].verdict == "failed"


@first_quick(
    ("far", "reason"),
    [
        ("10.244.0.9:8080", "others come first, because they are nearer"),
        ("", "the routes for it choose other endpoints"),
        ("172.31.6.130:8080", "the routes for it choose other endpoints"),
    ],
    1,
)
def test_routes_that_never_choose_an_endpoint_are_named_and_fail_nothing(tmp_path: Path, far: str, reason: str) -> None:
    """Weights of a user's, or localities: the proxy was given the endpoint, and has not even tried it."""
    environment = {"ANSWERING": "172.31.6.130:8080", "IDLE": "10.244.0.9:8080", "FAR": far}
    done = run(tmp_path, environment, ranges="10.244.0.0/16", timeout_s=3)
    assert done.returncode == 0
    row = rows(done)[""]
    assert (row.verdict, row.object) == ("failed", f"VirtualService or DestinationRule of {HOST}")
    assert f"were answered, but none by an endpoint in 10.244.0.0/16: {reason}" in done.stderr


ENDPOINT = "172.31.6.130:8080"


@first_quick(
    ("failure", "cause", "looked_at"),
    [
        ("503\\tcaller\\tdelayed connect error: Connection refused", "it takes no connection (refused; packets leave via 10.0.0.1 dev eth0): is there a route", "machine product-1"),
        ("503\\tcaller\\tTLS_error:|268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED", f"its certificate is not one of {IDENTITY}", "machine product-1"),
        ("503\\tcaller\\tTLS_error:|268435581:SSL_routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify_cert_failed:_certificate_has_expired", "its certificate is not valid at the caller's time (TLS error:", "machine product-1"),
        ("503\\tcaller\\tTLS_error:|268435581:SSL_routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify_cert_failed:_certificate_is_not_yet_valid", "its certificate is not valid at the caller's time (TLS error:", "machine product-1"),
        ("503\\tcaller\\tTLS_error:|268436504:SSL routines:OPENSSL_internal:TLSV1_ALERT_UNKNOWN_CA", "it refuses the caller's certificate", "machine product-1"),
        ("403\\tproxy\\tvia_upstream", "its proxy forbids the call: an AuthorizationPolicy denies spiffe://cluster.local/ns/shop/sa/caller", f"AuthorizationPolicy of {IDENTITY}"),
        ("grpc 7\\tproxy\\tvia_upstream", "its proxy forbids the call: an AuthorizationPolicy denies", f"AuthorizationPolicy of {IDENTITY}"),
        ("503\\tproxy\\tvia_upstream", "its proxy answers in the application's place", "machine product-1"),
        ("404\\tproxy\\tvia_upstream", "/ returns 404: set verify.path", "machine product-1"),
        ("grpc 13\\tproxy\\tvia_upstream", "its proxy answers in the application's place (status 13 of gRPC): does the application answer on this port? Or proxyHeaders", "machine product-1"),
        ("503\\tapplication\\tvia_upstream", "/ returns 503: set verify.path", "machine product-1"),
        ("404\\tapplication\\tvia_upstream", "/ returns 404: set verify.path", "machine product-1"),
        ("closed\\tpeer\\tit closed the connection", "it closed the connection: does the application accept connections", "machine product-1"),
        ("503\\tcaller\\tsomething else", "it takes connections: does the application answer there", "machine product-1"),
    ],
)  # fmt: skip
def test_why_an_endpoint_is_no_proof(tmp_path: Path, failure: str, cause: str, looked_at: str) -> None:
    environment = {"ANSWERING": "10.244.0.9:8080", "SILENT": ENDPOINT, "UNPRIVILEGED": "1", "FAILURE": failure}
    done = run(tmp_path, environment, endpoints=f"{ENDPOINT},10.244.0.9:8080")
    assert done.returncode == 1
    calls = rows(done)
    assert {endpoint: call.verdict for endpoint, call in calls.items()} == {ENDPOINT: "failed", "10.244.0.9:8080": "proved", "": "proved"}
    status = failure.partition("\\t")[0]
    assert calls[ENDPOINT].cause.startswith(f"no answer from {ENDPOINT} for {HOST} port 80 in 0 s (last: {status}): {cause}")
    assert (calls[ENDPOINT].object, calls[ENDPOINT].how, calls[ENDPOINT].answers) == (looked_at, "addressed", 0)
    assert done.stderr == f"Job verify-product: {calls[ENDPOINT].cause}\n"


def test_an_endpoint_that_never_comes_leaves_the_others_their_attempts(tmp_path: Path) -> None:
    """A server may hang up at the first bytes that are tried."""
    at_third = """converse() {
  echo call >>"$STATE/calls"
  [ $# = 0 ] || echo "$1" >>"$STATE/tries"
  case $(grep -c "^10[.]" "$STATE/tries") in 0 | 1 | 2) printf 'closed\\tpeer\\t\\n' ;; *) printf 'open\\tapplication\\t\\n' ;; esac
}"""
    environment = {"ANSWERING": "10.244.0.9:8080"}
    done = run(tmp_path, environment, endpoints=f"{ENDPOINT},10.244.0.9:8080", protocol="tcp", timeout_s=4, setup=at_third)
    assert {endpoint: row.verdict for endpoint, row in rows(done).items() if endpoint} == {ENDPOINT: "failed", "10.244.0.9:8080": "proved"}


def test_an_endpoint_that_the_proxy_is_given_late_is_proved(tmp_path: Path) -> None:
    late = 'given() { if ((SECONDS < deadline - 1)); then echo "10.244.0.9:8080 9 9"; else echo "$ALL 9 9"; fi; }'
    done = run(tmp_path, {"ALL": ENDPOINT}, endpoints=ENDPOINT, timeout_s=3, setup=late)
    assert rows(done)[ENDPOINT].verdict == "proved", done.stderr


def test_a_service_that_is_hidden_from_the_caller_is_named(tmp_path: Path) -> None:
    """By a Sidecar's egress.hosts, or by exportTo: its entries are healthy all the same."""
    done = run(tmp_path, {"HIDDEN": "1"}, endpoints=ENDPOINT, gateways="10.0.0.9:15443", calls="4")
    assert done.returncode == 1 and f"the proxy does not know {HOST} port 80: does a Sidecar" in done.stderr
    assert {row.object for row in rows(done).values()} == {f"Service {HOST}"}


def test_an_endpoint_that_the_proxy_does_not_have_is_no_proof_though_it_answers(tmp_path: Path) -> None:
    done = run(tmp_path, {"ANSWERING": "10.244.0.9:8080"}, endpoints=ENDPOINT)
    assert done.returncode == 1
    assert rows(done)[ENDPOINT].object == "WorkloadEntry of machine product-1"
    assert f"was not given the endpoint {ENDPOINT} for {HOST} (but 10.244.0.9:8080)" in done.stderr


@first_quick(
    ("result", "expect", "protocol", "is_proof"),
    [
        ("200\\tproxy", "200-399", "http", True),
        ("302\\tproxy", "200-399", "http", False),
        ("302\\tapplication", "200-399", "http", True),
        ("404\\tapplication", "200-399", "http", False),
        ("404\\tapplication", "200-399,404-404", "http", True),
        ("503\\tproxy", "500-599", "http", False),
        ("503\\tapplication", "500-599", "http2", True),
        ("200\\tcaller", "200-399", "http", False),
        ("no answer\\tproxy", "200-399", "http", False),
        ("404\\tapplication", "-", "grpc", False),
        ("grpc 0\\tproxy", "-", "grpc", True),
        ("grpc 12\\tproxy", "-", "grpc", True),
        ("grpc unknown\\tproxy", "-", "grpc", False),
        ("grpc 14\\tproxy", "-", "grpc", False),
        ("grpc 2\\tproxy", "-", "grpc", False),
        ("grpc 2\\tapplication", "-", "grpc", True),
        ("grpc 13\\tproxy", "-", "grpc", False),
        ("grpc 14\\tapplication", "-", "grpc", True),
        ("grpc 12\\tcaller", "-", "grpc", False),
        ("open\\tapplication", "-", "tcp", True),
        ("bytes\\tapplication", "-", "tls", True),
        ("closed\\tpeer", "-", "tcp", False),
    ],
)
def test_what_is_an_answer(tmp_path: Path, result: str, expect: str, protocol: str, is_proof: bool) -> None:
    done = run(tmp_path, {"ANSWERING": ENDPOINT, "RESULT": f"{result}\\t"}, endpoints=ENDPOINT, expect=expect, protocol=protocol)
    assert (rows(done)[ENDPOINT].verdict == "proved") == is_proof
    assert done.returncode == (not is_proof)


def test_the_row_of_an_endpoint_counts_what_was_answered(tmp_path: Path) -> None:
    done = run(tmp_path, {"ANSWERING": ENDPOINT, "RESULT": "bytes\\tapplication\\t"}, endpoints=ENDPOINT, protocol="tcp")
    row = rows(done)[ENDPOINT]
    assert (row.kind, row.status, row.calls, row.answers, row.peer, row.network) == ("bytes", {"bytes": 1}, 1, 1, IDENTITY, "pods")


def test_a_name_that_leads_nowhere_fails_though_endpoints_answer(tmp_path: Path) -> None:
    done = run(tmp_path, {"ANSWERING": ENDPOINT, "NO_DNS": "1"}, endpoints=ENDPOINT)
    assert done.returncode == 1
    assert (rows(done)[""].verdict, rows(done)[""].object) == ("failed", f"Service {HOST}")


@pytest.mark.parametrize(("endpoints", "connections"), [(0, 4), (1, 4), (2, 10), (10, 64), (100, 861), (300, 2912)])
def test_connections_behind_a_balancer_follow_from_its_endpoints(tmp_path: Path, endpoints: int, connections: int) -> None:
    add_program(tmp_path, "nothing", "")
    done = Sourced(scripts=[SCRIPT], programs=tmp_path).run(f"connections_for {endpoints}")
    assert int(done.stdout) == connections


def test_texts_of_any_kind_are_json(tmp_path: Path) -> None:
    add_program(tmp_path, "nothing", "")
    text = 'a "quoted" \\ text\twith a tab'
    done = Sourced(scripts=[SCRIPT], programs=tmp_path).run(
        'print_row cause "$TEXT"', {"TEXT": text, "PORT": 80, "CALLER": "x", "NETWORK": "pods"}
    )
    assert parse(done.stdout).calls[0].cause == 'a "quoted" \\ text with a tab'


def test_a_list_of_a_large_mesh_has_its_time(tmp_path: Path) -> None:
    """Envoy with a limit of CPU takes seconds for tens of thousands of endpoints."""
    done = run(tmp_path, {"ANSWERING": ENDPOINT, "LARGE": "1"}, endpoints=ENDPOINT)
    assert done.returncode == 0, done.stderr


def test_one_cause_is_shown_and_all_rows_are_printed(tmp_path: Path) -> None:
    done = run(tmp_path, {"SILENT": f"{ENDPOINT} 10.244.0.9:8080", "ANSWERING": "10.244.0.7:8080"}, endpoints=f"{ENDPOINT},10.244.0.9:8080")
    assert [call.verdict for call in rows(done).values()] == ["failed", "failed", "proved"]
    assert done.stderr.count("\n") == 1 and ENDPOINT in done.stderr


BY_NAME = "gateway.example.com"


def test_a_gateway_by_name_is_any_of_its_addresses(tmp_path: Path) -> None:
    done = run(tmp_path, {"ANSWERING": "192.0.2.7:15443", "RESOLVED": "192.0.2.6 192.0.2.7"}, gateways=f"{BY_NAME}:15443")
    assert done.returncode == 0, done.stderr
    gateways = {BY_NAME: "istio-vm-mesh-gateway", "172.31.7.3": "far-gateway"}
    call, _ = with_paths(parse(done.stdout), gateways, CROSS_NETWORK_PORT).calls
    assert (call.endpoint, call.path) == ("192.0.2.7:15443", "through istio-vm-mesh-gateway")


@first_quick(
    ("environment", "cause"),
    [
        ({"ANSWERING": "10.244.0.9:8080"}, f"the gateway's name {BY_NAME} does not resolve here"),
        ({"ANSWERING": "10.244.0.9:8080", "RESOLVED": "192.0.2.6"}, f"was not given the endpoint {BY_NAME}:15443"),
        ({"ANSWERING": "10.244.0.9:8080", "SILENT": "192.0.2.6:15443", "RESOLVED": "192.0.2.6"}, f"no answer from {BY_NAME}:15443"),
    ],
)
def test_what_is_wrong_with_a_gateway_by_name(tmp_path: Path, environment: dict[str, str], cause: str) -> None:
    done = run(tmp_path, environment, gateways=f"{BY_NAME}:15443")
    assert done.returncode == 1
    assert cause in done.stderr


@pytest.mark.slow
def test_a_gateway_whose_name_leads_elsewhere_meanwhile_is_judged_by_what_was_called(tmp_path: Path) -> None:
    """DNS gives another of many addresses each time: one that was never called has shown nothing."""
    turning = """resolve() {
  case ${1%:*} in *[!0-9.]*) ;; *) echo "$1"; return ;; esac
  echo >>"$STATE/turns"
  if [ "$(wc -l <"$STATE/turns")" -lt 2 ]; then echo 192.0.2.6:15443; else echo 192.0.2.7:15443; fi
}"""
    environment = {"ANSWERING": f"{ENDPOINT} 192.0.2.7:15443", "SILENT": "192.0.2.6:15443"}
    done = run(tmp_path, environment, endpoints=ENDPOINT, gateways=f"{BY_NAME}:15443", calls="4", setup=turning)
    row = rows(done)["192.0.2.6:15443"]
    assert (done.returncode, row.verdict, row.calls > 0) == (1, "failed", True)


def test_an_endpoint_outside_the_wanted_range_is_no_proof(tmp_path: Path) -> None:
    done = run(tmp_path, {"ANSWERING": "10.245.0.9:8080"}, ranges="10.244.0.0/16")
    assert done.returncode == 1


def test_a_warning_does_not_fail_the_update(tmp_path: Path) -> None:
    done = run(tmp_path, {}, endpoints=ENDPOINT, mode="warn")
    assert done.returncode == 0
    assert "no endpoint" in done.stderr
    assert rows(done)[ENDPOINT].verdict == "failed"


INBOUND = "inbound|8080||::10.0.0.2:8080::"
EARLY = "InboundPassthroughCluster::10.0.0.2:8080::"
OTHER_PORT = "InboundPassthroughCluster::10.0.0.2:18080::"


@pytest.mark.parametrize(
    ("protocol", "counters", "number"),
    [
        ("http", [f"{INBOUND}rq_total::3", f"{INBOUND}cx_total::1"], 3),
        ("grpc", [f"{INBOUND}rq_total::0", f"{INBOUND}cx_total::9"], 0),
        ("tcp", [f"{INBOUND}cx_total::5", f"{INBOUND}rq_total::3"], 3),
        ("tcp", [f"{INBOUND}cx_total::5", f"{INBOUND}cx_connect_fail::4", f"{INBOUND}rq_total::0"], 0),
        ("http", [f"{INBOUND}rq_total::0", f"{EARLY}rq_total::2"], 2),
        ("http", [f"{OTHER_PORT}rq_total::2", "InboundPassthroughCluster::added_via_api::true"], 0),
        ("http", [], 0),
    ],
)
def test_a_machine_that_pods_can_call_must_have_been_called(tmp_path: Path, protocol: str, counters: list[str], number: int) -> None:
    """Also before its proxy had the port from istiod: then the call is among those of other ports."""
    add_program(tmp_path, "curl", f"printf '%s\\n' {' '.join(map(repr, counters))}")
    done = inbound(tmp_path, protocol)
    assert done.returncode == (number == 0)
    (row,) = parse(done.stdout).calls
    assert (row.machine, row.kind, row.answers, row.verdict) == ("product-1", "counter", number, "proved" if number else "failed")
    assert ("no call from a pod has reached port 8080" in done.stderr) == (number == 0)


def test_a_call_that_came_before_the_port_counts_after_envoy_forgot_it(tmp_path: Path) -> None:
    """The machine's own calls may take longer than Envoy keeps it."""
    gone = f"[ -e {tmp_path}/gone ] || echo {EARLY}rq_total::2"
    add_program(tmp_path, "curl", f"case $* in */clusters) {gone}; touch {tmp_path}/gone ;; esac")
    done = inbound(tmp_path, "http")
    assert (done.returncode, parse(done.stdout).calls[0].answers) == (0, 2), done.stderr


def inbound(programs: Path, protocol: str) -> subprocess.CompletedProcess[str]:
    """Run a machine's proof that it was called, on port 8080."""
    variables: dict[str, str | int] = {"CALLER": "machine product-1", "NETWORK": "pods", "TIMEOUT_S": 1, "TARGETS": "", "LISTENER": ""}
    return Sourced(scripts=[SCRIPT], programs=programs).run("main", {**variables, "INBOUND": f"8080\t{protocol}"})
