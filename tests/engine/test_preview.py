"""Previews of every stack under the real engine: what a first one shows, and what changes of a stack file show after that."""

from __future__ import annotations

import copy
import hashlib
import json
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from components import names
from components.local import scripting
from components.platforms.google.instance_options import machine_metadata
from components.platforms.google.names import INSTANCE
from components.verification.evidence import parse
from tests.support import fake_providers, harness, states
from tests.support.cli_stack import STACK, Stack
from tests.support.fake_providers import FakeProvider
from tools.standins.provider import Created, Provider, Request

Config = dict[str, Any]
Ops = dict[str, str]


class Mesh:
    """A stack of this repository in a project of its own."""

    def __init__(self, stack: Stack, name: str) -> None:
        self._stack = stack
        self.config: Config = harness.configuration(name)

    def write(self, config: Config) -> None:
        file = self._stack.project / f"Pulumi.{STACK}.yaml"
        kept = {key: value for key, value in (yaml.safe_load(file.read_text()) or {}).items() if key != "config"} if file.exists() else {}
        values = {f"{harness.PROJECT}:{key}": value for key, value in config.items()}
        file.write_text(yaml.safe_dump({**kept, "config": values}, sort_keys=False))

    def up(self, config: Config | None = None) -> None:
        """An update against providers that make nothing."""
        self.write(config or self.config)
        self._stack.up(program)

    def preview(self, config: Config | None = None, *options: str, fails: bool = False) -> tuple[Ops, str]:
        """What a preview would do, by name, without what stays the same or is only read; and all that it prints."""
        self.write(config or self.config)
        output = self._stack.preview(program, "--json", *options, fails=fails).output
        steps = json.loads(output[output.index("{\n") :])["steps"]
        return {step["urn"].rpartition("::")[2]: step["op"] for step in steps if step["op"] not in ("same", "read")}, output

    def exported(self) -> str:
        return self._stack.call("stack", "export", "--stack", STACK).output

    def changed(self, **sections: Config) -> Config:
        config = copy.deepcopy(self.config)
        for section, values in sections.items():
            config[section].update(values)
        return config


def program() -> None:
    runpy.run_path(str(harness.ROOT / "__main__.py"), run_name="__main__")


@pytest.fixture
def mesh(cli: Path, tmp_path: Path, host: Callable[[Provider], None], stack: Stack) -> Callable[[str], Mesh]:
    def make(name: str) -> Mesh:
        for provider in fake_providers.VERSIONS:
            host(fake_providers.FakeProvider(provider))
        (stack.project / f"Pulumi.{STACK}.yaml").unlink(missing_ok=True)
        (stack.project / "Pulumi.yaml").write_text(f"name: {harness.PROJECT}\nruntime: python\n")
        stack.init()
        return Mesh(stack, name)

    return make


@pytest.mark.parametrize("name", harness.stacks())
def test_a_first_preview_shows_all_resources(mesh: Callable[[str], Mesh], name: str) -> None:
    shown, output = mesh(name).preview()
    declared = harness.declared(name, preview=True).graph
    created = {name for name, node in declared.items() if set(node.inputs) != {"id"}}
    assert created <= set(shown)
    assert set(shown.values()) == {"create"}
    for canary in harness.CANARIES.values():
        assert canary not in output


@pytest.fixture
def running(mesh: Callable[[str], Mesh]) -> Iterator[Mesh]:
    """The stack `single-network` as it is after an update."""
    stack = mesh("single-network")
    stack.up()
    yield stack


def test_nothing_changes_without_a_change(running: Mesh) -> None:
    assert running.preview()[0] == {}


def _larger(config: Config) -> Config:
    """The stack with longer names, and with more labels, ports and Services."""
    text = json.dumps(config).replace("product", "inventory").replace('"shop"', '"supply-chain"')
    renamed: Config = json.loads(text)
    workload = renamed["workloads"]["inventory"]
    workload["ports"] |= {"grpc-stock": 9090, "http-admin": 8081}
    workload["labels"] |= {"app.kubernetes.io/part-of": "warehouse", "version": "v2"}
    workload["services"] |= {"inventory-stock": {"ports": {"grpc-stock": 9090}}, "inventory-admin": {"ports": {"http-admin": 8081}}}
    return renamed


