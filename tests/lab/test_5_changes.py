"""Changes of the stack file, and obstacles to them: each `up` that fails names its causes, and the same `up` finishes when they are gone.

The tests run in this order and build on each other: every `up` costs a part of a minute, so each meets many obstacles at once, on a machine of its own.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from tests.lab import credentials
from tests.lab.acceptance import CALLER, STEADY, apply, none_lost, told_apart
from tests.lab.environment import CHECKOUT, Config, Lab, wait_for

BOTH = {"pod", "product-1"}
TEN = [f"{workload}-{number}" for workload in ("product", "billing") for number in range(1, 6)]
ALL = {"pod", *TEN[:5]}
NODE = "cluster-control-plane"
DAY = 24 * 3600.0
CURL = "/usr/local/sbin/curl"
STAMP = "/var/lib/istio-vm-mesh/package"


def service(start: str, stop: str = "true", kind: str = "oneshot") -> str:
    """The command that puts an obstacle on an image: a unit that runs before sshd, and gives way when it is stopped."""
    lines = ["[Unit]", "Before=ssh.service", "[Service]", f"Type={kind}", "RemainAfterExit=yes", f"ExecStart={start}", f"ExecStop={stop}"]
    text = "\\n".join([*lines, "[Install]", "WantedBy=multi-user.target", ""])
    return f"printf '{text}' >/etc/systemd/system/obstacle.service && systemctl enable obstacle"


def rule(chain: str) -> str:
    return service(f"/usr/sbin/iptables --insert {chain}", f"/usr/sbin/iptables --delete {chain}")


AWAY = "systemctl disable --now obstacle"
OBSTACLES = {
    "product-2": ("systemctl mask ssh.service", "systemctl unmask ssh.service && systemctl start ssh.service"),
    "product-3": (
        "ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/other && echo HostKey /etc/ssh/other >/etc/ssh/sshd_config.d/other.conf",
        "rm /etc/ssh/sshd_config.d/other.conf && systemctl restart ssh.service",
    ),
    "product-4": (rule("OUTPUT --protocol tcp --dport 15012 --jump DROP"), AWAY),
    "product-5": (rule("OUTPUT --protocol tcp --dport 18731 --jump REJECT --reject-with tcp-reset"), AWAY),
    # Somebody else answers where the gateway ought to be: the API server.
    "billing-1": (rule("OUTPUT --table nat --protocol tcp --dport 15012 --jump DNAT --to-destination :6443"), AWAY),
    "billing-2": (service("/bin/mount -t tmpfs -o size=64m tmpfs /usr/local", "/bin/umount /usr/local"), f"{AWAY}; systemctl restart echo"),
    "billing-3": ("mv /usr/bin/sudo /usr/bin/sudo.away", "mv /usr/bin/sudo.away /usr/bin/sudo"),
    "billing-4": (f"cp /bin/sleep /opt/pilot-agent && {service('/opt/pilot-agent infinity', kind='simple')}", AWAY),
}
"""What is wrong on the machine from its first start on, and what removes it."""


PACKAGE = "http://host.docker.internal:18731/{version}/./istio-sidecar.deb"


def changed(config: Config) -> None:
    """Other labels and another probe, and the same package from a place that is called otherwise; kept from the first test on."""
    told_apart(config)
    config["mesh"]["package"]["url"] = PACKAGE
    config["workloads"]["product"]["labels"]["tier"] = "x"
    config["workloads"]["product"]["probe"] = {"http": {"port": 8080, "path": "/?probe"}, "period": 3}


def image(machine: str) -> str:
    return f"istio-vm-mesh-test-{CHECKOUT}/{machine}"


def ten(config: Config) -> None:
    """Two workloads on ten machines; those of OBSTACLES are made with them."""
    changed(config)
    product = config["workloads"]["product"]
    config["workloads"]["billing"] = {**product, "labels": {"app": "billing"}, "services": {"billing": {"ports": {"http": 80}}}}
    del config["workloads"]["billing"]["pods"]
    machine = config["machines"].pop("product-1")
    for name in TEN:
        own = {"image": image(name)} if name in OBSTACLES else {}
        config["machines"][name] = {**machine, **own, "workload": name.partition("-")[0]}


def again(*names: str) -> Callable[[Config], None]:
    """The same, and these machines join again."""

    def change(config: Config) -> None:
        ten(config)
        for name in names:
            config["machines"][name]["rotation"] = 1

    return change


def only_the_first(config: Config) -> None:
    changed(config)
    config["machines"]["product-1"]["rotation"] = 1


def eleven(config: Config) -> None:
    again("product-1", "product-3", "product-4", "product-5")(config)
    config["machines"]["product-6"] = config["machines"]["billing-5"] | {"workload": "product"}


def said(output: str, resource: str) -> str:
    """What an `up` says about a resource that failed."""
    found = re.findall(rf"^ *\S+ \({resource}\):$((?:\n(?! *\S+ \(\S+\):$).*)*)", output, re.MULTILINE)
    return " ".join("\n".join(found).split())


def test_a_change_in_place_loses_no_call_and_shows_in_the_entry(lab: Lab) -> None:
    """Label, probe and package at once: the package is installed and the agent restarted while others answer."""
    deployment, group = (lab.get(*what)["metadata"]["uid"] for what in (("deployment", "product"), ("workloadgroup", "product")))
    agent = lab.agent()
    apply(lab, STEADY)
    lab.kubectl("rollout", "status", CALLER, "--timeout", "60s")
    lab.configure(changed)
    with lab.traffic(CALLER) as calls:
        lab.up()
    assert lab.agent() != agent
    none_lost(calls)
    [entry] = lab.entries().values()
    assert entry["metadata"]["labels"]["tier"] == entry["spec"]["labels"]["tier"] == "x"
    probe = {"httpGet": {"port": 8080, "path": "/?probe"}, "periodSeconds": 3, "timeoutSeconds": 1, "failureThreshold": 3}
    assert yaml.safe_load(lab.ssh("product-1", "cat /etc/istio/config/mesh"))["defaultConfig"]["readinessProbe"] == probe
    assert lab.get("workloadgroup", "product")["spec"]["probe"] == probe
    # Both were changed in place: a new group would take every entry with it.
    assert lab.get("deployment", "product")["metadata"]["uid"] == deployment
    assert lab.get("workloadgroup", "product")["metadata"]["uid"] == group
    assert lab.answering() == (BOTH, BOTH)
    wait_for(
        lambda: all(pod["metadata"]["labels"]["tier"] == "x" for pod in lab.get("pods", "--selector", "app=product")["items"]),
        40,
        "old pods are gone",
    )


@pytest.fixture(scope="module")
def images(lab: Lab) -> Iterator[None]:
    """Images of machines on which something is wrong."""
    plain = lab.resource("product-1-container")["inputs"]["triggers"][0]
    for name, (command, _) in OBSTACLES.items():
        lab.docker("build", "--tag", image(name), "-", stdin=f"FROM {plain}\nRUN {command}\n")
    yield
    lab.docker("image", "rm", "--force", *map(image, OBSTACLES), check=False)


@pytest.mark.usefixtures("images")
def test_status_says_that_a_machine_needs_an_up_when_it_was_off_for_longer_than_its_certificate_lives(lab: Lab) -> None:
    """The certificate lives 15 seconds, until the machine starts again; the token that it has is one of yesterday."""
    short = "/run/systemd/system/istio.service.d/short.conf"
    lab.inside(
        "product-1",
        f"mkdir {os.path.dirname(short)} && printf '[Service]\\nEnvironment=SECRET_TTL=15s\\n' >{short} && systemctl daemon-reload",
    )
    lab.inside("product-1", "systemctl stop istio && rm /etc/certs/key.pem /etc/certs/cert-chain.pem && systemctl start istio")
    entry, file = lab.entry("product-1"), "/etc/certs/cert-chain.pem"
    wait_for(lambda: lab.health(entry) == "True" and bool(lab.inside("product-1", f"cat {file}", check=False)), 20, "it has a certificate")
    old = credentials.expired(lab.secrets()["product-1-token"], lab.inside(NODE, "cat /etc/kubernetes/pki/sa.key"))
    lab.edit_state(lambda resources: credentials.put(resources["product-1-token"], old, time.time() - DAY))
    lab.inside("product-1", f"printf %s {old} >/var/lib/istio/envoy/istio-token")
    # Stopped first, or it renews its certificate on the way down.
    ends = credentials.end(lab.inside("product-1", f"systemctl stop istio && cat {file}"))
    lab.docker("stop", f"istio-vm-mesh-{lab.stack}-product-1")
    wait_for(lambda: time.time() > ends, 20, "the certificate has ended")
    lab.docker("start", f"istio-vm-mesh-{lab.stack}-product-1")
    wait_for(lambda: "needs `pulumi up`: its certificate ended" in lab.advice("product-1"), 20, "status says that it needs an up")
    assert "its token expired 24 h ago" in lab.advice("product-1")
    assert lab.health(entry) is None


def test_that_up_brings_it_back_and_names_what_keeps_others_from_joining(lab: Lab) -> None:
    """Eight of ten machines have an obstacle each. None of them stops the two others."""
    lab.configure(ten)
    output = lab.up(check=False)
    print(output)
    gateway = lab.outputs()["gateway"]
    causes = {
        "product-2": "connection refused",
        "product-3": "host key mismatch",
        "product-4": f"machine product-4: cannot reach the east-west gateway at {gateway} port 15012: check the gateway's address",
        "product-5": f"machine product-5: cannot fetch Istio's package from {PACKAGE.format(version='1.31.0')} (curl: (7)",
        "billing-1": f"machine billing-1: what answers at {gateway} port 15012 is not istiod: is it the gateway of this mesh?",
        "billing-2": "MiB are free under /usr/local, the sidecar needs 300: make room",
        "billing-3": "sudo: command not found install sudo and let admin run it without a password, or connect as root",
        "billing-4": "machine billing-4: another Istio agent already runs on this machine",
    }
    assert set(causes) == set(OBSTACLES)
    for machine, cause in causes.items():
        assert cause in said(output, f"{machine}-join"), machine
    assert not said(output, "product-1-join") and not said(output, "billing-5-join")
    assert {lab.health(lab.entry(machine)) for machine in ("product-1", "billing-5")} == {"True"}
    assert lab.answering() == (BOTH, BOTH)


def group_names(lab: Lab, account: str) -> None:
    """Change the service account that istiod registers machines of `billing` for."""
    patch = {"spec": {"template": {"serviceAccount": account}}}
    lab.kubectl("patch", "workloadgroup", "billing", "--type", "merge", "--patch", json.dumps(patch))


def test_what_is_wrong_with_tokens_accounts_and_packages_is_named(lab: Lab) -> None:
    """The obstacles are gone. The token of one machine has expired meanwhile, which `up` sees and mends; others have a token that istiod refuses."""
    for machine, (_, away) in OBSTACLES.items():
        lab.inside(machine, away)
    key = lab.inside(NODE, "cat /etc/kubernetes/pki/sa.key")
    found = lab.secrets()
    other = lab.kubectl("create", "token", "product", "--audience", "other")
    default = lab.kubectl("create", "token", "default", "--audience", "istio-ca")

    def tamper(resources: dict[str, Any]) -> None:
        credentials.put(resources["product-2-token"], credentials.expired(found["product-2-token"], key), time.time() - DAY)
        credentials.put(resources["product-3-token"], default, time.time() + DAY)
        credentials.put(resources["product-4-token"], other, time.time() + DAY)
        credentials.put(resources["product-5-token"], credentials.expired(found["product-5-token"], key), time.time() + DAY)

    lab.edit_state(tamper)
    group_names(lab, "default")
    # A package that is not the one it ought to be, on its way to a machine that has one and is in the mesh, and to one that has none.
    for machine in ("product-1", "billing-4"):
        lab.inside(
            machine,
            f'printf \'#!/bin/sh\\n/usr/bin/curl "$@"; for file; do [ ! -f "$file" ] || echo >>"$file"; done\\n\' >{CURL}; chmod +x {CURL}; rm -f {STAMP}',
        )
    agent = lab.agent()
    lab.configure(again("product-1"))
    output = lab.up(check=False)
    print(output)
    for machine in ("product-1", "billing-4"):
        digest = f"machine {machine}: the package from {PACKAGE.format(version='1.31.0')} has SHA-256"
        assert digest in said(output, f"{machine}-join") and "nothing was installed" in said(output, f"{machine}-join")
    assert lab.agent() == agent
    assert not lab.inside("billing-4", "ls /usr/local/bin/pilot-agent", check=False)
    identity = "istiod refused the machine's identity spiffe://cluster.local/ns/shop/sa/default; the WorkloadGroup is for the service account shop/product"
    assert identity in said(output, "product-3-join")
    assert "istiod refused the machine's token: it is for the audience other instead of istio-ca" in said(output, "product-4-join")
    assert "ahead of the cluster's, or this update began more than an hour ago" in said(output, "product-5-join")
    account = "istiod refuses to register the machine: its service account is billing, and its WorkloadGroup is for default"
    for machine in ("billing-2", "billing-3"):  # billing-1 was registered as soon as it met the gateway
        assert account in said(output, f"{machine}-join"), machine
    joined = {"pod", "product-1", "product-2"}
    assert lab.answering() == (joined, joined)


def test_an_unhealthy_machine_fails_the_verification(lab: Lab) -> None:
    for machine in ("product-1", "billing-4"):
        lab.inside(machine, f"rm {CURL}")
    group_names(lab, "billing")
    lab.configure(again("product-1", "product-3", "product-4", "product-5"))
    lab.ssh("product-2", "sudo systemctl stop echo")
    agent = lab.agent("product-2")
    output = lab.up(check=False)
    print(output)
    assert "workload product: machine product-2 is unhealthy: its probe fails" in output
    assert lab.agent("product-2") == agent
    assert lab.answering() == (ALL - {"product-2"}, ALL - {"product-2"})


def test_the_same_up_finishes_when_the_obstacles_are_gone(lab: Lab) -> None:
    agents = {machine: lab.agent(machine) for machine in TEN}
    lab.ssh("product-2", "sudo systemctl start echo")
    lab.up()
    assert {machine: lab.agent(machine) for machine in agents} == agents
    for workload in ("product", "billing"):
        evidence = lab.outputs()["verification"][workload]
        machines = {entry["machine"] for entry in evidence["entries"]}
        assert machines == {machine for machine in TEN if machine.startswith(workload)}
    assert lab.answering() == (ALL, ALL)


def test_one_more_machine_touches_none_of_the_others_and_loses_no_call(lab: Lab) -> None:
    agents = {machine: lab.agent(machine) for machine in TEN}
    lab.configure(eleven)
    with lab.traffic(CALLER) as calls:
        output = lab.up()
    none_lost(calls)
    touched = set(re.findall(r"^ +\w+ (\S+) (?:created|updated|replaced|deleted)", output, re.MULTILINE))
    own = {f"product-6{part}" for part in ("-container", "-token", "-join", "-drain", "-proof")}
    assert touched - {"product-verification", f"istio-vm-mesh-{lab.stack}"} == own
    assert {machine: lab.agent(machine) for machine in TEN} == agents
    assert lab.answering() == (ALL | {"product-6"}, ALL | {"product-6"})


def test_machines_are_drained_before_they_go(lab: Lab) -> None:
    agent, machines = lab.agent(), lab.outputs()["machines"]
    lab.configure(only_the_first)
    with lab.traffic(CALLER) as calls:
        output = lab.up()
    print(output)
    none_lost(calls)
    for name in set(machines) - {"product-1"}:
        assert output.index(f"Command {name}-drain deleted") < output.index(f"Command {name}-container deleted")
        assert not lab.docker("ps", "--all", "--quiet", "--filter", f"name=istio-vm-mesh-{lab.stack}-{name}")
    assert not [line for line in output.splitlines() if "Command product-1-" in line]
    assert set(lab.entries()) == {machines["product-1"]["address"]}
    assert lab.agent() == agent
    assert lab.answering() == (BOTH, BOTH)
