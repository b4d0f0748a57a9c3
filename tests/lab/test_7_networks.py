"""Two networks with nothing but gateways between them: the stack lab-multi-network, brought up by a `lab up` that is killed again and again."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab import credentials
from tests.lab.acceptance import CALLER, STEADY, Acceptance, apply, none_lost, told_apart
from tests.lab.environment import CHECKOUT, SLOWLY, Config, Lab, processes, wait_for
from tools.lab import engine, locks
from tools.lab.process import restore_sigint

ALL = {"pod", "product-1", "product-2", "product-3"}
SERVICE = "product.shop.svc.cluster.local"
NEW_ROOT = "Another root"
KILLS = int(os.environ.get("LAB_KILLS", "20"))
"""How often it is killed."""


def moments(kills: int) -> list[tuple[int, float]]:
    """When it is killed: so many seconds after so many resources of that run. Up to four times while the cluster is made, then all along."""
    early = [(0, seconds) for seconds in (12.0, 2.0, 6.0, 18.0)][: kills // 4]
    late = kills - len(early)
    return early + [(max(1, 24 // late), number % 4 / 4) for number in range(late)]


def iter_until(lines: Iterable[str], text: str) -> Iterator[str]:
    """Lines up to the first that holds a text."""
    for line in lines:
        yield line
        if text in line:
            return


@dataclass
class Networks(Lab):
    """The lab with two networks; pods and product-1 in one, product-2 and product-3 in the other."""

    scenario = "lab-multi-network"
    machines = frozenset({"product-1", "product-2", "product-3"})
    tested = "product-2"
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

    def interrupted(self, after: str, seconds: float) -> tuple[float, int, str]:
        """`lab up`, interrupted as by Ctrl-C so long after it printed a line: how long it took to end then, its exit code, its output."""
        command = ["./scripts/lab", "up", "--stack", self.stack]
        with subprocess.Popen(
            command,
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
            preexec_fn=restore_sigint,
        ) as process:
            assert process.stdout
            lines = list(iter_until(process.stdout, after))
            time.sleep(seconds)
            started = time.monotonic()
            os.killpg(process.pid, signal.SIGINT)
            output, _ = process.communicate(timeout=60)
            return time.monotonic() - started, process.returncode, "".join(lines) + output

    def left(self) -> str:
        """What is left of the stack in the engine and in this checkout's state."""
        label = f"label=istio-vm-mesh.stack={self.stack}"
        of_engine = []
        with locks.shared_lock():
            if found := engine.find():
                nodes = f"name=istio-vm-mesh-{self.stack}-"
                what = (("ps", "--all", "--filter", label), ("network", "ls", "--filter", label), ("ps", "--all", "--filter", nodes))
                of_engine = [found.docker(*each, "--quiet") for each in what]
        state = [str(file) for file in (self.root / ".lab").rglob(f"*{self.stack}*")]
        state += [str(file) for file in (self.root / ".lab" / "run" / "tmp").glob("*")]
        return " ".join([*of_engine, *state]).strip()

    def configure(self, change: Callable[[Config], None] | None = None) -> None:
        def both(config: Config) -> None:
            told_apart(config)
            if change:
                change(config)

        super().configure(both)

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
def fresh(checkout: Path) -> Iterator[Networks]:
    """The lab with two networks, not up yet."""
    lab = Networks(checkout)
    lab.lab("down")
    lab.configure()
    try:
        yield lab
    finally:
        lab.leave()


@pytest.fixture(scope="module")
def networks(fresh: Networks) -> Networks:
    """The same, up after having been killed over and over."""
    kills = sum(fresh.up_until_killed(*moment) for moment in moments(KILLS))
    print(f"killed {kills} times")
    assert kills >= KILLS / 2  # a fast machine is done before the last ones
    fresh.output = fresh.up()
    fresh.prepare()
    return fresh


@pytest.fixture(scope="module")
def mesh(networks: Networks) -> Networks:
    return networks


def test_down_leaves_nothing_of_an_up_that_was_killed(fresh: Networks) -> None:
    assert fresh.up_until_killed(0, 8)
    assert fresh.left()
    for _ in range(2):
        fresh.lab("down")
        assert not fresh.left()
        assert not processes(str(fresh.root))


@pytest.mark.parametrize(("after", "seconds"), [("[ 1/", 0.0), ("plugins", 6.0)], ids=["early", "in pulumi up"])
def test_an_interrupted_up_ends_within_seconds_and_says_what_to_run_next(fresh: Networks, after: str, seconds: float) -> None:
    took, code, output = fresh.interrupted(after, seconds)
    print(f"ended after {took:.1f} s")
    assert took < 15
    assert code == 130
    of = f"--stack {fresh.stack}"
    assert output.endswith(f"run ./scripts/lab up {of} to continue or ./scripts/lab down {of} to remove what there is.\n")
    assert not [line for line in processes(str(fresh.root)) if "pulumi" in line]


