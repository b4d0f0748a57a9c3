"""Plans are true: what one says is what the update then did, under the real engine.

Providers note what they are asked to do (tests/support/world.py). Each step of a scenario is one
update, planned before at the levels FILES and STATE.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from components.config import load
from components.machines import registration
from tests.engine.test_preview import Mesh, program
from tests.support import harness
from tests.support.cli_stack import STACK, Stack
from tests.support.fake_providers import VERSIONS
from tests.support.noting_world import NotingProvider, World
from tests.unit.tools.plan.changes import actions, plan_between
from tools.plan import live, state
from tools.plan.model import Plan, Verdict
from tools.standins.provider import Found, Provider, Request

pytestmark = pytest.mark.slow

Config = dict[str, Any]
COMPARED = ("create", "update", "delete", "replace")


@dataclass(frozen=True)
class Step:
    """A change of a stack file. effects: what becomes of machines; others stay as they are."""

    name: str
    change: Callable[[Config], object]
    effects: dict[str, str]


def at(config: Config, path: str) -> Config:
    for key in path.split("."):
        config = config.setdefault(key, {})
    return config


def put(path: str, value: Any) -> Callable[[Config], None]:
    """Return a change that sets a value."""
    above, _, key = path.rpartition(".")
    return lambda config: at(config, above).update({key: copy.deepcopy(value)})


def drop(path: str) -> Callable[[Config], None]:
    """Return a change that removes a value."""
    above, _, key = path.rpartition(".")
    return lambda config: at(config, above).pop(key) and None


def rename(path: str, new: str) -> Callable[[Config], None]:
    """Return a change that renames a key."""
    above, _, key = path.rpartition(".")
    return lambda config: at(config, above).update({new: at(config, above).pop(key)})


def together(*changes: Callable[[Config], object]) -> Callable[[Config], None]:
    """Return several changes as one."""

    def change(config: Config) -> None:
        for each in changes:
            each(config)

    return change


def swap(config: Config) -> None:
    one, other = config["machines"]["billing-1"], config["machines"]["billing-9"]
    one["host"], other["host"] = other["host"], one["host"]


def to_invoices(config: Config) -> None:
    """Give a machine to a workload that is new."""
    billing = copy.deepcopy(config["workloads"]["billing"])
    service = {"invoices": {"ports": {"http": 80}}}
    account = {"name": "invoices"}
    config["workloads"]["invoices"] = {**billing, "labels": {"app": "invoices"}, "services": service, "serviceAccount": account}
    config["machines"]["billing-9"]["workload"] = "invoices"


CONTAINER = {"platform": "docker", "workload": "product", "network": "pods"}
FAR = {**CONTAINER, "network": "far"}
ORDERS = {
    "namespace": "shop",
    "labels": {"app": "orders"},
    "ports": {"http": 8081},
    "probe": {"http": {"port": 8081, "path": "/"}},
    "services": {"orders": {"ports": {"http": 80}}},
}
INSTANCE = {"platform": "gce", "workload": "product", "network": "pods", "zone": "europe-west1-b"}

SCENARIOS: dict[str, list[Step]] = {
    "lab": [
        Step("nothing", lambda _: None, {}),
        Step("a machine", put("machines.product-2", CONTAINER), {"product-2": "joins"}),
        Step("labels", put("workloads.product.labels.tier", "front"), {"product-1": "registers", "product-2": "registers"}),
        Step("a token", put("machines.product-1.rotation", 1), {"product-1": "rejoins"}),
        Step("an image", put("machines.product-2.image", "other:1"), {"product-2": "replaced"}),
        Step("a version", put("mesh.version", "1.31.2"), {"product-1": "restarts", "product-2": "restarts"}),
        Step("a package", put("mesh.package.sha256", "1" * 64), {"product-1": "restarts", "product-2": "restarts"}),
        Step("a port of a Service", put("workloads.product.services.product.ports.http", 81), {}),
        Step("another Service", put("workloads.product.services.goods", {"ports": {"http": 80}}), {}),
        Step("a probe", put("workloads.product.probe.period", 5), {"product-1": "registers", "product-2": "registers"}),
        Step("failClosed", put("workloads.product.failClosed", True), {"product-1": "restarts", "product-2": "restarts"}),
        Step("replicas", put("workloads.product.pods.replicas", 3), {}),
        Step("the image of pods", put("workloads.product.pods.image", "echo:2"), {}),
        Step("a warning", put("verify.mode", "warn"), {}),
        Step(
            "the mesh's proxies",
            put("mesh.values.istiod.meshConfig.defaultConfig.concurrency", 2),
            {"product-1": "restarts", "product-2": "restarts"},
        ),
        Step("the control plane alone", put("mesh.values.istiod.env.PILOT_X", "1"), {}),
        Step(
            "many at once",
            together(
                put("machines.product-3", CONTAINER),
                drop("machines.product-2"),
                put("workloads.product.labels.tier", "back"),
                put("mesh.version", "1.31.0"),
            ),
            {"product-1": "registers", "product-2": "leaves", "product-3": "joins"},
        ),
        Step(
            "the last machines",
            together(drop("machines.product-1"), drop("machines.product-3")),
            dict.fromkeys(("product-1", "product-3"), "leaves"),
        ),
    ],
    "lab-multi-network": [
        Step("another network", put("machines.product-2.network", "pods"), {"product-2": "replaced"}),
        Step("a new name of a container", rename("machines.product-2", "product-9"), {"product-2": "leaves", "product-9": "joins"}),
        Step("a gateway less", put("networks.far.gateway.machines", 1), {"far-gateway-2": "leaves"}),
        Step("the token of gateways", put("networks.far.gateway.rotation", 1), {"far-gateway-1": "rejoins"}),
        Step("no gateway", drop("networks.far.gateway"), {"far-gateway-1": "leaves"}),
        Step("a gateway", put("networks.far.gateway", {"machines": 1}), {"far-gateway-1": "joins"}),
        Step(
            "a workload with a machine",
            together(put("workloads.orders", ORDERS), put("machines.orders-1", {**FAR, "workload": "orders"})),
            {"orders-1": "joins"},
        ),
        Step("no such workload", together(drop("workloads.orders"), drop("machines.orders-1")), {"orders-1": "leaves"}),
    ],
    "existing": [
        Step("a new name", rename("machines.billing-2", "billing-9"), {"billing-9": "registers"}),
        Step("swapped hosts", swap, {"billing-1": "registers", "billing-9": "registers"}),
        Step("another address", put("machines.billing-1.host", "10.11.0.77"), {"billing-1": "replaced"}),
        Step("another user", put("machines.billing-1.user", "root"), {"billing-1": "rejoins"}),
        Step("maxUnavailable", put("workloads.billing.maxUnavailable", 1), {}),
        Step(
            "another service account",
            put("workloads.billing.serviceAccount", {"name": "clerk"}),
            dict.fromkeys(("billing-1", "billing-9"), "registers"),
        ),
        Step("another workload", to_invoices, {"billing-9": "registers"}),
        Step("an old version", put("mesh.version", "1.30.4"), dict.fromkeys(("billing-1", "billing-9"), "restarts")),
        Step("a forgotten machine", put("machines.billing-9.forget", True), {"billing-9": "forgotten"}),
        Step("its removal", together(drop("machines.billing-9"), drop("workloads.invoices")), {"billing-9": "leaves"}),
    ],
    "single-network": [
        Step("a machine type", put("machines.product-1.machineType", "e2-standard-2"), {"product-1": "restarts"}),
        Step("a startup script", put("machines.product-1.startupScript", "#!/bin/bash\ntrue\n"), {}),
        Step("a boot disk", put("machines.product-1.diskSize", 30), {"product-1": "replaced"}),
        Step("a machine", put("machines.product-9", INSTANCE), {"product-9": "joins"}),
        Step("no protection", put("cluster.deletionProtection", False), {}),
        Step("a machine less", drop("machines.product-9"), {"product-9": "leaves"}),
    ],
    "multi-network": [
        Step(
            "an image of gateways",
            put("networks.far.gateway.image", "other"),
            dict.fromkeys(("far-gateway-1", "far-gateway-2"), "replaced"),
        ),
    ],
    "fleet": [
        Step("a startup script", put("machines.product-fleet.startupScript", "#!/bin/bash\ntrue\n"), {"product-fleet": "replaced"}),
        Step("labels", put("workloads.product.labels.tier", "front"), {"product-fleet": "replaced"}),
        Step("a version", put("mesh.version", "1.31.2"), {"product-fleet": "replaced"}),
        Step("a larger group", put("machines.product-fleet.minReplicas", 3), {}),
        Step("no group", drop("machines.product-fleet"), {"product-fleet": "leaves"}),
    ],
}


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def mesh(stack: Stack, host: Callable[[Provider], None], world: World) -> Callable[[str], Mesh]:
    def make(name: str) -> Mesh:
        for provider in VERSIONS:
            host(NotingProvider(provider, world))
        (stack.project / f"Pulumi.{STACK}.yaml").unlink(missing_ok=True)
        (stack.project / "Pulumi.yaml").write_text(f"name: {harness.PROJECT}\nruntime: python\n")
        stack.init()
        return Mesh(stack, name)

    return make


def planned(running: Mesh, config: Config) -> Plan:
    """Return the plan of an update at the level STATE."""
    running.write(config)
    output = running._stack.preview(program, "--json", "--show-sames").output
    return state.plan_of(STACK, state.decode(output), load(config))


def resources(running: Mesh) -> dict[str, Any]:
    """Return the resources of the state by name."""
    file = running._stack.root / "state" / ".pulumi" / "stacks" / harness.PROJECT / f"{STACK}.json"
    saved = json.loads(file.read_text())["checkpoint"]["latest"]["resources"]
    return {each["urn"].rpartition("::")[2]: each for each in saved}


def machine_actions(plan: Plan) -> dict[str, str]:
    """Return what a plan says of machines; one that moves is told of in both workloads."""
    return {name: action.removeprefix("moves+") for name, action in actions(plan).items()}


def noted(log: Iterable[tuple[str, str, str]]) -> dict[str, str]:
    """Return the operations of an update by name; what was deleted and created was replaced."""
    ops: dict[str, str] = {}
    for op, type_, name in log:
        if not type_.startswith("pulumi:"):
            ops[name] = "replace" if {ops.get(name), op} == {"delete", "create"} else op
    return ops


def check_operations(plan: Plan, saved: Mapping[str, Any], log: Iterable[tuple[str, str, str]]) -> None:
    """Check that what a plan promises happened, and nothing else.

    saved: the resources before. What goes with another resource is not deleted by itself. What
    depends on values that are known during the update alone may happen or not.
    """
    did = noted(log)
    listed = {each.name: each for each in plan.operations if each.op in COMPARED}
    deleted = {name for name, each in listed.items() if each.op in ("delete", "replace")}
    with_another = {name for name in deleted if str(saved[name].get("deletedWith", "")).rpartition("::")[2] in deleted}
    sure = {name: each.op for name, each in listed.items() if each.certain and not (each.op == "delete" and name in with_another)}
    assert {name: op for name, op in sure.items() if did.get(name) != op} == {}, "promised, and did not happen"
    others = {name: op for name, op in did.items() if name not in sure}
    allowed = {name: (each.op, "update") for name, each in listed.items() if not each.certain}
    assert {name: op for name, op in others.items() if op not in allowed.get(name, ())} == {}, "happened, and was not promised"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SCENARIOS)
def test_what_a_plan_says_is_what_the_update_does(mesh: Callable[[str], Mesh], world: World, name: str) -> None:
    running = mesh(name)
    before = running.config
    assert machine_actions(planned(running, before)).keys() == load(before).machines.keys()
    running.up(before)
    for step in SCENARIOS[name]:
        after = copy.deepcopy(before)
        step.change(after)
        plan, of_files = planned(running, after), plan_between(name, before, after)
        saved = resources(running)
        world.forget()
        running.up(after)
        groups = {f"{group}-manager": group for group, each in before["machines"].items() if each["platform"] == "gce-instance-group"}
        gone = {group: "leaves" for op, _, resource in world.log if op == "delete" and (group := groups.get(resource))}
        did = {**world.effects(), **gone}
        assert did == step.effects, step.name
        assert machine_actions(plan) == did, step.name
        assert machine_actions(of_files) == did, step.name
        check_operations(plan, saved, world.log)
        assert (plan.verdict is Verdict.NOTHING) == (not world.log), step.name
        verified = {
            resource.removesuffix("-verification") for op, _, resource in world.log if resource.endswith("-verification") and op != "delete"
        }
        sure, maybe = (plan.verification.runs, plan.verification.may_run) if plan.verification else ((), ())
        assert set(sure) <= verified <= {*sure, *maybe}, step.name
        before = after


def test_a_machine_out_of_the_mesh_is_joined_again(mesh: Callable[[str], Mesh], world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    running = mesh("existing")
    running.up()
    monkeypatch.setattr(registration, "list_entries", lambda *_: {})
    plan = planned(running, running.config)
    world.forget()
    running.up()
    assert world.effects() == machine_actions(plan) == dict.fromkeys(("billing-1", "billing-2"), "rejoins")
    assert not any(change.certain for each in plan.workloads for change in each.machines)


def test_a_renamed_workload_is_refused_in_the_words_of_the_program(mesh: Callable[[str], Mesh], cli: Path) -> None:
    running = mesh("existing")
    running.up()
    after = copy.deepcopy(running.config)
    after["workloads"]["bills"] = after["workloads"].pop("billing")
    for machine in after["machines"].values():
        machine["workload"] = "bills"
    running.write(after)
    output = running._stack.preview(program, "--json", "--show-sames", fails=True).output
    error = state.failure(output, "")
    assert error.refused
    assert "the workload billing, which this machine runs, is now called bills, or gone" in str(error)
    assert plan_between("existing", running.config, after).verdict is Verdict.REFUSED


@pytest.mark.parametrize("name", ["lab", "existing"])
def test_a_destroy_is_planned_as_it_happens(mesh: Callable[[str], Mesh], world: World, name: str) -> None:
    running = mesh(name)
    running.up()
    output = running._stack.call("destroy", "--stack", STACK, "--preview-only", "--json").output
    plan = state.plan_of(STACK, state.decode(output), load(running.config), destroy=True)
    world.forget()
    running._stack.destroy()
    assert machine_actions(plan) == world.effects()
    drained = {machine for machine, event in world.events if event == "leaves"}
    assert {change.machine for each in plan.workloads for change in each.machines if change.drained} == drained


def test_what_the_world_lost_is_drift(mesh: Callable[[str], Mesh], monkeypatch: pytest.MonkeyPatch) -> None:
    running = mesh("existing")
    running.up()

    def refresh() -> dict[str, str]:
        words = ("refresh", "--stack", STACK, "--preview-only", "--json")
        return {each.subject: each.text for each in live.drift(running._stack.call(*words).output)}

    assert refresh() == {}
    read = NotingProvider.read

    def changed(self: NotingProvider, request: Request) -> Found | None:
        if request.name == "billing-service-billing":
            return None
        found_there = read(self, request)
        if found_there and request.name == "billing-group":
            spec = copy.deepcopy(dict(request.inputs["spec"]))
            spec["metadata"]["labels"] = {"app": "other", "added-by": "others"}
            return Found(request.id, {**request.state, "spec": spec}, {**request.inputs, "spec": spec})
        return found_there

    monkeypatch.setattr(NotingProvider, "read", changed)
    assert refresh() == {"billing-service-billing": "it is gone", "billing-group": "it differs in spec.metadata.labels.app"}
