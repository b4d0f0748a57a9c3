"""A rule is disabled by a reason that can be shown, and by nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from components import config
from components.config import reader
from components.config.problems import SettingsError
from components.config.rules import DisabledRules


def stack(rules: Any) -> dict[str, Any]:
    return {**reader.read_file("lab"), "rules": rules}


def test_every_rule_holds_by_default() -> None:
    disabled = config.load(reader.read_file("lab")).rules.disabled
    assert set(disabled.model_dump().values()) == {None}


@pytest.mark.parametrize("rule", [field.alias for field in DisabledRules.model_fields.values()])
def test_a_rule_is_disabled_by_its_reason(rule: str) -> None:
    disabled = config.load(stack({"disabled": {rule: "the edge needs it"}})).rules.disabled
    assert disabled.model_dump(by_alias=True, exclude_none=True) == {rule: "the edge needs it"}


@pytest.mark.parametrize(
    "reason", ["", "\t", "a\nb", "a\u202eb", "a\u200bb", "a\x1b[2J", "x" * 201]
)
def test_a_reason_that_a_plan_cannot_show_is_refused(reason: str) -> None:
    with pytest.raises(SettingsError, match=r"rules\.disabled\.plaintext"):
        config.load(stack({"disabled": {"plaintext": reason}}))
