"""What keeps one run of the CLI apart from the next in one process."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.protobuf import empty_pb2  # type: ignore[import-untyped]
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc
from pulumi.runtime.settings import Settings

from tests.support import cli_stack
from tests.support.sshd import reserved_port


class Engine(engine_pb2_grpc.EngineServicer):
    """An engine that takes log messages."""

    def Log(self, request: object, context: object) -> object:
        return empty_pb2.Empty()


def test_a_failed_connection_to_one_cli_does_not_refuse_the_next_cli_on_its_port() -> None:
    """gRPC would share the failed connection between both; a program that logs after its CLI's end keeps it alive."""
    assert cli_stack.PROJECT  # imported for its settings of gRPC
    log = engine_pb2.LogRequest(message="x")
    with reserved_port() as port:
        address = f"127.0.0.1:{port}"
        outlived = Settings("project", "stack", engine=address)
        with pytest.raises(grpc.RpcError):
            outlived.engine.Log(log)
        server = grpc.server(ThreadPoolExecutor(1), options=[("grpc.so_reuseport", 0)])
        engine_pb2_grpc.add_EngineServicer_to_server(Engine(), server)
        server.add_insecure_port(address)
        server.start()
        try:
            Settings("project", "stack", engine=address).engine.Log(log)
        finally:
            server.stop(0).wait()
