"""How the program of this project waits under the real engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any

import pytest

from tests.engine.test_preview import Mesh, mesh  # noqa: F401 a fixture

pytestmark = pytest.mark.slow


def test_an_update_waits_once_for_each_output(
    mesh: Callable[[str], Mesh],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The SDK alone looks at 54,000: all that are pending whenever one is complete (`test_waiting.py`
    of `tests/preview`).
    """
    stack, looked_at, wait = mesh("lab"), 0, asyncio.wait

    async def counted(outputs: Collection[Any], **options: Any) -> Any:
        nonlocal looked_at
        looked_at += len(outputs)
        return await wait(outputs, **options)

    monkeypatch.setattr(asyncio, "wait", counted)
    stack.up()
    assert 100 < looked_at < 2000
