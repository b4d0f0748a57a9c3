"""Keep the state small: name what a resource depends on once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pulumi

T = TypeVar("T")


def without_dependencies(output: pulumi.Output[T]) -> pulumi.Output[T]:
    """Return an output without the resources that it follows from.

    A state names these twice in every resource that uses the output, and those behind them too. A
    resource that names them in `depends_on` is created and deleted in the same order.
    """
    value, is_known, is_secret = map(_started, (output.future(with_unknowns=True), output.is_known(), output.is_secret()))
    return pulumi.Output(set(), value, is_known, is_secret)


def _started(part: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Start a part of an output. Where the value fails, the SDK never awaits the others, which fail like it."""
    task = asyncio.ensure_future(part)
    task.add_done_callback(lambda done: None if done.cancelled() else done.exception())
    return task
