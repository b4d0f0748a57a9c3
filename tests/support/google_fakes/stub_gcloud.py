"""Stand-in for gcloud where it is not installed: the three commands that this project runs.

`transcripts.yaml` has what the real one prints, and tests hold this one to it. It reads gcloud's own
variables of its environment, and needs Python's standard library alone.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
import struct
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, NoReturn

WITHOUT_NUMPY = """WARNING: 

To increase the performance of the tunnel, consider installing NumPy. For instructions,
please see https://cloud.google.com/iap/docs/using-tcp-forwarding#increasing_the_tcp_upload_bandwidth

"""  # fmt: skip
FAILED = """ERROR: [0] Error during local connection to [stdin]: {cause}
Traceback (most recent call last):
  File "iap_tunnel_websocket.py", line 444, in _WaitForOpenOrRaiseError
googlecloudsdk.api_lib.compute.iap_tunnel_websocket.ConnectionCreationError: {cause}
"""


class HttpError(Exception):
    """A response that is an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"HTTPError {status}: {message}")


def main(words: list[str]) -> None:
    if words[:2] == ["auth", "print-access-token"]:
        try:
            print(token())
        except HttpError as error:
            fail(f"ERROR: (gcloud.auth.print-access-token) {error}\n")
        return
    options = dict(word.lstrip("-").partition("=")[::2] for word in words if word.startswith("--") and "=" in word)
    for name in ("project", "zone"):
        options[name] = words[words.index(f"--{name}") + 1]
    if words[:3] == ["compute", "instances", "get-guest-attributes"]:
        get_guest_attributes(words[3], options)
    elif words[:2] == ["compute", "start-iap-tunnel"] and "--listen-on-stdin" in words:
        start_iap_tunnel(words[2], words[3], options)
    else:
        sys.exit(f"the stand-in for gcloud has no command {words}")


def token() -> str:
    """Return the access token: of the file, or of the account that is impersonated."""
    file = os.environ["CLOUDSDK_AUTH_ACCESS_TOKEN_FILE"]
    with open(file) as text:
        caller = text.read().strip()
    target = os.environ.get("CLOUDSDK_AUTH_IMPERSONATE_SERVICE_ACCOUNT")
    if not target:
        return caller
    url = f"{os.environ['CLOUDSDK_API_ENDPOINT_OVERRIDES_IAMCREDENTIALS']}v1/projects/-/serviceAccounts/{target}:generateAccessToken"
    warning = "This command is using service account impersonation. All API calls will be executed as"
    print(f"WARNING: {warning} [{target}].", file=sys.stderr)
    try:
        return str(call(url, caller, {"scope": ["https://www.googleapis.com/auth/cloud-platform"]})["accessToken"])
    except HttpError as error:
        status, _, message = str(error).partition(": ")
        raise HttpError(
            int(status.split()[1]),
            f"Failed to impersonate [{target}]. Make sure the account that's trying to impersonate it has access to the service "
            f'account itself and the "roles/iam.serviceAccountTokenCreator" role. {message} This command is authenticated with an '
            f"access token from {file} specified by the [auth/access_token_file] property. Impersonation is used to impersonate {target}. ",
        ) from None


