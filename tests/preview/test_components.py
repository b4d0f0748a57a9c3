"""Components of one type live in one program: children are named after their component."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest

from tests.support import harness
from tools import mock_engine
from tools.google_model.cloud import ACCOUNT
from tools.plan import resources

pytestmark = pytest.mark.slow

PROGRAM = mock_engine.Program(harness.ROOT / "tests" / "preview" / "two_of_each.py", "two")


@cache
def graph() -> dict[str, harness.Node]:
    """The graph; `harness.run` refuses resources that share a name."""
    return harness.run({}, preview=True, program=PROGRAM).graph


def test_several_clusters_workloads_and_machines_share_no_name() -> None:
    components = Counter(node.type for node in graph().values() if node.type.startswith("istio-vm-mesh:"))
    assert components == {
        "istio-vm-mesh:clusters:Kind": 2,
        "istio-vm-mesh:clusters:Gke": 2,
        "istio-vm-mesh:networks:Google": 2,
        "istio-vm-mesh:mesh:Mesh": 8,
        "istio-vm-mesh:workloads:Workload": 8,
        "istio-vm-mesh:machines:Machine": 12,
        "istio-vm-mesh:machines:InstanceGroup": 4,
    }


def test_networks_keys_and_roles_have_the_names_that_a_program_gives_them() -> None:
    names = {name for name in graph() if name.endswith(("-key", "-network", "-fleet-role"))}
    assert names == {
        *(f"{name}-key" for name in ("east", "west", "north", "south")),
        *(f"{name}-network" for name in ("east", "west", "north", "south")),
        *(f"{name}-network-fleet-role" for name in ("north", "south")),
    }


def test_nothing_on_google_cloud_has_the_name_of_another() -> None:
    """Both clusters are in one project, and in one stack."""
    given = [(node.type, node.inputs[key]) for node in graph().values() for key in ("name", "accountId") if key in node.inputs]
    fixed = Counter(each for each in given if each[0].startswith("gcp:"))
    assert [each for each, count in fixed.items() if count > 1] == []
    assert {type_ for type_, _ in fixed} >= {resources.CLUSTER, resources.INSTANCE, ACCOUNT}


def test_children_are_named_after_their_component() -> None:
    children = [node for node in graph().values() if node.parent in graph()]
    assert children
    assert not [node for node in children if not node.name.startswith(f"{node.parent}-")]


def test_each_object_is_in_the_cluster_of_its_mesh() -> None:
    for node in graph().values():
        if node.type.startswith("kubernetes:") and node.provider:
            assert node.provider == f"{node.name.partition('-')[0]}-kubernetes", node.name
