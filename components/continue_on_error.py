"""One machine's failure is not the others': what an update with `--continue-on-error` needs of the program."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pulumi
from pulumi.runtime.settings import _get_rpc_manager
from pulumi.runtime.stack import ResourceRegistrationFailed


def install() -> None:
    """Leave out what depends on a resource that failed, but only after all else is done.

    The SDK ends the whole program at the first resource that depends on a failed one, with a traceback, and with it
    whatever was not registered yet. It must still end with an error: else the engine deletes what was left out, as if nobody declared it
    any more, and a machine whose join fails would be drained.
    """
    manager = _get_rpc_manager()
    do_rpc, running = manager.do_rpc, 0

    def patient(name: str, function: Callable[..., Awaitable[Any]]) -> Any:
        async def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal running
            running += 1
            try:
                return await function(*args, **kwargs)
            except ResourceRegistrationFailed:
                pass
            finally:
                running -= 1
            while running:
                await asyncio.sleep(0.05)
            raise pulumi.RunError(
                "what depends on the resources that failed was left out; when their causes are removed, run the update again"
            )

        return do_rpc(name, call)

    manager.do_rpc = patient  # type: ignore[assignment]
