"""Keep the program running after a failed resource, for updates with `--continue-on-error`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pulumi
from pulumi.runtime.settings import _get_rpc_manager
from pulumi.runtime.stack import ResourceRegistrationFailed


def install() -> None:
    """Leave out what depends on a failed resource, once everything else is registered.

    The SDK ends the program at the first resource that depends on a failed one. Resources that are
    not registered by then are left out too. The program must still fail: otherwise the engine
    treats skipped resources as removed and deletes them, which would drain a machine whose join
    failed.
    """
    manager = _get_rpc_manager()
    do_rpc, running = manager.do_rpc, 0

    def deferring_call(name: str, function: Callable[..., Awaitable[Any]]) -> Any:
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

    manager.do_rpc = deferring_call  # type: ignore[assignment]
