"""Which workloads an update verifies, and what a join that fails takes away, under the real engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from components import names
from tests.engine.plan.steps import FAR, INSTANCE, ORDERS, put
from tests.engine.plan.test_truth import resources
from tests.engine.test_preview import Mesh, mesh, program  # noqa: F401 (a fixture)
from tests.support import fake_providers, harness
from tests.support.cli_stack import STACK, Stack
from tools.mesh_status import assess, read_state
from tools.mesh_status.pulumi import StackError
from tools.mesh_status.read_cluster import Cluster
from tools.standins.operations import ProviderError
from tools.standins.provider import Created, Provider, Request


class Failing(fake_providers.FakeProvider):
    """A provider that creates no resource of some names."""

    def __init__(self, name: str, names: set[str]) -> None:
        super().__init__(name)
        self._names = names

    def create(self, request: Request) -> Created:
        if request.name in self._names and not request.preview:
            raise ProviderError(f"{request.name} cannot be created")
        return super().create(request)


@pytest.fixture
def failing() -> set[str]:
    return {"billing-2-join"}


@pytest.fixture
def failed(cli: Path, host: Callable[[Provider], None], stack: Stack, failing: set[str]) -> Callable[[str], Mesh]:
    """A stack of which some resources cannot be created."""
    for provider in fake_providers.VERSIONS:
        host(Failing(provider, failing))
    (stack.project / "Pulumi.yaml").write_text(f"name: {harness.PROJECT}\nruntime: python\n")
    stack.init()
    return lambda name: Mesh(stack, name)


@pytest.fixture
def existing(failed: Callable[[str], Mesh]) -> Mesh:
    """The stack `existing`, whose second machine does not join."""
    return failed("existing")


def up(existing: Mesh, *options: str, fails: bool) -> str:
    existing.write(existing.config)
    output: str = existing._stack.up(program, *options, fails=fails).output
    return output


def payload(existing: Mesh, workload: str = "billing") -> dict[str, Any]:
    stdin = resources(existing)[names.part_name(workload, names.VERIFICATION)]["inputs"]["stdin"]
    values: dict[str, Any] = json.loads(stdin)["create"]
    return values


def test_a_join_that_fails_is_named_and_takes_no_other_proof_away(existing: Mesh, failing: set[str]) -> None:
    output = up(existing, "--continue-on-error", fails=True)
    assert "billing-2-join cannot be created" in output
    verified = payload(existing)
    assert verified["missing"] == ["billing-2"]
    assert [entry["machine"] for entry in verified["entries"]] == ["billing-1"]
    saved = resources(existing)
    assert "billing-1-proof" in saved and "billing-2-proof" not in saved
    evidence = json.loads(existing._stack.call("stack", "output", "verification", "--stack", STACK).output)
    assert "billing" in evidence, "what was shown is in the stack's output"
    failing.clear()
    up(existing, fails=False)
    verified = payload(existing)
    assert "missing" not in verified
    assert [entry["machine"] for entry in verified["entries"]] == ["billing-1", "billing-2"]
    assert existing.preview()[0] == {}, "nothing is left to do"


def test_an_instance_group_that_fails_is_named_and_takes_no_other_proof_away(failed: Callable[[str], Mesh], failing: set[str]) -> None:
    """Not of the workload's other machines, and not of other workloads."""
    failing.clear()
    failing.add("product-fleet-manager")
    running = failed("fleet")
    running.config["workloads"]["orders"] = ORDERS
    running.config["machines"] |= {name: {**INSTANCE, "workload": name.rpartition("-")[0]} for name in ("product-1", "orders-1")}
    assert "product-fleet-manager cannot be created" in up(running, "--continue-on-error", fails=True)
    assert [entry["machine"] for entry in payload(running, "orders")["entries"]] == ["orders-1"]
    verified = payload(running, "product")
    assert [entry["machine"] for entry in verified["entries"]] == ["product-1"]
    assert verified["failed_groups"] == ["product-fleet"] and "group_sizes" not in verified, "no machine of it is waited for"
    failing.clear()
    up(running, fails=False)
    verified = payload(running, "product")
    assert verified["group_sizes"] == {"pods": 2} and "failed_groups" not in verified


def test_another_failure_of_a_workload_is_not_swallowed(existing: Mesh, failing: set[str]) -> None:
    """Without its WorkloadGroup nothing of it is verified."""
    failing.clear()
    failing.add("billing-group")
    up(existing, "--continue-on-error", fails=True)
    assert not {"billing-verification", "billing-1-join"} & set(resources(existing))


