"""The relay of Identity-Aware Proxy: TCP through a WebSocket, as gcloud's `start-iap-tunnel` opens it.

The protocol is version 4 of gcloud's own source (googlecloudsdk/api_lib/compute/iap_tunnel_*.py):
each binary message starts with a tag of 16 bits. gcloud requires TLS.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import queue
import ssl
import struct
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.support.google_fakes.identities import Identities

_CONNECTED, _DATA, _ACK = 1, 4, 7
_BINARY, _CLOSE = 2, 8
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3


@dataclass
class Relay:
    """How the relay behaves, and what it was asked.

    url: where it is.
    port: of loopback: where the instances' port 22 is.
    handshake_status: HTTP status of the handshake, where it is not 101: 403 without the role.
    close: code and reason by which a WebSocket is closed at once; None: none is.
    closes: how many more WebSockets `close` is for.
    silent: the instance accepts and sends nothing, as one that hangs.
    unanswered: the handshake gets no answer.
    requests: the instance and the port of each connection, as project/zone/instance:port.
    open: number of connections that are open.
    """

    identities: Identities
    url: str = ""
    port: int = 0
    handshake_status: int = 101
    close: tuple[int, str] | None = None
    closes: int = 1000
    silent: bool = False
    unanswered: bool = False
    requests: list[str] = field(default_factory=list)
    open: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        self.open += 1
        try:
            await self._serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            writer.transport.abort()  # the client has gone
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        finally:
            self.open -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(request.split()[1]).query))
        self.requests.append("{project}/{zone}/{instance}:{port}".format(**query))
        if self.unanswered:
            await reader.read()
            return
        status = self.handshake_status if self.identities.bearer(headers.get("authorization")) else 401
        if status != 101:
            writer.write(f"HTTP/1.1 {status} {_PHRASES[status]}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            await writer.drain()
            return
        accept = base64.b64encode(hashlib.sha1((headers["sec-websocket-key"] + _GUID).encode()).digest()).decode()
        writer.write(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: relay.tunnel.cloudproxy.app\r\n\r\n".encode()
        )
        if self.close and self.closes:
            self.closes -= 1
            await _send_close(writer, *self.close)
            return
        if self.silent:
            await _send(writer, struct.pack(">HI", _CONNECTED, 4) + b"sid0")
            await reader.read()
            return
        try:
            from_instance, to_instance = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            await _send_close(writer, 4003, "failed to connect to backend")
            return
        await _send(writer, struct.pack(">HI", _CONNECTED, 4) + b"sid0")
        down = asyncio.create_task(_down(from_instance, writer))
        try:
            await _up(reader, writer, to_instance)
        finally:
            down.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await down
            to_instance.close()


_PHRASES = {401: "Unauthorized", 403: "Forbidden", 404: "Not Found"}


async def _up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, to_instance: asyncio.StreamWriter) -> None:
    """Pass on what the client sends, and confirm each message."""
    received = 0
    while True:
        kind, message = await _receive(reader)
        if kind == _CLOSE:
            return
        if kind == _BINARY and message[:2] == struct.pack(">H", _DATA):
            (size,) = struct.unpack(">I", message[2:6])
            to_instance.write(message[6 : 6 + size])
            await to_instance.drain()
            received += size
            await _send(writer, struct.pack(">HQ", _ACK, received))


async def _down(from_instance: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what the instance sends, and close the WebSocket at its end."""
    with contextlib.suppress(ConnectionError):
        while data := await from_instance.read(16384):
            await _send(writer, struct.pack(">HI", _DATA, len(data)) + data)
    with contextlib.suppress(ConnectionError):
        await _send_close(writer, 1000, "")


async def _receive(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Return kind and content of a message (RFC 6455, section 5.2)."""
    first, second = await reader.readexactly(2)
    size = second & 127
    if size == 126:
        (size,) = struct.unpack(">H", await reader.readexactly(2))
    elif size == 127:
        (size,) = struct.unpack(">Q", await reader.readexactly(8))
    mask = await reader.readexactly(4) if second & 128 else bytes(4)
    data = await reader.readexactly(size)
    return first & 15, bytes(each ^ mask[index % 4] for index, each in enumerate(data))


async def _send(writer: asyncio.StreamWriter, data: bytes, kind: int = _BINARY) -> None:
    size = bytes([len(data)]) if len(data) < 126 else bytes([126]) + struct.pack(">H", len(data))
    writer.write(bytes([128 | kind]) + size + data)
    await writer.drain()


async def _send_close(writer: asyncio.StreamWriter, code: int, reason: str) -> None:
    await _send(writer, struct.pack(">H", code) + reason.encode(), _CLOSE)


@contextmanager
def serving(identities: Identities, context: ssl.SSLContext) -> Iterator[Relay]:
    """Serve the relay on a free port of loopback. context: of its TLS."""
    relay = Relay(identities)
    loops: queue.Queue[asyncio.AbstractEventLoop] = queue.Queue()
    stop = asyncio.Event()

    async def run() -> None:
        server = await asyncio.start_server(relay.serve, "127.0.0.1", 0, ssl=context)
        relay.url = f"wss://127.0.0.1:{server.sockets[0].getsockname()[1]}/v4"
        loops.put(asyncio.get_running_loop())
        await stop.wait()
        server.close()
        connections = asyncio.all_tasks() - {asyncio.current_task()}
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    thread = threading.Thread(target=asyncio.run, args=[run()])
    thread.start()
    loop = loops.get()
    try:
        yield relay
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
