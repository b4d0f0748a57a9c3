"""A stand-in for Google's metadata server, where a machine reads its name and a token of its service account."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def identity(name: str, token: str) -> dict[str, str]:
    """Return the responses by path, for a machine with this name and this access token."""
    return {
        "/instance/name": name,
        "/instance/zone": "projects/7/zones/europe-west1-b",
        "/instance/service-accounts/default/token": json.dumps({"access_token": token, "expires_in": 3599, "token_type": "Bearer"}),
    }


@contextmanager
def serving(host: str, answers: Mapping[str, str]) -> Iterator[str]:
    """Serve the responses at an address of this computer, on a free port, and yield the URL.

    As Google does, refuse requests without the header `Metadata-Flavor: Google`.
    """

    class Metadata(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers.get(self.path) if self.headers["Metadata-Flavor"] == "Google" else None
            self.send_response(200 if answer else 403)
            self.end_headers()
            self.wfile.write((answer or "").encode())

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer((host, 0), Metadata)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://{host}:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
