"""A stand-in for Vault's transit engine, which encrypts the key of a stack's secrets.

Pulumi derives a key from a passphrase twice in each call, which takes as long as all else in a call of the tests.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROVIDER = "hashivault://test"
"""The secrets provider of stacks that use it."""
MARK = "vault:v1:"
"""What each ciphertext begins with; this Vault encrypts nothing and puts only that before it."""


class _Transit(BaseHTTPRequestHandler):
    def do_PUT(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        decrypted = {"plaintext": body["ciphertext"].removeprefix(MARK)} if "ciphertext" in body else None
        data = decrypted or {"ciphertext": MARK + body["plaintext"]}
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps({"data": data}).encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


@contextmanager
def serving() -> Iterator[dict[str, str]]:
    """Serve on a free port of this computer, and yield the variables by which Pulumi finds the server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Transit)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield {"VAULT_SERVER_URL": f"http://127.0.0.1:{server.server_port}", "VAULT_SERVER_TOKEN": "test"}
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