@pytest.mark.parametrize(
    ("name", "changed"),
    [("single-network", copy.deepcopy), ("single-network", _larger), ("multi-network", copy.deepcopy), ("lab", copy.deepcopy)],
    ids=["single-network", "several Services", "multi-network", "lab"],
)
def test_a_machine_adds_at_most_30_kb_to_the_state(
    mesh: Callable[[str], Mesh], monkeypatch: pytest.MonkeyPatch, name: str, changed: Callable[[Config], Config]
) -> None:
    """With its evidence, its part of the stack's outputs, and all that the official provider stores of an instance."""
    stack = mesh(name)
    config = changed(stack.config)
    (workload,) = config["workloads"]
    first = config["machines"][f"{workload}-1"]
    answer, of_google, create = harness.result, harness.of_google, FakeProvider.create

    def result(name: str) -> Any:
        if names.is_part(name, names.DRAIN):
            return {"host_key": f"ssh-ed25519 {'A' * 68}"}
        if names.is_part(name, names.JOIN):
            return {**answer(name), "changes": f"0 {'0123' * 4}"}
        lines = states.evidence(name, workload, list(config["machines"]))
        return json.loads(scripting.encode(parse(lines))) if lines else answer(name)

    def stored(name: str, type_: str) -> dict[str, Any]:
        if type_ != "gcp:compute/instance:Instance":
            return of_google(name, type_)
        machine = SimpleNamespace(startup_script=first["startupScript"])
        return states.instance(name, machine_metadata(machine, f"ssh-ed25519 {'A' * 68} {names.PROJECT}"))  # type: ignore[arg-type]

    def created(self: FakeProvider, request: Request) -> Created:
        """With IDs as short as real ones."""
        done = create(self, request)
        return Created(done.id and hashlib.sha256(done.id.encode()).hexdigest()[:12], done.state)

    monkeypatch.setattr(FakeProvider, "create", created)
    monkeypatch.setattr(harness, "result", result)
    monkeypatch.setattr(harness, "of_google", stored)
    sizes: list[int] = []
    for number in (7, 8):
        config["machines"][f"{workload}-{number}"] = dict(first)
        stack.up(config)
        sizes.append(states.exported_size(stack.exported()))
    assert 10_000 < sizes[1] - sizes[0] < 30_000, sizes[1] - sizes[0]


def test_no_provider_has_the_configuration_of_the_stack(running: Mesh) -> None:
    """Else each change of it changes the provider, and the engine ends a connection to it that is in use."""
    resources = json.loads(running.exported())["deployment"]["resources"]
    (provider,) = (each for each in resources if each["type"] == "pulumi:providers:pulumi-python")
    assert {*provider.get("inputs", {}), *provider.get("outputs", {})} <= {"__internal"}, provider
    users = [each for each in resources if each["type"].startswith("pulumi-python:")]
    assert len(users) == 3
    assert {each["provider"] for each in users} == {f"{provider['urn']}::{provider['id']}"}


def test_another_machine_is_created_and_verified_and_nothing_else(running: Mesh) -> None:
    config = running.changed()
    config["machines"]["product-3"] = dict(config["machines"]["product-1"])
    shown, _ = running.preview(config)
    parts = (INSTANCE, names.REGISTRATION, names.DRAIN, names.JOIN, names.PROOF)
    created = ["product-3", *(names.part_name("product-3", part) for part in parts)]
    updated = ("product-slots", "product-verification", "shop-product-callers")
    assert shown == {**dict.fromkeys(created, "create"), **dict.fromkeys(updated, "update")}


def test_a_removed_machine_is_deleted_and_others_stay(running: Mesh) -> None:
    config = running.changed()
    del config["machines"]["product-2"]
    shown, _ = running.preview(config)
    assert {name for name, op in shown.items() if op == "delete"} == {name for name in shown if name.startswith("product-2")}
    others = {name for name in shown if not name.startswith("product-2")}
    assert others == {"product-slots", "product-verification", "shop-product-callers"}


def test_a_new_istio_version_updates_releases_and_joins_in_place(running: Mesh) -> None:
    shown, _ = running.preview(running.changed(mesh={"version": "1.31.1"}))
    assert {"istio-base", "istiod", "istio-vm-mesh-gateway", "product-1-join", "product-2-join"} <= set(shown)
    assert set(shown.values()) == {"update"}


def test_changed_labels_change_the_group_in_place(running: Mesh) -> None:
    config = running.changed()
    config["workloads"]["product"]["labels"]["version"] = "v2"
    shown, _ = running.preview(config)
    assert shown["product-group"] == "update"
    assert "replace" not in shown.values() and "delete" not in shown.values()


def test_a_machine_in_another_network_is_recreated_there(running: Mesh) -> None:
    config = running.changed(networks={"far": {"gateway": {"machines": 1, "zones": ["europe-west1-b"]}}})
    config["google"]["subnets"]["far"] = {"vpc": "far", "network": "far", "cidr": "10.40.0.0/24"}
    config["machines"]["product-2"]["network"] = "far"
    shown, _ = running.preview(config)
    assert shown["product-2-join"] in ("update", "replace", "create-replacement", "delete-replaced")
    assert not [name for name in shown if name.startswith("product-1-") and shown[name] not in ("update",)]
    assert {"vpc-far", "subnet-far", "peering-mesh-far", "far-gateway-1-instance"} <= set(shown)
    assert "product-group" not in shown


