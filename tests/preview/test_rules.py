"""What must hold in the graph of every stack, whatever else it says."""

from __future__ import annotations

import ast
import cProfile
import sys
from pathlib import Path

import pulumi
import pytest

from tests.support import harness
from tests.support.harness import Node
from tests.support.tiers import some_quick
from tools.devtools.bench import preview
from tools.plan.resources import identity_keys

STACKS = harness.stacks()
OWNED = {"app.kubernetes.io/managed-by": "istio-vm-mesh", "istio-vm-mesh/stack": "istio-vm-mesh.test"}


def graph(stack: str) -> dict[str, Node]:
    return harness.declared(stack).graph


def all_dependencies(stack: str, name: str) -> set[str]:
    """All that exists before a resource, directly and indirectly."""
    earlier: set[str] = set()
    waiting = [name]
    while waiting:
        for dependency in graph(stack)[waiting.pop()].dependencies:
            if dependency not in earlier:
                earlier.add(dependency)
                waiting.append(dependency)
    return earlier


def of_kind(stack: str, kind: str) -> dict[str, Node]:
    return {name: node for name, node in graph(stack).items() if node.type.endswith(f":{kind}") and set(node.inputs) != {"id"}}


@pytest.mark.parametrize("stack", STACKS)
def test_services_select_pods_and_machines_alike(stack: str) -> None:
    config = harness.configuration(stack)
    for name, workload in config["workloads"].items():
        group = graph(stack)[f"{name}-group"].inputs["spec"]["metadata"]["labels"]
        assert group == workload["labels"]
        for service, spec in workload["services"].items():
            assert graph(stack)[f"{name}-service-{service}"].inputs["spec"]["selector"] == spec.get("selector", group)
        if workload.get("pods"):
            pod = graph(stack)[f"{name}-pods"].inputs["spec"]["template"]["metadata"]["labels"]
            assert group.items() <= pod.items()


@pytest.mark.parametrize("stack", STACKS)
def test_the_pods_network_has_its_name_and_pods_get_sidecars(stack: str) -> None:
    config = harness.configuration(stack)
    for name, node in of_kind(stack, "Namespace").items():
        labels = node.inputs["metadata"]["labels"].items() - OWNED.items()
        assert dict(labels) == (
            {"topology.istio.io/network": config["cluster"]["network"]} if name == "istio-system" else {"istio-injection": "enabled"}
        )


@pytest.mark.parametrize("preview", [True, False], ids=["preview", "update"])
@pytest.mark.parametrize("stack", STACKS)
def test_every_object_names_its_stack_and_is_looked_for_before(stack: str, preview: bool) -> None:
    graph = harness.declared(stack, preview).graph
    looked_for = {tuple(each[key] for key in ("group", "kind", "namespace", "name")) for each in graph["cluster-check"].inputs["objects"]}
    objects = [
        node for node in graph.values() if node.type.startswith("kubernetes:") and ":helm." not in node.type and "metadata" in node.inputs
    ]
    assert len(objects) >= 5
    for node in objects:
        metadata, group = node.inputs["metadata"], node.inputs["apiVersion"].rpartition("/")[0]
        assert OWNED.items() <= metadata["labels"].items(), node.name
        assert (group, node.inputs["kind"], metadata.get("namespace", ""), metadata["name"]) in looked_for, node.name
    releases = [node.inputs for node in graph.values() if ":helm." in node.type]
    assert {("helm.sh", "Release", each["namespace"], each["name"]) for each in releases} <= looked_for
    assert len(looked_for) == len(objects) + len(releases)
    assert all("cluster-check" in graph[node.provider].dependencies for node in objects)


@pytest.mark.parametrize("stack", STACKS)
def test_a_machine_joins_after_everything_that_it_needs(stack: str) -> None:
    config = harness.configuration(stack)
    waiting = {f"{name}-join": machine for name, machine in config["machines"].items() if machine["platform"] != "gce-instance-group"}
    waiting |= {f"{name}-manager": machine for name, machine in config["machines"].items() if machine["platform"] == "gce-instance-group"}
    assert waiting
    for name, machine in waiting.items():
        workload = machine["workload"]
        needed = {
            f"{workload}-group",
            f"{workload}-account",
            *(f"{workload}-service-{s}" for s in config["workloads"][workload]["services"]),
        }
        assert needed | {"istio-vm-mesh-gateway", "mesh-virtualservice-istio-vm-mesh-istiod"} <= all_dependencies(stack, name), name


