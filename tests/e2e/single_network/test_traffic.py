"""Calls: both directions under mutual TLS, and none in plaintext."""

from __future__ import annotations

import contextlib
import http.client

import pytest

from tests.support.lab import Lab

BOTH = {"pod", "product-1"}
IDENTITY = "spiffe://cluster.local/ns/shop/sa/product"


@pytest.fixture(scope="module")
def lab(single_network_lab: Lab) -> Lab:
    """The stack `lab`."""
    single_network_lab.ensure()
    return single_network_lab


def test_the_server_sees_who_calls(lab: Lab) -> None:
    """Each proxy tells its application which certificate the caller showed, and which of its own."""
    for answers in (lab.call_from_pod(), lab.call_from_machine()):
        assert {each.hostname for each in answers} == BOTH
        for answer in answers:
            fields = dict(part.split("=", 1) for part in answer.certificate.split(";"))
            assert (fields["URI"], fields["By"]) == (IDENTITY, IDENTITY)


@pytest.mark.istio_case(21)
def test_the_machine_takes_no_plaintext(lab: Lab) -> None:
    """Connections are cut off without an answer: those of this computer, and those of a pod past its proxy."""
    address = lab.outputs()["machines"]["product-1"]["address"]
    with contextlib.closing(http.client.HTTPConnection(address, 8080, timeout=30)) as connection, pytest.raises(ConnectionResetError):
        connection.request("GET", "/")
        connection.getresponse()
    # What the proxy's own container sends leaves the pod as it is.
    curl = ["curl", "--silent", "--show-error", "--max-time", "20", f"http://{address}:8080/"]
    done = lab.run("kubectl", "--namespace", "shop", "exec", "deploy/product", "--container", "istio-proxy", "--", *curl, check=False)
    assert done.returncode in (52, 56) and not done.stdout, (
        f"code {done.returncode}: {done.stdout} {done.stderr}"
    )  # curl's: empty reply, reset
