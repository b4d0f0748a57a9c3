"""What a caller outside the mesh sees, with a curl of the test's."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from components import shell
from components.verification.evidence import Plaintext, parse
from tests.support.scripts import COMPONENTS, Sourced, add_program

HOST = "product.shop.svc.cluster.local"
PROBE = COMPONENTS / "verification" / "scripts" / "plaintext-probe.sh"


def run(directory: Path, variables: dict[str, str | int], curl: str) -> str:
    """Run the script as a pod does, and return what it printed."""
    add_program(directory, "curl", curl)
    text = shell.remote_script("verification/plaintext-probe", variables)
    return subprocess.run(["bash", "-s"], input=text, text=True, capture_output=True, env={"PATH": f"{directory}:/usr/bin:/bin"}).stdout


@pytest.mark.parametrize(
    ("code", "shown", "result"),
    [
        (0, "0.1 200", "answered"),
        (1, "0.1 000", "answered"),
        (6, "0.000000 000", "unreachable"),
        (7, "0.000000 000", "unreachable"),
        (28, "0.000000 000", "unreachable"),
        (28, "0.000210 000", "answered"),
        (35, "0.1 000", "refused"),
        (52, "0.1 000", "refused"),
        (55, "0.1 000", "refused"),
        (56, "0.1 000", "refused"),
        (56, "0.1 200", "answered"),
        (22, "0.1 403", "answered"),
    ],
)
def test_the_result_of_a_request_from_outside_follows_from_curls_code(tmp_path: Path, code: int, shown: str, result: str) -> None:
    endpoints = ["172.31.6.130:8080", "172.31.7.9:15443", "10.244.0.9:8080"]
    variables: dict[str, str | int] = {"ENDPOINTS": " ".join(endpoints), "SNI": f"outbound_.80_._.{HOST}", "SCHEME": "http"}
    curl = f'echo "$*" >>{tmp_path}/calls\nprintf "{shown}"\nexit {code}'
    output = run(tmp_path, variables, curl)
    assert {*parse(output).plaintext} == {Plaintext(endpoint, result) for endpoint in endpoints}
    calls = sorted((tmp_path / "calls").read_text().splitlines())
    ends = [line.partition("--write-out ")[2].split() for line in calls]
    assert {(words[0], words[1], words[-1]) for words in ends} == {
        ("%{time_connect}", "%{http_code}", "http://172.31.6.130:8080/"),
        ("%{time_connect}", "%{http_code}", "http://10.244.0.9:8080/"),
        ("%{time_appconnect}", "%{http_code}", f"https://outbound_.80_._.{HOST}:15443/"),
    }, "through a gateway by the name that it routes requests by"


def test_so_many_requests_are_made_at_once(tmp_path: Path) -> None:
    counted = "wait() { echo wait; builtin wait; }; call() { echo $1; }; AT_ONCE=2; main"
    done = Sourced(scripts=[PROBE], programs=tmp_path).run(counted, {"ENDPOINTS": "a b c d e", "SNI": "x"})
    assert sorted(done.stdout.split()) == ["a", "b", "c", "d", "e", "wait", "wait", "wait"]


@pytest.mark.parametrize("script", sorted(PROBE.parent.glob("*.sh")), ids=lambda path: path.stem)
def test_a_script_that_is_sourced_runs_nothing(tmp_path: Path, script: Path) -> None:
    add_program(tmp_path, "curl", f"touch {tmp_path}/called")
    variables = {"TIMEOUT_S": "0", "ENDPOINTS": "192.0.2.7:80", "SNI": "x", "GATEWAY_NAME": "x"}
    done = Sourced(scripts=[script], programs=tmp_path, environment=variables).run("echo ended")
    assert (done.returncode, done.stdout, (tmp_path / "called").exists()) == (0, "ended\n", False), done.stderr
