"""What the program declares for the stacks of this repository, without an engine.

A wanted change of a graph is written down by the command `golden.UPDATE`, and reviewed as the diff of tests/preview/golden.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from typing import Any

import pulumi
import pytest

from tests.support import golden, harness
from tests.support.harness import CANARIES, Node, Run, declared, encoded
from tests.support.tiers import some_quick
from tools import PYTHONPATH

STACKS = harness.stacks()
ON_GOOGLE = {"single-network", "multi-network", "fleet"}
# Stacks that have no such secret: GKE's kubeconfig holds no credential, and machines that join by themselves are given none.
WITHOUT = {CANARIES["kubeconfig"]: {*ON_GOOGLE, "existing"}, CANARIES["private key"]: {"fleet", "existing"}}
MACHINE = "istio-vm-mesh:machines:Machine"


def machines(run: Run) -> dict[str, list[Node]]:
    """The resources of every machine, itself included."""
    resources = {node.name: [node] for node in run.graph.values() if node.type == MACHINE}
    for node in run.graph.values():
        if node.parent in resources:
            resources[node.parent].append(node)
    return resources


@pytest.mark.parametrize("stack", STACKS)
def test_the_graph_is_the_one_that_was_reviewed(stack: str) -> None:
    file, now = golden.DIRECTORY / f"{stack}.json", golden.render(declared(stack))
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(now)
    there = file.read_text() if file.exists() else ""
    assert now == there, f"the graph of the stack {stack} changed; if it should, write it down with {golden.UPDATE}"


def test_a_change_of_a_long_value_shows_in_the_golden_file() -> None:
    def rendered(text: str) -> str:
        return golden.render(Run({"it": Node("t:T", "it", {"text": text}, {}, "")}, {}, frozenset()))

    assert "… 400 characters, sha256 " in rendered("a" * 400)
    assert rendered("a" * 399 + "b") != rendered("a" * 400)
    assert "short" in rendered("short")


@pytest.mark.parametrize("stack", some_quick(STACKS, "lab-multi-network", "fleet"))
def test_the_first_preview_shows_what_the_update_does(stack: str) -> None:
    preview, update = (
        {node.name: (node.type, node.parent, node.dependencies, node.options) for node in declared(stack, preview).graph.values()}
        for preview in (True, False)
    )
    assert preview == update


@pytest.mark.parametrize("stack", STACKS)
def test_a_machine_is_at_most_six_resources_and_two_connections(stack: str) -> None:
    resources = machines(declared(stack))
    assert resources or stack == "fleet"
    for name, nodes in resources.items():
        assert len(nodes) <= 6, f"{name}: {[node.name for node in nodes]}"
        assert sum(map(harness.on_machine, nodes)) <= 2, name


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("canary", CANARIES.values(), ids=CANARIES)
def test_secrets_are_secret_wherever_they_go(stack: str, canary: str) -> None:
    run = declared(stack)
    open_texts = [*harness.texts({name: value for name, value in run.outputs.items() if name not in run.secret_outputs})]
    hidden = ""
    for node in run.graph.values():
        open_texts += [node.name, *harness.texts(node.inputs), *harness.texts(node.state)]
        hidden += str((node.inputs, node.state))
    used = canary in hidden or encoded(canary) in hidden
    assert used or stack in WITHOUT[canary], f"{canary} is used nowhere: the test proves nothing"
    for text in open_texts:
        assert canary not in text and encoded(canary) not in text, text[:300]


@pytest.mark.parametrize("stack", STACKS)
def test_a_private_key_is_in_the_output_of_its_resource_alone(stack: str) -> None:
    key = CANARIES["private key"]
    for name, node in declared(stack).graph.items():
        assert key not in str(node.inputs) and encoded(key) not in str(node.inputs), name
        assert name == "ssh-key" or key not in str(node.state), name
    assert key not in str(declared(stack).outputs)


def test_the_kubeconfig_of_a_kind_cluster_is_in_two_resources() -> None:
    """The one that makes the cluster, and the provider. Commands ask kind for it."""
    canary = CANARIES["kubeconfig"]
    graph = declared("lab").graph
    assert {name for name, node in graph.items() if canary in str((node.inputs, node.state))} == {"cluster-kind", "kubernetes"}


@pytest.mark.parametrize("preview", [True, False], ids=["preview", "update"])
def test_secret_outputs_are_declared_before_their_values_exist(preview: bool) -> None:
    """Not only by what flowed into it in one run: marks are declared, so that a preview hides what it does not know yet."""
    graph = declared("lab", preview).graph
    assert graph["cluster-kind"].options["additional_secret_outputs"] == ["stdout"]
    assert graph["ssh-key"].options["additional_secret_outputs"] == ["stdout"]


@pytest.mark.parametrize("stack", STACKS)
def test_nothing_that_runs_on_machines_runs_when_it_is_deleted(stack: str) -> None:
    """A machine that is deleted is no place for commands. What leaves does so by its drain."""
    for node in declared(stack).graph.values():
        assert not (harness.on_machine(node) and "delete" in node.inputs), node.name


@pytest.mark.parametrize("stack", STACKS)
def test_every_kubernetes_object_uses_the_stacks_provider(stack: str) -> None:
    """Each resource names the stack's own provider; the default one takes the user's current kubeconfig."""
    for node in declared(stack).graph.values():
        if node.type.startswith("kubernetes:"):
            assert node.provider == "kubernetes", node.name


@pytest.mark.parametrize("stack", STACKS)
def test_nothing_secret_is_on_a_command_line_or_in_a_log(stack: str) -> None:
    for node in declared(stack).graph.values():
        if node.type.startswith("command:"):
            for key in ("create", "update", "delete", "environment", "triggers"):
                assert "secret" not in str(node.inputs.get(key)), f"{node.name}: {key}"
            if "secret" in node.inputs.get("stdin", {}):
                assert node.inputs["logging"] in ("none", "stderr"), node.name


@pytest.mark.parametrize("stack", STACKS)
def test_every_command_keeps_the_rules(stack: str) -> None:
    """Of what is made or ended no script's text is an input; what looks or converges runs again when its script changes."""
    for node in declared(stack).graph.values():
        if not node.type.startswith("command:"):
            continue
        assert node.type == "command:local:Command", node.name
        inputs = node.inputs
        assert inputs["logging"] in ("stderr", "none") and inputs["addPreviousOutputInEnv"] is False, node.name
        converges = node.name == "gateway-api" or node.name.endswith(("-join", "-proof", "-verification", "-callers"))
        assert ("SCRIPT_DIGEST" in inputs.get("environment", {})) == converges, node.name
        assert "update" not in inputs, node.name
        if "triggers" in inputs and "delete" in inputs:
            stays = node.name.endswith("-drain") and 'required":true' in str(inputs["stdin"])
            assert stays or node.options.get("delete_before_replace") or node.options.get("deleted_with"), node.name
        for key in ("create", "delete"):
            assert len(inputs.get(key, "")) < 200 and "\n" not in inputs.get(key, ""), node.name
        json.loads(inputs["stdin"]["secret"] if isinstance(inputs["stdin"], dict) else inputs["stdin"])


