"""Rules for the reasons by which rules of a stack are disabled."""

from __future__ import annotations

from collections.abc import Iterator

from ..problems import Problem
from ..stack import Settings

_LONGEST = 200
"""Characters of a reason: it stands on one line of a plan."""


def check(settings: Settings) -> Iterator[Problem]:
    """Yield each reason that a plan cannot show."""
    disabled = settings.rules.disabled
    for name, field in type(disabled).model_fields.items():
        reason, path = getattr(disabled, name), f"rules.disabled.{field.alias}"
        if reason is None:
            continue
        if not reason.strip():
            yield Problem(path, "must not be empty: give the reason, which every plan shows")
        elif len(reason) > _LONGEST or not reason.isprintable():
            yield Problem(
                path, f"expected one line of at most {_LONGEST} characters, which every plan shows"
            )
