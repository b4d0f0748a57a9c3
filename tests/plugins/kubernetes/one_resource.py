"""One resource as the engine would treat it, without the engine: for tests of many operations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tools.standins.kubernetes.plugin import Kubernetes
from tools.standins.provider import Checked, Difference, Found, Properties, Request


@dataclass
class Resource:
    """Remembers inputs and state between operations, as the engine does.

    timeout: seconds for an operation; by default a busy computer keeps them.
    """

    provider: Kubernetes
    type: str
    name: str = "it"
    id: str = ""
    inputs: Properties | None = None
    state: Properties | None = None
    timeout: float = 200

    def request(self, **fields: Any) -> Request:
        return Request(f"urn:pulumi:test::test::{self.type}::{self.name}", self.type, self.name, id=self.id, timeout=self.timeout, **fields)

    def check(self, inputs: Properties) -> Checked:
        assert self.provider.supports(self.type)
        return self.provider.check(self.request(inputs=inputs, old_inputs=self.inputs or {}))

    def diff(self, inputs: Properties) -> Difference:
        checked = self.check(inputs).inputs
        return self.provider.diff(self.request(inputs=checked, old_inputs=self.inputs or {}, state=self.state or {}))

    def preview(self, inputs: Properties) -> Properties:
        """The state that a preview shows."""
        checked = self.check(inputs).inputs
        if self.state is None:
            return self.provider.create(self.request(inputs=checked, preview=True)).state
        return self.provider.update(self.request(inputs=checked, old_inputs=self.inputs or {}, state=self.state, preview=True))

    def up(self, inputs: Properties) -> Properties:
        """Create or update; gives the state."""
        checked = self.check(inputs)
        assert not checked.failures, checked.failures
        if self.state is None:
            created = self.provider.create(self.request(inputs=checked.inputs))
            self.id, self.state = created.id, created.state
        else:
            self.state = self.provider.update(self.request(inputs=checked.inputs, old_inputs=self.inputs or {}, state=self.state))
        self.inputs = checked.inputs
        return self.state

    def refresh(self) -> Found | None:
        """Read, and remember what was found."""
        current = self.provider.read(self.request(inputs=self.inputs or {}, state=self.state or {}))
        if current:
            self.inputs, self.state = current.inputs, current.state
        return current

    def delete(self) -> None:
        self.provider.delete(self.request(inputs=self.inputs or {}, state=self.state or {}))
