"""Nothing that a provider is asked for is misspelt: mocks take any key, so every key is held against the SDK's own input types.

Custom resources and chart values have no types there; they are held against the CRDs and the charts (tests/engine/kubernetes/test_manifests.py).
"""

from __future__ import annotations

import importlib
import types
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import pulumi
import pytest
from pulumi import _types

from tests.support import harness
from tests.support.harness import Node

UNTYPED = {"values"}  # of charts
SDKS = {"gcp": "pulumi_gcp", "kubernetes": "pulumi_kubernetes", "command": "pulumi_command"}


def arguments_class(type_: str) -> type | None:
    """The class of a resource's arguments; None for components, providers, dynamic and custom resources."""
    package, _, rest = type_.partition(":")
    module, _, name = rest.rpartition(":")
    if package not in SDKS or type_.startswith("pulumi:"):
        return None
    if package == "kubernetes":
        group, _, version = module.partition("/")
        place = f"{group.removesuffix('.k8s.io').removesuffix('.authorization').removesuffix('.sh')}.{version}"
    else:
        place = module.partition("/")[0]
    try:
        sdk = importlib.import_module(f"{SDKS[package]}.{place}")
    except ModuleNotFoundError:
        return None  # a group of custom resources
    return getattr(sdk, f"{name}InitArgs", None) or getattr(sdk, f"{name}Args")


@cache
def fields(cls: type) -> Mapping[str, Any]:
    """The fields of an input type by their names on the wire."""
    types_by_name = _types.input_type_types(cls)
    return {wire: types_by_name.get(wire, Any) for wire in _types.input_type_py_to_pulumi_names(cls).values()}


def leaves(expected: Any) -> Iterator[Any]:
    """What a type is made of, wrappers taken off."""
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin in (typing.Union, types.UnionType) or origin is pulumi.Output or (origin and "Awaitable" in str(origin)):
        for argument in arguments:
            yield from leaves(argument)
    else:
        yield expected


def misspelt(value: Any, expected: Any, path: str) -> Iterator[str]:
    """The keys below `value` that no type of `expected` has."""
    if isinstance(value, dict) and set(value) == {"secret"}:
        yield from misspelt(value["secret"], expected, path)
        return
    parts = list(leaves(expected))
    if isinstance(value, list):
        items = [
            typing.get_args(part)[0] for part in parts if typing.get_origin(part) and issubclass(typing.get_origin(part), typing.Sequence)
        ]
        for index, item in enumerate(value):
            yield from misspelt(item, items[0] if items else Any, f"{path}[{index}]")
    if not isinstance(value, dict):
        return
    classes = [part for part in parts if isinstance(part, type) and _types.is_input_type(part)]
    if not classes:
        return  # a map of the user's own keys, such as labels
    expected_fields = {name: type_ for cls in classes for name, type_ in fields(cls).items()}
    for key, item in value.items():
        if key not in expected_fields:
            yield f"{path}.{key}"
        elif key not in UNTYPED:
            yield from misspelt(item, expected_fields[key], f"{path}.{key}")


def problems(node: Node) -> list[str]:
    cls = arguments_class(node.type)
    return list(misspelt(node.inputs, cls, node.name)) if cls and set(node.inputs) != {"id"} else []


@pytest.mark.parametrize("stack", harness.stacks())
def test_every_key_is_one_that_the_provider_has(stack: str) -> None:
    graph = harness.declared(stack).graph
    assert [problem for node in graph.values() for problem in problems(node)] == []
    typed = [node for node in graph.values() if arguments_class(node.type)]
    assert len(typed) > 10, "the test looks at nothing"


@pytest.mark.parametrize(
    ("type_", "inputs", "wrong"),
    [
        ("gcp:compute/instance:Instance", {"bootDisk": {"initializeParams": {"imgae": "x"}}}, ["n.bootDisk.initializeParams.imgae"]),
        ("gcp:compute/instance:Instance", {"networkInterfaces": [{"subnet": "x"}]}, ["n.networkInterfaces[0].subnet"]),
        ("gcp:compute/instance:Instance", {"metadata": {"anything": "x"}, "machine_type": "x"}, ["n.machine_type"]),
        ("gcp:container/cluster:Cluster", {"releaseChannel": {"chanel": "x"}}, ["n.releaseChannel.chanel"]),
        ("kubernetes:core/v1:Service", {"spec": {"ports": [{"port": 1, "target_port": 2}]}}, ["n.spec.ports[0].target_port"]),
        ("kubernetes:apps/v1:Deployment", {"spec": {"template": {"spec": {"container": []}}}}, ["n.spec.template.spec.container"]),
        ("kubernetes:rbac.authorization.k8s.io/v1:Role", {"rules": [{"resource": []}]}, ["n.rules[0].resource"]),
        ("command:local:Command", {"creat": {"secret": "x"}}, ["n.creat"]),
    ],
)
def test_a_misspelt_key_is_reported(type_: str, inputs: dict[str, Any], wrong: list[str]) -> None:
    assert problems(Node(type_, "n", inputs, {}, "")) == wrong
