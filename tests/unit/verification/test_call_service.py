"""The script that calls a workload: what it takes for proof, and the causes that it names. Envoy is a small program of the test's."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from components import shell
from components.names import CROSS_NETWORK_PORT
from components.verification import jobs, targets
from components.verification.evidence import GatewayTraffic, Plaintext, parse, with_paths
from tests.support.samples import FACTS, PRODUCT
from tests.support.scripts import COMPONENTS, Sourced, add_program

HOST = "product.shop.svc.cluster.local"
CURL = r"""case "$*" in
*/clusters*)
  n=$(cat "$STATE/count" 2>/dev/null || echo 0)
  for endpoint in $ENDPOINTS; do echo "outbound|80||{host}::$endpoint::rq_success::$n"; echo "outbound|80||{host}::$endpoint::rq_total::99"; done
  for endpoint in $SILENT; do echo "outbound|80||{host}::$endpoint::rq_success::7"; echo "outbound|80||{host}::$endpoint::cx_connect_fail::$FAILED"; done ;;
*/certs*) echo '"uri": "spiffe://cluster.local/ns/shop/sa/caller"' ;;
*/config_dump*) echo "\"exact\": \"$CALLEE\"" ;;
*/server_info*) [ -z "$DOWN" ] || exit 7 ;;
*) echo $(($(cat "$STATE/count" 2>/dev/null || echo 0) + 1)) >"$STATE/count"; printf 200 ;;
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


def run(
    tmp_path: Path, environment: Mapping[str, str], *, wanted: list[str], ranges: list[str] | None = None, mode: str = "fail"
) -> subprocess.CompletedProcess[str]:
    """Source the script that a machine gets, and call its workload for one second at most."""
    programs = {"curl": CURL.replace("{host}", HOST), "getent": GETENT, "runuser": TRIED, "ip": IP, "id": ""}
    for name, text in programs.items():
        add_program(tmp_path / "bin", name, text)
    script = tmp_path / "call-service"
    script.write_text(
        jobs.call_script(jobs.Called(PRODUCT, FACTS), caller="machine product-1", mode=mode, wanted=wanted, ranges=ranges or [])
    )
    defaults = {
        "ENDPOINTS": "",
        "SILENT": "",
        "CALLEE": "spiffe://cluster.local/ns/shop/sa/product",
        "DOWN": "",
        "NO_DNS": "",
        "RESOLVED": "",
        "TRIED": "Connection refused",
        "UNPRIVILEGED": "0",
        "FAILED": "0",
        "STATE": str(tmp_path),
    }
    sourced = Sourced(scripts=[script], programs=tmp_path / "bin", environment={**defaults, **environment})
    return sourced.run("sleep() { command sleep 0.05; }\nmain", {"TIMEOUT_S": 1})


def test_each_endpoint_that_answered_is_evidence(tmp_path: Path) -> None:
    done = run(tmp_path, {"ENDPOINTS": "172.31.6.130:8080 10.244.0.9:8080"}, wanted=["172.31.6.130:8080"], ranges=["10.244.0.0/16"])
    assert done.returncode == 0, done.stderr
    calls = parse(done.stdout).calls
    assert {call.endpoint for call in calls} == {"172.31.6.130:8080", "10.244.0.9:8080"}
    assert {call.caller for call in calls} == {"machine product-1"}
    assert {call.caller_identity for call in calls} == {"spiffe://cluster.local/ns/shop/sa/caller"}


@pytest.mark.parametrize(
    ("environment", "cause"),
    [
        ({"DOWN": "1"}, "the proxy is not running"),
        ({"NO_DNS": "1"}, f"{HOST} does not resolve"),
        ({}, f"the proxy has no endpoint for {HOST} port 80"),
        ({"ENDPOINTS": "10.244.0.9:8080"}, "was not given the endpoint 172.31.6.130:8080"),
        ({"ENDPOINTS": "10.244.0.9:8080", "SILENT": "172.31.6.130:8080"}, "no answer from 172.31.6.130:8080"),
        ({"ENDPOINTS": "10.244.0.9:8080", "SILENT": "172.31.6.130:8080", "TRIED": "No route to host"}, "it takes no connection (No route; packets leave via 10.0.0.1 dev eth0): is there a route"),
        ({"ENDPOINTS": "10.244.0.9:8080", "SILENT": "172.31.6.130:8080", "TRIED": ""}, "it takes connections"),
        ({"ENDPOINTS": "172.31.6.130:8080", "CALLEE": "spiffe://cluster.local/ns/shop/sa/other"}, "without mutual TLS for spiffe://cluster.local/ns/shop/sa/product"),
    ],
)  # fmt: skip
def test_the_cause_is_named_and_the_caller_too(tmp_path: Path, environment: dict[str, str], cause: str) -> None:
    done = run(tmp_path, environment, wanted=["172.31.6.130:8080"])
    assert done.returncode == 1
    assert cause in done.stderr
    assert done.stderr.startswith("machine product-1: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("failed", "cause"),
    [("0", "it takes connections: does the application answer"), ("4", "it takes no connection (no answer; packets leave via 10.0.0.1")],
)
def test_a_pod_without_privileges_names_the_cause_by_envoys_count(tmp_path: Path, failed: str, cause: str) -> None:
    environment = {"ENDPOINTS": "10.244.0.9:8080", "SILENT": "172.31.6.130:8080", "UNPRIVILEGED": "1", "FAILED": failed}
    done = run(tmp_path, environment, wanted=["172.31.6.130:8080"])
    assert f"no answer from 172.31.6.130:8080 for {HOST} port 80 in 1 s (last: 200): {cause}" in done.stderr


