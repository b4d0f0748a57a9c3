"""Providers in this process that accept every resource and create nothing, for whole stacks under the real engine.

Outputs are those of tests/support/harness.py. In a preview they are unknown, as with real providers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pulumi_gcp import _utilities

from components import mesh_facts, names
from components.cluster_check import ClusterCheckProvider
from components.istio.mesh_reading import MeshReadingProvider
from components.machines.registration import RegistrationProvider
from tests.support import harness
from tools.plan.resources import identity_keys
from tools.standins.provider import (
    UNKNOWN,
    Checked,
    Created,
    Difference,
    Failure,
    Found,
    Properties,
    Provider,
    Request,
    differences,
    has_unknown,
)

VERSIONS = {"gcp": _utilities.get_version(), "kubernetes": "4.32.0", "command": "1.2.1", "pulumi-python": ""}
CLUSTER_CHECK = "pulumi-python:dynamic/cluster:ClusterCheck"
MESH_READING = "pulumi-python:dynamic/mesh:MeshReading"
REGISTRATION = "pulumi-python:dynamic/registration:Registration"
_NAMED = ("metadata.name", "metadata.namespace")


class FakeProvider(Provider):
    """A provider of all resources of one package."""

    def __init__(self, name: str) -> None:
        self.name, self.version = name, VERSIONS[name]

    def supports(self, type: str) -> bool:
        return True

    def check(self, request: Request) -> Checked:
        """Give resources of Google Cloud a name where they have none, and keep it, as the official provider does."""
        if request.type == CLUSTER_CHECK:
            unknown = has_unknown([request.inputs["access"], request.inputs["created_by"]])
            return Checked({**request.inputs, **(dict.fromkeys(harness.THEIR_CLUSTER, UNKNOWN) if unknown else harness.THEIR_CLUSTER)})
        if request.type == MESH_READING:
            inputs = {key: value for key, value in request.inputs.items() if key != "preview"}
            unknown = has_unknown([request.inputs["access"], request.inputs["wanted"]])
            return Checked({**inputs, "facts": UNKNOWN if unknown else mesh_facts.encode(harness.THEIR_MESH)})
        if request.type == REGISTRATION:
            return Checked({key: value for key, value in request.inputs.items() if key != "preview"})
        named = request.type.startswith(("gcp:compute", "gcp:dns/managedZone")) and "name" not in request.inputs
        kept = request.old_inputs.get("name", f"{request.name}-0123456")
        return Checked({**request.inputs, "name": kept} if named else request.inputs)

    def diff(self, request: Request) -> Difference:
        """Replace commands by their triggers, Kubernetes objects by name and namespace, and Google's by what identifies them, as the official providers do.

        Registrations have a `diff` of their own.
        """
        if request.type == CLUSTER_CHECK:
            changed = ClusterCheckProvider().diff(request.id, dict(request.state), dict(request.inputs)).changes
            return Difference({"uid": "update"} if changed else {})
        if request.type == MESH_READING:
            changed = MeshReadingProvider().diff(request.id, dict(request.state), dict(request.inputs)).changes
            return Difference({"facts": "update"} if changed else {})
        if self.name == "pulumi-python":
            changed = RegistrationProvider().diff(request.id, dict(request.state), dict(request.inputs)).changes
            return Difference({"identity": "update"} if changed else {})
        changes = differences(request.old_inputs, request.inputs)
        keys = identity_keys(request.type) if self.name == "gcp" else ()
        replaces = frozenset(path for path in changes if path.startswith("triggers") or path in _NAMED or _is_of(path, keys))
        return Difference(changes, replaces)

    def create(self, request: Request) -> Created:
        return Created("" if request.preview else f"{request.name}-id", self._state(request))

    def update(self, request: Request) -> Properties:
        return self._state(request)

    def read(self, request: Request) -> Found | None:
        return Found(request.id, {**request.state, **self._answer(request)}, request.inputs)

    def _answer(self, request: Request) -> Mapping[str, Any]:
        answer: dict[str, Any] = json.loads(json.dumps(harness.answer(request.name, request.type)))
        return answer

    def _state(self, request: Request) -> Properties:
        if request.type in (CLUSTER_CHECK, MESH_READING):
            return request.inputs  # `check` read the world, so previews know it too
        answer = self._answer(request)
        if request.preview:
            return {**request.inputs, **dict.fromkeys(answer, UNKNOWN)}
        if names.is_part(request.name, names.JOIN):
            # As join_machine.py does, which returns what had it join the machine.
            changes = json.loads(request.inputs["stdin"])["create"].get("changes", "")
            answer = {**answer, "stdout": json.dumps({**json.loads(answer["stdout"]), "changes": changes})}
        return {**request.inputs, **answer}


def _is_of(path: str, keys: Sequence[str]) -> bool:
    return "*" in keys or any(re.fullmatch(rf"{re.escape(key)}([.\[].*)?", path) for key in keys)


def failure(check_failure: Any) -> Failure:
    """Return what a dynamic provider found wrong with an input."""
    return Failure(check_failure.property, check_failure.reason)
