"""What a caller calls, and how the script that calls is given it.

Pure, and of the standard library alone: scripts that run beside Pulumi import it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

CALL_SCRIPT = "verification/call-service"
"""The script that calls from inside the mesh; `call_variables` stand before it."""
PLAINTEXT_SCRIPT = "verification/plaintext-probe"
"""The script that calls from outside the mesh; `plaintext_variables` stand before it."""


@dataclass(frozen=True)
class Target:
    """One port of a Service, as callers of one network see it.

    service: the Service's DNS name. port: its port. protocol: `http`, `http2`, `grpc`, `tls` or
        `tcp`.
    path: of the HTTP request; "" for other protocols.
    expect: the statuses that pass, each one or a range: "404", "200-399".
    timeout_s: seconds for one call.
    mode: "fail" or "warn", what a failure does to the update.
    identities: the SPIFFE IDs of which one must answer, that of the mesh's trust domain first.
    endpoints: `address:port` that must answer, each.
    ranges: CIDRs; an endpoint in one of them must answer.
    gateways: `address:port`, or a DNS name, of gateways to endpoints in other networks.
    calls: how many calls each of `gateways` gets (`connections_for`).
    machines: `name=address:port` of the endpoints that are machines of the stack.
    headers: of the HTTP request, as lines.
    """

    service: str
    port: int
    protocol: str
    path: str
    expect: tuple[str, ...]
    timeout_s: int
    mode: str
    identities: tuple[str, ...]
    endpoints: tuple[str, ...] = ()
    ranges: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    calls: tuple[int, ...] = ()
    machines: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()

    @property
    def sni(self) -> str:
        """The name by which gateways route connections to it."""
        return f"outbound_.{self.port}_._.{self.service}"


@dataclass(frozen=True)
class Caller:
    """Who calls.

    name: "Job …" or "machine …", for messages and evidence. network: its network in the mesh.
    timeout_s: seconds for all of its calls.
    listener: the port of its proxy by which it addresses endpoints; None: it has no such port.
    """

    name: str
    network: str
    timeout_s: int
    listener: int | None = None


def connections_for(endpoints: int) -> int:
    """Return how many connections meet all endpoints behind a balancer, as `CALL_SCRIPT` computes it."""
    number = max(endpoints, 1)
    return math.ceil(number * (math.log(number) + 4))


def call_variables(caller: Caller, target: Target | None, inbound: Mapping[int, str] | None = None) -> dict[str, str | int]:
    """Return the variables of `CALL_SCRIPT`.

    target: what is called; None: nothing.
    inbound: protocols by the ports of the caller, a machine, on which it must have been called.
    """
    called_on = (inbound or {}).items()
    return {
        "CALLER": caller.name,
        "NETWORK": caller.network,
        "TIMEOUT_S": caller.timeout_s,
        "LISTENER": "" if caller.listener is None else caller.listener,
        "TARGETS": _line(target) if target else "",
        "HEADERS": "\n".join(target.headers) if target else "",
        "INBOUND": "\n".join(f"{port}\t{protocol}" for port, protocol in called_on),
    }


def plaintext_variables(target: Target, endpoints: Iterable[str]) -> dict[str, str | int]:
    """Return the variables of `PLAINTEXT_SCRIPT`, which must be refused by all endpoints."""
    scheme = "https" if target.protocol == "tls" else "http"
    return {"ENDPOINTS": " ".join(dict.fromkeys(endpoints)), "SNI": target.sni, "SCHEME": scheme}


def _line(target: Target) -> str:
    """Return a target as a line of columns, which are never empty: a shell would join them."""
    columns = (
        target.service,
        target.port,
        target.protocol,
        target.path,
        ",".join(target.expect),
        target.timeout_s,
        target.mode,
        *map(",".join, (target.identities, target.endpoints, target.ranges, target.gateways)),
        ",".join(map(str, target.calls)),
        ",".join(target.machines),
    )
    return "\t".join(str(column) or "-" for column in columns)
