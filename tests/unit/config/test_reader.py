"""A stack file is read strictly: every problem at once, each with its path and a hint, before anything is created."""

from __future__ import annotations

import ast
import copy
import re
from pathlib import Path
from typing import Any

import pytest

from components import config
from components.config import reader
from components.config.problems import SettingsError
from tools import ROOT

GOOD: dict[str, Any] = {
    "networks": {"pods": {"cidrs": ["172.31.6.0/24"]}},
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


LEVELS = [f"a{level}: &a{level}" for level in range(1, 10)]
BOMBS = [
    "\n".join(
        [
            "config:",
            " a0: &a0 [x]",
            *(f" {one} [{', '.join([f'*a{n}'] * 10)}]" for n, one in enumerate(LEVELS)),
        ]
    ).encode(),
    "\n".join(
        [
            "config:",
            " a0: &a0 {x: y}",
            *(f" {one} {{<<: [{', '.join([f'*a{n}'] * 10)}]}}" for n, one in enumerate(LEVELS)),
        ]
    ).encode(),
]
"""Files whose aliases make a billion values."""


def changed(path: str, value: Any) -> dict[str, Any]:
    """GOOD with one value set, or taken away."""
    result = copy.deepcopy(GOOD)
    *parents, last = path.split("/")
    place = result
    for part in parents:
        place = place.setdefault(part, {})
    if value is MISSING:
        del place[last]
    else:
        place[last] = value
    return result


def test_a_good_stack_file_is_read_with_its_defaults() -> None:
    loaded = config.load(GOOD)
    assert loaded.machines["product-1"].workload == "product"
    assert loaded.workloads["product"].probe.failure_threshold == 3
    assert (
        loaded.mesh.package.url
        == "https://blob.istio.io/istio-release/releases/{version}/{package}"
    )
    assert loaded.mesh.values.istiod == {}
    assert loaded.verify.mode == "fail"


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("machnes", {}, "machnes: unknown key (did you mean 'machines'?)"),
        ("mesh/verson", "1", "mesh.verson: unknown key (did you mean 'version'?)"),
        ("mesh/id", MISSING, "mesh.id: is missing"),
        ("mesh/version", "latest", "mesh.version: expected a release of Istio such as 1.31.0, or of a vendor such as 1.31.0-asm.3; got 'latest'"),
        ("mesh/version", 1.31, "mesh.version: expected a string; got float 1.31"),
        ("cluster/platform", "kin", "cluster.platform: 'kin' is not known (did you mean 'kind'?)"),
        ("cluster/network", "pod", "cluster.network: 'pod' is not a network of this stack (did you mean 'pods'?)"),
        ("cluster/podCidr", "172.31.6.0/25", "networks.pods.cidrs[0]: 172.31.6.0/24 overlaps 172.31.6.0/25 of cluster.podCidr, which is already in this network: give other addresses alone"),
        ("networks/pods/cidrs", ["10.244.0.0/16", "172.31.6.0/24"], "networks.pods.cidrs[0]: 10.244.0.0/16 is already in this network by cluster.podCidr: leave it out"),
        ("networks/pods/cidrs", "10.244.0.0/16", "networks.pods.cidrs: expected a list; got str '10.244.0.0/16'"),
        ("networks/far", {"cidrs": ["172.31.6.128/25"]}, "networks.far.cidrs[0]: 172.31.6.128/25 overlaps 172.31.6.0/24 of networks.pods.cidrs[0]: give each its own addresses"),
        ("networks/far", {"cidrs": ["172.31.7.1/24"]}, "networks.far.cidrs[0]: expected a CIDR such as 10.0.0.0/24; 172.31.7.1/24 has host bits set"),
        ("networks/far", {"cidrs": ["fd00::/64"]}, "networks.far.cidrs[0]: IPv6 CIDRs are not supported: give an IPv4 CIDR"),
        ("networks/Far", {"cidrs": ["172.31.7.0/24"]}, "networks.Far: is not a DNS label: use up to 63 lower-case letters, digits and '-', a letter first"),
        ("machines/product-1/workload", "produkt", "machines.product-1.workload: 'produkt' is not a workload of this stack (did you mean 'product'?)"),
        ("machines/product-1/network", "far", "machines.product-1.network: 'far' is not a network of this stack (known: pods)"),
        ("machines/product-1/platform", "vmware", "machines.product-1.platform: 'vmware' is not known (known: docker, gce, gce-instance-group, ssh)"),
        ("machines/product-1/image", 7, "machines.product-1.image: expected a string; got int 7"),
        ("workloads/product/labels", {}, "workloads.product.labels: a Service selects its workload by labels: give at least one, such as app"),
        ("workloads/product/labels", {"app": "a b"}, "workloads.product.labels.app: 'a b' is not a label value: up to 63 letters, digits, '-', '_' and '.'"),
        ("workloads/product/ports", {"http": "8080"}, "workloads.product.ports.http: expected an integer; got str '8080'"),
        ("workloads/product/ports", {"http": True}, "workloads.product.ports.http: expected an integer; got bool True"),
        ("workloads/product/ports", {"http": 8080, "tcp-x": 70000}, "workloads.product.ports.tcp-x: 70000 is not a port: expected 1 to 65535"),
        ("workloads/product/ports", {"http": 8080, "tcp-x": 15021}, "workloads.product.ports.tcp-x: port 15021 is Istio's own on every machine: choose another"),
        ("workloads/product/ports", {"http": 8080, "tcp-x": 22}, "workloads.product.ports.tcp-x: port 22 is never redirected to the proxy (SSH): choose another"),
        ("workloads/product/probe", {}, "workloads.product.probe: give exactly one of http and tcp"),
        ("workloads/product/probe", {"http": {"port": 8080}, "tcp": {"port": 8080}}, "workloads.product.probe: give exactly one of http and tcp"),
        ("workloads/product/probe", {"grpc": {"port": 8080}}, "workloads.product.probe.grpc: unknown key (known: failureThreshold, http, period, tcp, timeout)"),
        ("workloads/product/probe", {"tcp": {"port": 9090}}, "workloads.product.probe: port 9090 is none of the workload's ports (8080)"),
        ("workloads/product/services/product/ports", {"web": 80}, "workloads.product.services.product.ports.web: is not a port of the workload (known: http)"),
        ("workloads/product/services/product/selector", {"app": "x"}, "workloads.product.services.product.selector.app: selects nothing: the workload's 'app' is 'product'"),
        ("workloads/product/services/product/selector", {"tier": "x"}, "workloads.product.services.product.selector.tier: selects nothing: the workload's 'tier' is none of its labels"),
        ("workloads/product/pods", {"image": "x", "replicas": -1}, "workloads.product.pods.replicas: must not be negative"),
        ("verify/mode", "off", "verify.mode: expected one of fail, warn, none; got str 'off'"),
    ],
)  # fmt: skip
def test_each_mistake_is_rejected_for_its_own_reason(path: str, value: Any, problem: str) -> None:
    with pytest.raises(SettingsError) as raised:
        config.load(changed(path, value))
    assert [str(each) for each in raised.value.problems] == [problem]


