"""Requests of the engine to a provider, and their answers. See `provider` for how they are used."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from .plugin import Engine
from .properties import Properties


class ProviderError(Exception):
    """The operation failed. The message is what the user reads: one sentence with cause and fix."""


class Refused(ProviderError):
    """The stand-in does not implement the request."""


class Cancelled(ProviderError):
    """The user interrupted, or the CLI is gone."""


class InitFailed(ProviderError):
    """The object was created or updated but does not work: `id` and `state` are saved, and the
    user reads `reasons`.
    """

    def __init__(self, id: str, state: Properties, reasons: list[str], inputs: Properties | None = None) -> None:
        super().__init__("; ".join(reasons))
        self.id, self.state, self.reasons, self.inputs = id, state, reasons, inputs


@dataclass(frozen=True)
class Failure:
    """An input that is wrong: the property's path (or "") and a sentence."""

    property: str
    reason: str


@dataclass(frozen=True)
class Checked:
    """The answer to `check`: the inputs to go on with, and what is wrong with them."""

    inputs: Properties
    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True)
class Difference:
    """The answer to `diff`.

    `changes` maps property paths to "add", "delete" or "update" (`differences` makes it); empty
    means no change. `replaces` holds those of them that cannot be changed in place. `stables` names
    outputs that an update does not change.
    """

    changes: dict[str, str] = field(default_factory=dict)
    replaces: frozenset[str] = frozenset()
    delete_before_replace: bool = False
    stables: tuple[str, ...] = ()


@dataclass(frozen=True)
class Created:
    """The answer to `create`: the resource's id ("" in a preview if it is not known) and its
    whole state.
    """

    id: str
    state: Properties


@dataclass(frozen=True)
class Found:
    """The answer to `read`: as `Created`, with the inputs that would give this state."""

    id: str
    state: Properties
    inputs: Properties


@dataclass
class Request:
    """One operation that the engine requests. Fields that the operation does not have are empty."""

    urn: str
    type: str
    name: str
    id: str = ""
    inputs: Properties = field(default_factory=dict)
    """The new inputs; in `read` those last known, in `delete` the old ones."""
    old_inputs: Properties = field(default_factory=dict)
    state: Properties = field(default_factory=dict)
    """The outputs as last saved."""
    preview: bool = False
    timeout: float = 0
    """Seconds that the user grants (`CustomTimeouts`), 0 for the provider's default."""
    ignore_changes: list[str] = field(default_factory=list)
    """In `diff` and `update`; the engine has already put the old values into `inputs`."""
    random_seed: bytes = b""
    """In `check`: the same for the same resource until it is replaced, for generated names."""
    engine: Engine | None = None
    _cancelled: threading.Event = field(default_factory=threading.Event)
    _aborts: list[Callable[[], None]] = field(default_factory=list)

    def log(self, message: str, severity: str = "info") -> None:
        """Say something lasting about this resource. `severity`: debug, info, warning or error
        (which fails the update).
        """
        if self.engine:
            self.engine.log(self.urn, message, severity, ephemeral=False)

    def status(self, message: str) -> None:
        """Say what is going on now; shown while the operation runs."""
        if self.engine:
            self.engine.log(self.urn, message, "info", ephemeral=True)

    @property
    def cancelled(self) -> bool:
        """Whether the operation should end now."""
        return self._cancelled.is_set()

    def wait(self, seconds: float) -> None:
        """Sleep. Raises `Cancelled` as soon as the operation should end."""
        if self._cancelled.wait(seconds):
            raise Cancelled("interrupted")

    @contextmanager
    def on_cancel(self, abort: Callable[[], None]) -> Iterator[None]:
        """While in the block, call `abort` (from another thread, at most once) when the
        operation should end.
        """
        self._aborts.append(abort)
        try:
            if self.cancelled:
                abort()
            yield
        finally:
            self._aborts.remove(abort)

    def cancel(self) -> None:
        """End the operation."""
        if not self._cancelled.is_set():
            self._cancelled.set()
            for abort in list(self._aborts):
                with suppress(Exception):
                    abort()