def test_a_subnet_with_other_addresses_comes_after_all_in_the_old_one_is_gone(running: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    """Machines are drained, groups are deleted, and Google has the addresses free before it needs them again."""
    config = running.changed()
    group = {"platform": "gce-instance-group", "workload": "product", "network": "pods"}
    config["machines"]["fleet"] = group | {"startupScript": config["machines"]["product-1"]["startupScript"]}
    running.up(config)
    create, order = FakeProvider.create, list[str]()

    def created(self: FakeProvider, request: Request) -> Created:
        order.extend([f"create {request.name}"] * (not request.preview))
        return create(self, request)

    monkeypatch.setattr(FakeProvider, "create", created)
    monkeypatch.setattr(FakeProvider, "delete", lambda self, request: order.append(f"delete {request.name}"))
    config["google"]["subnets"]["machines"]["cidr"] = "10.11.0.0/25"
    running.up(config)
    emptied = order.index("delete subnet-machines")
    assert emptied < order.index("create subnet-machines")
    for users in (
        ("product-1-drain", "product-1-instance"),
        ("product-2-drain", "product-2-instance"),
        ("fleet-autoscaler", "fleet-manager", "fleet-template"),
    ):
        deleted = [order.index(f"delete {name}") for name in users]
        assert deleted == sorted(deleted) and deleted[-1] < emptied
    assert not [line for line in order if any(kept in line for kept in ("cluster", "subnet-nodes", "vpc", "nat", "istiod", "group"))]


def test_a_workload_is_renamed_in_two_updates(running: Mesh) -> None:
    """A WorkloadGroup takes its entries with it, and a Service its name."""
    config = running.changed()
    config["workloads"]["goods"] = config["workloads"].pop("product")
    for machine in config["machines"].values():
        machine["workload"] = "goods"
    running.write(config)
    output = running._stack.preview(program, fails=True).output
    assert "the workload product, which this machine runs, is now called goods, or gone" in output
    both = running.changed()
    both["workloads"]["goods"] = {
        **copy.deepcopy(both["workloads"]["product"]),
        "labels": {"app": "goods"},
        "services": {"goods": {"ports": {"http": 80}}},
    }
    both["machines"] = copy.deepcopy(config["machines"])
    shown, _ = running.preview(both)
    assert shown["goods-group"] == "create"
    assert "product-group" not in shown
    running.up(both)
    del both["workloads"]["product"]
    shown, _ = running.preview(both)
    assert {name for name, op in shown.items() if op == "delete"} >= {"product-group", "product-service-product"}
    assert not [name for name in shown if name.startswith("goods-")]


def test_a_workload_in_another_namespace_is_refused(running: Mesh) -> None:
    config = running.changed()
    config["workloads"]["product"]["namespace"] = "market"
    running.write(config)
    assert "the workload product moves from the namespace shop to market" in running._stack.preview(program, fails=True).output


def test_a_recreated_gateway_machine_joins_its_load_balancer_again(mesh: Callable[[str], Mesh]) -> None:
    """Its name is the same, so no input of the membership changes; Google removes it from the group all the same."""
    stack = mesh("multi-network")
    stack.up()
    shown, _ = stack.preview(None, "--target-replace", "**far-gateway-1-instance", "--target-dependents")
    replaced = {name for name, op in shown.items() if "replace" in op}
    assert {"far-gateway-1-instance", "far-gateway-balancer-far-gateway-1"} <= replaced
    assert not {name for name in replaced if "far-gateway-2" in name}
    assert "far-gateway-addresses" not in shown, "the address of the gateway stays"


def test_a_preview_names_services_that_no_pod_reaches(mesh: Callable[[str], Mesh]) -> None:
    stack = mesh("multi-network")
    del stack.config["networks"]["far"]["gateway"], stack.config["workloads"]["product"]["pods"]
    shown, output = stack.preview()
    assert "so no pod reaches the Services of product" in output
    assert "product-verification" in shown


def test_a_mistake_in_the_stack_file_is_named_without_a_traceback(running: Mesh) -> None:
    running.write(running.changed(mesh={"versoin": "1.31.0"}))
    result = running._stack.preview(program, fails=True)
    assert "mesh.versoin: unknown key (did you mean 'version'?)" in result.output
    assert "Traceback" not in result.output
