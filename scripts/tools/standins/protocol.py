"""Pulumi's gRPC messages and services, without the SDK that they are a part of.

The SDK's import takes half of the start of a plugin, and each command of the CLI starts several.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType


@contextmanager
def _without_sdk() -> Iterator[None]:
    """During the block, let the SDK's packages be empty, unless they have been imported."""
    spec = find_spec("pulumi") if "pulumi" not in sys.modules else None
    packages = {} if spec is None else {"pulumi": "", "pulumi.runtime": "runtime"}
    for name, directory in packages.items():
        package = ModuleType(name)
        package.__path__ = [str(Path(place, directory)) for place in (spec and spec.submodule_search_locations) or ()]
        sys.modules[name] = package
    try:
        yield
    finally:
        for name in packages:
            del sys.modules[name]


with _without_sdk():
    from pulumi.runtime.proto import (
        engine_pb2,
        engine_pb2_grpc,
        language_pb2,
        language_pb2_grpc,
        plugin_pb2,
        provider_pb2,
        provider_pb2_grpc,
        status_pb2,
    )

__all__ = [
    "engine_pb2",
    "engine_pb2_grpc",
    "language_pb2",
    "language_pb2_grpc",
    "plugin_pb2",
    "provider_pb2",
    "provider_pb2_grpc",
    "status_pb2",
]
