"""Which cases of a test `./scripts/test --quick` runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def some_quick(values: Iterable[Any], *quick: Any) -> list[Any]:
    """Return the parameters of a test; all but those in `quick` are marked `slow`.

    Raises AssertionError where one of `quick` is no parameter.
    """
    parameters = list(values)
    assert all(value in parameters for value in quick), quick
    return [value if value in quick else pytest.param(value, marks=pytest.mark.slow) for value in parameters]
