"""The evidence of a verification: who is healthy, who called whom, and what gateways passed on.

Pure, and of the standard library alone: scripts that run beside Pulumi import it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ..config.addresses import is_address


@dataclass(frozen=True)
class Entry:
    """A machine in the mesh.

    machine: its name in the stack; for a machine of an instance group its address.
    entry: its WorkloadEntry.
    endpoint: `address:port`.
    """

    machine: str
    entry: str
    endpoint: str


@dataclass(frozen=True)
class Pod:
    """A pod of the workload that runs.

    name: its name.
    address: its IP address.
    ready: whether it gets calls.
    """

    name: str
    address: str
    ready: bool


@dataclass(frozen=True)
class Call:
    """Calls from one caller to one endpoint.

    caller: a machine or a Job.
    caller_identity, identity: SPIFFE IDs of both ends.
    service: `host:port` of the Service.
    endpoint: `address:port` that Envoy connected to.
    answers: how many were answered.
    path: "direct", or "through" a gateway.
    """

    caller: str
    caller_identity: str
    service: str
    endpoint: str
    identity: str
    answers: int
    path: str = "direct"


@dataclass(frozen=True)
class Inbound:
    """Calls that reached a machine, by Envoy's counter there."""

    machine: str
    requests: int


@dataclass(frozen=True)
class GatewayTraffic:
    """Connections that one gateway passed on to one endpoint of a Service (`host:port`)."""

    gateway: str
    service: str
    endpoint: str
    connections: int


@dataclass(frozen=True)
class Plaintext:
    """A call from outside the mesh to an endpoint.

    result: "refused", "unreachable" or "answered".
    """

    endpoint: str
    result: str


@dataclass(frozen=True)
class Evidence:
    """All that one verification showed."""

    entries: tuple[Entry, ...] = field(default=(), metadata={"record": Entry})
    pods: tuple[Pod, ...] = field(default=(), metadata={"record": Pod})
    calls: tuple[Call, ...] = field(default=(), metadata={"record": Call})
    inbound: tuple[Inbound, ...] = field(default=(), metadata={"record": Inbound})
    gateway_traffic: tuple[GatewayTraffic, ...] = field(
        default=(),
        metadata={"record": GatewayTraffic},
    )
    plaintext: tuple[Plaintext, ...] = field(default=(), metadata={"record": Plaintext})


def merge(parts: Iterable[Evidence]) -> Evidence:
    """Return one record with everything that the parts hold, in their order."""
    every = list(parts)
    names = [column.name for column in fields(Evidence)]
    columns = {name: tuple(row for part in every for row in getattr(part, name)) for name in names}
    return Evidence(**columns)


def with_paths(evidence: Evidence, gateways: Mapping[str, str], gateway_port: int) -> Evidence:
    """Return the evidence with the path of each call.

    gateways: names by address. A gateway given by DNS name is assumed for every address that
        matches no other gateway.
    gateway_port: the port by which gateways take calls from other networks.
    """
    by_dns = next((name for host, name in gateways.items() if not is_address(host)), None)

    def path(call: Call) -> str:
        address, _, port = call.endpoint.rpartition(":")
        if port != str(gateway_port):
            return "direct"
        return f"through {gateways.get(address, by_dns or address)}"

    return replace(evidence, calls=tuple(replace(call, path=path(call)) for call in evidence.calls))


def _machine(caller: str) -> str:
    return caller[len("machine ") :] if caller.startswith("machine ") else caller


# What scripts on machines and in pods print: a kind, then one value per field, tab-separated.
_LINES: Mapping[str, tuple[str, Callable[..., Any], tuple[Callable[[str], Any], ...]]] = {
    "call": ("calls", Call, (str, str, str, str, str, int)),
    "answered": ("inbound", Inbound, (_machine, int)),
    "carried": ("gateway_traffic", GatewayTraffic, (str, str, str, int)),
    "outside": ("plaintext", Plaintext, (str, str)),
}


def parse(text: str) -> Evidence:
    """Return the evidence in what a script on a machine or in a pod printed.

    Lines of other programs, which share the output, are left out.
    """
    columns: dict[str, list[Any]] = {}
    for line in text.splitlines():
        kind, *values = line.split("\t")
        name, record, types = _LINES.get(kind, ("", None, ()))
        if record is None or len(values) != len(types):
            continue
        typed = [convert(values[index]) for index, convert in enumerate(types)]
        columns.setdefault(name, []).append(record(*typed))
    return Evidence(**{name: tuple(records) for name, records in columns.items()})
