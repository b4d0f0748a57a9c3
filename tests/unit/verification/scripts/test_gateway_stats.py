"""What a gateway has passed on, by the counters of its Envoy."""

from __future__ import annotations

import subprocess
from pathlib import Path

from components import shell
from components.verification.evidence import GatewayTraffic, parse
from tests.support.scripts import add_program

HOST = "product.shop.svc.cluster.local"


def run(directory: Path, curl: str) -> subprocess.CompletedProcess[str]:
    """Run the script as a machine does."""
    add_program(directory, "curl", curl)
    text = shell.remote_script("verification/gateway-stats", {"GATEWAY_NAME": "far-gateway-1"})
    return subprocess.run(["bash", "-s"], input=text, text=True, capture_output=True, env={"PATH": f"{directory}:/usr/bin:/bin"})


def test_a_gateway_says_what_it_has_passed_on(tmp_path: Path) -> None:
    """Endpoints that took a connection, by Envoy's counters. Subsets of a DestinationRule have clusters of their own."""
    name, subset = f"outbound_.80_._.{HOST}", f"outbound_.80_.v-2.1_.{HOST}"
    counters = [
        f"{name}::172.31.7.130:8080::rq_total::2",
        f"{name}::172.31.7.131:8080::rq_total::0",
        f"{subset}::172.31.7.132:8080::rq_total::3",
        f"{name}::172.31.7.131:8080::cx_total::9",
        "xds-grpc::127.0.0.1:15012::rq_total::1",
    ]
    (tmp_path / "clusters").write_text("\n".join(counters))
    output = run(tmp_path, f"cat {tmp_path}/clusters").stdout
    passed = [("172.31.7.130:8080", 2), ("172.31.7.132:8080", 3)]
    assert parse(output).gateway_traffic == tuple(GatewayTraffic("far-gateway-1", f"{HOST}:80", *each) for each in passed)


def test_a_gateway_whose_envoy_does_not_answer_fails(tmp_path: Path) -> None:
    """Behind a load balancer the other gateways pass on all calls."""
    done = run(tmp_path, "exit 7")
    cause = "machine far-gateway-1: Envoy does not answer on its admin port: the proxy is not running\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", cause)
