"""A stand-in for Google's metadata server: what a machine reads of itself, and the guest attributes that it writes.

It knows no more of the protocol than Google's guest agent, its script runner and the startup script of a group need. Tests serve it
from their own process. On a machine that is shaped like Compute Engine's it runs as a program, with the standard library alone:
`python3 metadata_server.py <directory> <address> <port>`. Source of the protocol: Google's documentation of VM metadata.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

Tree = Mapping[str, Any]
"""Values by path: an object is a directory, a list one whose names are numbers, and a value is a text or a number."""
Node = Tree | list[Any] | str | int

ROOT = "/computeMetadata/v1"
METADATA, GUEST_ATTRIBUTES = "metadata.json", "guest-attributes.json"
"""The files of the program: what it answers, which may change at any time, and what the machine has written, by path."""
POLL_S = 0.1
"""Seconds between two looks at what it answers, for a client that waits for a change."""


def identity(name: str, token: str, address: str = "") -> dict[str, Any]:
    """Return the metadata of a machine with this name, this access token and this address in its VPC."""
    access = {"access_token": token, "expires_in": 3599, "token_type": "Bearer"}
    return {
        "instance": {
            "name": name,
            "zone": "projects/7/zones/europe-west1-b",
            "network-interfaces": [{"ip": address}],
            "service-accounts": {"default": {"token": json.dumps(access)}},
        },
        "project": {"project-id": "my-project"},
    }


def answer(node: Node, path: str, recursive: bool) -> str | None:
    """Return the answer for a path below `ROOT`; None where nothing is there.

    recursive: everything below the path, in JSON. Its names are in camel case there, but for attributes, whose names are users'.
    """
    names = [name for name in path.split("/") if name]
    for name in names:
        if isinstance(node, Mapping) and name in node:
            node = node[name]
        elif isinstance(node, list) and name.isdigit() and int(name) < len(node):
            node = node[int(name)]
        else:
            return None
    if recursive:
        return json.dumps(node if "attributes" in names else _in_json(node))
    if isinstance(node, (Mapping, list)):
        below = node if isinstance(node, Mapping) else map(str, range(len(node)))
        return "".join(f"{name}\n" for name in below)
    return str(node)


def _in_json(node: Node) -> Any:
    if isinstance(node, Mapping):
        # Tokens are to be had one by one alone.
        return {_camel(name): below if name == "attributes" else _in_json(below) for name, below in node.items() if name != "token"}
    return [_in_json(below) for below in node] if isinstance(node, list) else node


def _camel(name: str) -> str:
    first, *others = name.split("-")
    return first + "".join(word.capitalize() for word in others)


def _etag(text: str | None) -> str:
    return hashlib.sha256((text or "").encode()).hexdigest()[:16]


class MetadataServer(ThreadingHTTPServer):
    """The server.

    read: returns what it answers now. write: takes a guest attribute, its path and its value.
    """

    daemon_threads = True

    def __init__(self, place: tuple[str, int], read: Callable[[], Tree], write: Callable[[str, str], None]) -> None:
        super().__init__(place, _Handler)
        self.read, self.write = read, write


class _Handler(BaseHTTPRequestHandler):
    server: MetadataServer

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        if self.headers["Metadata-Flavor"] != "Google" or not url.path.startswith(f"{ROOT}/"):
            self._respond(403, "Missing Metadata-Flavor:Google header.")
            return
        end = time.monotonic() + float(query.get("timeout_sec", 60))
        while True:
            text = answer(self.server.read(), url.path[len(ROOT) :], query.get("recursive") == "true")
            if query.get("wait_for_change") != "true" or query.get("last_etag") != _etag(text) or time.monotonic() > end:
                break
            time.sleep(POLL_S)
        self._respond(404 if text is None else 200, text or "", _etag(text))

    def do_PUT(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        path = f"{ROOT}/instance/guest-attributes/"
        attributes = self.server.read().get("instance", {}).get("attributes", {})
        allowed = attributes.get("enable-guest-attributes", "").upper() == "TRUE" and self.path.startswith(path)
        if self.headers["Metadata-Flavor"] != "Google" or not allowed:
            self._respond(403, "")
            return
        self.server.write(self.path[len(path) :], text)
        self._respond(200, "")

    def _respond(self, status: int, text: str, etag: str = "") -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Metadata-Flavor", "Google")
        self.send_header("Content-Length", str(len(body)))
        if etag:
            self.send_header("ETag", etag)
        self.end_headers()
        with suppress(ConnectionError):  # some clients look at the head alone
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


@contextmanager
def serving(host: str, metadata: Tree) -> Iterator[str]:
    """Serve metadata at an address of this computer, on a free port, and yield the URL: that of `ROOT`."""
    server = MetadataServer((host, 0), lambda: metadata, lambda path, value: None)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://{host}:{server.server_port}{ROOT}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def main(directory: Path, address: str, port: int) -> None:
    """Serve the metadata in a directory, until the process ends."""
    written = threading.Lock()

    def write(path: str, value: str) -> None:
        file = directory / GUEST_ATTRIBUTES
        with written:
            attributes = json.loads(file.read_text()) if file.exists() else {}
            new = file.with_suffix(".new")
            new.write_text(json.dumps({**attributes, path: value}))
            new.replace(file)

    MetadataServer((address, port), lambda: json.loads((directory / METADATA).read_text()), write).serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
