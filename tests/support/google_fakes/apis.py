"""Google's APIs over HTTP: of a project, guest attributes of Compute Engine, tokens of OAuth and of IAM."""

from __future__ import annotations

import base64
import datetime
import json
import re
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from tests.support.google_fakes.identities import CLOUD_PLATFORM, Account, Identities
from tests.support.google_fakes.project import Project

Response = tuple[int, dict[str, Any]]

_GUEST_ATTRIBUTES = re.compile(r"/compute/v1/projects/([^/]+)/zones/([^/]+)/instances/([^/]+)/getGuestAttributes")
_GENERATE = re.compile(r"/v1/projects/-/serviceAccounts/([^/:]+):generateAccessToken")


@dataclass
class Apis:
    """What the APIs answer, and what they were asked.

    url: where they are.
    guest_attributes: by path, such as "hostkeys/ssh-ed25519".
    missing: how many requests for guest attributes are answered by 404 first.
    guest_attributes_policy: whether an organisation policy forbids guest attributes.
    may_impersonate: whether IAM permits to act as another account.
    refuses_assertions: whether keys of accounts are invalid.
    project: what they say of any project.
    requests: method and path of each request, with its query.
    """

    identities: Identities
    url: str = ""
    guest_attributes: dict[str, str] = field(default_factory=dict)
    missing: int = 0
    guest_attributes_policy: bool = False
    may_impersonate: bool = True
    refuses_assertions: bool = False
    project: Project = field(default_factory=Project)
    requests: list[str] = field(default_factory=list)

    def respond(self, path: str, authorization: str | None, body: bytes) -> Response:
        """Return the status and the body of a response."""
        place = urllib.parse.urlsplit(path)
        if place.path == "/token":
            return self._token(urllib.parse.parse_qs(body.decode()))
        caller = self.identities.bearer(authorization)
        if caller is None:
            return _error(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        if match := _GENERATE.fullmatch(urllib.parse.unquote(place.path)):
            return self._generate(match[1], json.loads(body))
        if match := _GUEST_ATTRIBUTES.fullmatch(place.path):
            query = urllib.parse.parse_qs(place.query)
            return self._guest_attribute(match[1], query.get("queryPath", [""])[0])
        return self.project.respond(path, body) or _error(404, "NOT_FOUND", f"no such API: {path}")

    def _guest_attribute(self, project: str, path: str) -> Response:
        """Source of the errors: Compute Engine's API as gcloud shows it; of the policy, its documentation."""
        if self.guest_attributes_policy:
            constraint = "constraints/compute.disableGuestAttributesAccess"
            return _error(412, "conditionNotMet", f"Constraint {constraint} violated for project {project}.")
        if self.missing:
            self.missing -= 1
        elif path in self.guest_attributes:
            namespace, _, key = path.partition("/")
            item = {"namespace": namespace, "key": key, "value": self.guest_attributes[path]}
            return 200, {"kind": "compute#guestAttributes", "queryPath": path, "queryValue": {"items": [item]}}
        return _error(404, "notFound", f"The resource '{path}' of type 'Guest Attribute' was not found.")

    def _generate(self, email: str, request: dict[str, Any]) -> Response:
        account = self.identities.accounts.get(email)
        if account is None or not self.may_impersonate:
            message = "Permission 'iam.serviceAccounts.getAccessToken' denied on resource (or it may not exist)."
            return _error(403, "PERMISSION_DENIED", message)
        end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
        return 200, {
            "accessToken": self.identities.issue(account, request.get("scope", [CLOUD_PLATFORM])),
            "expireTime": end.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }

    def _token(self, form: dict[str, list[str]]) -> Response:
        """Answer as RFC 7523 says, section 2.1: an assertion that an account's key signed."""
        claims = self._assertion(form.get("assertion", [""])[0])
        if claims is None:
            return 400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
        account: Account = self.identities.accounts[claims["iss"]]
        token = self.identities.issue(account, claims["scope"].split())
        return 200, {"access_token": token, "expires_in": 3599, "token_type": "Bearer"}

    def _assertion(self, text: str) -> dict[str, Any] | None:
        head, _, rest = text.partition(".")
        payload, _, signature = rest.partition(".")
        claims: dict[str, Any] = json.loads(_decoded(payload) or "{}")
        key = self.identities.public_key(claims.get("iss", ""))
        if key is None or self.refuses_assertions:
            return None
        try:
            key.verify(_decoded(signature), f"{head}.{payload}".encode(), padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return None
        return claims


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _error(code: int, reason: str, message: str) -> Response:
    return code, {"error": {"code": code, "message": message, "errors": [{"message": message, "domain": "global", "reason": reason}]}}


@contextmanager
def serving(identities: Identities) -> Iterator[Apis]:
    """Serve the APIs on a free port of loopback."""
    apis = Apis(identities)
    with http_server(apis.respond, apis.requests) as url:
        apis.url = url
        yield apis


@contextmanager
def http_server(respond: Callable[[str, str | None, bytes], Response], requests: list[str]) -> Iterator[str]:
    """Serve JSON on a free port of loopback, and yield the URL.

    respond: returns a response for a path with its query, the header `Authorization`, and a body.
    requests: method and path of each request are added to it.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            requests.append(f"{self.command} {self.path}")
            status, answer = respond(self.path, self.headers["Authorization"], body)
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