def test_an_empty_service_account_is_refused_because_pods_would_call_in_plaintext() -> None:
    with pytest.raises(SettingsError, match="no identity"):
        config.load(changed("workloads/product/serviceAccount", {"name": ""}))


def test_all_problems_are_reported_at_once() -> None:
    broken = changed("mesh/version", MISSING)
    broken["machines"]["product-1"]["imag"] = "x"
    broken["workloads"]["product"]["ports"] = {"http": "x"}
    broken["machnes"] = {}
    with pytest.raises(SettingsError) as raised:
        config.load(broken)
    assert len(raised.value.problems) == 4
    assert "4 problems" in str(raised.value)


def test_an_unknown_section_does_not_hide_what_is_wrong_elsewhere() -> None:
    broken = changed("mesh/version", "latest")
    broken["machnes"] = {}
    with pytest.raises(SettingsError) as raised:
        config.load(broken)
    assert [problem.path for problem in raised.value.problems] == ["machnes", "mesh.version"]


def test_records_have_their_key_as_their_name() -> None:
    settings = config.load(GOOD)
    assert settings.networks["pods"].name == "pods"
    assert settings.machines["product-1"].name == "product-1"
    assert settings.workloads["product"].name == "product"
    assert settings.workloads["product"].services["product"].name == "product"
    assert settings.workloads["product"].service_account_name == "product"
    named = config.load(changed("workloads/product/serviceAccount", {"name": "shop"}))
    assert named.workloads["product"].service_account_name == "shop"


