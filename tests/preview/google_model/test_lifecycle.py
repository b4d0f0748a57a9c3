"""Stacks on Google Cloud over time: what is deleted when, replaced by what, and left by a destroy."""

from __future__ import annotations

import pytest

from tests.support import google_stacks, harness
from tests.support.google_model import lifecycle
from tests.support.google_stacks import STACKS, built, declared, shipped, with_input, with_options
from tests.support.tiers import some_quick
from tools.google_model import remnants
from tools.plan import resources


@pytest.mark.slow
@pytest.mark.parametrize("stack", some_quick(STACKS, "multi-network"))
def test_nothing_is_deleted_while_google_needs_it(stack: str) -> None:
    assert len(list(lifecycle.uses(shipped(stack)))) > 30
    assert lifecycle.too_short_lived(shipped(stack)) == []


@pytest.mark.slow
@pytest.mark.parametrize("build", [google_stacks.several_vpcs, google_stacks.groups_alone])
def test_nothing_is_deleted_while_google_needs_it_in_other_stacks(build: google_stacks.Build) -> None:
    assert lifecycle.too_short_lived(built(build)) == []


@pytest.mark.parametrize("stack", STACKS)
def test_google_takes_every_replacement(stack: str) -> None:
    assert lifecycle.blocked_replacements(shipped(stack)) == []


@pytest.mark.slow
@pytest.mark.parametrize("build", [google_stacks.several_vpcs, google_stacks.groups_alone])
def test_google_takes_every_replacement_of_other_stacks(build: google_stacks.Build) -> None:
    """Among them are VPCs with given addresses, and a group behind a load balancer."""
    assert lifecycle.blocked_replacements(built(build)) == []


def test_all_that_is_in_a_subnet_is_deleted_before_it() -> None:
    """Machines leave the mesh first. What is elsewhere stays."""
    cloud = built(google_stacks.several_vpcs)
    machine = {f"product-near-{part}" for part in ("instance", "registration", "drain")}
    group = {f"group-{part}" for part in ("template", "manager", "autoscaler")}
    assert lifecycle.deleted_first(cloud, "subnet-near") == {"subnet-near", *machine, *group}
    gateway = {f"third-gateway-{part}" for part in ("balancer-address", "balancer-rule", "balancer-third-gateway-1")}
    assert gateway <= lifecycle.deleted_first(cloud, "subnet-third")


@pytest.mark.parametrize("stack", STACKS)
def test_a_destroy_of_a_protected_stack_removes_nothing(stack: str) -> None:
    """The provider alone would refuse the cluster once all in it is gone."""
    ended = lifecycle.destroy(shipped(stack))
    assert (ended.removed, ended.refused_by) == ((), "cluster-gke")


def test_a_destroy_without_protection_removes_everything() -> None:
    config = harness.configuration("fleet")
    config["cluster"]["deletionProtection"] = False
    cloud = declared(config)
    ended = lifecycle.destroy(cloud)
    assert not ended.refused_by
    assert {node.name for node in cloud.on_google()} <= set(ended.removed)


@pytest.mark.parametrize("days", [0, 10, 36, 40])
@pytest.mark.parametrize("stack", STACKS)
def test_a_stack_can_be_created_again_after_its_destroy(stack: str, days: int) -> None:
    assert lifecycle.blocked_again(shipped(stack), days) == []


@pytest.mark.parametrize("stack", STACKS)
def test_a_destroy_leaves_nothing_that_costs(stack: str) -> None:
    left = {each.kind for each in remnants.remnants(shipped(stack))}
    assert left <= {"custom role", "service account"}