def test_it_comes_up_however_often_it_is_killed(networks: Networks) -> None:
    assert set(networks.outputs()["machines"]) == {"product-1", "product-2", "product-3", "far-gateway-1", "far-gateway-2"}
    networks.pulumi("preview", "--expect-no-changes")


def test_everybody_calls_everybody(networks: Networks) -> None:
    for caller in ("pod", *sorted(networks.machines)):
        networks.meets(caller, networks.everybody)


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
    answered = networks.outputs()["verification"]["product"]["inbound"]
    assert {each["machine"] for each in answered if int(each["requests"]) > 0} == {"product-1", "product-2", "product-3"}
    carried = networks.outputs()["verification"]["far-gateway"]["gateway_traffic"]
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
        wait_for(
            lambda: {each.hostname for each in networks.from_pod(count=60, path=SLOWLY)} >= ALL and _calm(networks),
            20,
            "calls succeed again",
        )
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


class TestTwoNetworks(Acceptance):
    """Of a far machine, wherever it matters."""


def test_two_machines_with_one_address_in_two_networks_have_an_entry_each(networks: Networks) -> None:
    """Forced by what the second proxy announces; it is killed, so that it starts anew at once."""
    near, far = (networks.outputs()["machines"][name] for name in ("product-1", "product-3"))
    twin = f"product-{near['address']}-far"
    announce = (
        "sudo sed -i \"s/^INSTANCE_IP=.*/INSTANCE_IP='{}'/\" /var/lib/istio/envoy/overrides.env && sudo systemctl kill --signal KILL istio"
    )
    networks.ssh("product-3", announce.format(near["address"]))
    try:
        wait_for(lambda: networks.health(twin) is not None, 15, "the second entry is there")
        assert networks.health(near["entry"]) == "True"
    finally:
        networks.ssh("product-3", announce.format(far["address"]))
    wait_for(lambda: networks.health(far["entry"]) == "True" and networks.health(twin) is None, 30, "all is as before")


def test_the_verification_names_what_is_in_the_way_of_machines(networks: Networks) -> None:
    """A port of the gateway that is closed for one machine, and another one's names that nobody captures any more."""
    closed = "OUTPUT --protocol tcp --dport 15443 --jump REJECT --reject-with tcp-reset"
    networks.ssh("product-2", f"sudo iptables --insert {closed}")
    networks.ssh("product-3", "for each in legacy nft; do sudo iptables-$each --table nat --flush ISTIO_OUTPUT_DNS; done", check=False)
    try:
        said = " ".join(networks.verify().split())
    finally:
        networks.ssh("product-2", f"sudo iptables --delete {closed}")
        networks.ssh("product-3", "sudo systemctl kill --signal KILL istio")
    assert f"machine product-2: no answer from {networks.outputs()['gateway']}:15443" in said
    assert "takes no connection on port 15443 (refused): is the port open in the firewall" in said
    assert f"machine product-3: {SERVICE} does not resolve: is DNS capture on" in said


def test_the_verification_names_a_wrong_network(networks: Networks) -> None:
    found = networks.outputs()["machines"]["product-3"]
    label = "sudo sed -i \"s/^ISTIO_META_NETWORK=.*/ISTIO_META_NETWORK='{}'/\" /var/lib/istio/envoy/cluster.env"
    # The machine's configuration says it too, and wins.
    file = "sudo sed -i 's/ISTIO_META_NETWORK: .*/ISTIO_META_NETWORK: {}/' /var/lib/istio/config/mesh"
    restart = "sudo systemctl kill --signal KILL istio"
    networks.ssh("product-3", f"{label.format('pods')} && {file.format('pods')} && {restart}")
    wrong = f"product-{found['address']}-pods"
    try:
        wait_for(lambda: networks.health(found["entry"]) is None and networks.health(wrong) is not None, 30, "it has registered otherwise")
        said = " ".join(networks.verify().split())
    finally:
        networks.ssh("product-3", f"{label.format('far')} && {file.format('far')} && {restart}")
    assert f"machine product-3 has registered as {wrong} in the network pods instead of {found['entry']}" in said
    wait_for(lambda: networks.health(found["entry"]) == "True" and networks.health(wrong) is None, 30, "all is as before")


