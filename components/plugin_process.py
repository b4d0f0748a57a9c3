"""Ends the process of this program's dynamic providers with the Pulumi CLI that started it.

Pulumi's plugin for them waits for requests without an end, and only the CLI ends it
(pulumi/pulumi: sdk/python/lib/pulumi/dynamic/__main__.py, `Event().wait()`). A CLI that was killed,
or interrupted a second time, would leave it behind for ever. Pure.
"""

from __future__ import annotations

import functools
import os
import socket
import sys
import threading
import time

INTERVAL_S = 2
"""Seconds from one look at the CLI to the next."""


@functools.cache
def end_with_cli() -> None:
    """Watch the CLI from now on, where this process is the plugin of dynamic providers.

    Elsewhere, as in the program and in tests, nothing happens.
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None or spec.name != "pulumi.dynamic.__main__":
        return
    host, _, port = sys.argv[1].rpartition(":")
    threading.Thread(target=_watch, args=(host, int(port)), daemon=True).start()


def _watch(host: str, port: int) -> None:
    """End this process once nothing listens at the address of the CLI's engine."""
    while True:
        time.sleep(INTERVAL_S)
        try:
            socket.create_connection((host, port)).close()
        except ConnectionRefusedError:
            os._exit(1)
        except OSError:
            continue  # this computer's own trouble, such as too many open files