def test_a_cluster_that_is_created_again_is_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else Pulumi takes what was in the first one as being in the second."""
    first = shipped("fleet").nodes["kubernetes"].inputs["clusterIdentifier"]
    monkeypatch.setitem(harness.ANSWERS, "cluster-check", harness.THEIR_CLUSTER | {"uid": "ffffffff"})
    endpoint = {"dnsEndpointConfig": {"endpoint": "gke-4567.europe-west1.gke.goog"}}
    monkeypatch.setitem(harness.GOOGLE, resources.CLUSTER, {"controlPlaneEndpointsConfig": endpoint})
    again = declared(harness.configuration("fleet")).nodes["kubernetes"]
    assert again.inputs["clusterIdentifier"] != first


# ---- The model sees what is wrong.


def test_an_address_that_is_not_waited_for_is_reported() -> None:
    stack = shipped("single-network")
    release = stack.nodes["istio-vm-mesh-gateway"]
    alone = google_stacks.Cloud({**stack.nodes, release.name: harness.Node(**{**vars(release), "dependencies": (), "provider": ""})})
    used = {use.used for use in lifecycle.too_short_lived(alone) if use.user == release.name}
    assert used == {"cluster-gke", "cluster-nodes", "gateway-address"}


def test_a_fixed_name_without_deletion_first_is_reported() -> None:
    created_first = with_options(shipped("single-network"), "product-1-instance", delete_before_replace=False)
    assert "product-1-instance: another zone needs a second one with the same name" in lifecycle.blocked_replacements(created_first)


def test_a_template_that_is_deleted_first_is_reported() -> None:
    deleted_first = with_options(shipped("fleet"), "product-fleet-template", delete_before_replace=True)
    assert "product-fleet-template: it would be deleted while product-fleet-manager uses it" in lifecycle.blocked_replacements(
        deleted_first
    )
    named = with_input(shipped("fleet"), "product-fleet-template", "name", "template")
    assert "product-fleet-template: a second one needs another name" in " ".join(lifecycle.blocked_replacements(named))


def test_a_subnet_that_is_created_first_is_reported() -> None:
    created_first = with_options(shipped("single-network"), "subnet-machines", delete_before_replace=False)
    problem = "subnet-machines: another region needs a second one with the same ipCidrRange"
    assert problem in lifecycle.blocked_replacements(created_first)


def test_a_group_that_outlives_its_subnet_is_reported() -> None:
    stack = shipped("fleet")
    manager = stack.nodes["product-fleet-manager"]
    kept = harness.Node(**{**vars(manager), "property_dependencies": {}})
    problems = lifecycle.blocked_replacements(google_stacks.Cloud({**stack.nodes, manager.name: kept}))
    assert "subnet-machines: product-fleet-template would be deleted while product-fleet-manager uses it" in problems


def test_an_autoscaler_that_outlives_its_group_is_reported() -> None:
    stack = with_options(shipped("fleet"), "product-fleet-autoscaler", replace_on_changes=())
    problem = "subnet-machines: product-fleet-manager would be deleted while product-fleet-autoscaler uses it"
    assert problem in lifecycle.blocked_replacements(stack)


def test_protection_by_the_provider_alone_loses_what_is_in_the_cluster() -> None:
    stack = with_options(shipped("single-network"), "cluster-gke", protect=False)
    ended = lifecycle.destroy(stack)
    assert ended.refused_by == "cluster-gke"
    assert {"product-1-join", "istiod", "product-pods"} <= set(ended.removed)
    assert "vpc-mesh" not in ended.removed


def test_a_role_with_a_fixed_id_blocks_the_stack_for_a_month() -> None:
    fixed = with_input(shipped("fleet"), "fleet-role", "roleId", "istioVmMesh_test")
    assert [days for days in (0, 6, 7, 36, 37) if lifecycle.blocked_again(fixed, days)] == [7, 36]


def test_what_is_retained_is_reported() -> None:
    retained = with_options(shipped("fleet"), "vpc-mesh", retain_on_delete=True)
    assert remnants.Remnant("vpc-mesh", "retained resource", "complete", 0) in remnants.remnants(retained)
    kept = with_input(shipped("single-network"), "product-1-instance", "bootDisk.autoDelete", False)
    assert "disk" in {each.kind for each in remnants.remnants(kept)}


def test_every_type_has_the_inputs_that_replace_it() -> None:
    types = {node.type for stack in STACKS for node in shipped(stack).on_google()}
    assert types <= set(resources.IDENTITY_KEYS)
    assert set(lifecycle.EXCLUSIVE) <= set(resources.IDENTITY_KEYS)
