"""The mesh's root certificate changes, and the next `up` takes the new one to the machines."""

from __future__ import annotations

import base64
import json

from tests.lab import credentials
from tests.lab.environment import Lab, wait_for

BOTH = {"pod", "product-1"}
NAME = "Another root"
ISTIO = ("--namespace", "istio-system")


def test_a_rotated_root_certificate_reaches_machines(lab: Lab) -> None:
    """First both roots are trusted everywhere, then the new one signs: the order that keeps a mesh together."""
    new = credentials.authority(NAME)
    held = lab.get("secret", "istio-ca-secret", *ISTIO)["data"]
    certificate, key = (base64.b64decode(held[name]).decode() for name in ("ca-cert.pem", "ca-key.pem"))
    roots = f"{certificate.strip()}\n{new[0]}"
    sign_with(lab, certificate, key, roots)
    wait_for(lambda: lab.get("configmap", "istio-ca-root-cert")["data"]["root-cert.pem"] == roots, 60, "istiod has published both roots")
    restart(lab, "deployment/product")
    restart(lab, "statefulset/steady")
    lab.up()
    assert new[0].strip() in lab.ssh("product-1", "sudo cat /etc/certs/root-cert.pem")
    sign_with(lab, *new, roots)
    lab.ssh("product-1", "sudo systemctl stop istio && sudo rm /etc/certs/key.pem /etc/certs/cert-chain.pem && sudo systemctl start istio")
    restart(lab, "deployment/product")
    wait_for(lambda: lab.answering() == (BOTH, BOTH), 30, "both endpoints answer both")
    assert credentials.issuer(lab.ssh("product-1", "sudo cat /etc/certs/cert-chain.pem")) == NAME
    lab.pulumi("preview", "--expect-no-changes")


def sign_with(lab: Lab, certificate: str, key: str, roots: str) -> None:
    """Plug an authority into istiod, as Istio documents it."""
    files = {"ca-cert.pem": certificate, "ca-key.pem": key, "cert-chain.pem": certificate, "root-cert.pem": roots}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cacerts", "namespace": "istio-system"}, "stringData": files}
    lab.run("kubectl", "apply", "--server-side", "--filename", "-", stdin=json.dumps(secret))
    restart(lab, "deployment/istiod", *ISTIO)


def restart(lab: Lab, what: str, *namespace: str) -> None:
    lab.kubectl("rollout", "restart", what, *namespace)
    lab.kubectl("rollout", "status", what, "--timeout=90s", *namespace)
