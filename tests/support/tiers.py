"""Which cases of a test `./scripts/test --quick` runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest


def some_quick(values: Iterable[Any], *quick: Any) -> list[Any]:
    """Return the parameters of a test; all but those in `quick` are marked `slow`.

    Raises AssertionError where one of `quick` is no parameter.
    """
    parameters = list(values)
    assert all(value in parameters for value in quick), quick
    return [value if value in quick else pytest.param(value, marks=pytest.mark.slow) for value in parameters]


def first_quick(names: Sequence[str], values: Sequence[tuple[Any, ...]], count: int = 2) -> pytest.MarkDecorator:
    """Parametrize a test as pytest does; all cases but the first ones are marked `slow`."""
    rest = [pytest.param(*value, marks=pytest.mark.slow) for value in values[count:]]
    return pytest.mark.parametrize(names, [*values[:count], *rest])
