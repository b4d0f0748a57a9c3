"""Runs the whole program under Pulumi's mocks and returns the graph that it declares, as the engine would be asked for it."""

from __future__ import annotations

import asyncio
import json
import runpy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pulumi
import yaml
from google.protobuf import json_format  # type: ignore[import-untyped]
from pulumi.runtime import mocks

ROOT = Path(__file__).parents[2]
PROJECT = "istio-vm-mesh"
SECRET = "1b47061264138c4ac30d75fd1eb44270"
SIGNATURE = "4dabf18193072939515e22adb298388d"

# What the resources would answer, where the program reads it. Nothing here is secret.
ADDRESS = "172.31.6.130"
ANSWERS: dict[str, dict[str, Any]] = {
    "cluster-kind": {"stdout": "kubeconfig=a3ViZWNvbmZpZw==\naddress=172.31.6.2"},
    "ssh-key": {"stdout": "private=cHJpdmF0ZQ==\npublic=c3NoLWVkMjU1MTkgQUFBQQ=="},
    "root-certificate": {"data": {"root-cert.pem": "-----BEGIN CERTIFICATE-----\n"}},
}


def answer(name: str, type_: str) -> dict[str, Any]:
    """The outputs of one resource besides its inputs."""
    if name in ANSWERS:
        return ANSWERS[name]
    if name.endswith("-container"):
        return {"stdout": f"id={name}-id\naddress={ADDRESS}\nhostKey=ssh-ed25519 AAAA"}
    if name.endswith("-token"):
        return {"token": "the-token", "expires": 0.0}
    if name.startswith("network-"):
        return {"stdout": "docker-network"}
    if type_.startswith("command:"):
        return {"stdout": "done"}
    return {}


@dataclass
class Node:
    """One resource as it was asked for. `inputs` are plain, secrets as {"secret": value}; `dependencies` are names."""

    type: str
    name: str
    inputs: dict[str, Any]
    parent: str
    dependencies: list[str] = field(default_factory=list)
    deleted_with: str = ""
    additional_secrets: list[str] = field(default_factory=list)
    delete_before_replace: bool = False


class Echo(mocks.Mocks):
    """Answers every resource with its inputs and what `answer` adds; in a preview ids are unknown."""

    def __init__(self, preview: bool) -> None:
        self.preview = preview

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        outputs = {} if self.preview else answer(args.name, args.typ)
        return (None if self.preview else f"{args.name}-id", {**args.inputs, **outputs})

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[Any, Any], list[tuple[str, str]] | None]:
        raise AssertionError(f"the program calls {args.token}: it must not look anything up")


class Recorder(mocks.MockMonitor):
    """A monitor that keeps what it was asked."""

    def __init__(self, wanted: mocks.Mocks) -> None:
        super().__init__(wanted)
        self.requests: list[Any] = []

    def RegisterResource(self, request: Any) -> Any:
        self.requests.append(request)
        return super().RegisterResource(request)

    def ReadResource(self, request: Any) -> Any:
        self.requests.append(request)
        return super().ReadResource(request)


def configuration(stack: str) -> dict[str, Any]:
    """The configuration of a stack file, keys without the project's name."""
    text = (ROOT / "stacks" / f"Pulumi.{stack}.yaml").read_text()
    return {key.removeprefix(f"{PROJECT}:"): value for key, value in yaml.safe_load(text)["config"].items()}


def run(config: Mapping[str, Any], *, preview: bool = False) -> tuple[dict[str, Node], dict[str, Any]]:
    """Run `__main__.py` with a configuration; returns the graph by resource name, and the stack's outputs."""
    pulumi.runtime.reset_options(project=PROJECT, stack="test")
    asyncio.set_event_loop(asyncio.new_event_loop())
    values = {f"{PROJECT}:{key}": value if isinstance(value, str) else json.dumps(value) for key, value in config.items()}
    pulumi.runtime.set_all_config(values, [])
    monitor = Recorder(Echo(preview))
    pulumi.runtime.set_mocks(Echo(preview), project=PROJECT, stack="test", preview=preview, monitor=monitor)
    outputs: dict[str, Any] = {}

    def body() -> None:
        exported = runpy.run_path(str(ROOT / "__main__.py"), run_name="__main__")
        assert exported

    pulumi.runtime.test(body)()
    nodes = [_node(request) for request in monitor.requests if request.type != "pulumi:pulumi:Stack"]
    graph = {node.name: node for node in nodes}
    assert len(graph) == len(nodes), f"resources share names: {sorted(node.name for node in nodes)}"
    return graph, outputs


def _node(request: Any) -> Node:
    fields = getattr(request, "object", None) if hasattr(request, "object") else request.properties
    inputs = _plain(json_format.MessageToDict(fields if fields is not None else request.properties))
    if hasattr(request, "id"):  # a read
        return Node(request.type, request.name, {"id": request.id}, _name(request.parent), [_name(urn) for urn in request.dependencies])
    dependencies = {*request.dependencies, *(urn for value in request.propertyDependencies.values() for urn in value.urns)}
    return Node(
        request.type,
        request.name,
        inputs,
        _name(request.parent),
        sorted(_name(urn) for urn in dependencies),
        _name(request.deletedWith),
        sorted(request.additionalSecretOutputs),
        request.deleteBeforeReplace,
    )


def _name(urn: str) -> str:
    return urn.rsplit("::", 1)[-1] if "::" in urn else ""


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        if value.get(SIGNATURE) == SECRET:
            return {"secret": _plain(value["value"])}
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
