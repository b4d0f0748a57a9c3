"""The process of the dynamic providers: Pulumi's own plugin, with this program's providers in it.

The CLI ends its plugins. One that is killed, or interrupted a second time, leaves this process
running. Under the real CLI it still ran half a minute after `kill -9`, and has nothing that would
end it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct  # type: ignore[import-untyped]
from pulumi.dynamic.dynamic import PROVIDER_KEY, serialize_provider
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from components.cluster_check import ClusterCheckProvider
from components.istio.mesh_reading import MeshReadingProvider
from components.machines.registration import RegistrationProvider
from tests.support import harness


@pytest.mark.parametrize("provider", [ClusterCheckProvider, MeshReadingProvider, RegistrationProvider])
def test_it_runs_while_the_cli_does_and_ends_with_it(provider: type) -> None:
    with socket.create_server(("127.0.0.1", 0)) as engine:
        engine.settimeout(None)
        address = f"127.0.0.1:{engine.getsockname()[1]}"
        plugin = subprocess.Popen(
            [sys.executable, "-u", "-m", "pulumi.dynamic", address],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(harness.ROOT)},
        )
        try:
            assert plugin.stdout
            load(int(plugin.stdout.readline()), provider)
            for _ in range(2):
                engine.accept()[0].close()
            assert plugin.poll() is None
            engine.close()
            assert plugin.wait() == 1
        finally:
            plugin.kill()
            plugin.communicate()


def load(port: int, provider: type) -> None:
    """Have the plugin load a provider, as the first request about a resource does.

    What the request itself comes to, without the properties of a resource, makes no difference.
    """
    properties = Struct()
    properties.update({PROVIDER_KEY: serialize_provider(provider())})
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = provider_pb2_grpc.ResourceProviderStub(channel)
        request = provider_pb2.DeleteRequest(id="an-id", properties=properties)
        stub.Delete(request)