STACK_FILE = """\
encryptionsalt: v1:abc
config:
  gcp:project: mine
  istio-vm-mesh:networks: {far: {cidrs: [172.31.7.0/24], gateway: {}}, pods: {cidrs: [172.31.6.0/24]}}
  istio-vm-mesh:cluster: {platform: kind, network: pods}
  istio-vm-mesh:mesh: {id: lab, version: 1.31.0}
  istio-vm-mesh:workloads:
    product:
      namespace: shop
      labels: {app: product, 1: one}
      ports: {http: 8080}
      probe: {http: {port: 8080}}
      services: {}
  istio-vm-mesh:machines: {product-1: {platform: docker, workload: product, network: far}}
"""


def stack_file(directory: Path, text: str = "") -> Path:
    (directory / "Pulumi.mine.yaml").write_text(STACK_FILE + text)
    return directory


def test_a_file_is_read_with_its_gateway_machines_and_without_keys_of_others(
    tmp_path: Path,
) -> None:
    settings = config.load_file("mine", stack_file(tmp_path))
    assert sorted(settings.machines) == ["far-gateway-1", "product-1"]
    assert settings.workloads["product"].labels["1"] == "one", "as Pulumi passes keys on"


@pytest.mark.parametrize(
    "text", ["google: {project: {secure: v1:xyz}}", "anything: {secure: v1:xyz}"]
)
def test_secrets_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError) as raised:
        config.load_file("mine", stack_file(tmp_path, f"  istio-vm-mesh:{text}\n"))
    key = text.partition(":")[0]
    expected = f"{key}: must not be a secret: the value becomes part of resource names"
    assert [str(each) for each in raised.value.problems] == [expected]


def test_a_stack_without_a_file_is_named_with_those_that_have_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"mien: there is no stack file .*did you mean 'mine'"):
        config.load_file("mien", stack_file(tmp_path))


def reads_of_stack_files(tree: ast.Module) -> list[int]:
    """Return the lines of calls that read a stack file: by YAML, or as text."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("safe_load", "load", "read_text", "open")
        and re.search(r"Pulumi\.[^y]|'stacks'", ast.unparse(node))
    ]


def test_no_other_module_reads_stack_files() -> None:
    texts = {
        str(file.relative_to(ROOT)): file.read_text()
        for directory in ("components", "scripts", "tests")
        for file in sorted((ROOT / directory).rglob("*.py"))
    }
    # The others name no stack file, and need no parser.
    lines = {
        path: reads_of_stack_files(ast.parse(text))
        for path, text in texts.items()
        if "Pulumi." in text or "stacks" in text
    }
    assert {path: numbers for path, numbers in lines.items() if numbers} == {}


@pytest.mark.parametrize(
    "text",
    [
        "yaml.safe_load((ROOT / 'stacks' / f'Pulumi.{stack}.yaml').read_text())",
        "Path('stacks/Pulumi.lab.yaml').read_text()",
        "file('Pulumi.lab.yaml').open()",
    ],
)
def test_another_reader_of_stack_files_is_reported(text: str) -> None:
    assert reads_of_stack_files(ast.parse(f"x.y = {text}"))


@pytest.mark.parametrize(
    "content",
    [
        b"config: {networks: \xff}",
        b"config: {networks: [}",
        b"config: !!python/object/apply:os.getpid []",
        b"config: {networks: [1999-13-45]}",
        b"config: {2001-01-01: x}",
        b"config: &a {networks: *a}",
        pytest.param(b"config: " + b"[" * 20_000 + b"]" * 20_000, marks=pytest.mark.slow),
        b"config: [a]",
        b"- config",
        b"config: {networks: \0}",
        b"config: " + b"[" * 60 + b"]" * 60,
        b"config: {networks: " + b"x" * 4_000_000 + b"}",
        *BOMBS,
        None,
    ],
)
def test_a_stack_file_that_is_none_is_a_problem_of_the_settings(
    content: bytes | None, tmp_path: Path
) -> None:
    file = tmp_path / "Pulumi.odd.yaml"
    file.mkdir() if content is None else file.write_bytes(content)
    with pytest.raises(SettingsError, match="odd"):
        reader.read_file("odd", tmp_path)


def test_the_message_about_bad_yaml_names_the_line_and_shows_none(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.odd.yaml").write_text("config:\n  password: [hunter2\n")
    with pytest.raises(SettingsError, match="in line 3") as raised:
        reader.read_file("odd", tmp_path)
    assert "hunter2" not in str(raised.value)
