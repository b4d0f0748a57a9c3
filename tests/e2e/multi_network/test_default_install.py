"""A machine joins a default install of Istio: without a revision, without a name for the network, without Istio's CNI plugin."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from components.names import DEFAULT_DOMAIN, ISTIO_NAMESPACE, NETWORK_LABEL, POD_SECURITY_LABEL, spiffe_id
from components.verification.evidence import by_workload
from tests.support import default_install, manifest, plain_helm
from tests.support.existing_lab import NAMESPACE, SERVICE, AdoptingStack, ExistingMachines
from tests.support.lab import Lab
from tests.support.manifest import Manifest
from tests.support.traffic import parse_answers
from tests.support.waiting import wait_until
from tools.lab.offline import images

NETWORK = "office"
"""The network as the stack calls it. The mesh has no name for it."""
ENFORCED = f"{POD_SECURITY_LABEL}=restricted"
OBJECTS = ("all,configmaps,leases,gateways.networking.istio.io,virtualservices,peerauthentications", "--output", "name")


@pytest.fixture(scope="module")
def machines(multi_network_lab: Lab) -> Iterator[ExistingMachines]:
    """A machine in the network of the pods, and a namespace that enforces Pod Security's level `restricted`."""
    lab = multi_network_lab
    lab.ensure_any()
    machines = ExistingMachines(lab)
    machines.remove()
    try:
        machines.make("one")
        default_install.replace_own_mesh(lab)
        lab.run("kubectl", "create", "namespace", NAMESPACE)
        lab.run("kubectl", "label", "namespace", NAMESPACE, "istio-injection=enabled", ENFORCED)
        yield machines
    finally:
        machines.remove()


@pytest.fixture(scope="module")
def before(machines: ExistingMachines) -> Manifest:
    """All that the machine was before it joined."""
    return machines.manifest("one")


@pytest.fixture(scope="module")
def objects(machines: ExistingMachines) -> str:
    """What Istio's namespace had before."""
    return machines.lab.run("kubectl", "--namespace", ISTIO_NAMESPACE, "get", *OBJECTS).stdout


@pytest.fixture(scope="module")
def stack(machines: ExistingMachines, before: Manifest, objects: str) -> Iterator[AdoptingStack]:
    """A stack that adopts the machine and runs pods beside it, and has not been run. It brings the gateway."""
    stack = AdoptingStack(machines, "plain", NETWORK)
    stack.mesh["charts"] = str(plain_helm.charts(machines.lab))
    stack.gateway = {"install": True, "service": {"type": "ClusterIP", "externalIPs": [machines.lab.outputs()["gateway"]]}}
    stack.workload(pods={"image": images.ECHO, "args": ["--port", "8080"]})
    stack.declare("billing-1", "one")
    stack.init()
    yield stack
    stack.remove()


@pytest.fixture(scope="module")
def refused(stack: AdoptingStack) -> str:
    """What a preview says while the namespace enforces the level. It does not any more afterwards."""
    done = stack.pulumi("preview", check=False)
    stack.lab.run("kubectl", "label", "namespace", NAMESPACE, f"{POD_SECURITY_LABEL}-")
    assert done.returncode
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def joined(stack: AdoptingStack, refused: str) -> AdoptingStack:
    """The stack, which is up."""
    stack.up()
    return stack


def test_pods_of_ours_that_the_namespace_refuses_are_named_in_the_preview(refused: str) -> None:
    assert f"the namespace {NAMESPACE} enforces Pod Security's level restricted, which refuses pods of billing" in refused, refused
    assert "without Istio's CNI plugin" in refused


def test_a_machine_and_pods_call_each_other(joined: AdoptingStack, machines: ExistingMachines) -> None:
    assert joined.healthy() == {"one"}
    output = json.loads(joined.pulumi("stack", "output", "--json").stdout)
    calls = [call for call in by_workload(output["verification"])["billing"].calls if call.is_path]
    assert {call.peer for call in calls} == {spiffe_id(DEFAULT_DOMAIN, NAMESPACE, "billing")}
    assert {(call.caller, call.path) for call in calls} == {("Job verify-billing", "direct"), ("machine billing-1", "direct")}

    def answering() -> set[str]:
        urls = " ".join([f"http://{SERVICE}/"] * 20)
        return {each.hostname for each in parse_answers(machines.root("one", f"curl --silent --max-time 5 {urls}", check=False))}

    wait_until(lambda: answering() == {"one", "pod"}, description="the machine and the pod answer the machine")
    joined.assert_no_changes()


def test_a_network_without_a_name_stays_so(joined: AdoptingStack, machines: ExistingMachines) -> None:
    address = machines.addresses["one"]
    entry = joined.entries()[address]
    assert entry["metadata"]["name"] == f"billing-{address}"
    assert "network" not in entry["spec"]
    labelled = ("--selector", NETWORK_LABEL, "--output", "name")
    for namespace in (ISTIO_NAMESPACE, NAMESPACE):
        assert (
            machines.lab.run("kubectl", "--namespace", namespace, "get", "services,pods,gateways.networking.istio.io", *labelled).stdout
            == ""
        )
    assert f"namespace/{ISTIO_NAMESPACE}" not in machines.lab.run("kubectl", "get", "namespaces", *labelled).stdout
    status = json.loads(machines.lab.run("./scripts/status", "--stack", joined.name, "--json").stdout)
    assert (status["network"], [each["name"] for each in status["networks"]]) == (NETWORK, [NETWORK])
    (billing,) = status["workloads"]
    assert {each["network"] for each in billing["endpoints"]} == {NETWORK}


def test_nothing_is_left(joined: AdoptingStack, machines: ExistingMachines, before: Manifest, objects: str) -> None:
    joined.destroy()
    assert manifest.differences(before, machines.manifest("one"), manifest.exceptions()) == []

    def present(namespace: str, *what: str) -> str:
        return machines.lab.run("kubectl", "--namespace", namespace, "get", *what).stdout

    wait_until(lambda: present(ISTIO_NAMESPACE, *OBJECTS) == objects, description="the gateway's pods are gone")
    kinds = "all,workloadgroups,workloadentries,leases,serviceaccounts"
    wait_until(
        lambda: present(NAMESPACE, kinds, "--output", "name") == "serviceaccount/default\n", description="the workload's pods are gone"
    )
