"""Runs programs under Pulumi's mocks: no engine, no plugins, everything in this process."""

from __future__ import annotations

import asyncio
import json
import runpy
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pulumi
import yaml
from google.protobuf import json_format  # type: ignore[import-untyped]
from pulumi.runtime import mocks

from tools import ROOT

# Pulumi's marks in serialized properties (sdk/python/lib/pulumi/runtime/rpc.py,
# _special_secret_sig).
SIGNATURE, SECRET = "4dabf18193072939515e22adb298388d", "1b47061264138c4ac30d75fd1eb44270"


@dataclass(frozen=True)
class Program:
    """A Pulumi program.

    file: its Python file.
    project: the name of its project.
    """

    file: Path
    project: str


MAIN = Program(ROOT / "__main__.py", yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["name"])
"""This project. Nothing of it is imported here: programs that use the wheel run where it is not."""


@dataclass(frozen=True)
class Node:
    """One requested resource. Inputs and state are plain, secrets as {"secret": value};
    `dependencies` are names.
    """

    type: str
    name: str
    inputs: dict[str, Any]
    state: dict[str, Any]
    """The outputs that the engine saves; additional secret outputs are secrets."""
    parent: str
    dependencies: tuple[str, ...] = ()
    provider: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    """The options that are not at their defaults, by their names in Python."""
    id: str = ""
    """What the provider calls it; empty in a preview."""
    property_dependencies: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By input, the names of the resources that it follows from."""


class Recorder(mocks.MockMonitor):
    """A monitor that records all requests, and makes additional secret outputs secret, as the
    engine does.
    """

    def __init__(self, answers: mocks.Mocks) -> None:
        super().__init__(answers)
        self.nodes: list[Node] = []

    def RegisterResource(self, request: Any) -> Any:
        response = super().RegisterResource(request)
        if request.type == "pulumi:pulumi:Stack":
            return response
        for name in request.additionalSecretOutputs:
            if name in response.object.fields and not _is_secret(response.object.fields[name]):
                marked = {SIGNATURE: SECRET, "value": json_format.MessageToDict(response.object.fields[name])}
                json_format.ParseDict(marked, response.object.fields[name])
        edges = {*request.dependencies, *(urn for value in request.propertyDependencies.values() for urn in value.urns)}
        node = Node(
            request.type,
            request.name,
            _plain(json_format.MessageToDict(request.object)),
            _plain(json_format.MessageToDict(response.object)),
            _name(request.parent),
            tuple(sorted(_name(urn) for urn in edges)),
            _name(request.provider.rpartition("::")[0]),
            _options(request),
            response.id,
            {key: tuple(sorted(map(_name, value.urns))) for key, value in request.propertyDependencies.items() if value.urns},
        )
        self.nodes.append(node)
        return response

    def ReadResource(self, request: Any) -> Any:
        response = super().ReadResource(request)
        state = _plain(json_format.MessageToDict(response.properties))
        edges = tuple(sorted(_name(urn) for urn in request.dependencies))
        provider = _name(request.provider.rpartition("::")[0])
        self.nodes.append(Node(request.type, request.name, {"id": request.id}, state, _name(request.parent), edges, provider))
        return response


def _options(request: Any) -> dict[str, Any]:
    timeouts = request.customTimeouts
    options = {
        "additional_secret_outputs": sorted(request.additionalSecretOutputs),
        "aliases": [former for alias in request.aliases if (former := _alias(alias))],
        "custom_timeouts": {name: getattr(timeouts, name) for name in ("create", "update", "delete") if getattr(timeouts, name)},
        "delete_before_replace": request.deleteBeforeReplace,
        "deleted_with": _name(request.deletedWith),
        "ignore_changes": sorted(request.ignoreChanges),
        "protect": request.protect,
        "replace_with": sorted(map(_name, request.replace_with)),
        "replace_on_changes": sorted(set(request.replaceOnChanges) - {"triggers[*]"}),  # the command SDK's own
        "retain_on_delete": request.retainOnDelete,
    }
    return {name: value for name, value in options.items() if value}


def _alias(alias: Any) -> dict[str, Any]:
    """Return the parts of a URN that an alias replaces, a parent by its name; none for aliases
    of the SDKs, which replace types.
    """
    spec = alias.spec
    parts = {"urn": alias.urn, "name": spec.name, "type": spec.type, "parent": _name(spec.parentUrn), "noParent": spec.noParent}
    former = {name: value for name, value in parts.items() if value}
    return {} if set(former) == {"type"} and not spec.type.startswith(f"{MAIN.project}:") else former


def _name(urn: str) -> str:
    return urn.rsplit("::", 1)[-1] if "::" in urn else ""


def _is_secret(value: Any) -> bool:
    return value.struct_value.fields[SIGNATURE].string_value == SECRET if SIGNATURE in value.struct_value.fields else False


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        if value.get(SIGNATURE) == SECRET:
            return {"secret": _plain(value["value"])}
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def run_program(
    monitor: mocks.MockMonitor,
    config: Mapping[str, Any],
    *,
    preview: bool,
    program: Program = MAIN,
    stack: str = "test",
) -> tuple[dict[str, Any], frozenset[str]]:
    """Run a program; return the stack's outputs by name, and the names of secret ones.

    - `monitor`: answers for the engine
    - `config`: the stack's configuration, keys without the project's name
    - `stack`: its name

    An output that a preview does not know is left empty. Raises what the program raises.
    """
    project = program.project
    pulumi.runtime.reset_options(project=project, stack=stack)
    values = {f"{project}:{key}": value if isinstance(value, str) else json.dumps(value) for key, value in config.items()}
    pulumi.runtime.set_all_config(values, [])
    outputs: dict[str, Any] = {}
    secret_outputs: set[str] = set()

    async def resolve() -> None:
        root = pulumi.runtime.get_root_resource()
        for name, value in getattr(root, "outputs", {}).items():
            output = pulumi.Output.from_input(value)
            outputs[name] = await output.future()
            if await output.is_secret():
                secret_outputs.add(name)

    def body() -> Any:
        runpy.run_path(str(program.file), run_name="__main__")
        return resolve()

    with _event_loops():
        pulumi.runtime.set_mocks(monitor.mocks, project=project, stack=stack, preview=preview, monitor=monitor)
        pulumi.runtime.test(body)()
    return outputs, frozenset(secret_outputs)


@contextmanager
def _event_loops() -> Iterator[None]:
    """Event loops for this thread and those that answer for the engine; Pulumi makes some where
    there are none, and closes none.
    """
    loops: list[asyncio.AbstractEventLoop] = []

    def make() -> None:
        loops.append(asyncio.new_event_loop())
        asyncio.set_event_loop(loops[-1])

    make()
    with ThreadPoolExecutor(initializer=make) as threads:
        loops[0].set_default_executor(threads)
        try:
            yield
        finally:
            threads.shutdown()
            for loop in loops:
                # A program that failed leaves tasks and errors that nothing awaits. Garbage collection
                # reports them at any later time, with a traceback, which parses source. A parser
                # that is at work just then fails (python/cpython#106905).
                loop.set_exception_handler(lambda *_: None)
                loop.close()
            asyncio.set_event_loop(None)
