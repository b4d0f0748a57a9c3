"""What the verification says about faults of machines, gateways and routes in a mesh that is up."""

from __future__ import annotations

import pytest

from components.names import entry_name
from tests.support.lab import SERVICE, MultiNetworkLab
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def lab(multi_network_lab: MultiNetworkLab) -> MultiNetworkLab:
    """The stack `lab-multi-network`."""
    multi_network_lab.ensure()
    return multi_network_lab


@pytest.mark.istio_case(11)
def test_two_machines_with_one_address_in_two_networks_have_an_entry_each(lab: MultiNetworkLab) -> None:
    """Forced by what the second proxy announces; it is killed, so that it starts anew at once."""
    near, far = (lab.outputs()["machines"][name] for name in ("product-1", "product-3"))
    twin = f"product-{near['address']}-far"
    change = "sudo sed -i \"s/^INSTANCE_IP=.*/INSTANCE_IP='{}'/\" /var/lib/istio-vm-mesh/overrides.env"
    announce = f"{change} && sudo systemctl kill --signal KILL istio-vm-mesh"
    lab.ssh("product-3", announce.format(near["address"]))
    try:
        wait_until(lambda: lab.entry_health(twin) is not None, description="the second entry is there")
        assert lab.entry_health(near["entry"]) == "True"
    finally:
        lab.ssh("product-3", announce.format(far["address"]))
    wait_until(lambda: lab.entry_health(far["entry"]) == "True" and lab.entry_health(twin) is None, description="all is as before")


def test_the_verification_names_what_is_in_the_way_of_machines(lab: MultiNetworkLab) -> None:
    """A port of the gateway that is closed for one machine, and another machine whose DNS queries are not redirected."""
    closed = "OUTPUT --protocol tcp --dport 15443 --jump REJECT --reject-with tcp-reset"
    lab.ssh("product-2", f"sudo iptables --insert {closed}")
    lab.ssh("product-3", "sudo systemctl stop istio-vm-mesh-redirect")  # or it puts them back
    lab.ssh("product-3", "for each in legacy nft; do sudo iptables-$each --table nat --flush ISTIO_OUTPUT_DNS; done", check=False)
    try:
        report = " ".join(lab.verify().split())
    finally:
        lab.ssh("product-2", f"sudo iptables --delete {closed}")
        lab.ssh("product-3", "sudo systemctl start istio-vm-mesh-redirect; sudo systemctl kill --signal KILL istio-vm-mesh")
    assert f"machine product-2: no answer from {lab.outputs()['gateway']}:15443" in report
    assert "takes no connection on port 15443 (refused): is the port open in the firewall" in report
    assert f"machine product-3: {SERVICE} does not resolve: is DNS capture on" in report


def test_the_verification_names_a_wrong_network(lab: MultiNetworkLab) -> None:
    machine = lab.outputs()["machines"]["product-3"]
    label = "sudo sed -i \"s/^ISTIO_META_NETWORK=.*/ISTIO_META_NETWORK='{}'/\" /var/lib/istio-vm-mesh/cluster.env"
    # The machine's configuration says it too, and wins.
    file = r"sudo sed -i 's/\(ISTIO_META_NETWORK.: .\)\w*/\1{}/' /var/lib/istio-vm-mesh/etc/istio/config/mesh"
    restart = "sudo systemctl kill --signal KILL istio-vm-mesh"
    lab.ssh("product-3", f"{label.format('pods')} && {file.format('pods')} && {restart}")
    wrong = entry_name("product", machine["address"], "pods")
    try:
        wait_until(
            lambda: lab.entry_health(machine["entry"]) is None and lab.entry_health(wrong) is not None,
            description="it has registered in the other network",
        )
        report = " ".join(lab.verify().split())
    finally:
        lab.ssh("product-3", f"{label.format('far')} && {file.format('far')} && {restart}")
    assert f"machine product-3 has registered as {wrong} in the network pods instead of {machine['entry']}" in report
    wait_until(lambda: lab.entry_health(machine["entry"]) == "True" and lab.entry_health(wrong) is None, description="all is as before")


def test_the_verification_names_a_missing_route(lab: MultiNetworkLab) -> None:
    route = lab.ssh("product-1", "ip route show 10.244.0.0/16").strip()
    lab.ssh("product-1", f"sudo ip route delete {route}")
    try:
        report = " ".join(lab.verify().split())
    finally:
        lab.ssh("product-1", f"sudo ip route add {route}")
    address = lab.address("product-1")
    assert f"no answer from {address}:8080" in report
    assert f"is there a route to {address} and back" in report
