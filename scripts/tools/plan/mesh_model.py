"""The records of a mesh as one side of a plan has it: pure data, as those of model.py."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Host(enum.StrEnum):
    """What a machine is.

    CONTAINER: on a Docker engine. INSTANCE: on Compute Engine. GROUP: a managed instance group,
    which is one machine in the settings and several endpoints. SSH: a machine that exists.
    """

    CONTAINER = "container"
    INSTANCE = "instance"
    GROUP = "group"
    SSH = "ssh"


class Path(enum.StrEnum):
    """How requests go from one network to another.

    DIRECT: to the endpoint's own address. GATEWAY: through a gateway of its network. NONE: not.
    """

    DIRECT = "direct"
    GATEWAY = "gateway"
    NONE = "none"


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A part of what a machine is joined with, as text that can be compared.

    key: its name, as in facts.py. value: short text, or a digest of a long one.
    """

    key: str
    value: str


@dataclass(frozen=True, kw_only=True)
class MachinePicture:
    """A machine of a workload.

    network: its network. address: by which pods reach it; "" where a preview does not know it.
    host: what it is. identity: changes where it is another machine; "" where not known.
    server: a digest of the hosts and ports by which SSH reaches a machine that exists.
    count: its endpoints: 1, or the lowest number of a group's machines.
    restart: all that its agent is restarted for, by key. A change of one of these restarts it.
    register: what istiod copies at registration; a change of one makes it register again.
    changes: what has its join run again without a restart.
    digest: of all that its agent is restarted for, as the join compares it; "" where not known.
    stays: whether it exists afterwards. forgotten: whether nothing connects to it any more.
    undrained_with: the resource with whose deletion it leaves without a drain; "" for none.
    """

    name: str
    network: str
    address: str = ""
    host: Host = Host.SSH
    identity: str = ""
    server: str = ""
    count: int = 1
    restart: tuple[Fact, ...] = ()
    register: tuple[Fact, ...] = ()
    changes: tuple[Fact, ...] = ()
    digest: str = ""
    stays: bool = False
    forgotten: bool = False
    undrained_with: str = ""


@dataclass(frozen=True, kw_only=True)
class Port:
    """A port of a Service. name: with its protocol. port: its own. target: of the endpoints.

    protocol: where it is not that of the name (`appProtocol`); else "".
    """

    name: str
    port: int
    target: int
    protocol: str = ""


@dataclass(frozen=True, kw_only=True)
class Endpoints:
    """How many endpoints are in a network. pods: in pods. machines: on machines."""

    network: str
    pods: int = 0
    machines: int = 0


@dataclass(frozen=True, kw_only=True)
class ServicePicture:
    """A Service of a workload.

    endpoints: by network; of every workload of the namespace that it selects.
    callers: the networks whose clients reach it, and "outside" where clients outside of the mesh
        do, in plaintext.
    existing: whether it is of others: used as it is. Its ports are those that a state has.
    headless: whether it has no cluster IP. annotations: those that the stack states.
    """

    name: str
    namespace: str
    workload: str
    ports: tuple[Port, ...] = ()
    endpoints: tuple[Endpoints, ...] = ()
    callers: tuple[str, ...] = ()
    existing: bool = False
    headless: bool = False
    annotations: tuple[Fact, ...] = ()


@dataclass(frozen=True, kw_only=True)
class WorkloadPicture:
    """A workload.

    identity: its SPIFFE ID. replicas: of its pods; None: the program runs none.
    pods: a digest of what its pods are created from; a change replaces them one after another.
    role: "sidecar", or "router" of a network's gateway.
    max_unavailable: as the setting states it: "25%", "2".
    at_once: agents that may be stopped at once.
    strict: whether it refuses plaintext by what this program declares.
    """

    name: str
    namespace: str
    identity: str
    role: str = "sidecar"
    replicas: int | None = None
    pods: str = ""
    max_unavailable: str = ""
    at_once: int = 1
    strict: bool = True
    machines: tuple[MachinePicture, ...] = ()
    services: tuple[ServicePicture, ...] = ()


@dataclass(frozen=True, kw_only=True)
class NetworkPicture:
    """A network in Istio's sense.

    pods: whether the cluster's pods are in it. gateways: its gateway machines. open: whether
    clients of other networks reach its endpoints: by gateway machines or the east-west gateway.
    """

    name: str
    pods: bool = False
    gateways: int = 0
    open: bool = False


@dataclass(frozen=True, kw_only=True)
class NetworkPath:
    """How requests go from clients in the network `source` to endpoints in the network `target`."""

    source: str
    target: str
    path: Path


class OpeningKind(enum.StrEnum):
    """What lets traffic in."""

    FIREWALL = "firewall"
    LOAD_BALANCER = "load-balancer"
    PUBLIC_ADDRESS = "public-address"
    MUTUAL_TLS = "mutual-tls"
    GATEWAY = "gateway"


@dataclass(frozen=True, kw_only=True)
class Opening:
    """Something that lets traffic in.

    name: of the rule, load balancer or namespace. to: what it leads to: a workload, nodes, …
    sources: CIDRs, or networks; empty: not limited by the rule itself. ports: "tcp:22", …
    world: whether it admits clients from all addresses.
    mode: of mutual TLS: "STRICT", "PERMISSIVE"; of a load balancer: "internal" where it is one.
    """

    kind: OpeningKind
    name: str
    to: str = ""
    sources: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    world: bool = False
    mode: str = ""


@dataclass(frozen=True, kw_only=True)
class Versions:
    """Istio's versions. control_plane: "" where the mesh is adopted and nothing reads it.

    machines: of the machines' proxies. pods: of the proxies of new pods.
    kubernetes: the cluster's minor version of Kubernetes; "" where nothing reads it.
    """

    control_plane: str = ""
    machines: str = ""
    pods: str = ""
    kubernetes: str = ""


@dataclass(frozen=True, kw_only=True)
class CostPart:
    """A part of the monthly cost.

    item: its name in docs/costs.yaml. count, usd: as the stack starts, US dollars a month.
    most: the same once autoscalers have added all nodes and machines that the stack permits.
    """

    item: str
    count: float
    usd: float
    most: float


@dataclass(frozen=True, kw_only=True)
class MeshPicture:
    """A mesh as one side of a plan has it.

    stack: its name.
    protected: whether the cluster refuses deletion; None where the platform has no such thing.
    verified: the workloads that an update verifies. warned: those whose failure is a warning.
    cost: parts of the monthly cost; empty where nothing is paid to a cloud.
    """

    stack: str
    protected: bool | None = None
    networks: tuple[NetworkPicture, ...] = ()
    workloads: tuple[WorkloadPicture, ...] = ()
    paths: tuple[NetworkPath, ...] = ()
    openings: tuple[Opening, ...] = ()
    versions: Versions = Versions()
    verified: tuple[str, ...] = ()
    warned: tuple[str, ...] = ()
    cost: tuple[CostPart, ...] = ()
