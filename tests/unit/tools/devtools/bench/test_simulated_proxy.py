"""A simulated proxy at a server that speaks as istiod does: it subscribes, connects again, and gives up."""

from __future__ import annotations

import asyncio
import datetime
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import cache
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tools.devtools.bench import cli, fleet, simulated_proxy
from tools.devtools.bench.lab_stack import LabStack
from tools.devtools.bench.simulated_proxy import CLUSTERS, ENDPOINTS, HEALTH, LISTENERS, NAMES, Certificate, ControlPlane, SimulatedProxy
from tools.steps import StepError

NAME = "istiod.example"
CLUSTER = "outbound|80||product.shop.svc.cluster.local"
Stream = Callable[[AsyncIterator[Any], Any], AsyncIterator[Any]]


@cache
def certificate() -> Certificate:
    """A certificate for the server, which signs itself and is the clients' too."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    built = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1))
    signed = built.add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False).sign(key, hashes.SHA256())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Certificate(pem, signed.public_bytes(serialization.Encoding.PEM))


async def with_server(stream: Stream, body: Callable[[ControlPlane], Awaitable[None]]) -> None:
    """Serve `stream` during `body`."""
    pair = certificate()
    handler = grpc.stream_stream_rpc_method_handler(
        stream,
        request_deserializer=simulated_proxy._MESSAGES["Request"].FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )
    service, _, method = simulated_proxy._STREAM.removeprefix("/").partition("/")
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(pair.key, pair.chain)]))
    await server.start()
    try:
        await body(ControlPlane(f"127.0.0.1:{port}", NAME, pair.chain.decode(), "token", ""))
    finally:
        await server.stop(None)


def proxy() -> SimulatedProxy:
    return SimulatedProxy("machine-1", "10.99.0.1", "machines", "cluster.local", {"WORKLOAD_NAME": "machines"})


async def until(holds: Callable[[], object]) -> None:
    while not holds():
        await asyncio.sleep(0.01)


def test_a_proxy_subscribes_and_acknowledges_and_comes_again_when_it_came_too_soon() -> None:
    requests: list[Any] = []
    streams: list[int] = []

    async def stream(incoming: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        streams.append(1)
        if len(streams) == 1:  # as istiod does beyond its rate
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "request rate limit exceeded")
        resources = [simulated_proxy._MESSAGES["Resource"](name=name) for name in (CLUSTER, "inbound|8080||")]
        yield simulated_proxy._MESSAGES["Response"](resources=resources, type_url=CLUSTERS, nonce="n")
        async for request in incoming:
            requests.append(request)

    async def body(control_plane: ControlPlane) -> None:
        one = proxy()
        task = asyncio.create_task(one.run(control_plane, certificate()))
        await until(lambda: len(requests) == 6)
        task.cancel()
        assert one.ended == 1 and CLUSTER in one.pushed

    asyncio.run(with_server(stream, body))
    assert requests[0].node.id == "sidecar~10.99.0.1~machine-1.machines~machines.svc.cluster.local"
    assert [each.type_url for each in requests[:4]] == [CLUSTERS, LISTENERS, NAMES, HEALTH]
    assert [(each.type_url, each.nonce, list(each.subscribe)) for each in requests[4:]] == [(CLUSTERS, "n", []), (ENDPOINTS, "", [CLUSTER])]


def test_a_refusal_that_lasts_is_the_cause_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def stream(incoming: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for request in incoming:
            if request.type_url == HEALTH:  # the last that a proxy sends unasked
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, "another identity")
        yield

    async def body(control_plane: ControlPlane) -> None:
        one = proxy()
        measurement = fleet._Measurement(LabStack("any"), 1, None, [one])  # type: ignore[arg-type]
        async with fleet._connected([one], control_plane, [certificate()]) as begin:
            await until(lambda: one.ended)
            monkeypatch.setattr(fleet, "LIMIT_S", 0)
            with pytest.raises(
                StepError, match="1 machines were not Healthy within 0 s: a stream ended by PERMISSION_DENIED: another identity"
            ):
                await measurement._wait("Healthy", lambda: False, begin)

    asyncio.run(with_server(stream, body))


def test_an_entry_that_is_deleted_is_neither_there_nor_healthy() -> None:
    entries = fleet._Entries()
    entries.read(["ADDED a \n", "MODIFIED a True\n", "ADDED b \n"])
    assert (entries.present, entries.healthy) == ({"a", "b"}, {"a"})
    entries.read(["DELETED a True\n"])
    assert (entries.present, entries.healthy) == ({"b"}, set())


@pytest.mark.parametrize("number", ["0", "-1", "x", "1.5", ""])
def test_a_number_of_machines_is_at_least_one(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("lab", "fleet"):
        with pytest.raises(SystemExit):
            cli.parser().parse_args([command, f"--machines={number}"])
        assert "is not a number of at least 1" in capsys.readouterr().err


@pytest.mark.slow
def test_nothing_is_printed_when_proxies_end(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    """Neither of those that are connected, nor of those whose streams ended before."""

    async def stream(incoming: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        yield simulated_proxy._MESSAGES["Response"](type_url=CLUSTERS, nonce="n")
        async for request in incoming:
            if request.type_url == HEALTH:
                return

    async def body(control_plane: ControlPlane) -> None:
        proxies = [proxy() for _ in range(20)]
        async with fleet._connected(proxies, control_plane, [certificate()] * len(proxies)):
            await until(lambda: all(each.ended for each in proxies) and sum(each.ended for each in proxies) > 30)
        gc.collect()  # then Python names the tasks whose errors no code has retrieved
        await asyncio.sleep(0)
        assert caplog.text == "" and capfd.readouterr().err == ""

    asyncio.run(with_server(stream, body))
