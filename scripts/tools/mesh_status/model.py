"""The mesh of a stack as it is shown: plain data without secrets. `assess.mesh` makes it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Health = Literal["healthy", "unhealthy", "missing", "unknown"]
"""`missing` is what should be there and is not; `unknown` is what could not be read."""

_WORST_FIRST: tuple[Health, ...] = ("unhealthy", "missing", "unknown", "healthy")


def worst_health(all_: Iterable[Health]) -> Health:
    """Return the worst of several; nothing at all is healthy."""
    return min(all_, key=_WORST_FIRST.index, default="healthy")


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A machine or pod of a workload, and what to do about it.

    entry: the machine's WorkloadEntry; "" for pods.
    state: of an entry Healthy, Unhealthy, Disconnected, NoHealthYet or NotRegistered; of a pod
        Ready or NotReady.
    agent: the version of Istio's agent.
    active: since when the agent runs.
    clock: the seconds by which the machine's clock is ahead.

    What could not be read is None or "".
    """

    kind: Literal["machine", "pod"]
    name: str
    network: str
    address: str
    health: Health
    entry: str = ""
    state: str = ""
    agent: str = ""
    envoy: str = ""
    active: datetime | None = None
    certificate_begins: datetime | None = None
    certificate_ends: datetime | None = None
    token_expires: datetime | None = None
    clock: float | None = None
    joined: datetime | None = None
    verified: datetime | None = None
    advice: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A workload with everything behind its Services (their ports by host name). `verified` is when pods last proved to reach it."""

    name: str
    namespace: str
    identity: str
    services: dict[str, tuple[int, ...]]
    endpoints: tuple[Endpoint, ...]
    health: Health
    verified: datetime | None = None
    is_gateway: bool = False
    advice: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """A network's gateway: pods in the cluster, or machines (then `workload` is their workload)."""

    name: str
    kind: Literal["pods", "machines"]
    addresses: tuple[str, ...]
    health: Health
    version: str = ""
    workload: str = ""
    advice: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network in Istio's sense. `ranges` are those of the stack file."""

    name: str
    ranges: tuple[str, ...]
    gateway: Gateway | None = None


@dataclass(frozen=True, kw_only=True)
class ControlPlane:
    """istiod: its version, and how many of its pods are ready."""

    version: str
    ready: int
    pods: int
    health: Health
    advice: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call that the last verification proved. `path` is "direct", or "through" and a gateway's name; then `endpoint` is that gateway's."""

    caller: str
    caller_identity: str
    service: str
    endpoint: str
    identity: str
    path: str
    answers: int


@dataclass(frozen=True, kw_only=True)
class GatewayTraffic:
    """What a gateway that is a machine passed on while the last verification ran."""

    gateway: str
    service: str
    endpoint: str
    connections: int


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What `--verify` found: `error` is what failed, "" where everything answered."""

    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """All of it. `network` is the pods'; `read` is when this was read, `updated` when the stack was last updated.

    `verified`: when the workload was verified whose proof is the oldest.
    """

    id: str
    stack: str
    cluster: str
    network: str
    health: Health
    read: datetime
    updated: datetime | None
    control_plane: ControlPlane
    networks: tuple[Network, ...]
    workloads: tuple[Workload, ...]
    calls: tuple[Call, ...] = ()
    gateway_traffic: tuple[GatewayTraffic, ...] = ()
    verification: Verification | None = None
    verified: datetime | None = None
    advice: tuple[str, ...] = ()