@pytest.mark.slow
def test_the_lab_loads_no_sdk_that_takes_long() -> None:
    """Not a cloud's, nor the classes that pulumi-kubernetes has for each kind of object."""
    program = "import sys\nfrom tests.support import harness\nharness.run(harness.configuration('lab'))\nprint(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    modules = subprocess.check_output([sys.executable, "-c", program], cwd=harness.ROOT, env=environment, text=True).split()
    assert "pulumi_kubernetes" in modules
    assert not {"pulumi_gcp", "pulumi_kubernetes.core.v1", "pulumi_kubernetes.helm.v3"} & {*modules}


def test_a_wrong_stack_file_declares_nothing_and_every_mistake_is_named() -> None:
    config: dict[str, Any] = copy.deepcopy(harness.configuration("lab"))
    config["workload"] = config.pop("workloads")
    config["machines"]["product-1"]["netwrok"] = config["machines"]["product-1"].pop("network")
    config["mesh"]["version"] = 1.31
    recorder = harness.Recorder(preview=False)
    with pytest.raises(pulumi.RunError) as raised:
        harness.run(config, recorder=recorder)
    assert recorder.nodes == []
    for says in (
        "workload: unknown key (did you mean 'workloads'?)",
        "machines.product-1.netwrok: unknown key",
        "mesh.version: expected a string",
    ):
        assert says in str(raised.value)


def test_another_machine_changes_no_other() -> None:
    before = declared("lab").graph
    config = copy.deepcopy(harness.configuration("lab"))
    config["machines"]["product-2"] = dict(config["machines"]["product-1"])
    after = harness.run(config).graph
    added, changed = set(after) - set(before), {name for name in before if before[name] != after.get(name)}
    assert {name for name in added if not name.startswith("product-2")} == set()
    assert changed == {"product-slots", "product-verification", "shop-product-callers"}


def test_other_pods_are_called_by_machines_too() -> None:
    """Calls from the cluster alone would not show that machines reach them."""
    before = declared("lab").graph
    config = copy.deepcopy(harness.configuration("lab"))
    config["workloads"]["product"]["pods"]["labels"] = {"version": "v2"}
    after = harness.run(config).graph
    changed = {name for name in before if before[name] != after.get(name)}
    assert changed == {"product-pods", "product-verification", "shop-product-callers", "product-1-proof"}
