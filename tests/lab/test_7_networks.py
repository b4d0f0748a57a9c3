"""Two networks with nothing but gateways between them: the stack lab-multi-network, brought up by a `lab up` that is killed again and again."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.environment import CHECKOUT, Lab, wait_for

ALL = {"pod", "product-1", "product-2", "product-3"}
SERVICE = "product.shop.svc.cluster.local"
# Four while the cluster is made, the others after each further resource, or some: several are made at once.
MOMENTS = [(0, 2), (0, 6), (0, 12), (0, 18), *((1, number % 4 / 4) for number in range(16))]
"""When it is killed: so many seconds after so many resources of this run."""
KILLS = int(os.environ.get("LAB_KILLS", "0"))
"""How many of them; all 20 take some minutes more."""


@dataclass
class Networks(Lab):
    """The lab with two networks; pods and product-1 in one, product-2 and product-3 in the other."""

    scenario = "lab-multi-network"
    stack: str = f"networks-{CHECKOUT}"

    def up_until_killed(self, created: int, seconds: float) -> bool:
        """`lab up`, whose whole process group gets SIGKILL so many seconds after Pulumi has created so many resources; whether it came to that."""
        command = ["./scripts/lab", "up", "--stack", self.stack]
        with subprocess.Popen(command, cwd=self.root, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
            assert process.stdout
            lines = []
            for line in process.stdout:
                lines.append(line)
                # The step before Pulumi has ended, and then each resource.
                if sum("plugins" in each or " created: " in each for each in lines) > created:
                    break
            try:
                output, _ = process.communicate(timeout=seconds)
                assert process.returncode == 0, f"`up` after a kill failed:\n{''.join(lines)}{output}"
                return False
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                return True

    def from_far(self, machine: str) -> set[str]:
        """Who answers a far machine: many calls at once, for a gateway passes on connections, and those are kept."""
        calls = "for _ in $(seq 16); do curl --silent --max-time 5 http://product/ & done; wait"
        found = re.findall(r"^Hostname=(\S+)", self.ssh(machine, calls), re.MULTILINE)
        return {"pod" if name.count("-") > 1 else name for name in found}

    def endpoints(self, caller: str) -> set[str]:
        """The endpoints of the Service that the proxy of a machine, or of the pod, was given."""
        if caller == "pod":
            text = self.kubectl("exec", "deploy/product", "--container", "istio-proxy", "--", "pilot-agent", "request", "GET", "clusters")
        else:
            text = self.ssh(caller, "curl --silent http://127.0.0.1:15000/clusters")
        return {
            line.split("::")[1] for line in text.splitlines() if line.startswith(f"outbound|80||{SERVICE}::") and "::rq_total::" in line
        }

    def address(self, machine: str) -> str:
        return self.outputs()["machines"][machine]["address"]

    def dropped(self) -> int:
        """Packets that the node dropped because they were on their way between the pods and the far network past the gateways."""
        rules = self.inside("cluster-control-plane", "iptables -t filter -L FORWARD -v -n -x")
        return sum(int(line.split()[0]) for line in rules.splitlines() if "DROP" in line and self.ranges[1] in line)


@pytest.fixture(scope="module")
def networks(checkout: Path) -> Iterator[Networks]:
    """The lab with two networks, up after having been killed over and over."""
    lab = Networks(checkout)
    lab.lab("down")
    lab.configure()
    try:
        kills = sum(lab.up_until_killed(*moment) for moment in MOMENTS[:KILLS])
        print(f"killed {kills} times")
        assert kills >= KILLS / 2  # a fast machine is done before the last ones
        lab.output = lab.up()
        lab.prepare()
        yield lab
    finally:
        lab.leave()


def test_it_comes_up_however_often_it_is_killed(networks: Networks) -> None:
    assert set(networks.outputs()["machines"]) == {"product-1", "product-2", "product-3", "far-gateway-1", "far-gateway-2"}
    networks.pulumi("preview", "--expect-no-changes")


def test_everybody_calls_everybody(networks: Networks) -> None:
    wait_for(lambda: {each.hostname for each in networks.from_pod(count=80)} >= ALL, 20, "the pod is answered by all")
    for machine in ("product-1", "product-2", "product-3"):
        met: set[str] = set()

        def all_met(machine: str = machine, met: set[str] = met) -> bool:
            met |= networks.from_far(machine)
            return met >= ALL

        wait_for(all_met, 20, f"{machine} is answered by all")


def test_nobody_is_given_an_address_that_it_cannot_reach(networks: Networks) -> None:
    pod = networks.get("pods", "--selector", "app=product")["items"][0]["status"]["podIP"]
    near = {f"{pod}:8080", f"{networks.address('product-1')}:8080"}
    gateways = {f"{networks.address(name)}:15443" for name in ("far-gateway-1", "far-gateway-2")}
    far = {f"{networks.address(name)}:8080" for name in ("product-2", "product-3")}
    for caller in ("pod", "product-1"):
        assert networks.endpoints(caller) == near | gateways
    for caller in ("product-2", "product-3"):
        assert networks.endpoints(caller) == far | {f"{networks.outputs()['gateway']}:15443"}


def test_no_packet_passes_the_gateways_by(networks: Networks) -> None:
    """None was sent there, and one that is sent there does not arrive."""
    assert networks.dropped() == 0
    target = f"http://{networks.address('product-2')}:8080/"
    curl = ["curl", "--silent", "--max-time", "2", target]
    done = networks.run("kubectl", "--namespace", "shop", "exec", "deploy/product", "--container", "istio-proxy", "--", *curl, check=False)
    assert done.returncode == 28  # curl's: no answer in time
    assert networks.dropped() > 0


def test_the_evidence_names_the_path(networks: Networks) -> None:
    calls = networks.outputs()["verification"]["product"]["calls"]
    paths = {(call["caller"], call["path"]) for call in calls}
    assert {
        ("Job verify-product", "direct"),
        ("Job verify-product", "through far-gateway-1"),
        ("Job verify-product", "through far-gateway-2"),
    } <= paths
    assert {("machine product-2", "through istio-eastwestgateway"), ("machine product-3", "through istio-eastwestgateway")} <= paths
    answered = networks.outputs()["verification"]["product"]["answered"]
    assert {each["machine"] for each in answered if int(each["requests"]) > 0} == {"product-1", "product-2", "product-3"}
    carried = networks.outputs()["verification"]["far-gateway"]["carried"]
    assert {each["gateway"] for each in carried} == {"far-gateway-1", "far-gateway-2"}
    assert {each["endpoint"] for each in carried} == {f"{networks.address(name)}:8080" for name in ("product-2", "product-3")}


@pytest.mark.parametrize("death", ["agent", "machine"])
def test_when_one_of_two_gateways_dies_calls_succeed_again_within_seconds(networks: Networks, death: str) -> None:
    name = "far-gateway-1"
    container = f"istio-vm-mesh-{networks.stack}-{name}"
    if death == "agent":
        networks.inside(name, "systemctl mask --runtime istio; systemctl kill --signal KILL istio")
    else:
        networks.docker("kill", container)
    try:
        died = time.monotonic()
        wait_for(lambda: {each.hostname for each in networks.from_pod(count=60)} >= ALL and _calm(networks), 20, "calls succeed again")
        print(f"{death}: calls succeeded again after {time.monotonic() - died:.1f} s")
    finally:
        if death == "agent":
            networks.inside(name, "systemctl unmask istio; systemctl start istio")
        else:
            networks.docker("start", container)
    entry = networks.outputs()["machines"][name]["entry"]
    found = lambda: networks.run("kubectl", "get", "workloadentry", "--namespace", "istio-system", entry, check=False).returncode == 0  # noqa: E731
    wait_for(found, 30, "the gateway is registered again")


def _calm(networks: Networks) -> bool:
    """Whether none of some calls is lost."""
    return "lost" not in {each.hostname for each in networks.from_pod(count=40)}


def test_a_network_without_a_gateway_calls_and_is_not_called(networks: Networks) -> None:
    networks.configure(lambda config: config["networks"]["far"].pop("gateway"))
    assert "its machines call pods, and nothing outside of it calls them" in networks.pulumi("preview")
    networks.up()
    assert "far-gateway-1" not in networks.outputs()["machines"]
    pod = networks.get("pods", "--selector", "app=product")["items"][0]["status"]["podIP"]
    near = {f"{pod}:8080", f"{networks.address('product-1')}:8080"}
    wait_for(lambda: networks.endpoints("pod") == near, 10, "pods have no endpoint in the far network")
    assert {each.hostname for each in networks.from_pod(count=40)} == {"pod", "product-1"}
    assert {each.hostname for each in networks.from_machine("product-2", count=40)} >= {"pod", "product-2"}