BY_NAME = "gateway.example.com"


def test_a_gateway_by_name_is_any_of_its_addresses(tmp_path: Path) -> None:
    done = run(tmp_path, {"ENDPOINTS": "192.0.2.7:15443", "RESOLVED": "192.0.2.6 192.0.2.7"}, wanted=[f"{BY_NAME}:15443"])
    assert done.returncode == 0, done.stderr
    gateways = {BY_NAME: "istio-eastwestgateway", "172.31.7.3": "far-gateway"}
    (call,) = with_paths(parse(done.stdout), gateways, CROSS_NETWORK_PORT).calls
    assert (call.endpoint, call.path) == ("192.0.2.7:15443", "through istio-eastwestgateway")


@pytest.mark.parametrize(
    ("environment", "cause"),
    [
        ({"ENDPOINTS": "10.244.0.9:8080"}, f"the gateway's name {BY_NAME} does not resolve here"),
        ({"ENDPOINTS": "10.244.0.9:8080", "RESOLVED": "192.0.2.6"}, f"was not given the endpoint {BY_NAME}:15443"),
        ({"ENDPOINTS": "10.244.0.9:8080", "SILENT": "192.0.2.6:15443", "RESOLVED": "192.0.2.6"}, f"no answer from {BY_NAME}:15443"),
    ],
)
def test_what_is_wrong_with_a_gateway_by_name(tmp_path: Path, environment: dict[str, str], cause: str) -> None:
    done = run(tmp_path, environment, wanted=[f"{BY_NAME}:15443"])
    assert done.returncode == 1
    assert cause in done.stderr


def test_an_endpoint_outside_the_wanted_range_is_no_proof(tmp_path: Path) -> None:
    done = run(tmp_path, {"ENDPOINTS": "10.245.0.9:8080"}, wanted=[], ranges=["10.244.0.0/16"])
    assert done.returncode == 1


def test_a_warning_does_not_fail_the_update(tmp_path: Path) -> None:
    done = run(tmp_path, {}, wanted=["172.31.6.130:8080"], mode="warn")
    assert done.returncode == 0
    assert "no endpoint" in done.stderr


@pytest.mark.parametrize(
    ("code", "result"), [(0, "answered"), (1, "answered"), (7, "unreachable"), (28, "unreachable"), (52, "refused"), (56, "refused")]
)
def test_the_result_of_a_request_from_outside_follows_from_curls_code(tmp_path: Path, code: int, result: str) -> None:
    add_program(tmp_path, "curl", f'echo "$*" >>{tmp_path}/calls\nexit {code}')
    text = jobs.plaintext_probe_script(jobs.Called(PRODUCT, FACTS), ["172.31.6.130:8080", "172.31.7.9:15443"]).replace(
        targets.POD_ENDPOINTS, "10.244.0.9:8080"
    )
    done = subprocess.run(["bash", "-s"], input=text, text=True, capture_output=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    endpoints = ["172.31.6.130:8080", "172.31.7.9:15443", "10.244.0.9:8080"]
    assert parse(done.stdout).plaintext == tuple(Plaintext(endpoint, result) for endpoint in endpoints)
    # Through a gateway by the name that it routes requests by.
    assert (tmp_path / "calls").read_text().splitlines()[1].endswith(f" https://outbound_.80_._.{HOST}:15443/")


INBOUND = "inbound|8080||::10.0.0.2:8080::rq_success::{}"


@pytest.mark.parametrize(("requests", "code"), [(3, 0), (0, 1)])
def test_a_machine_that_pods_can_call_must_have_been_called(tmp_path: Path, requests: int, code: int) -> None:
    add_program(tmp_path, "curl", f"echo '{INBOUND.format(requests)}'")
    sourced = Sourced(scripts=[COMPONENTS / "verification" / "scripts" / "call-service.sh"], programs=tmp_path)
    done = sourced.run("print_inbound", {"INBOUND_PORT": 8080, "URL_PATH": "/", "CALLER": "machine product-1", "HOST": HOST, "PORT": 80})
    assert done.returncode == code
    rows = parse(done.stdout).calls
    assert [(row.machine, row.kind, row.answers) for row in rows] == ([("product-1", "counter", 3)] if requests else [])
    assert ("no request from a pod has reached port 8080" in done.stderr) == bool(code)


def test_a_gateway_says_what_it_has_passed_on(tmp_path: Path) -> None:
    """Endpoints that had a connection, by Envoy's counters."""
    name = f"outbound_.80_._.{HOST}"
    counters = [
        f"{name}::172.31.7.130:8080::cx_total::2",
        f"{name}::172.31.7.131:8080::cx_total::0",
        f"{name}::172.31.7.130:8080::rq_total::9",
        "xds-grpc::127.0.0.1:15012::cx_total::1",
    ]
    (tmp_path / "clusters").write_text("\n".join(counters))
    add_program(tmp_path, "curl", f"cat {tmp_path}/clusters")
    text = shell.remote_script("verification/gateway-stats", {"GATEWAY_NAME": "far-gateway-1"})
    done = subprocess.run(["bash", "-s"], input=text, text=True, capture_output=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    traffic = GatewayTraffic("far-gateway-1", f"{HOST}:80", "172.31.7.130:8080", 2)
    assert parse(done.stdout).gateway_traffic == (traffic,)
