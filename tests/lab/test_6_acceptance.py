"""Istio's own machine test cases in the lab with one network."""

from __future__ import annotations

import pytest

from components import shell
from components.machines import bootstrap
from tests.lab.acceptance import Acceptance, told_apart
from tests.lab.environment import Lab


@pytest.fixture(scope="module")
def mesh(lab: Lab) -> Lab:
    """The lab as the tests of changes left it, or with what these tests need of them."""
    if "version" not in lab.get("workloadgroup", "product")["spec"]["metadata"]["labels"]:
        lab.configure(told_apart)
        lab.up()
    return lab


class TestOneNetwork(Acceptance):
    """Of the one machine."""


def test_a_machine_that_leaves_keeps_nothing(lab: Lab) -> None:
    """Last, for the lab is of no use afterwards."""
    leave = shell.b64encode(shell.run_as_root(bootstrap.leave_script("product-1")))
    for _ in range(2):
        lab.ssh("product-1", f"echo {leave} | base64 -d | {shell.REMOTE}")
    look = "sudo sh -c 'pgrep -l \"pilot|envoy\"; dpkg --list | grep istio; systemctl cat istio 2>/dev/null; iptables-save; iptables-legacy-save 2>/dev/null'"
    left = lab.ssh(
        "product-1",
        f"{look}; sudo ls -d /etc/certs /etc/istio /var/lib/istio /var/lib/istio-vm-mesh /run/secrets/tokens/istio-token",
        check=False,
    )
    assert "istio" not in left.lower() and "envoy" not in left and "certs" not in left
    assert lab.ssh("product-1", "curl --silent http://localhost:8080/ | grep -c Hostname").strip() == "1"
