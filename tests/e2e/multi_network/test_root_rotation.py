"""The mesh's root certificate is rotated, and machines follow."""

from __future__ import annotations

import base64
import json

import pytest

from components.names import DEFAULT_ROOT_CONFIG_MAP, ISTIO_NAMESPACE
from tests.support import credentials
from tests.support.lab import MultiNetworkLab
from tests.support.waiting import wait_until

NEW_ROOT = "Another root"


@pytest.fixture(scope="module")
def lab(multi_network_lab: MultiNetworkLab) -> MultiNetworkLab:
    """The stack `lab-multi-network`."""
    multi_network_lab.ensure()
    return multi_network_lab


def test_a_rotated_root_certificate_reaches_machines(lab: MultiNetworkLab) -> None:
    """First both roots are trusted everywhere, then the new one signs: the order that keeps a mesh together."""
    new, istio = credentials.authority(NEW_ROOT), ("--namespace", ISTIO_NAMESPACE)
    secret = lab.get("secret", "istio-ca-secret", *istio)["data"]
    certificate, key = (base64.b64decode(secret[name]).decode() for name in ("ca-cert.pem", "ca-key.pem"))
    roots = f"{certificate.strip()}\n{new[0]}"
    sign_with(lab, certificate, key, roots)
    published = lambda: lab.get("configmap", DEFAULT_ROOT_CONFIG_MAP)["data"]["root-cert.pem"] == roots  # noqa: E731
    wait_until(published, description="istiod has published both roots")
    restart(lab, "deployment/product")
    lab.up()
    assert new[0].strip() in lab.ssh("product-1", "sudo cat /var/lib/istio-vm-mesh/etc/certs/root-cert.pem")
    sign_with(lab, *new, roots)
    request_certificate = "sudo rm /var/lib/istio-vm-mesh/etc/certs/key.pem /var/lib/istio-vm-mesh/etc/certs/cert-chain.pem && sudo systemctl kill --signal KILL istio-vm-mesh"
    for machine in ("product-1", "product-2"):
        lab.ssh(machine, request_certificate)
    restart(lab, "deployment/product")
    # An agent whose first request fails, because istiod restarted a moment ago, asks again more and more rarely.
    for machine in ("product-1", "product-2"):
        wait_until(lambda machine=machine: issuer(lab, machine) == NEW_ROOT, description=f"{machine} has a certificate of the new root")  # type: ignore[misc]
    for caller in ("pod", "product-1", "product-2"):
        lab.wait_until_answered_by(caller, lab.service_endpoints)
    lab.pulumi("preview", "--expect-no-changes")


def issuer(lab: MultiNetworkLab, machine: str) -> str:
    """Return who signed a machine's certificate; "" while it has none."""
    chain = lab.ssh(machine, "sudo cat /var/lib/istio-vm-mesh/etc/certs/cert-chain.pem", check=False)
    return credentials.issuer(chain) if "END CERTIFICATE" in chain else ""


def sign_with(lab: MultiNetworkLab, certificate: str, key: str, roots: str) -> None:
    """Plug an authority into istiod, as Istio documents it."""
    files = {"ca-cert.pem": certificate, "ca-key.pem": key, "cert-chain.pem": certificate, "root-cert.pem": roots}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cacerts", "namespace": ISTIO_NAMESPACE}, "stringData": files}
    lab.run("kubectl", "apply", "--server-side", "--filename", "-", stdin=json.dumps(secret))
    restart(lab, "deployment/istiod", ISTIO_NAMESPACE)


def restart(lab: MultiNetworkLab, what: str, namespace: str = "shop") -> None:
    lab.run("kubectl", "--namespace", namespace, "rollout", "restart", what)
    lab.wait_until_rolled_out(what, namespace)
