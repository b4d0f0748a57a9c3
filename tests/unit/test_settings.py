"""A stack file is read strictly: every problem at once, each with its path and a hint, before anything is created."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from components.config import problems, reader

GOOD: dict[str, Any] = {
    "networks": {"pods": {"ranges": ["10.244.0.0/16", "172.31.6.0/24"]}},
    "cluster": {"platform": "kind", "network": "pods"},
    "mesh": {"id": "lab", "version": "1.31.0"},
    "workloads": {
        "product": {
            "namespace": "shop",
            "labels": {"app": "product"},
            "ports": {"http": 8080},
            "probe": {"http": {"port": 8080}},
            "services": {"product": {"ports": {"http": 80}}},
        }
    },
    "machines": {"product-1": {"platform": "docker", "workload": "product", "network": "pods"}},
}
MISSING = object()


def changed(path: str, value: Any) -> dict[str, Any]:
    """GOOD with one value set, or taken away."""
    result = copy.deepcopy(GOOD)
    *parents, last = path.split("/")
    place = result
    for part in parents:
        place = place[part]
    if value is MISSING:
        del place[last]
    else:
        place[last] = value
    return result


def test_a_good_stack_file_is_read_with_its_defaults() -> None:
    loaded = reader.load(GOOD)
    assert loaded.machines["product-1"].workload == "product"
    assert loaded.workloads["product"].probe.failure_threshold == 3
    assert loaded.mesh.package.url == "https://blob.istio.io/istio-release/releases/{version}/{package}"
    assert loaded.mesh.values.istiod == {}
    assert loaded.verify == "fail"


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("machnes", {}, "machnes: unknown key (did you mean 'machines'?)"),
        ("mesh/verson", "1", "mesh.verson: unknown key (did you mean 'version'?)"),
        ("mesh/id", MISSING, "mesh.id: is missing"),
        ("mesh/version", "latest", "mesh.version: expected a release of Istio such as 1.31.0; got 'latest'"),
        ("mesh/version", 1.31, "mesh.version: expected a text; got float 1.31"),
        ("cluster/platform", "kin", "cluster.platform: 'kin' is not known (did you mean 'kind'?)"),
        ("cluster/network", "pod", "cluster.network: 'pod' is no network of this stack (did you mean 'pods'?)"),
        ("cluster/podRange", "10.1.0.0/16", "networks.pods.ranges: the cluster's pods are in this network: add their range 10.1.0.0/16"),
        ("networks/pods/ranges", ["10.244.0.0/16"], "networks.pods.ranges: no range is left for nodes and machines besides the cluster's pods and Services: add one"),
        ("networks/pods/ranges", "10.244.0.0/16", "networks.pods.ranges: expected a list; got str '10.244.0.0/16'"),
        ("networks/far", {"ranges": ["172.31.6.128/25"]}, "networks.far.ranges[0]: 172.31.6.128/25 overlaps 172.31.6.0/24 of networks.pods.ranges[1]"),
        ("networks/far", {"ranges": ["172.31.7.1/24"]}, "networks.far.ranges[0]: expected an address range such as 10.0.0.0/24; 172.31.7.1/24 has host bits set"),
        ("networks/far", {"ranges": ["fd00::/64"]}, "networks.far.ranges[0]: IPv6 ranges are not supported"),
        ("networks/Far", {"ranges": ["172.31.7.0/24"]}, "networks.Far: is no DNS label: use up to 63 lower-case letters, digits and '-', a letter first"),
        ("machines/product-1/workload", "produkt", "machines.product-1.workload: 'produkt' is no workload of this stack (did you mean 'product'?)"),
        ("machines/product-1/network", "far", "machines.product-1.network: 'far' is no network of this stack (known: pods)"),
        ("machines/product-1/platform", "vmware", "machines.product-1.platform: 'vmware' is not known (known: docker, gce, group, ssh)"),
        ("machines/product-1/image", 7, "machines.product-1.image: expected a text; got int 7"),
        ("workloads/product/labels", {}, "workloads.product.labels: a Service selects its workload by labels: give at least one, such as app"),
        ("workloads/product/labels", {"app": "a b"}, "workloads.product.labels.app: 'a b' is no label value: up to 63 letters, digits, '-', '_' and '.'"),
        ("workloads/product/ports", {"http": "8080"}, "workloads.product.ports.http: expected a whole number; got str '8080'"),
        ("workloads/product/ports", {"http": True}, "workloads.product.ports.http: expected a whole number; got bool True"),
        ("workloads/product/ports", {"http": 8080, "tcp-x": 70000}, "workloads.product.ports.tcp-x: 70000 is no port: expected 1 to 65535"),
        ("workloads/product/ports", {"http": 8080, "tcp-x": 15021}, "workloads.product.ports.tcp-x: port 15021 is Istio's own on every machine: choose another"),
        ("workloads/product/ports", {"http": 8080, "tcp-x": 22}, "workloads.product.ports.tcp-x: port 22 is never captured by the proxy (SSH): choose another"),
        ("workloads/product/probe", {}, "workloads.product.probe: give exactly one of http and tcp"),
        ("workloads/product/probe", {"http": {"port": 8080}, "tcp": {"port": 8080}}, "workloads.product.probe: give exactly one of http and tcp"),
        ("workloads/product/probe", {"grpc": {"port": 8080}}, "workloads.product.probe.grpc: unknown key (known: failureThreshold, http, period, tcp, timeout)"),
        ("workloads/product/probe", {"tcp": {"port": 9090}}, "workloads.product.probe: port 9090 is none of the workload's ports (8080)"),
        ("workloads/product/services/product/ports", {"web": 80}, "workloads.product.services.product.ports.web: is no port of the workload (known: http)"),
        ("workloads/product/services/product/selector", {"app": "x"}, "workloads.product.services.product.selector.app: selects nothing: the workload's 'app' is 'product'"),
        ("workloads/product/services/product/selector", {"tier": "x"}, "workloads.product.services.product.selector.tier: selects nothing: the workload's 'tier' is none of its labels"),
        ("workloads/product/pods", {"image": "x", "replicas": -1}, "workloads.product.pods.replicas: must not be negative"),
        ("verify", "off", "verify: expected one of fail, warn, none; got str 'off'"),
    ],
)  # fmt: skip
def test_each_mistake_is_rejected_for_its_own_reason(path: str, value: Any, problem: str) -> None:
    with pytest.raises(problems.SettingsError) as raised:
        reader.load(changed(path, value))
    assert [str(found) for found in raised.value.problems] == [problem]


def test_an_empty_service_account_is_refused_because_pods_would_call_in_plaintext() -> None:
    with pytest.raises(problems.SettingsError, match="no identity"):
        reader.load(changed("workloads/product/serviceAccount", ""))


def test_all_problems_are_reported_at_once() -> None:
    broken = changed("mesh/version", MISSING)
    broken["machines"]["product-1"]["imag"] = "x"
    broken["workloads"]["product"]["ports"] = {"http": "x"}
    with pytest.raises(problems.SettingsError) as raised:
        reader.load(broken)
    assert len(raised.value.problems) == 3
    assert "3 problems" in str(raised.value)
