"""Attaches a cluster's node to a Docker network, and blocks traffic from that network to pods."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass
from time import monotonic, sleep

from ....local import scripting


@dataclass(frozen=True)
class Payload:
    """A node and a network.

    node: the node's container.
    network: the Docker network.
    pod_cidr: the addresses of the cluster's pods.
    network_cidr: the addresses of the Docker network.
    """

    node: str
    network: str
    pod_cidr: str
    network_cidr: str


@dataclass(frozen=True)
class Result:
    """The node's address in the network."""

    address: str


def run(payload: Payload) -> Result:
    """Attach the node, drop direct traffic to pods, and wait until its API server answers again."""
    if not _address(payload):
        words = ["docker", "network", "connect", payload.network, payload.node]
        scripting.check(words, f"Docker could not attach {payload.node} to {payload.network}")
    # Packets to the gateway's address pass: they are translated to a pod's address before.
    pods, network = payload.pod_cidr, payload.network_cidr
    for source, target in ((pods, network), (network, pods)):
        rule = f"FORWARD -s {source} -d {target} -m conntrack ! --ctstate DNAT -j DROP".split()
        if _iptables(payload.node, "-C", rule).status:
            chain, *matches = rule
            inserted = _iptables(payload.node, "-I", [chain, "1", *matches])
            if inserted.status:
                raise scripting.Failed(
                    f"iptables on {payload.node} refused the rule that keeps the network "
                    f"{payload.network} and the pods apart: {inserted.error}"
                )
    _wait_for_api_server(payload.node)
    return Result(_address(payload))


def _address(payload: Payload) -> str:
    """Return the node's address in the network; "" where it is not attached."""
    network = f'(index .NetworkSettings.Networks "{payload.network}")'
    template = f"{{{{with {network}}}}}{{{{.IPAddress}}}}{{{{end}}}}"
    return scripting.check(
        ["docker", "inspect", "--format", template, payload.node],
        f"Docker has no node {payload.node}",
    ).text


def _iptables(node: str, operation: str, rule: list[str]) -> scripting.Done:
    return scripting.call(["docker", "exec", node, "iptables", operation, *rule])


def _wait_for_api_server(node: str) -> None:
    """Wait, ten seconds at most, for the published port: Docker publishes it again on attaching."""
    port = scripting.check(["docker", "port", node, "6443/tcp"], f"{node} publishes no API server")
    host, _, number = port.text.splitlines()[0].rpartition(":")
    end = monotonic() + 10
    while monotonic() < end:
        with contextlib.suppress(OSError):
            socket.create_connection((host.strip("[]"), int(number)), timeout=2).close()
            return
        sleep(0.1)
