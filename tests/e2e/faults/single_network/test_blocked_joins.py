"""Obstacles to joins: each `up` that fails names its causes, and the next `up` finishes when they are gone.

Every update costs a part of a minute, so each meets many obstacles at once, on a machine of its own. The updates are fixtures, each of which starts
where the one before ended; the tests only look at what they did. So one test runs alone, after the updates that it needs, and a test that fails
leaves the others alone.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from components.names import DISCONNECT_GRACE, DRAIN, JOIN, PROOF, REGISTRATION, part_name, stack_resource_name
from components.platforms.docker.names import CONTAINER
from tests.support import credentials
from tests.support.changes import PACKAGE, TEN_MACHINES, other_label_probe_and_package, ten_machines
from tests.support.istio_cases import CALLER, start_steady_caller
from tests.support.lab import CHECKOUT_ID, NODE, Change, Config, Lab, one_at_a_time
from tests.support.package_server import another_version, served_package
from tests.support.traffic import Request, assert_no_lost_requests
from tests.support.waiting import wait_until

PRODUCT_ENDPOINTS = {"pod", *TEN_MACHINES[:5]}
AGENT_STARTED = "systemctl show --property ExecMainStartTimestampMonotonic --value istio-vm-mesh | awk '{print $1 / 1000000}'"
"""Prints when a machine's agent started, in seconds of a clock that containers share."""
CURL = "/usr/local/sbin/curl"
PACKAGES = "/opt/istio-vm-mesh/packages"
DAMAGED_PACKAGES = ("billing-4", "billing-5")
PACKAGE_URL = PACKAGE.format(version="1.31.0")


def obstacle_unit(start: str, stop: str = "true", kind: str = "oneshot") -> str:
    """Return the command that puts an obstacle on an image: a unit that runs before sshd, and gives way when it is stopped."""
    lines = ["[Unit]", "Before=ssh.service", "[Service]", f"Type={kind}", "RemainAfterExit=yes", f"ExecStart={start}", f"ExecStop={stop}"]
    text = "\\n".join([*lines, "[Install]", "WantedBy=multi-user.target", ""])
    return f"printf '{text}' >/etc/systemd/system/obstacle.service && systemctl enable obstacle"


def iptables_unit(rule: str) -> str:
    return obstacle_unit(f"/usr/sbin/iptables --insert {rule}", f"/usr/sbin/iptables --delete {rule}")


REMOVE_UNIT = "systemctl disable --now obstacle"


@dataclass(frozen=True)
class Obstacle:
    """What is wrong on a machine from its first start on.

    command: puts it on the machine's image.
    removal: removes it from the machine.
    cause: what the update says; `{gateway}` stands for the gateway's address.
    """

    command: str
    removal: str
    cause: str


OBSTACLES = {
    "product-2": Obstacle(
        "systemctl mask ssh.service", "systemctl unmask ssh.service && systemctl start ssh.service", "Connection refused"
    ),
    "product-3": Obstacle(
        "ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/other && echo HostKey /etc/ssh/other >/etc/ssh/sshd_config.d/other.conf",
        "rm /etc/ssh/sshd_config.d/other.conf && systemctl restart ssh.service",
        "host key mismatch",
    ),
    "product-4": Obstacle(
        iptables_unit("OUTPUT --protocol tcp --dport 15012 --jump DROP"),
        REMOVE_UNIT,
        "machine product-4: cannot reach the east-west gateway at {gateway} port 15012: check the gateway's address",
    ),
    "product-5": Obstacle(
        iptables_unit("OUTPUT --protocol tcp --dport 18731 --jump REJECT --reject-with tcp-reset"),
        REMOVE_UNIT,
        f"machine product-5: cannot fetch Istio's package from {PACKAGE_URL} (curl: (7)",
    ),
    # Another server answers at the gateway's address: the API server.
    "billing-1": Obstacle(
        iptables_unit("OUTPUT --table nat --protocol tcp --dport 15012 --jump DNAT --to-destination :6443"),
        REMOVE_UNIT,
        "machine billing-1: what answers at {gateway} port 15012 is not istiod: is it the gateway of this mesh?",
    ),
    "billing-2": Obstacle(
        obstacle_unit("/bin/mount -t tmpfs -o size=64m tmpfs /opt", "/bin/umount /opt"),
        f"{REMOVE_UNIT}; systemctl restart echo",
        "MiB are free under /opt, the sidecar needs 400: make room",
    ),
    "billing-3": Obstacle(
        "mv /usr/bin/sudo /usr/bin/sudo.away",
        "mv /usr/bin/sudo.away /usr/bin/sudo",
        "sudo: command not found install sudo and let admin run it without a password and a terminal (!requiretty) "
        "and start programs (!noexec), or connect as root",
    ),
    "billing-4": Obstacle(
        f"cp /bin/sleep /opt/pilot-agent && {obstacle_unit('/opt/pilot-agent infinity', kind='simple')}",
        REMOVE_UNIT,
        "machine billing-4: another Istio agent already runs on this machine",
    ),
}


