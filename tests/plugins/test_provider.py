"""The base of provider stand-ins on the real engine, by a provider made for this."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from typing import Any

import pulumi

from tests.support.cli_stack import Stack
from tests.support.waiting import wait_until
from tools.standins.provider import (
    UNKNOWN,
    Checked,
    Created,
    Difference,
    Failure,
    Found,
    InitFailed,
    Properties,
    Provider,
    ProviderError,
    Request,
    differences,
    plain,
    secret_like,
)

CANARY = "canary-2b7e4"


class Things(Provider):
    """Keeps things in a dict; what `broken` names exists but does not work."""

    name, version = "things", "1.0.0"
    types = frozenset({"things:index:Thing"})

    def __init__(self) -> None:
        self.things: dict[str, Any] = {}
        self.broken: set[str] = set()
        self.settings: Properties = {}
        self.waiting = self.cancelled = False

    def configure(self, settings: Properties) -> None:
        self.settings = plain(settings)

    def check(self, request: Request) -> Checked:
        failures = [Failure("size", "must not be negative")] if plain(request.inputs.get("size")) == -1 else []
        return Checked({"colour": "blue", **request.inputs}, failures)

    def diff(self, request: Request) -> Difference:
        return Difference(differences(request.old_inputs, request.inputs), frozenset({"kind"}), delete_before_replace=True)

    def create(self, request: Request) -> Created:
        if request.preview:
            return Created("", {**request.inputs, "label": UNKNOWN})
        if plain(request.inputs.get("wait")):
            self.waiting = True
            try:
                request.wait(600)
            except ProviderError:
                self.cancelled = True
                raise
        self.things[request.name] = plain(request.inputs)
        return Created(request.name, self._state(request))

    def update(self, request: Request) -> Properties:
        if not request.preview:
            self.things[request.name] = plain(request.inputs)
        return self._state(request)

    def _state(self, request: Request) -> Properties:
        state = secret_like({**plain(request.inputs), "label": request.name}, request.inputs)
        if request.name in self.broken and not request.preview:
            raise InitFailed(request.name, state, [f"{request.name} is broken"])
        return state

    def read(self, request: Request) -> Found | None:
        if request.id not in self.things:
            return None
        inputs = secret_like(self.things[request.id], request.inputs)
        return Found(request.id, {**inputs, "label": request.id}, inputs)

    def delete(self, request: Request) -> None:
        del self.things[request.id]


class Thing(pulumi.CustomResource):
    label: pulumi.Output[str]

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None, **inputs: Any) -> None:
        super().__init__("things:index:Thing", name, {**inputs, "label": None}, opts)


class Settings(pulumi.ProviderResource):
    def __init__(self, name: str, settings: Mapping[str, Any]) -> None:
        super().__init__("things", name, settings)


def test_life_of_a_thing(stack: Stack, host: Callable[[Provider], None]) -> None:
    things = Things()
    host(things)

    def program(size: int, kind: str = "a") -> None:
        provider = Settings("provider", {"token": pulumi.Output.secret(CANARY)})
        thing = Thing(
            "thing", size=size, kind=kind, nested={"key": pulumi.Output.secret(CANARY)}, opts=pulumi.ResourceOptions(provider=provider)
        )
        pulumi.export("label", thing.label)

    assert stack.preview(lambda: program(1)).changes() == {"create": 3}
    assert things.things == {}
    assert things.settings["token"] == CANARY
    stack.up(lambda: program(1))
    assert things.things["thing"] == {"colour": "blue", "size": 1, "kind": "a", "nested": {"key": CANARY}}
    assert stack.files_with(CANARY) == []
    assert stack.up(lambda: program(1)).changes() == {"unchanged": 3}
    assert "[diff: ~size]" in stack.preview(lambda: program(2)).output
    stack.up(lambda: program(2))
    assert things.things["thing"]["size"] == 2

    things.things["thing"]["colour"] = "red"
    assert stack.refresh().changes() == {"updated": 1, "unchanged": 2}
    assert stack.resources()["thing"]["inputs"]["colour"] == "red"
    assert "[diff: ~colour,kind]" in stack.up(lambda: program(2, "b")).output
    things.things.clear()
    assert stack.refresh().changes() == {"deleted": 1, "unchanged": 2}
    assert stack.up(lambda: program(2, "b")).changes() == {"created": 1, "unchanged": 2}
    stack.destroy()
    assert things.things == {}
    assert stack.files_with(CANARY) == []


def test_a_broken_resource_is_saved_and_updated_by_the_next_up(stack: Stack, host: Callable[[Provider], None]) -> None:
    things = Things()
    things.broken.add("thing")
    host(things)
    assert "thing is broken" in stack.up(lambda: Thing("thing"), fails=True).output
    assert stack.resources()["thing"]["initErrors"] == ["thing is broken"]
    assert "thing is broken" in stack.up(lambda: Thing("thing"), fails=True).output
    things.broken.clear()
    assert stack.up(lambda: Thing("thing")).changes() == {"updated": 1, "unchanged": 1}
    assert "initErrors" not in stack.resources()["thing"]


def test_wrong_inputs_and_defects_have_different_errors(stack: Stack, host: Callable[[Provider], None]) -> None:
    class Defective(Things):
        def create(self, request: Request) -> Created:
            raise KeyError("oops")

    host(Defective())
    assert "must not be negative" in stack.preview(lambda: Thing("thing", size=-1), fails=True).output
    assert "defect in the stand-in at test_provider.py" in stack.up(lambda: Thing("thing"), fails=True).output


def test_waiting_ends_when_the_user_interrupts(stack: Stack, host: Callable[[Provider], None]) -> None:
    things = Things()
    host(things)
    with stack.updating(lambda: Thing("thing", wait=True)) as process:
        wait_until(lambda: things.waiting)
        process.send_signal(signal.SIGINT)
        assert process.wait() != 0
    assert things.cancelled


def test_waiting_ends_when_the_cli_is_killed(stack: Stack, host: Callable[[Provider], None]) -> None:
    things = Things()
    host(things)
    with stack.updating(lambda: Thing("thing", wait=True)) as process:
        wait_until(lambda: things.waiting)
        process.kill()
        wait_until(lambda: things.cancelled)
