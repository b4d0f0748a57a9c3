"""The program in docs/how-to/library.md, imported from the wheel: under mocks and under the engine."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from components.names import DRAIN, JOIN, REGISTRATION, entry_name, part_name
from tests.library.conftest import PROJECT, Documented
from tests.support import fake_providers, harness
from tests.support.cli_stack import STACK, Stack
from tools import mock_engine
from tools.standins.provider import Provider

MACHINES = ("billing-1", "billing-2")
RESOURCES = {
    "cluster-check",
    "cluster-check-dynamic",
    "kubernetes",
    "mesh",
    "istio-vm-mesh-gateway",
    "mesh-facts",
    "mesh-gateway-istio-vm-mesh-istiod",
    "mesh-virtualservice-istio-vm-mesh-istiod",
    "namespace-billing",
    "namespace-billing-removal",
    "namespace-billing-mtls",
    "billing",
    "billing-account",
    "billing-group",
    "billing-slots",
    "billing-service-billing",
    *MACHINES,
    *(part_name(machine, part) for machine in MACHINES for part in (REGISTRATION, DRAIN, JOIN)),
}
"""What the program creates, by name."""


def test_the_program_is_about_forty_lines(documented: Documented) -> None:
    assert len(documented.program.file.read_text().splitlines()) <= 45


def test_the_program_joins_its_machines(documented: Documented, package: Path) -> None:
    run = harness.run(documented.config, program=documented.program)
    created = {name for name, node in run.graph.items() if set(node.inputs) != {"id"}}
    assert created == RESOURCES
    assert run.outputs == {f"billing-{number}": entry_name("billing", f"10.11.0.{number + 4}", "pods") for number in (1, 2)}
    for name, server in documented.config["machines"].items():
        join = harness.payload(run.graph[part_name(name, JOIN)])
        hop = join["target"]["hop"]
        assert (hop["host"], hop["user"], hop["host_key"]) == tuple(server[key] for key in ("host", "user", "host_key"))
        metadata = join["bundle"]["proxy"]["proxyMetadata"]
        assert metadata["ISTIO_META_CLUSTER_ID"] == "their-cluster", "the mesh is adopted"
        assert str(package) in run.graph[part_name(name, JOIN)].inputs["create"], "it runs the wheel's scripts"


def test_no_secret_of_the_program_is_readable(documented: Documented, package: Path) -> None:
    run = harness.run(documented.config, program=documented.program)
    texts = [text for node in run.graph.values() for text in harness.texts([node.inputs, node.state])]
    assert not [text for text in texts for canary in harness.CANARIES.values() if canary in text]


def test_a_host_that_ssh_could_read_as_an_option_is_refused(documented: Documented, package: Path) -> None:
    config = {"machines": {"billing-1": {"host": "-oProxyCommand=x", "address": "10.11.0.5"}}}
    with pytest.raises(Exception, match=r"machines\.billing-1\.host: '-oProxyCommand=x' is no host for ssh"):
        harness.run(config, program=documented.program)


CREATED = mock_engine.Program(Path(__file__).with_name("created_machines.py"), PROJECT)


def test_machines_that_the_program_creates_join_once_they_are_there(package: Path) -> None:
    """Their addresses are not known in a preview."""
    names = ("database-1", "database-2")
    graph = harness.run({}, program=CREATED).graph
    assert graph.keys() == harness.run({}, preview=True, program=CREATED).graph.keys()
    for name in names:
        vm = graph[f"{name}-vm"]
        join, registration = graph[part_name(name, JOIN)], graph[part_name(name, REGISTRATION)]
        payload = harness.payload(join)
        assert payload["target"]["hop"]["host"] == vm.state["networkInterfaces"][0]["networkIp"]
        assert payload["patience_s"] == 300
        assert registration.inputs["identity"] == vm.state["instanceId"]
        assert f"{name}-vm" in registration.dependencies


def test_a_login_of_a_created_machine_that_ssh_could_read_as_an_option_is_refused(package: Path) -> None:
    with pytest.raises(Exception, match=r"machines\.database-[12]\.user: '-l' is no user for ssh"):
        harness.run({"user": "-l"}, program=CREATED)


def test_the_engine_runs_the_program(documented: Documented, package: Path, host: Callable[[Provider], None], stack: Stack) -> None:
    for provider in fake_providers.VERSIONS:
        if provider != "gcp":
            host(fake_providers.FakeProvider(provider))
    file = stack.project / f"Pulumi.{STACK}.yaml"
    file.unlink(missing_ok=True)
    (stack.project / "Pulumi.yaml").write_text(f"name: {PROJECT}\nruntime: python\n")
    stack.init()
    settings = yaml.safe_load(file.read_text()) or {} if file.exists() else {}
    values = {f"{PROJECT}:{key}": value for key, value in documented.config.items()}
    file.write_text(yaml.safe_dump({**settings, "config": values}))

    def program() -> None:
        runpy.run_path(str(documented.program.file), run_name="__main__")

    def shown() -> dict[str, str]:
        output = stack.preview(program, "--json").output
        steps = json.loads(output[output.index("{\n") :])["steps"]
        named = {step["urn"].rpartition("::")[2]: step["op"] for step in steps}
        return {name: op for name, op in named.items() if op not in ("same", "read")}

    assert {name for name, op in shown().items() if op == "create"} == {*RESOURCES, f"{PROJECT}-{STACK}"}
    stack.up(program)
    assert shown() == {}, "an update that is repeated changes nothing"
    assert not [canary for canary in harness.CANARIES.values() if stack.files_with(canary)]
    assert stack.destroy().changes() == {"deleted": len(RESOURCES) + 1}
