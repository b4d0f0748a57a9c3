"""Applications for a mesh of a test: of HTTP, gRPC and bytes, on loopback."""

from __future__ import annotations

import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc


@contextmanager
def nothing(port: int = 0) -> Iterator[int]:
    """Yield a port that refuses connections during the block: no other program can listen on it."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("0.0.0.0", port))
        yield held.getsockname()[1]


@contextmanager
def dropped() -> Iterator[int]:
    """Yield a port that drops packets during the block, as one without a route back: its backlog is full."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        yield full.getsockname()[1]


class _Pages(BaseHTTPRequestHandler):
    """Answers `/404` and the like with that status, `/moved` with a redirect, and everything else with 200.

    The page `/grpc` is about gRPC.

    needs: a header without which it answers 401.
    """

    protocol_version = "HTTP/1.1"
    needs = ""

    def do_GET(self) -> None:
        status = {"/moved": 302}.get(self.path) or (int(self.path[1:]) if self.path[1:].isdigit() else 200)
        if self.needs and self.needs not in self.headers:
            status = 401
        self.send_response(status)
        page = b"grpc-status: 0\r\n" if self.path == "/grpc" else b""
        self.send_header("content-length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.do_GET()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def _serving(server: socketserver.BaseServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        address = server.server_address
        assert isinstance(address, tuple)
        yield int(address[1])
    finally:
        server.shutdown()
        server.server_close()


class _Pool(ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True


def http(needs: str = "", certificate: tuple[Path, Path] | None = None) -> AbstractContextManager[int]:
    """Run an application of HTTP/1.1, and yield its port.

    needs: a header that each request must have. certificate: with its key; the application ends TLS then.
    """

    class Pages(_Pages):
        pass

    Pages.needs = needs
    server = _Pool(("127.0.0.1", 0), Pages)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    return _serving(server)


@contextmanager
def of_grpc(status: grpc.StatusCode | None = None) -> Iterator[int]:
    """Run an application of gRPC without a method, or one that answers all with a status, and yield its port."""

    class Everything(grpc.GenericRpcHandler):
        def service(self, details: object) -> grpc.RpcMethodHandler | None:
            if status is None:
                return None

            def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
                context.set_code(status)
                return b""

            return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((Everything(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield int(port)
    finally:
        server.stop(None)


Talk = Callable[[socket.socket], None]


def of_bytes(talk: Talk) -> AbstractContextManager[int]:
    """Run an application that talks on each connection and then closes it, and yield its port."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                talk(self.request)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address, daemon_threads, request_queue_size = True, True, 1024

    return _serving(Server(("127.0.0.1", 0), Handler))


def wait_for_more(connection: socket.socket) -> None:
    """Read until the client closes, as a server does whose protocol counts bytes."""
    while connection.recv(100):
        pass


def greet(connection: socket.socket) -> None:
    """Speak first, as servers of mail and MySQL do."""
    connection.sendall(b"220 mail.example.com\r\n")
    wait_for_more(connection)


def echo(connection: socket.socket) -> None:
    """Send back what was received."""
    while data := connection.recv(100):
        connection.sendall(data)


def tell_time(connection: socket.socket) -> None:
    """Send a line, and close."""
    connection.sendall(b"\0 1 JAN 1970\r\n")


def stream(connection: socket.socket) -> None:
    """Send on and on, as tickers of prices do."""
    while True:
        connection.sendall(b"tick\n")
        time.sleep(0.1)


def hang_up_at_a_line(connection: socket.socket) -> None:
    """Close without a word at anything but the byte of a message, as servers of LDAP do."""
    if connection.recv(1) == b"0":
        wait_for_more(connection)


def hang_up(connection: socket.socket) -> None:
    """Close at once."""
