"""kubectl for the WorkloadEntries of one namespace, in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from components import names
from components.local import scripting
from components.local.cluster_access import Unreachable

WORKLOAD_GROUP = {"apiVersion": "networking.istio.io/v1", "kind": "WorkloadGroup", "metadata": {"name": "billing", "uid": "the-group"}}

ROOT_TEXT = "-----BEGIN CERTIFICATE-----\n"


class FakeCluster:
    """A namespace.

    entries: its WorkloadEntries by name. workload_group: None where it is gone.
    root: the mesh's root certificate; "" where its ConfigMap is missing.
    down: what every call fails with; "" for a cluster that answers.
    calls: the words of each call.
    """

    def __init__(self) -> None:
        self.entries: dict[str, dict[str, Any]] = {}
        self.workload_group: dict[str, Any] | None = WORKLOAD_GROUP
        self.root = ROOT_TEXT
        self.down = ""
        self.calls: list[str] = []

    def add(self, name: str, registration: str, *, healthy: bool | None = True, connected: bool = True) -> None:
        """Register a machine."""
        annotation = names.CONNECTED_ANNOTATION if connected else names.DISCONNECTED_ANNOTATION
        conditions = [] if healthy is None else [{"type": "Healthy", "status": str(healthy), "message": "" if healthy else "refused\n"}]
        self.entries[name] = {
            "metadata": {
                "name": name,
                "labels": {names.REGISTRATION_LABEL: registration},
                "annotations": {annotation: "now", names.GROUP_ANNOTATION: "billing"},
            },
            "status": {"conditions": conditions},
        }

    def _read(self, wanted: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for each in wanted:
            name = each["metadata"]["name"]
            if each["kind"] == "ConfigMap":
                if self.root:
                    yield {**each, "data": {"root-cert.pem": self.root}}
            elif name in self.entries:
                yield {**each, **self.entries[name]}

    @contextmanager
    def kubectl(self, _access: Any) -> Iterator[Any]:
        """Stand in for `cluster_access.kubectl`."""
        if self.down:
            raise Unreachable(self.down)
        yield self

    def call(self, *words: str, stdin: bytes = b"", timeout_s: float | None = None) -> scripting.Done:
        """Stand in for kubectl."""
        line = " ".join(word for word in words if not word.startswith("--request-timeout"))
        self.calls.append(line)
        if self.down:
            return scripting.Done(1, b"", self.down.encode())
        verb, kind, *rest = line.split()
        if verb == "create" and kind == "token":
            return _done("the-token")
        if verb == "create":
            item = json.loads(stdin)
            if (name := item["metadata"]["name"]) in self.entries:
                return scripting.Done(1, b"", f'"{name}" already exists'.encode())
            self.entries[name] = item
            return _done(name)
        if kind == "--filename":
            return _done(json.dumps({"items": list(self._read(json.loads(stdin)["items"]))}))
        if kind.startswith("workloadgroups"):
            return _done(json.dumps(self.workload_group) if self.workload_group else "")
        if verb == "get":
            if rest[0] == "--namespace":
                return _done(json.dumps({"items": list(self.entries.values())}))
            if rest[0] == "--selector":
                key, _, value = rest[1].partition("=")
                return _done(
                    json.dumps({"items": [item for item in self.entries.values() if item["metadata"]["labels"].get(key) == value]})
                )
            return _done(json.dumps(self.entries[rest[0]]) if rest[0] in self.entries else "")
        assert verb == "delete", line
        if rest[0] == "--selector":
            key, equals, value = rest[1].partition("=")
            labels = {name: item["metadata"]["labels"] for name, item in self.entries.items()}
            chosen = [name for name, given in labels.items() if key in given and (not equals or given[key] == value)]
        else:
            chosen = [rest[0]]
        return _done("\n".join(name for name in chosen if self.entries.pop(name, None)))


def _done(text: str) -> scripting.Done:
    return scripting.Done(0, text.encode(), b"")
