"""The platforms `existing` and `ssh`: a cluster and machines that people have."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from . import addresses
from .addresses import DNS_NAME
from .problems import Problem, suggestion

if TYPE_CHECKING:
    from .stack import Settings


@dataclass(frozen=True, kw_only=True)
class ExistingGateway:
    """The east-west gateway of an existing cluster.

    `address` is where machines find it: an IP address or a DNS name that the cluster's load balancer, or a node, answers on. `service`
    are values of the gateway chart's Service (type, annotations, externalIPs, ...); without them it is a LoadBalancer that asks for `address`.
    With `install: false` there is one already, which exposes istiod on port 15012, and nothing is installed.
    """

    address: str
    service: Mapping[str, Any] = field(default_factory=dict)
    install: bool = True


@dataclass(frozen=True, kw_only=True)
class ExistingCluster:
    """A Kubernetes cluster that exists, reached by a kubeconfig. Only what this program puts into it is ever changed or removed.

    `context` is named, never the current one, so that nobody's shell can turn the stack to another cluster. `kubeconfig` is a file
    on the machine that runs Pulumi; without it the text is in the secret `istio-vm-mesh:kubeconfig`. `pod_range` is where pods' addresses
    come from.
    """

    platform: Literal["existing"]
    network: str
    context: str
    pod_range: str
    gateway: ExistingGateway
    kubeconfig: str | None = None
    service_range: str | None = None
    namespaces: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Bastion:
    """An SSH server through which others are reached. Its user needs no shell, only TCP forwarding."""

    host: str
    port: int = 22
    user: str = "root"
    host_key: str | None = None
    accept_any_host_key: bool = False


@dataclass(frozen=True, kw_only=True)
class SshMachine:
    """A machine that exists, with systemd, of Debian's or Red Hat's family, reached by SSH. It is never removed, but leaves the mesh.

    `address` is what pods reach it by, where that is not `host`. `host_key` is a line as in `ssh-keyscan`'s output without the host
    (`ssh-ed25519 AAAA...`); to go without, say `acceptAnyHostKey: true`. The private key is in the file `private_key`, else in the secret
    `istio-vm-mesh:sshPrivateKey`. `user` must be root (`sudo: false`) or run sudo without a password.
    """

    platform: Literal["ssh"]
    workload: str
    network: str
    host: str
    port: int = 22
    user: str = "root"
    sudo: bool = True
    host_key: str | None = None
    accept_any_host_key: bool = False
    private_key: str | None = None
    address: str | None = None
    bastion: Bastion | None = None
    rotation: int = 0


_HOST_KEY = re.compile(r"(ssh-(ed25519|rsa)|ecdsa-sha2-nistp(256|384|521)) [A-Za-z0-9+/=]+")


def check(settings: Settings, secrets: Collection[str]) -> Iterator[Problem]:
    """What is wrong with existing clusters and machines, and which of the `secrets` that they need are not there."""
    if isinstance(settings.cluster, ExistingCluster):
        if not settings.cluster.context:
            yield Problem("cluster.context", "must not be empty: name a context of the kubeconfig")
        used = {workload.namespace for workload in settings.workloads.values()}
        for index, name in enumerate(settings.cluster.namespaces):
            if name not in used:
                yield Problem(f"cluster.namespaces[{index}]", f"no workload is in {name!r}" + suggestion(name, used))
        address = settings.cluster.gateway.address
        if not addresses.is_address(address) and not DNS_NAME.fullmatch(address):
            yield Problem(
                "cluster.gateway.address",
                f"expected an IP address or a DNS name that machines resolve, without scheme and port; got {address!r}",
            )
    if isinstance(settings.cluster, ExistingCluster) and settings.cluster.kubeconfig is None and "kubeconfig" not in secrets:
        yield Problem(
            "cluster.kubeconfig", "is missing: name a file, or set the text with `pulumi config set --secret istio-vm-mesh:kubeconfig`"
        )
    for name, network in settings.networks.items():
        first = next((machine for _, machine in sorted(settings.machines.items()) if machine.network == name), None)
        if network.gateway and isinstance(first, SshMachine):
            yield Problem(f"networks.{name}.gateway", "its machines would be made like this network's, and machines over SSH are not made")
    machines = {name: machine for name, machine in settings.machines.items() if isinstance(machine, SshMachine)}
    met: dict[str, str] = {}
    for name, machine in machines.items():
        path = f"machines.{name}"
        yield from check_host_key(path, machine.host_key, machine.accept_any_host_key, machine.port)
        if machine.bastion:
            bastion = machine.bastion
            yield from check_host_key(f"{path}.bastion", bastion.host_key, bastion.accept_any_host_key, bastion.port)
        if machine.private_key is None and "sshPrivateKey" not in secrets:
            yield Problem(
                f"{path}.privateKey",
                "is missing: name a file, or set the key with `pulumi config set --secret istio-vm-mesh:sshPrivateKey`",
            )
        address = machine.address or machine.host
        if not addresses.is_address(address):
            where = "address" if machine.address else "host"
            hint = "" if machine.address else ": give the machine's IP address as `address`"
            yield Problem(f"{path}.{where}", f"{address!r} is no IP address, and pods reach machines by one{hint}")
        elif machine.network in settings.networks and not addresses.within(address, settings.networks[machine.network].ranges):
            yield Problem(path, f"its address {address} is in none of the ranges of the network {machine.network}: is it in another one?")
        elif address in met:
            yield Problem(path, f"has the address {address} of machine {met[address]}: one proxy per machine, so one machine each")
        met.setdefault(address, name)
        if not machine.sudo and machine.user != "root":
            yield Problem(f"{path}.sudo", f"the join needs root: without sudo the user must be root, not {machine.user}")


def check_host_key(path: str, host_key: str | None, accept_any: bool, port: int) -> Iterator[Problem]:
    """What is wrong with how the stack tells an SSH server by its key."""
    if host_key is None and not accept_any:
        yield Problem(f"{path}.hostKey", "is missing: give the host's key (ssh-keyscan shows it), or say `acceptAnyHostKey: true`")
    elif host_key is not None and accept_any:
        yield Problem(f"{path}.acceptAnyHostKey", "contradicts hostKey: leave one out")
    elif host_key is not None and not _HOST_KEY.fullmatch(host_key):
        yield Problem(f"{path}.hostKey", "expected a public key such as `ssh-ed25519 AAAA...`, without host name and comment")
    if not 0 < port < 65536:
        yield Problem(f"{path}.port", f"{port} is no port: expected 1 to 65535")
