"""What stands between Google identities and a cluster's API server on GKE: its login, and its DNS endpoint."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.authority import Authority
from tests.support.google_fakes.apis import Response, http_server
from tests.support.google_fakes.identities import Account, Identities


@contextmanager
def serving_logins(identities: Identities, directory: Path) -> Iterator[Path]:
    """Serve the webhook by which an API server asks whose an access token is, and yield its kubeconfig.

    As GKE does, it names the user by the account's address, or by its unique ID where the token has
    no scope for the address.
    """

    def review(path: str, authorization: str | None, body: bytes) -> Response:
        request = json.loads(body)
        token = identities.token(request["spec"]["token"])
        status = {"authenticated": True, "user": {"username": token.user}} if token else {"authenticated": False}
        return 200, {"apiVersion": request["apiVersion"], "kind": request["kind"], "status": status}

    with http_server(review, []) as url:
        kubeconfig = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "logins", "cluster": {"server": url}}],
            "users": [{"name": "api-server", "user": {}}],
            "contexts": [{"name": "logins", "context": {"cluster": "logins", "user": "api-server"}}],
            "current-context": "logins",
        }
        file = directory / "logins"
        file.write_text(json.dumps(kubeconfig))
        yield file


@dataclass
class Endpoint:
    """The DNS endpoint of a cluster: Google's front end, which asks IAM before a request reaches the API server.

    url: where it is.
    may_connect: the accounts with the permission `container.clusters.connect`.
    refusals: how many requests are refused first, as if IAM did not have the permission yet.
    unavailable: how many requests are answered by 503 after those.
    requests: method, path and status of each request.
    """

    identities: Identities
    url: str = ""
    may_connect: set[Account] = field(default_factory=set)
    refusals: int = 0
    unavailable: int = 0
    requests: list[str] = field(default_factory=list)

    def refusal(self, authorization: str | None) -> tuple[int, str] | None:
        """Return status and text by which Google refuses a request; None: it does not."""
        token = self.identities.bearer(authorization)
        if token is None:
            return 401, "Unauthorized"
        if self.refusals:
            self.refusals -= 1
            return 403, "Forbidden: the caller lacks container.clusters.connect"
        if self.unavailable:
            self.unavailable -= 1
            return 503, "The service is unavailable"
        return None if token.account in self.may_connect else (403, "Forbidden: the caller lacks container.clusters.connect")


@contextmanager
def serving_endpoint(identities: Identities, server: str, authority: Path, directory: Path) -> Iterator[tuple[Endpoint, Path]]:
    """Serve the endpoint of an API server, and yield it and the certificate to trust.

    server, authority: URL of the API server, and the file of the certificate that it is trusted by.
    """
    endpoint = Endpoint(identities)
    upstream = ssl.create_default_context(cafile=authority)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            refusal = endpoint.refusal(self.headers["Authorization"])
            if refusal:
                status, answer, kind = refusal[0], refusal[1].encode(), "text/plain"
            else:
                status, answer, kind = self._pass_on(body)
            endpoint.requests.append(f"{self.command} {self.path} {status}")
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

        def _pass_on(self, body: bytes) -> tuple[int, bytes, str]:
            connection = http.client.HTTPSConnection(urllib.parse.urlsplit(server).netloc, context=upstream, timeout=30)
            try:
                connection.request(self.command, self.path, body, {name: value for name, value in self.headers.items() if name != "Host"})
                response = connection.getresponse()
                return response.status, response.read(), response.headers["Content-Type"]
            finally:
                connection.close()

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing."""

    public = Authority()
    public.save(directory / "public.crt")
    https = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    https.daemon_threads = True
    https.socket = public.server_context(directory, "endpoint").wrap_socket(https.socket, server_side=True)
    thread = threading.Thread(target=https.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    endpoint.url = f"https://127.0.0.1:{https.server_port}"
    try:
        yield endpoint, directory / "public.crt"
    finally:
        https.shutdown()
        thread.join()
        https.server_close()