def test_what_failed_is_a_warning_of_the_update(existing: Mesh, failing: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of machines too, whose own messages Pulumi does not show."""
    failing.clear()
    existing.config["workloads"]["billing"]["verify"] = {"mode": "warn"}
    row = {"cause": "no answer from 10.20.0.9:8080", "object": "Service billing/billing"}
    monkeypatch.setitem(harness.ANSWERS, "billing-1-proof", {"stdout": json.dumps({"calls": [{"verdict": "failed", "endpoints": [row]}]})})
    output = up(existing, fails=False)
    assert "warning: workload billing: no answer from 10.20.0.9:8080; look at Service billing/billing" in output
    assert payload(existing)["warn_only"] is True
    assert "warning: workload" in up(existing, fails=False), "it is still true"


def verified(shown: dict[str, str]) -> set[str]:
    return {name for name in shown if names.is_part(name, names.VERIFICATION, names.CALLERS)}


def test_a_workload_is_verified_again_only_if_something_of_it_changed(mesh: Callable[[str], Mesh]) -> None:  # noqa: F811
    running = mesh("lab-multi-network")
    config = running.config
    config["workloads"]["orders"] = ORDERS
    config["machines"]["orders-1"] = {**FAR, "workload": "orders", "network": "pods"}
    running.up()
    orders, product = (
        {names.part_name(name, names.VERIFICATION), names.callers_resource_name("shop", name)} for name in ("orders", "product")
    )
    assert verified(running.preview()[0]) == set()
    changes: list[tuple[str, set[str]]] = [
        ("services", orders),
        ("machine", orders),
        ("probe", orders),
        ("gateway", {*product, "far-gateway-verification"}),
    ]
    for change, expected in changes:
        changed = running.changed()
        if change == "services":
            changed["workloads"]["orders"]["services"]["orders"]["ports"]["http"] = 81
        elif change == "machine":
            changed["machines"]["orders-2"] = changed["machines"]["orders-1"]
        elif change == "probe":
            changed["workloads"]["orders"]["probe"]["http"]["path"] = "/ready"
        else:
            changed["networks"]["far"]["gateway"]["machines"] = 3
        shown, _ = running.preview(changed)
        assert verified(shown) == expected, change
    far = running.changed()
    far["machines"]["orders-1"]["network"] = "far"
    assert verified(running.preview(far)[0]) == orders


@pytest.mark.parametrize(
    ("name", "change", "workloads"),
    [
        ("fleet", put("machines.product-fleet.startupScript", "#!/bin/bash\ntrue\n"), {"product"}),
        ("fleet", put("machines.product-fleet.maxReplicas", 20), set()),
        ("multi-network", put("networks.far.gateway.image", "other"), {"product", "far-gateway"}),
        ("multi-network", put("mesh.values.gateway.resources.limits.cpu", "2"), {"product", "far-gateway"}),
        ("single-network", put("mesh.values.gateway.resources.limits.cpu", "2"), set()),
        ("single-network", put("mesh.values.istiod.meshConfig.defaultServiceExportTo", ["."]), {"product"}),
    ],
)
def test_machines_that_change_without_their_addresses_are_verified_again(
    mesh: Callable[[str], Mesh],  # noqa: F811
    name: str,
    change: Callable[[dict[str, Any]], object],
    workloads: set[str],
) -> None:
    """Those of an instance group, and gateways: behind a load balancer, their address stays. istiod decides what all proxies do."""
    running = mesh(name)
    running.up()
    changed = running.changed()
    change(changed)
    shown = verified(running.preview(changed)[0])
    expected = {names.part_name(workload, names.VERIFICATION) for workload in workloads}
    assert {each for each in shown if names.is_part(each, names.VERIFICATION)} == expected
    assert (names.callers_resource_name("shop", "product") in shown) == ("product" in workloads), "the pods that call start beside it"


def advice(existing: Mesh) -> list[str]:
    """What status advises, with a cluster that does not answer."""
    exported = existing._stack.call("stack", "export", "--show-secrets", "--stack", STACK).output
    facts = assess.Facts(read_state.parse(json.loads(exported)), StackError("not read"), Cluster(problem="no answer"), datetime.now(UTC))
    shown = assess.mesh(facts)
    assert shown.verified and facts.read - shown.verified < timedelta(minutes=5), "it says how old the proof is"
    return [sentence for workload in shown.workloads for sentence in workload.advice]


def test_status_advises_no_verification_right_after_one(existing: Mesh, failing: set[str]) -> None:
    """After a first update, after a second one that changes nothing, after `--verify`, and after a join that changes nothing."""
    failing.clear()
    up(existing, fails=False)
    assert advice(existing) == []
    up(existing, fails=False)
    assert advice(existing) == []
    state = read_state.parse(json.loads(existing._stack.call("stack", "export", "--show-secrets", "--stack", STACK).output))
    names = {urn.rpartition("::")[2] for urn in state.proofs}
    assert names == {"billing-verification", "billing-billing-callers", "billing-1-proof", "billing-2-proof"}
    up(existing, *(f"--target-replace={urn}" for urn in state.proofs), fails=False)
    assert advice(existing) == []
    existing.config["machines"]["billing-1"]["takeOver"] = "mesh/other"
    up(existing, fails=False)
    assert advice(existing) == [], "a machine joined again, and nothing of it changed"
