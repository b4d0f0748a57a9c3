"""`up` from nothing: what it says, what it made, and that nothing in the mesh is a replica of the real thing."""

from __future__ import annotations

import json
import re

import pytest

from components.names import EASTWEST_GATEWAY, ISTIO_NAMESPACE
from tests.support.lab import Lab
from tools.lab.offline import versions

STEP = re.compile(r"^\[ *(\d+)/(\d+)\] (.+?) … (?:[\d.]+ s|\d+ min \d\d s)(?: \((.*)\))?$", re.MULTILINE)


@pytest.fixture(scope="module")
def lab(single_network_lab: Lab) -> Lab:
    """The stack `lab`, brought up from nothing."""
    single_network_lab.ensure_from_nothing()
    return single_network_lab


def test_it_names_its_steps_with_their_times(lab: Lab) -> None:
    print(lab.first_output)
    steps = {title: summary for _, _, title, summary in STEP.findall(lab.first_output)}
    numbers = sorted({int(number) for number, *_ in STEP.findall(lab.first_output)})
    assert numbers == list(range(1, int(STEP.findall(lab.first_output)[0][1]) + 1))
    assert {"container engine", "programs and images", "package server", "Pulumi's plugins", "pulumi up", "status"} <= set(steps)
    assert re.fullmatch(r"Docker \S+, the (lab's own|machine's)", steps["container engine"])
    assert re.fullmatch(
        r"(, )?".join(rf"{name}: (stand-in|official \S+)" for name in ("language host", "kubernetes", "command")), steps["Pulumi's plugins"]
    )
    for resource in ("Command cluster-kind", "Release istiod", "Command product-1-join", "Command product-verification"):
        assert re.search(rf"^ +{resource} created: .* s$", lab.first_output, re.MULTILINE), f"no line about {resource}"


def test_it_ends_with_who_called_whom(lab: Lab) -> None:
    table = lab.first_output.split("pulumi up …")[-1]
    outputs = lab.outputs()
    [pod] = lab.get("pods", "--selector", "app=product")["items"]
    machine, pod_name = outputs["machines"]["product-1"], pod["metadata"]["name"]
    assert f"● machine product-1  {machine['address']} " in table
    assert f"● pod {pod_name}  {pod['status']['podIP']} " in table
    identity = "spiffe://cluster.local/ns/shop/sa/product"
    calls = [call for call in lab.evidence("product").calls if call.is_path]
    assert {(call.caller.split()[0], call.caller_identity, call.peer, call.path) for call in calls} == {
        ("Job", identity, identity, "direct"),
        ("machine", identity, identity, "direct"),
    }
    assert table.count(identity) == 2 * len(calls)
    answered = {(call.caller.split()[0], call.endpoint) for call in calls}
    assert ("Job", f"{machine['address']}:8080") in answered
    assert ("machine", f"{pod['status']['podIP']}:8080") in answered


def test_everything_runs_the_versions_that_it_claims(lab: Lab) -> None:
    proxy_versions = json.loads(lab.istioctl("version", "--output", "json"))
    assert {each["Info"]["version"] for each in proxy_versions["meshVersion"]} == {versions.ISTIO_BUILD}
    proxies = {each["ID"]: each["IstioVersion"] for each in proxy_versions["dataPlaneVersion"]}
    assert set(proxies.values()) == {versions.ISTIO_BUILD}
    assert len(proxies) == 3  # the gateway, the pod, the machine
    assert "product-1.shop" in proxies
    server = json.loads(lab.kubectl("version", "--output", "json"))["serverVersion"]["gitVersion"]
    assert server == versions.KUBERNETES
    assert "/1.39.3/" in lab.ssh("product-1", "/opt/istio-vm-mesh/current/usr/local/bin/envoy --version")
    for pod in ("deploy/product", f"deploy/{EASTWEST_GATEWAY} --namespace {ISTIO_NAMESPACE}"):
        assert "/1.39.3/" in lab.kubectl("exec", *pod.split(), "--container", "istio-proxy", "--", "envoy", "--version")


def test_kubeadm_made_the_cluster_and_helm_installed_istio(lab: Lab) -> None:
    assert lab.get("configmap", "kubeadm-config", "--namespace", "kube-system")
    releases = {
        each["name"]: each["status"]
        for each in json.loads(lab.run("helm", "list", "--namespace", ISTIO_NAMESPACE, "--output", "json").stdout)
    }
    assert releases == dict.fromkeys(("istio-base", "istiod", EASTWEST_GATEWAY), "deployed")


def test_mutual_tls_is_strict(lab: Lab) -> None:
    assert lab.get("peerauthentication", "default", "--namespace", ISTIO_NAMESPACE)["spec"] == {"mtls": {"mode": "STRICT"}}