def image(machine: str) -> str:
    return f"istio-vm-mesh-test-{CHECKOUT_ID}/{machine}"


def with_obstacles(config: Config) -> None:
    """Ten machines; those of OBSTACLES are created with them."""
    ten_machines(config)
    for name in OBSTACLES:
        config["machines"][name]["image"] = image(name)


def joining_again(config: Config) -> None:
    """Change the same stack: one machine, which has joined, joins again."""
    with_obstacles(config)
    config["machines"]["billing-5"]["rotation"] = 1


def upgraded(package: dict[str, str], change: Change) -> Change:
    """Return a change of the stack with another package."""

    def change_with_package(config: Config) -> None:
        change(config)
        config["mesh"]["package"] = package

    return change_with_package


def the_first_and_a_new_one(config: Config) -> None:
    other_label_probe_and_package(config)
    config["machines"]["product-6"] = config["machines"]["product-1"]


def error_of(output: str, resource: str) -> str:
    """Return the diagnostics of an `up` about a resource that failed."""
    diagnostics = re.findall(rf"^ *\S+ \({resource}\):$((?:\n(?! *\S+ \(\S+\):$).*)*)", output, re.MULTILINE)
    return " ".join("\n".join(diagnostics).split())


def set_group_service_account(lab: Lab, account: str) -> None:
    """Change the service account that istiod registers machines of `billing` for."""
    patch = {"spec": {"template": {"serviceAccount": account}}}
    lab.kubectl("patch", "workloadgroup", "billing", "--type", "merge", "--patch", json.dumps(patch))


@dataclass(frozen=True)
class Update:
    """One update: what it printed, the agents' processes before it, and the requests meanwhile."""

    output: str
    agents: dict[str, str]
    requests: tuple[Request, ...] = ()


@pytest.fixture(scope="module")
def lab(single_network_lab: Lab) -> Iterator[Lab]:
    """The stack `lab` with another label, probe and package; the images of the machines with obstacles are built."""
    single_network_lab.ensure(other_label_probe_and_package)
    plain = single_network_lab.resource("product-1-container")["inputs"]["triggers"][0]
    for name, obstacle in OBSTACLES.items():
        single_network_lab.docker("build", "--tag", image(name), "-", stdin=f"FROM {plain}\nRUN {obstacle.command}\n")
    start_steady_caller(single_network_lab)
    yield single_network_lab
    single_network_lab.docker("image", "rm", "--force", *map(image, OBSTACLES), check=False)


@pytest.fixture(scope="module")
def expired(lab: Lab) -> str:
    """A machine was off for longer than its certificate lives. Returns its entry's name.

    The certificate lives 15 seconds, until the machine starts again; the token that it has is one of yesterday.
    """
    short = "/run/systemd/system/istio-vm-mesh.service.d/short.conf"
    drop_in = f"mkdir -p {os.path.dirname(short)} && printf '[Service]\\nEnvironment=SECRET_TTL=15s\\n' >{short} && systemctl daemon-reload"
    lab.exec_in_container("product-1", drop_in)
    lab.exec_in_container(
        "product-1",
        "systemctl stop istio-vm-mesh && rm /var/lib/istio-vm-mesh/etc/certs/key.pem /var/lib/istio-vm-mesh/etc/certs/cert-chain.pem && systemctl start istio-vm-mesh",
    )
    entry, file = lab.entry_name("product-1"), "/var/lib/istio-vm-mesh/etc/certs/cert-chain.pem"
    has_certificate = lambda: bool(lab.exec_in_container("product-1", f"cat {file}", check=False))  # noqa: E731
    wait_until(lambda: lab.entry_health(entry) == "True" and has_certificate(), description="it has a certificate")
    old = credentials.expired(lab.secrets()["token of product-1"], lab.exec_in_container(NODE, "cat /etc/kubernetes/pki/sa.key"))
    lab.exec_in_container("product-1", f"printf %s {old} >/var/lib/istio-vm-mesh/var/run/secrets/tokens/istio-token")
    # Stopped first, or it renews its certificate on the way down.
    ends = credentials.end(lab.exec_in_container("product-1", f"systemctl stop istio-vm-mesh && cat {file}"))
    lab.docker("stop", lab.container("product-1"))
    wait_until(lambda: time.time() > ends, description="the certificate has ended")
    lab.docker("start", lab.container("product-1"))
    return entry