def call(url: str, access: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Send a request to an API of Google. Raises HttpError."""
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data, {"Authorization": f"Bearer {access}", "Content-Type": "application/json"})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as response:
            answer: dict[str, Any] = json.load(response)
            return answer
    except urllib.error.HTTPError as error:
        raise HttpError(error.code, json.load(error)["error"]["message"]) from None


def get_guest_attributes(instance: str, options: dict[str, str]) -> None:
    place = f"projects/{options['project']}/zones/{options['zone']}/instances/{instance}/getGuestAttributes"
    query = urllib.parse.urlencode({"alt": "json", "queryPath": options["query-path"]})
    try:
        token()  # gcloud checks the credentials before it uses them
        answer = call(f"{os.environ['CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE']}{place}?{query}", token())
    except HttpError as error:
        text = f"(gcloud.compute.instances.get-guest-attributes) {error}"
        if str(error).startswith("HTTPError 404"):
            file = os.environ["CLOUDSDK_AUTH_ACCESS_TOKEN_FILE"]
            text += f" This command is authenticated with an access token from {file} specified by the [auth/access_token_file] property."
        fail(f"ERROR: {text}\n")
    for item in answer["queryValue"]["items"]:
        print(item["value"])


def start_iap_tunnel(instance: str, port: str, options: dict[str, str]) -> None:
    """Connect standard input and output to a port. Where that fails, the status is 0, as gcloud's is."""
    print(WITHOUT_NUMPY, end="", file=sys.stderr, flush=True)
    query = {"project": options["project"], "port": port, "newWebsocket": "True", "zone": options["zone"], "instance": instance}
    try:
        tunnel = WebSocket(options["iap-tunnel-url-override"], {**query, "interface": "nic0"}, token())
    except ConnectionError as error:
        print(FAILED.format(cause=f"Error while connecting {error}"), end="", file=sys.stderr, flush=True)
        os._exit(0)
    threading.Thread(target=send_input, args=[tunnel], daemon=True).start()
    while data := tunnel.receive():
        os.write(1, data)
    os._exit(0)  # gcloud does not wait for its input to end either


def send_input(tunnel: WebSocket) -> None:
    while data := os.read(0, 16384):
        tunnel.send(struct.pack(">HI", 4, len(data)) + data)
    tunnel.send(struct.pack(">H", 1000), kind=8)


class WebSocket:
    """A connection to the relay of Identity-Aware Proxy. Raises ConnectionError with gcloud's words."""

    def __init__(self, url: str, query: dict[str, str], access: str) -> None:
        place = urllib.parse.urlsplit(url)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._lock = threading.Lock()
        self._socket = context.wrap_socket(socket.create_connection((place.hostname or "", place.port or 443)))
        self._file = self._socket.makefile("rb")
        request = [
            f"GET {place.path}/connect?{urllib.parse.urlencode(query)} HTTP/1.1",
            f"Host: {place.netloc}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Protocol: relay.tunnel.cloudproxy.app",
            f"Authorization: Bearer {access}",
        ]
        self._socket.sendall(("\r\n".join(request) + "\r\n\r\n").encode())
        status = self._file.readline().decode().split(" ", 1)[1].strip()
        while self._file.readline().strip():
            pass
        if not status.startswith("101"):
            hint = " (May be due to missing permissions)" if status.startswith("40") else ""
            raise ConnectionError(f"[Handshake status {status}].{hint}")
        tag, content = self._message()
        if tag is None:
            code, reason = struct.unpack(">H", content[:2])[0], content[2:].decode()
            raise ConnectionError(f"[{code}: {reason!r}]." + (" (Failed to connect to port 22)" if code == 4003 else ""))

    def send(self, data: bytes, kind: int = 2) -> None:
        size = bytes([128 | len(data)]) if len(data) < 126 else bytes([128 | 126]) + struct.pack(">H", len(data))
        with self._lock:
            self._socket.sendall(bytes([128 | kind]) + size + bytes(4) + data)  # a mask of zeros

    def receive(self) -> bytes:
        """Return the next data; b"" at the end."""
        while True:
            tag, content = self._message()
            if tag is None:
                return b""
            if tag == 4:
                return content[4:]

    def _message(self) -> tuple[int | None, bytes]:
        """Return tag and content of a message; the tag None where the relay closes the connection."""
        head = self._file.read(2)
        if len(head) < 2:
            return None, struct.pack(">H", 1006)
        size = head[1] & 127
        if size == 126:
            (size,) = struct.unpack(">H", self._file.read(2))
        content = self._file.read(size)
        if head[0] & 15 == 8:
            return None, content
        return struct.unpack(">H", content[:2])[0], content[2:]


def fail(text: str) -> NoReturn:
    sys.stderr.write(text)
    sys.exit(1)


main(sys.argv[1:])
