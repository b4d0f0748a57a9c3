"""Rules for clusters and machines that exist already, and for SSH servers."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Protocol

from ..addresses import DNS_NAME, is_address, is_port, within
from ..existing import ExistingCluster, SshMachine
from ..problems import Problem, suggestion
from ..stack import Settings

_HOST_KEY = re.compile(r"(ssh-(ed25519|rsa)|ecdsa-sha2-nistp(256|384|521)) [A-Za-z0-9+/=]+")


class SshServer(Protocol):
    """An SSH server: a machine or a bastion, of a stack or of a program."""

    @property
    def port(self) -> int:
        """Its port."""

    @property
    def host_key(self) -> str | None:
        """Its public host key."""

    @property
    def accept_any_host_key(self) -> bool:
        """Whether the host key goes unchecked."""


def check(settings: Settings, secrets: Collection[str]) -> Iterator[Problem]:
    """Yield what is wrong with existing clusters and machines, and which secrets are missing."""
    if isinstance(settings.cluster, ExistingCluster):
        yield from _check_cluster(settings, settings.cluster)
    by_address: dict[str, str] = {}
    for name, machine in settings.machines_of_type(SshMachine).items():
        path = f"machines.{name}"
        yield from check_server(path, machine)
        if machine.bastion:
            yield from check_server(f"{path}.bastion", machine.bastion)
        if machine.private_key is None and "sshPrivateKey" not in secrets:
            yield Problem(
                f"{path}.privateKey",
                "is missing: name a file, or set the key with "
                "`pulumi config set --secret istio-vm-mesh:sshPrivateKey`",
            )
        yield from _check_address(settings, name, machine, by_address)
        by_address.setdefault(machine.address or machine.host, name)


def _check_cluster(settings: Settings, cluster: ExistingCluster) -> Iterator[Problem]:
    if not cluster.context:
        yield Problem("cluster.context", "must not be empty: name a context of the kubeconfig")
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


def _check_address(
    settings: Settings, name: str, machine: SshMachine, by_address: dict[str, str]
) -> Iterator[Problem]:
    path, address = f"machines.{name}", machine.address or machine.host
    if not is_address(address):
        key = "address" if machine.address else "host"
        hint = "" if machine.address else ": give the machine's IP address as `address`"
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
    """Yield what is wrong with the host key and the port of an SSH server."""
    if server.host_key is None and not server.accept_any_host_key:
        yield Problem(
            f"{path}.hostKey",
            "is missing: give the host's key (`ssh-keyscan` prints it), "
            "or set `acceptAnyHostKey: true`",
        )
    elif server.host_key is not None and server.accept_any_host_key:
        yield Problem(f"{path}.acceptAnyHostKey", "contradicts hostKey: leave one out")
    elif server.host_key is not None and not _HOST_KEY.fullmatch(server.host_key):
        yield Problem(
            f"{path}.hostKey",
            "expected a public key such as `ssh-ed25519 AAAA...`, without host name and comment",
        )
    if not is_port(server.port):
        yield Problem(f"{path}.port", f"{server.port} is not a port: expected 1 to 65535")