@pytest.fixture(scope="module")
def first(lab: Lab, expired: str) -> Update:
    """Ten machines, eight of them with an obstacle each, and the one whose certificate has ended."""
    lab.configure(with_obstacles)
    with one_at_a_time():
        output = lab.up(check=False)
    print(output)
    return Update(output, {})


@pytest.fixture(scope="module")
def second(lab: Lab, first: Update) -> Update:
    """The obstacles are gone, and others come.

    istiod registers machines of one workload for another account. Packages are damaged on their way. The application of one machine does not run.
    """
    for machine, obstacle in OBSTACLES.items():
        lab.exec_in_container(machine, obstacle.removal)
    set_group_service_account(lab, "default")
    # Another package than the declared one comes to a machine that is in the mesh, and to one
    # without a package.
    curl = '#!/bin/sh\\n/usr/bin/curl "$@" && echo\\n'
    for machine in DAMAGED_PACKAGES:
        lab.exec_in_container(machine, f"printf '{curl}' >{CURL}; chmod +x {CURL}; rm -rf {PACKAGES}")
    lab.ssh("product-1", "sudo systemctl stop echo")
    agents = {machine: lab.agent_pid(machine) for machine in ("product-1", "billing-5")}
    lab.configure(joining_again)
    with one_at_a_time():
        output = lab.up(check=False)
    print(output)
    return Update(output, agents)


