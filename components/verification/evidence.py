"""The evidence of a verification: who is healthy, who called whom, and what gateways passed on.

Pure, and of the standard library alone: scripts that run beside Pulumi import it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar, get_type_hints

from ..config.addresses import is_address
from ..local import scripting

T = TypeVar("T")
FAILED_IN_UPDATE = "failed in this update"
"""The end of a cause: a resource failed, and the update went on without it."""


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
class Called:
    """Who has called what, and how.

    service, port, protocol: what was called: FQDN, port of the Service, `http` to `tls`.
    caller, caller_identity: a machine or a Job, and its SPIFFE ID.
    network: the caller's.
    how: "addressed" where the caller named the endpoint, "by-chance" where a proxy chose it.
    path: "direct", or "through" a gateway; "" before `with_paths`.
    peer: the SPIFFE ID that the endpoint's certificate had to have, or several of which it had one,
        separated by spaces; "" without an endpoint.
    kind: what `answers` counts: "response"s, connections that stayed "open", those whose peer sent
        "bytes", or requests and connections by the callee's own "counter".
    verdict: "proved" or "failed".
    """

    service: str = ""
    port: int = 0
    protocol: str = ""
    caller: str = ""
    caller_identity: str = ""
    network: str = ""
    how: str = "addressed"
    path: str = ""
    peer: str = ""
    kind: str = "response"
    verdict: str = field(default="proved", metadata={scripting.STATED: True})


@dataclass(frozen=True)
class Answers:
    """What an endpoint of a Service has shown, or the Service.

    endpoint: `address:port`; "" where it is of the Service, by its name.
    machine: the machine of the stack that the endpoint is, if it is one.
    calls, answers: how many were made, and how many of them are proof.
    status: how often each status was returned; that of gRPC for gRPC.
    cause: why the verdict is "failed". object: what to look at then.
    """

    endpoint: str = ""
    machine: str = ""
    calls: int = 0
    answers: int = 0
    status: Mapping[str, int] = field(default_factory=dict)
    cause: str = ""
    object: str = ""


@dataclass(frozen=True)
class Call(Called, Answers):
    """What one caller has shown of one endpoint."""

    @property
    def is_path(self) -> bool:
        """Whether it is an answer of an endpoint to its caller."""
        return bool(self.endpoint) and self.verdict == "proved" and self.kind != "counter"

    @property
    def is_of_failed_resource(self) -> bool:
        """Whether it was left out because a resource failed, which the next update repeats."""
        return self.cause.endswith(FAILED_IN_UPDATE)

    @property
    def problem(self) -> str:
        """The cause, with what to look at."""
        return self.cause if self.object in self.cause else f"{self.cause}; look at {self.object}"


def unproven(cause: str, **values: Any) -> Call:
    """Return the row of what should be true and is not."""
    return Call(verdict="failed", cause=cause, **values)


@dataclass(frozen=True)
class Calls(Called):
    """What one caller has shown of several endpoints in the same way."""

    endpoints: tuple[Answers, ...] = field(default=(), metadata={"record": Answers})


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


def _grouped(calls: Iterable[Call]) -> tuple[Calls, ...]:
    """Return calls with those as one that differ in what endpoints have shown alone."""
    endpoints: dict[Called, list[Answers]] = {}
    for call in calls:
        endpoints.setdefault(_part(Called, call), []).append(_part(Answers, call))
    return tuple(Calls(**vars(called), endpoints=tuple(answers)) for called, answers in endpoints.items())


def _single(grouped: Iterable[Calls]) -> tuple[Call, ...]:
    """Return each call of `_grouped` ones."""
    return tuple(Call(**vars(_part(Called, each)), **vars(answers)) for each in grouped for answers in each.endpoints)


def _part(base: type[T], record: T) -> T:
    """Return what a record has of a class that it inherits."""
    return base(**{each.name: getattr(record, each.name) for each in fields(base)})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Evidence:
    """All that one verification showed."""

    entries: tuple[Entry, ...] = field(default=(), metadata={"record": Entry})
    pods: tuple[Pod, ...] = field(default=(), metadata={"record": Pod})
    calls: tuple[Call, ...] = field(
        default=(),
        metadata={"record": Calls, scripting.PACK: _grouped, scripting.UNPACK: _single},
    )
    gateway_traffic: tuple[GatewayTraffic, ...] = field(
        default=(),
        metadata={"record": GatewayTraffic},
    )
    plaintext: tuple[Plaintext, ...] = field(default=(), metadata={"record": Plaintext})


def by_workload(output: str) -> dict[str, Evidence]:
    """Return the evidence of each workload. output: the stack's output `verification`."""
    return {workload: scripting.decode(Evidence, each) for workload, each in json.loads(output).items()}


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


def parse(text: str) -> Evidence:
    """Return the evidence in what a script on a machine or in a pod printed.

    Each of its lines is a JSON object with one key, a field of `Evidence`, and one record of it:
    `{"calls": {"endpoint": "10.1.0.5:8080", ...}}`. Lines of other programs, which share the
    output, are left out.
    """
    columns: dict[str, list[Any]] = {}
    # Other line ends of Unicode may be in texts of JSON.
    for line in text.split("\n"):
        if row := _row(line):
            columns.setdefault(row[0], []).append(row[1])
    return Evidence(**{name: tuple(records) for name, records in columns.items()})


def _row(line: str) -> tuple[str, Any] | None:
    """Return a column of `Evidence` and a record of it; None for a line that is none."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    if not isinstance(value, dict) or len(value) != 1:
        return None
    ((name, values),) = value.items()
    record = _RECORDS.get(name)
    if record is None or not isinstance(values, dict):
        return None
    types = _TYPES[record]
    if any(type(values[key]) is not types.get(key) for key in values):
        return None
    try:
        return name, record(**values)
    except TypeError:  # a field is missing
        return None


_RECORDS: Mapping[str, type] = {column.name: column.metadata["record"] for column in fields(Evidence)} | {"calls": Call}


def _plain(hint: Any) -> type:
    return hint if isinstance(hint, type) else dict


_TYPES = {record: {name: _plain(hint) for name, hint in get_type_hints(record).items()} for record in _RECORDS.values()}
"""The type of each field as JSON has it; a mapping is a dict."""
