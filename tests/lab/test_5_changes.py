"""Changes of the stack file, and obstacles to them: each `up` that fails names its cause, and the same `up` finishes when that is gone.

The tests run in this order and build on each other: every `up` costs a part of a minute.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import yaml

from tests.lab.acceptance import STEADY, apply, told_apart
from tests.lab.environment import CHECKOUT, Call, Config, Lab, wait_for

BOTH = {"pod", "product-1"}
ALL = {"pod", "product-1", "product-2", "product-3", "product-4"}
NO_SSHD = f"istio-vm-mesh-test-{CHECKOUT}/no-sshd"
STRANGER = f"istio-vm-mesh-test-{CHECKOUT}/stranger"


PACKAGE = "http://host.docker.internal:18731/{version}/./istio-sidecar.deb"
CALLER = "statefulset/steady"
"""Calls while pods and machines come and go."""


def changed(config: Config) -> None:
    """Other labels and another probe, and the same package from a place that is called otherwise; kept from the first test on."""
    told_apart(config)
    config["mesh"]["package"]["url"] = PACKAGE
    config["workloads"]["product"]["labels"]["tier"] = "x"
    config["workloads"]["product"]["probe"] = {"http": {"port": 8080, "path": "/?probe"}, "period": 3}


def three_more(config: Config) -> None:
    """A machine whose sshd does not run, one where another host answers, and an ordinary one."""
    changed(config)
    machine = config["machines"]["product-1"]
    config["machines"] |= {"product-2": {**machine, "image": NO_SSHD}, "product-3": {**machine, "image": STRANGER}, "product-4": machine}


def wrong_digest(config: Config) -> None:
    three_more(config)
    config["mesh"]["package"]["sha256"] = "0" * 64


def none_lost(calls: Sequence[Call]) -> None:
    """No call was lost, and there were enough of them."""
    lost = sum(call.by == "lost" for call in calls)
    seconds = calls[-1].at - calls[0].at + 1
    print(f"{len(calls)} calls in {seconds:.0f} s, {lost} lost")
    assert not lost, f"{lost} of {len(calls)} calls were lost"
    assert len(calls) / seconds > 50


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
    """Images of machines on which something is wrong from their first start on."""
    plain = lab.resource("product-1-container")["inputs"]["triggers"][0]
    other_key = "ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/other && echo HostKey /etc/ssh/other >/etc/ssh/sshd_config.d/other.conf"
    for name, command in ((NO_SSHD, "systemctl mask ssh.service"), (STRANGER, other_key)):
        lab.docker("build", "--tag", name, "-", stdin=f"FROM {plain}\nRUN {command}\n")
    yield
    lab.docker("image", "rm", "--force", NO_SSHD, STRANGER, check=False)


@pytest.mark.usefixtures("images")
def test_what_keeps_machines_from_joining_is_named(lab: Lab) -> None:
    """sshd refuses, another host key, and the gateway's port closed for all that connect anew: in one `up`, to save the time.

    The port is closed for new pods too: a change that makes some would wait for them.
    """
    agent = lab.agent()
    blocked = "PREROUTING --protocol tcp --syn --dport 15012 --jump DROP"
    lab.configure(three_more)
    lab.inside("cluster-control-plane", f"iptables --table raw --insert {blocked}")
    try:
        output = lab.up(check=False)
        print(output)
    finally:
        lab.inside("cluster-control-plane", f"iptables --table raw --delete {blocked}")
    gateway = lab.outputs()["gateway"]
    assert f"machine product-4: cannot reach the east-west gateway at {gateway} port 15012" in output
    assert "product-2-join" in output and "connection refused" in output
    assert "product-3-join" in output and "host key mismatch" in output
    assert lab.agent() == agent
    assert lab.answering() == (BOTH, BOTH)
    lab.inside("product-2", "systemctl unmask ssh.service && systemctl start ssh.service", check=False)
    lab.inside("product-3", "rm /etc/ssh/sshd_config.d/other.conf && systemctl restart ssh.service")


def test_a_package_with_another_digest_is_not_installed(lab: Lab) -> None:
    agent = lab.agent()
    lab.configure(wrong_digest)
    output = lab.up(check=False)
    for machine in ("product-1", "product-4"):
        assert f"machine {machine}: the package from {PACKAGE.format(version='1.31.0')} has SHA-256" in output
    assert f"instead of {'0' * 64}: nothing was installed" in output
    for machine in ("product-2", "product-3", "product-4"):
        assert lab.ssh(machine, "ls /usr/local/bin/pilot-agent /usr/local/bin/envoy; dpkg --list | grep istio", check=False) == ""
    assert lab.agent() == agent
    assert lab.answering() == (BOTH, BOTH)


def test_an_unhealthy_machine_fails_the_verification(lab: Lab) -> None:
    agent = lab.agent()
    lab.configure(three_more)
    lab.ssh("product-2", "sudo systemctl stop echo")
    with lab.traffic(CALLER) as calls:
        output = lab.up(check=False)
    none_lost(calls)  # nobody is called before its application answers
    assert "workload product: machine product-2 is unhealthy: its probe fails" in output
    assert lab.agent() == agent
    assert lab.answering() == (ALL - {"product-2"}, ALL - {"product-2"})


def test_the_same_up_finishes_when_the_obstacles_are_gone(lab: Lab) -> None:
    agents = {machine: lab.agent(machine) for machine in sorted(ALL - {"pod"})}
    lab.ssh("product-2", "sudo systemctl start echo")
    lab.up()
    assert {machine: lab.agent(machine) for machine in agents} == agents
    evidence = lab.outputs()["verification"]["product"]
    assert {each["name"] for each in evidence["endpoints"] if each["kind"] == "machine"} == set(agents)
    assert lab.answering() == (ALL, ALL)
    assert lab.answering("product-4") == (ALL, ALL)


def test_machines_are_drained_before_they_go(lab: Lab) -> None:
    agent, machines = lab.agent(), lab.outputs()["machines"]
    lab.configure(changed)
    with lab.traffic(CALLER) as calls:
        output = lab.up()
    print(output)
    none_lost(calls)
    for name in ("product-2", "product-3", "product-4"):
        assert output.index(f"Command {name}-drain deleted") < output.index(f"Command {name}-container deleted")
        assert not lab.docker("ps", "--all", "--quiet", "--filter", f"name=istio-vm-mesh-{lab.stack}-{name}")
    assert not [line for line in output.splitlines() if "Command product-1-" in line]
    assert set(lab.entries()) == {machines["product-1"]["address"]}
    assert lab.agent() == agent
    assert lab.answering() == (BOTH, BOTH)