@pytest.fixture(scope="module")
def package(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The same build as a package of another version."""
    with served_package(lab, another_version, tmp_path_factory.mktemp("package")) as package:
        yield package


@pytest.fixture(scope="module")
def upgrade(lab: Lab, second: Update, package: dict[str, str]) -> Update:
    """Nothing is in the way any more. All ten agents get the other version, while a pod calls."""
    for machine in DAMAGED_PACKAGES:
        lab.exec_in_container(machine, f"rm {CURL}")
    set_group_service_account(lab, "billing")
    lab.ssh("product-1", "sudo systemctl start echo")
    wait_until(lambda: lab.entry_health(lab.entry_name("product-1")) == "True", description="product-1 is healthy again")
    agents = {machine: lab.agent_pid(machine) for machine in TEN_MACHINES}
    lab.configure(upgraded(package, joining_again))
    with lab.background_requests(CALLER) as requests:
        output = lab.up(timeout=600)
    return Update(output, agents, tuple(requests))


@dataclass(frozen=True)
class Exchange(Update):
    """An update that removes machines, with their records before it."""

    machines: dict[str, dict[str, str]] | None = None


@pytest.fixture(scope="module")
def exchange(lab: Lab, upgrade: Update, package: dict[str, str]) -> Exchange:
    """All machines but one go, and a new one comes, while a pod calls."""
    agents, machines = {"product-1": lab.agent_pid()}, lab.outputs()["machines"]
    lab.configure(upgraded(package, the_first_and_a_new_one))
    with lab.background_requests(CALLER) as requests:
        output = lab.up()
    print(output)
    return Exchange(output, agents, tuple(requests), machines)


def test_status_asks_for_an_update_after_a_certificate_has_expired(lab: Lab, expired: str) -> None:
    wait_until(lambda: "needs `pulumi up`: its certificate ended" in lab.advice("product-1"), description="status says that it needs an up")
    assert "its token expired 24 h ago" in lab.advice("product-1")
    assert lab.entry_health(expired) is None


@pytest.mark.parametrize("machine", OBSTACLES)
def test_the_update_names_what_keeps_a_machine_from_joining(lab: Lab, first: Update, machine: str) -> None:
    assert OBSTACLES[machine].cause.format(gateway=lab.outputs()["gateway"]) in error_of(first.output, part_name(machine, JOIN))


def test_obstacles_of_some_machines_do_not_stop_the_others(lab: Lab, first: Update) -> None:
    """The machine whose certificate had ended is back, too."""
    assert not error_of(first.output, "product-1-join") and not error_of(first.output, "billing-5-join")
    assert {lab.entry_health(lab.entry_name(machine)) for machine in ("product-1", "billing-5")} == {"True"}
    lab.assert_answered_by({"pod", "product-1"})


def test_a_package_with_another_digest_is_not_installed(lab: Lab, second: Update) -> None:
    for machine in DAMAGED_PACKAGES:
        digest = f"machine {machine}: the package from {PACKAGE_URL} has SHA-256"
        assert digest in error_of(second.output, part_name(machine, JOIN))
        assert "nothing was installed" in error_of(second.output, part_name(machine, JOIN))
    assert lab.agent_pid("billing-5") == second.agents["billing-5"]
    assert not lab.exec_in_container("billing-4", f"ls {PACKAGES}", check=False)


@pytest.mark.parametrize(
    ("machine", "cause"),
    [
        # billing-1 was registered as soon as it met the gateway.
        ("billing-2", "istiod refuses to register the machine: its service account is billing, and its WorkloadGroup is for default"),
        ("billing-3", "istiod refuses to register the machine: its service account is billing, and its WorkloadGroup is for default"),
    ],
)
def test_a_wrong_service_account_is_named(second: Update, machine: str, cause: str) -> None:
    assert cause in error_of(second.output, part_name(machine, JOIN))


def test_machines_join_as_soon_as_nothing_is_in_their_way(lab: Lab, second: Update) -> None:
    assert not [name for name in TEN_MACHINES[:5] if error_of(second.output, part_name(name, JOIN))]
    lab.assert_answered_by(PRODUCT_ENDPOINTS - {"product-1"})


def test_an_unhealthy_machine_fails_the_verification(lab: Lab, second: Update) -> None:
    assert "workload product: machine product-1 is unhealthy: its probe fails" in second.output
    assert lab.agent_pid() == second.agents["product-1"]


def test_the_next_up_finishes_when_the_obstacles_are_gone(lab: Lab, upgrade: Update) -> None:
    for workload in ("product", "billing"):
        machines = {entry.machine for entry in lab.evidence(workload).entries}
        assert machines == {machine for machine in TEN_MACHINES if machine.startswith(workload)}
    lab.assert_answered_by(PRODUCT_ENDPOINTS)


def test_an_upgrade_of_ten_machines_loses_no_call(lab: Lab, upgrade: Update) -> None:
    """One agent of a workload after the other: `maxUnavailable` is 25 % of five machines by default."""
    assert_no_lost_requests(upgrade.requests)
    for machine in TEN_MACHINES:
        assert lab.agent_pid(machine) != upgrade.agents[machine]
        assert lab.ssh(machine, "cat /opt/istio-vm-mesh/current/usr/local/share/version") == "another\n"
    started = [float(lab.ssh(machine, AGENT_STARTED)) for machine in TEN_MACHINES if machine.startswith("product")]
    gaps = [later - earlier for earlier, later in itertools.pairwise(sorted(started))]
    assert min(gaps) > DISCONNECT_GRACE, "the next agent stops when the one before it answers again"


def test_a_new_machine_touches_none_of_the_others_and_loses_no_call(lab: Lab, exchange: Exchange) -> None:
    assert_no_lost_requests(exchange.requests)
    touched = set(re.findall(r"^ +\w+ (\S+) (?:created|updated|replaced)", exchange.output, re.MULTILINE))
    parts = {part_name("product-6", part) for part in (CONTAINER, REGISTRATION, JOIN, DRAIN, PROOF)}
    assert touched - {"product-slots", "product-verification", "shop-product-callers", stack_resource_name(lab.stack)} == parts
    assert lab.agent_pid() == exchange.agents["product-1"]
    lab.assert_answered_by({"pod", "product-1", "product-6"})


@pytest.mark.istio_case(29)
def test_machines_are_drained_before_they_go(lab: Lab, exchange: Exchange) -> None:
    assert_no_lost_requests(exchange.requests)
    assert exchange.machines
    for name in set(exchange.machines) - {"product-1"}:
        drained, removed = (exchange.output.index(f"Command {part_name(name, part)} deleted") for part in (DRAIN, CONTAINER))
        assert drained < removed
        assert not lab.docker("ps", "--all", "--quiet", "--filter", f"name={lab.container(name)}")
    assert not [line for line in exchange.output.splitlines() if "Command product-1-" in line]
    assert set(lab.entries()) == {lab.address(name) for name in ("product-1", "product-6")}
