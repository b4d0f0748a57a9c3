"""Being a plugin: a gRPC server in a process that the Pulumi CLI starts, and that ends with the
CLI.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import grpc

from .protocol import engine_pb2, engine_pb2_grpc

_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # else a connection to a CLI that has ended fails for the next one with its port, too
]
_THREADS = 1000
"""Operations at a time. The engine limits them itself; `Cancel` must never wait for a free
thread.
"""
_PARENT_SECONDS = 0.2
_GRACE_SECONDS = 3
_SEVERITIES = {
    "debug": engine_pb2.DEBUG,
    "info": engine_pb2.INFO,
    "warning": engine_pb2.WARNING,
    "error": engine_pb2.ERROR,
}


class Engine:
    """The engine's own service, for log messages. Messages may be lost when the CLI is gone;
    nothing fails by that.
    """

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._stub = engine_pb2_grpc.EngineStub(self._channel)

    def log(self, urn: str, message: str, severity: str, *, ephemeral: bool) -> None:
        text = message.encode("utf-8", "replace").decode()
        with suppress(grpc.RpcError, ValueError):
            self._stub.Log(engine_pb2.LogRequest(severity=_SEVERITIES[severity], message=text, urn=urn, ephemeral=ephemeral), timeout=10)

    def close(self) -> None:
        self._channel.close()


def listen(register: Callable[[grpc.Server], None]) -> tuple[grpc.Server, int]:
    """Start a server on a free port of the loopback interface. `register` adds the services."""
    server = grpc.server(ThreadPoolExecutor(max_workers=_THREADS), options=_OPTIONS)
    register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


def engine_address() -> str:
    """Return where the engine listens, the last argument of a plugin; "" without one."""
    return sys.argv[-1] if len(sys.argv) > 1 else ""


def run(register: Callable[[grpc.Server], None], cancel: Callable[[], None]) -> None:
    """Be the plugin process: print the port, serve until the engine ends us or is gone, then
    `cancel` what is under way and exit.

    The engine interrupts its plugins when it ends. An engine that was killed does not: then our
    parent process changes.
    """
    server, port = listen(register)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    parent = os.getppid()
    print(port, flush=True)
    while os.getppid() == parent and not stop.wait(_PARENT_SECONDS):
        pass
    cancel()
    server.stop(_GRACE_SECONDS).wait()
    # Threads of operations that do not end may still be about; the process must go now.
    os._exit(0)
