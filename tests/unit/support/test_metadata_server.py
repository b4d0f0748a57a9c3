"""The stand-in for Google's metadata server keeps to what Google documents, where its clients rely on it."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.metadata_server import ROOT, MetadataServer, identity
from tests.support.waiting import HANG_S


class Machine:
    """A machine whose metadata may change. written: its guest attributes."""

    def __init__(self) -> None:
        self.metadata = identity("product-x7k2", "secret", "10.11.0.9")
        self.metadata["instance"]["attributes"] = {"startup-script": "exit", "enable-guest-attributes": "TRUE"}
        self.written: dict[str, str] = {}
        self.port = 0

    def request(self, path: str, body: str | None = None, flavor: str = "Google") -> tuple[int, str, str]:
        """Return the status, the body and the ETag of a response."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=HANG_S)
        try:
            connection.request("GET" if body is None else "PUT", f"{ROOT}{path}", body, {"Metadata-Flavor": flavor})
            response = connection.getresponse()
            return response.status, response.read().decode(), response.headers["ETag"] or ""
        finally:
            connection.close()


@contextmanager
def _serving(machine: Machine) -> Iterator[None]:
    server = MetadataServer(("127.0.0.1", 0), lambda: machine.metadata, machine.written.__setitem__)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        machine.port = server.server_port
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def machine() -> Iterator[Machine]:
    machine = Machine()
    with _serving(machine):
        yield machine


def test_a_value_is_a_text_and_a_directory_is_json_without_tokens(machine: Machine) -> None:
    assert machine.request("/instance/network-interfaces/0/ip")[:2] == (200, "10.11.0.9")
    assert json.loads(machine.request("/instance/service-accounts/default/token")[1])["access_token"] == "secret"
    _, text, _ = machine.request("/?recursive=true&alt=json")
    everything: dict[str, Any] = json.loads(text)
    assert everything["instance"]["networkInterfaces"] == [{"ip": "10.11.0.9"}]
    assert everything["instance"]["attributes"]["startup-script"] == "exit"
    assert "secret" not in text


def test_a_client_that_waits_gets_the_change(machine: Machine) -> None:
    *_, etag = machine.request("/?recursive=true&wait_for_change=true&last_etag=NONE")
    other = {**machine.metadata["instance"], "name": "other"}
    timer = threading.Timer(0.1, lambda: machine.metadata.update(instance=other))
    timer.start()
    _, text, changed = machine.request(f"/?recursive=true&wait_for_change=true&timeout_sec={HANG_S}&last_etag={etag}")
    timer.join()
    assert json.loads(text)["instance"]["name"] == "other"
    assert changed != etag


@pytest.mark.parametrize(
    ("path", "body", "flavor", "status"),
    [
        ("/instance/name", None, "", 403),
        ("/instance/no-such", None, "Google", 404),
        ("/instance/attributes/x", "value", "Google", 403),
        ("/instance/guest-attributes/hostkeys/ssh-ed25519", "value", "", 403),
    ],
)
def test_what_google_refuses_is_refused(machine: Machine, path: str, body: str | None, flavor: str, status: int) -> None:
    assert machine.request(path, body, flavor)[0] == status
    assert not machine.written


def test_a_machine_writes_guest_attributes_where_its_metadata_permits_them(machine: Machine) -> None:
    assert machine.request("/instance/guest-attributes/hostkeys/ssh-ed25519", "AAAA")[0] == 200
    assert machine.written == {"hostkeys/ssh-ed25519": "AAAA"}
    del machine.metadata["instance"]["attributes"]["enable-guest-attributes"]
    assert machine.request("/instance/guest-attributes/hostkeys/rsa", "AAAA")[0] == 403
