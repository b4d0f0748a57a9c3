"""A provider that creates nothing: what it answers, and what it logs."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..inert import Inert
from ..operations import Request
from ..properties import UNKNOWN

TYPE = "command:local:Command"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def provider(log: Path) -> Inert:
    return Inert("command", "1.2.1", {TYPE: {"stdout": "{}"}, "key": {"stdout": "a key"}}, log)


def request(name: str, *, preview: bool = False, **inputs: str) -> Request:
    return Request(f"urn:{name}", TYPE, name, inputs=dict(inputs), old_inputs={"create": "true"}, preview=preview)


def test_a_resource_has_its_inputs_and_the_answer_for_its_name_or_its_type(provider: Inert) -> None:
    assert provider.create(request("key", create="true")).state == {"create": "true", "stdout": "a key"}
    assert provider.create(request("other")).state == {"stdout": "{}"}


def test_a_preview_knows_no_answer_and_is_no_operation(provider: Inert, log: Path) -> None:
    assert provider.create(request("key", preview=True)).state == {"stdout": UNKNOWN}
    assert not log.exists()


def test_each_operation_is_a_line_of_the_log(provider: Inert, log: Path) -> None:
    provider.create(request("key"))
    provider.update(request("key"))
    provider.delete(request("key"))
    assert log.read_text().splitlines() == [f"{operation} {TYPE} key" for operation in ("create", "update", "delete")]


def test_triggers_alone_replace(provider: Inert) -> None:
    changed = provider.diff(request("key", create="false", triggers="1"))
    assert changed.changes.keys() == {"create", "triggers"} and changed.replaces == {"triggers"}