def test_a_machine_that_goes_with_its_cluster_is_not_drained() -> None:
    """Its drain needs the cluster, which is gone by then, and would fail a destroy."""
    drains = {name: node.options.get("deleted_with") for name, node in harness.declared("lab").graph.items() if name.endswith("-drain")}
    assert drains == {"product-1-drain": "cluster-kind"}
    others = harness.declared("existing").graph
    assert not [name for name, node in others.items() if name.endswith("-drain") and "deleted_with" in node.options]


@pytest.mark.parametrize("stack", [stack for stack in STACKS if stack != "existing"])
def test_istio_objects_wait_for_istiod(stack: str) -> None:
    kinds = [
        kind for kind in ("Gateway", "VirtualService", "PeerAuthentication", "WorkloadGroup", "DestinationRule") if of_kind(stack, kind)
    ]
    assert len(kinds) >= 4
    for kind in kinds:
        for name in of_kind(stack, kind):
            assert "istiod" in all_dependencies(stack, name), name


@pytest.mark.parametrize("stack", STACKS)
def test_dependencies_are_few_whatever_the_number_of_machines(stack: str) -> None:
    """A list that grows with the stack makes previews quadratic."""
    for name, node in graph(stack).items():
        assert len(node.dependencies) <= 25, name


@pytest.mark.parametrize("stack", some_quick(STACKS, "lab-multi-network", "fleet"))
def test_a_dependency_that_is_left_out_of_a_list_is_in_that_of_another(stack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists are short, for the state's size. The order of creations and deletions is that of complete ones."""
    shipped = graph(stack)  # imports the program
    users = [module for name, module in sys.modules.items() if name.startswith("components.") and hasattr(module, "without_dependencies")]
    assert len(users) >= 3
    for module in users:
        monkeypatch.setattr(module, "without_dependencies", pulumi.Output.from_input)
    complete = harness.run(harness.configuration(stack)).graph
    assert complete.keys() == shipped.keys()
    left_out = 0
    for name, node in complete.items():
        short = shipped[name]
        left_out += len(node.dependencies) - len(short.dependencies)
        # What is only read is neither created nor deleted.
        lasting = {each for each in node.dependencies if set(complete[each].inputs) != {"id"}}
        if not name.endswith("-callers"):  # their values follow from machines that they do not name
            assert lasting <= all_dependencies(stack, name), name
        for key in identity_keys(node.type):
            if key != "*":  # a change of these replaces it, so the engine looks at what they follow from
                input_name = key.partition(".")[0]
                assert short.property_dependencies.get(input_name) == node.property_dependencies.get(input_name), (name, key)
    assert left_out > 5 or not any(name.endswith("-join") for name in complete)


@pytest.mark.slow
@pytest.mark.parametrize("stack", ["lab", "single-network"])
def test_the_work_of_a_preview_grows_linearly(stack: str) -> None:
    """By calls of functions of the program and its SDKs: twice as many further machines are twice as much further work.

    What is left out is decided by time: the calls of the event loop, and how far Pulumi searches for circles.
    """

    def calls(machines: int) -> int:
        profile = cProfile.Profile()
        profile.runcall(harness.run, preview.grown(config, machines), preview=True)
        codes = [(each.code, each.callcount) for each in profile.getstats()]
        return sum(count for code, count in codes if not isinstance(code, str) and counts(Path(code.co_filename)))

    def counts(file: Path) -> bool:
        return file.is_relative_to(harness.ROOT / "components") or (
            "site-packages" in file.parts and file.name != "resource_cycle_breaker.py"
        )

    config = harness.configuration(stack)
    harness.run(preview.grown(config, 1), preview=True)  # imports
    few, more, many = calls(6), calls(12), calls(24)
    assert (many - more) / (more - few) < 2.05


def test_no_resource_is_created_in_an_apply() -> None:
    """That is in an apply. What is called like a class of an SDK within a lambda, or in a function handed to `apply`, is one."""
    files = sorted((harness.ROOT / "components").rglob("*.py"))
    assert len(files) > 20
    for file in files:
        tree = ast.parse(file.read_text())
        handed = {
            argument.id
            for call in ast.walk(tree)
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "apply"
            for argument in call.args
            if isinstance(argument, ast.Name)
        }
        inner = [node for node in ast.walk(tree) if isinstance(node, ast.Lambda)]
        named = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name in handed]
        for function in (*inner, *named):
            for call in ast.walk(function):
                if isinstance(call, ast.Call):
                    assert not any(word.arg == "opts" for word in call.keywords), f"{_place(file)}:{call.lineno}"


def _place(file: Path) -> str:
    return str(file.relative_to(harness.ROOT))
