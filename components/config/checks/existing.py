"""Rules for clusters and machines that exist already, and for SSH servers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Protocol

from ...grammar import is_file
from ...names import CROSS_NETWORK_PORT, MACHINE_PORTS, SSH_PORT, STATUS_PORT, XDS_PORT
from ..addresses import DNS_NAME, is_address, is_port, within
from ..existing import ExistingCluster, ExistingGateway, SshMachine
from ..problems import Problem, suggestion
from ..stack import Settings
from .names import check_locality

_NODE_PORTS = range(30000, 32768)
"""Kubernetes' default range of ports of nodes."""
_PORTS_OF_PROXIES = MACHINE_PORTS | {CROSS_NETWORK_PORT}
"""Ports that the gateway's agent and Envoy listen on for something else."""
_STACK = re.compile(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+")
_HOST_KEY = re.compile(r"(ssh-(ed25519|rsa)|ecdsa-sha2-nistp(256|384|521)) [A-Za-z0-9+/=]+")
# An address with its zone, a DNS name, or an alias. It never begins with -, as an option does.
_HOST = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9._:-]*(%[A-Za-z0-9._-]+)?")
# With the realm or the domain of a directory: `admin@example.com`, `EXAMPLE\\admin`.
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+-]*(\\[A-Za-z0-9_][A-Za-z0-9._@+-]*)?")
# ssh expands % and $ in paths, and quotes by " and \.
_PATH = re.compile(r"[^-\"%$\\\x00-\x1f\x7f][^\"%$\\\x00-\x1f\x7f]*")


class SshServer(Protocol):
    """An SSH server: a machine or a bastion, of a stack or of a program."""

    @property
    def host(self) -> str:
        """Its address or name."""

    @property
    def port(self) -> int | None:
        """Its port."""

    @property
    def user(self) -> str | None:
        """User of the login."""

    @property
    def private_key(self) -> str | None:
        """Path of the private key."""

    @property
    def host_key(self) -> str | None:
        """Its public host key."""

    @property
    def accept_any_host_key(self) -> bool:
        """Whether the host key goes unchecked."""


def check(settings: Settings) -> Iterator[Problem]:
    """Yield what is wrong with existing clusters and machines."""
    if isinstance(settings.cluster, ExistingCluster):
        yield from _check_cluster(settings, settings.cluster)
    by_address: dict[str, str] = {}
    for name, machine in settings.machines_of_type(SshMachine).items():
        path = f"machines.{name}"
        yield from check_server(path, machine)
        yield from check_locality(path, machine.locality)
        if machine.bastion:
            yield from check_server(f"{path}.bastion", machine.bastion)
        if machine.take_over is not None and not _STACK.fullmatch(machine.take_over):
            yield Problem(
                f"{path}.takeOver",
                "expected `<project>/<stack>`, as a refused join names it; "
                f"got {machine.take_over!r}",
            )
        yield from _check_address(settings, name, machine, by_address)
        by_address.setdefault(machine.address or machine.host, name)


def _check_cluster(settings: Settings, cluster: ExistingCluster) -> Iterator[Problem]:
    if not cluster.context:
        yield Problem("cluster.context", "must not be empty: name a context of the kubeconfig")
    elif not cluster.context.isprintable():
        yield Problem("cluster.context", f"{cluster.context!r} is not a name on one line")
    if cluster.kubeconfig is not None and not is_file(cluster.kubeconfig):
        yield Problem(
            "cluster.kubeconfig",
            f"{cluster.kubeconfig!r} is not a path: expected one line that does not begin with -",
        )
    used = {workload.namespace for workload in settings.workloads.values()}
    for index, name in enumerate(cluster.namespaces):
        if name not in used:
            hint = suggestion(name, used)
            yield Problem(f"cluster.namespaces[{index}]", f"no workload is in {name!r}{hint}")
    address = cluster.gateway.address
    if not is_address(address) and not DNS_NAME.fullmatch(address):
        yield Problem(
            "cluster.gateway.address",
            "expected an IP address or a DNS name that machines resolve, without scheme and port; "
            f"got {address!r}",
        )
    elif ":" in address:
        yield Problem(
            "cluster.gateway.address",
            "is an IPv6 address, and networks have IPv4 alone: give an IPv4 address or a DNS name",
        )
    yield from _check_gateway(cluster.gateway)
    machines = settings.machines.values()
    has_others = any(machine.network != cluster.network for machine in machines)
    yield from _check_gateway_ports(cluster.gateway, has_others)


def _check_gateway(gateway: ExistingGateway) -> Iterator[Problem]:
    path, port = "cluster.gateway", gateway.port
    # Of a translated port, or of another gateway, only those with a purpose at the address clash.
    is_ours = gateway.install and not gateway.behind_nat
    used = _PORTS_OF_PROXIES if is_ours else {CROSS_NETWORK_PORT, STATUS_PORT}
    if not is_port(port):
        yield Problem(f"{path}.port", f"{port} is not a port: expected 1 to 65535")
    elif port == SSH_PORT:
        yield Problem(
            f"{path}.port",
            "22 is SSH's: machines reject its connections to the gateway's address while their "
            "agent stops, and a Service would take it from nodes; choose another",
        )
    elif port in used:
        yield Problem(f"{path}.port", f"the gateway uses port {port} for something else")
    elif _is_of_nodes(gateway) and port not in _NODE_PORTS:
        yield Problem(
            f"{path}.port",
            f"{port} is not a port of nodes: the Service is of the type NodePort, so expected "
            f"{_NODE_PORTS.start} to {_NODE_PORTS.stop - 1}",
        )
    if gateway.behind_nat and not gateway.install:
        yield Problem(
            f"{path}.behindNat",
            "is of a gateway that the program installs: for others istiod goes by their own "
            "Service; leave it out",
        )


