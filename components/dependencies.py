"""Keep the state small: name what a resource depends on once."""

from __future__ import annotations

from typing import TypeVar

import pulumi

T = TypeVar("T")


def without_dependencies(output: pulumi.Output[T]) -> pulumi.Output[T]:
    """Return an output without the resources that it follows from.

    A state names these twice in every resource that uses the output, and those behind them too. A
    resource that names them in `depends_on` is created and deleted in the same order.
    """
    value = output.future(with_unknowns=True)
    return pulumi.Output(set(), value, output.is_known(), output.is_secret())  # type: ignore[arg-type]