def test_the_verification_names_a_missing_route(networks: Networks) -> None:
    route = networks.ssh("product-1", "ip route show 10.244.0.0/16").strip()
    networks.ssh("product-1", f"sudo ip route delete {route}")
    try:
        said = " ".join(networks.verify().split())
    finally:
        networks.ssh("product-1", f"sudo ip route add {route}")
    address = networks.address("product-1")
    assert f"no answer from {address}:8080" in said
    assert f"is there a route to {address} and back" in said


def test_a_rotated_root_certificate_reaches_machines(networks: Networks) -> None:
    """First both roots are trusted everywhere, then the new one signs: the order that keeps a mesh together."""
    new, istio = credentials.authority(NEW_ROOT), ("--namespace", "istio-system")
    held = networks.get("secret", "istio-ca-secret", *istio)["data"]
    certificate, key = (base64.b64decode(held[name]).decode() for name in ("ca-cert.pem", "ca-key.pem"))
    roots = f"{certificate.strip()}\n{new[0]}"
    sign_with(networks, certificate, key, roots)
    published = lambda: networks.get("configmap", "istio-ca-root-cert")["data"]["root-cert.pem"] == roots  # noqa: E731
    wait_for(published, 60, "istiod has published both roots")
    restart(networks, "deployment/product")
    networks.up()
    assert new[0].strip() in networks.ssh("product-1", "sudo cat /etc/certs/root-cert.pem")
    sign_with(networks, *new, roots)
    anew = "sudo rm /etc/certs/key.pem /etc/certs/cert-chain.pem && sudo systemctl kill --signal KILL istio"
    for machine in ("product-1", "product-2"):
        networks.ssh(machine, anew)
    restart(networks, "deployment/product")
    for caller in ("pod", "product-1", "product-2"):
        networks.meets(caller, ALL, seconds=30)
    for machine in ("product-1", "product-2"):
        assert credentials.issuer(networks.ssh(machine, "sudo cat /etc/certs/cert-chain.pem")) == NEW_ROOT
    networks.pulumi("preview", "--expect-no-changes")


def test_a_far_machine_comes_changes_and_goes_without_a_lost_call(networks: Networks) -> None:
    """Every call to it goes through the gateways. The change restarts the agents of all machines of the workload while pods answer."""

    def more(config: Config) -> None:
        config["machines"]["product-4"] = config["machines"]["product-3"]

    def changed(config: Config) -> None:
        more(config)
        config["workloads"]["product"]["probe"]["period"] = 3

    def fewer(config: Config) -> None:
        changed(config)
        del config["machines"]["product-4"]

    apply(networks, STEADY)
    networks.kubectl("rollout", "status", CALLER, "--timeout", "60s")
    agents = {name: networks.agent(name) for name in networks.machines}
    for change, who in ((more, ALL | {"product-4"}), (changed, ALL | {"product-4"}), (fewer, ALL)):
        networks.configure(change)
        with networks.traffic(CALLER) as calls:
            networks.up()
        none_lost(calls)
        networks.meets("pod", who)
        restarted = {name for name, agent in agents.items() if networks.agent(name) != agent}
        assert restarted == (set() if change is more else networks.machines)


def test_a_network_without_a_gateway_calls_and_is_not_called(networks: Networks) -> None:
    networks.configure(lambda config: config["networks"]["far"].pop("gateway"))
    assert "its machines call pods, and nothing outside of it calls them" in networks.pulumi("preview")
    networks.up()
    assert "far-gateway-1" not in networks.outputs()["machines"]
    pod = networks.get("pods", "--selector", "app=product")["items"][0]["status"]["podIP"]
    near = {f"{pod}:8080", f"{networks.address('product-1')}:8080"}
    wait_for(lambda: networks.endpoints("pod") == near, 10, "pods have no endpoint in the far network")
    assert {each.hostname for each in networks.from_pod(count=40)} == {"pod", "product-1"}
    networks.meets("product-2", {"pod", "product-2"})


def sign_with(mesh: Lab, certificate: str, key: str, roots: str) -> None:
    """Plug an authority into istiod, as Istio documents it."""
    files = {"ca-cert.pem": certificate, "ca-key.pem": key, "cert-chain.pem": certificate, "root-cert.pem": roots}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cacerts", "namespace": "istio-system"}, "stringData": files}
    mesh.run("kubectl", "apply", "--server-side", "--filename", "-", stdin=json.dumps(secret))
    restart(mesh, "deployment/istiod", "--namespace", "istio-system")


def restart(mesh: Lab, what: str, *namespace: str) -> None:
    mesh.kubectl("rollout", "restart", what, *namespace)
    mesh.kubectl("rollout", "status", what, "--timeout=90s", *namespace)