def _check_gateway_ports(gateway: ExistingGateway, has_others: bool) -> Iterator[Problem]:
    """Yield what is wrong with the ports that a stack states of the gateway's Service.

    has_others: whether machines are in other networks, which enter the cluster's by the gateway.
    """
    path, port, stated = "cluster.gateway.service.ports", gateway.port, gateway.service.get("ports")
    # The chart's value networkGateway fixes the Service's ports, whatever a stack states.
    is_fixed = has_others and port == XDS_PORT and not gateway.behind_nat
    if not gateway.install or stated is None or is_fixed:
        return
    ports = [each for each in stated if isinstance(each, Mapping)] if _is_list(stated) else []
    numbers = [(each.get("port"), each.get("protocol", "TCP")) for each in ports]
    for number in sorted({str(each[0]) for each in numbers if numbers.count(each) > 1}):
        yield Problem(path, f"two ports of the Service are {number}: leave one out")
    ports = [each for each in ports if each.get("protocol", "TCP") == "TCP"]
    if not gateway.behind_nat:
        entered = [each for each in ports if port in (each.get("port"), each.get("nodePort"))]
        if not any(_target(each) == XDS_PORT for each in entered):
            yield Problem(
                path,
                f"have none that machines reach the control plane at: add one with the port {port} "
                f"and the targetPort {XDS_PORT}, or leave `ports` out",
            )
    crossing = [each for each in ports if each.get("port") == CROSS_NETWORK_PORT]
    if has_others and not any(_target(each) == CROSS_NETWORK_PORT for each in crossing):
        yield Problem(
            path,
            "have none by which machines of other networks call pods: add one with the port "
            f"{CROSS_NETWORK_PORT}, or leave `ports` out",
        )


def _target(port: Mapping[str, object]) -> object:
    """Return the port of pods that a port of a Service leads to, as Kubernetes reads it."""
    return port.get("targetPort") or port.get("port")


def _is_of_nodes(gateway: ExistingGateway) -> bool:
    """Return whether the program gives the gateway's Service a port of nodes."""
    service = gateway.service
    is_given = gateway.install and gateway.port != XDS_PORT and not gateway.behind_nat
    return is_given and service.get("type") == "NodePort" and "ports" not in service


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)


def _check_address(
    settings: Settings, name: str, machine: SshMachine, by_address: dict[str, str]
) -> Iterator[Problem]:
    path, given = f"machines.{name}", machine.address is not None
    address = machine.host if machine.address is None else machine.address
    if not is_address(address):
        key = "address" if given else "host"
        hint = "" if given else ": give the machine's IP address as `address`"
        yield Problem(
            f"{path}.{key}",
            f"{address!r} is not an IP address, which pods reach machines by{hint}",
        )
    elif machine.network in settings.networks and not within(
        address, settings.cidrs(machine.network)
    ):
        yield Problem(
            path,
            f"its address {address} is in none of the CIDRs of the network {machine.network}: "
            "is it in another one?",
        )
    elif address in by_address:
        yield Problem(
            path,
            f"has the address {address} of machine {by_address[address]}: "
            "a machine has one proxy, so declare it once",
        )


def check_server(path: str, server: SshServer) -> Iterator[Problem]:
    """Yield what is wrong with how an SSH server is reached. Nothing of it can be an option."""
    if not _HOST.fullmatch(server.host):
        yield Problem(
            f"{path}.host",
            f"{server.host!r} is no host for ssh: give an IP address, a DNS name or a Host of "
            "~/.ssh/config, of letters, digits and . _ : -",
        )
    if server.user is not None and not _USER.fullmatch(server.user):
        yield Problem(
            f"{path}.user",
            f"{server.user!r} is no user for ssh: give a name of letters, digits and . _ @ + -",
        )
    if server.private_key is not None and not _PATH.fullmatch(server.private_key):
        yield Problem(
            f"{path}.privateKey",
            'expected the path of a file that does not begin with - and has no ", %, $, \\ and '
            "control characters, and not the key itself",
        )
    if server.host_key is not None and server.accept_any_host_key:
        yield Problem(f"{path}.acceptAnyHostKey", "contradicts hostKey: leave one out")
    elif server.host_key is not None and not _HOST_KEY.fullmatch(server.host_key):
        yield Problem(
            f"{path}.hostKey",
            "expected a public key such as `ssh-ed25519 AAAA...`, without host name and comment",
        )
    if server.port is not None and not is_port(server.port):
        yield Problem(f"{path}.port", f"{server.port} is not a port: expected 1 to 65535")
