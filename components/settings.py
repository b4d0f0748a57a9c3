"""What a stack file may say: frozen dataclasses, and the checks that reach across them.

`load` turns the stack's configuration into `Settings` or raises `SettingsError` with **all** problems, before anything is created.
Plain data only: no Pulumi, no look-ups. The keys in a stack file are the fields' names in camelCase.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, ip_address, ip_network
from typing import Any, Literal

from components.decode import Problem, decode, key_of, suggestion

# Ports of the agent and of Envoy on every machine (istio.io: Application Requirements, "Ports used by Istio").
RESERVED_PORTS = frozenset({15000, 15001, 15004, 15006, 15008, 15020, 15021, 15053, 15090})


class SettingsError(Exception):
    """The stack file is wrong; the text lists every problem, one a line."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        many = f"{len(problems)} problems" if len(problems) > 1 else "1 problem"
        super().__init__(f"the stack file has {many}:\n" + "\n".join(f"  {problem}" for problem in problems))


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network in Istio's sense: everything in its ranges reaches everything else in them without a gateway."""

    ranges: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class KindCluster:
    """A Kubernetes cluster of one node, made by kind on a Docker engine of this machine.

    `image` is kind's node image. `load` lists images of the engine that are copied into the node, for machines that pull none.
    """

    platform: Literal["kind"]
    network: str
    image: str = "kindest/node:v1.35.4"
    pod_range: str = "10.244.0.0/16"
    service_range: str = "10.96.0.0/16"
    load: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Package:
    """Where machines get Istio's sidecar package.

    `{version}` in `url` stands for the mesh's version. Without `sha256` the digest is taken from `<url>.sha256`, where Istio publishes it.
    """

    url: str = "https://blob.istio.io/istio-release/releases/{version}/deb/istio-sidecar.deb"
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class ChartValues:
    """Values for Istio's charts, merged over the program's own."""

    base: Mapping[str, Any] = field(default_factory=dict)
    istiod: Mapping[str, Any] = field(default_factory=dict)
    gateway: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """The mesh and its control plane, installed by Istio's charts.

    `charts` is a Helm repository or a directory that holds `base`, `istiod` and `gateway`. `hub` is where images come from.
    """

    id: str
    version: str
    cluster_id: str = "Kubernetes"
    charts: str = "https://blob.istio.io/istio-release/charts"
    hub: str = "docker.io/istio"
    package: Package = Package()
    values: ChartValues = ChartValues()


@dataclass(frozen=True, kw_only=True)
class HttpProbe:
    """An HTTP GET that answers 200 to 399 while the application is well."""

    port: int
    path: str = "/"


@dataclass(frozen=True, kw_only=True)
class TcpProbe:
    """A TCP port that accepts connections while the application is well."""

    port: int


@dataclass(frozen=True, kw_only=True)
class Probe:
    """How a machine's agent asks the application whether it is well: exactly one of `http`, `tcp`. Times are in seconds.

    Istio's webhook refuses gRPC probes (istio/istio#53085), so there is none here.
    """

    http: HttpProbe | None = None
    tcp: TcpProbe | None = None
    period: int = 2
    timeout: int = 1
    failure_threshold: int = 3

    @property
    def port(self) -> int:
        """The port that is asked."""
        return (self.http or self.tcp or TcpProbe(port=0)).port


@dataclass(frozen=True, kw_only=True)
class Service:
    """A Kubernetes Service over the workload's pods and machines: name of a port of the workload → port of the Service."""

    ports: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Pods:
    """A Deployment of the workload that this program shall run; without it the pods, if any, are somebody else's."""

    image: str
    args: tuple[str, ...] = ()
    replicas: int = 1


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One application with one identity, on machines, in pods, or both.

    `labels` select it: Services of the workload select these labels. `ports` are the application's own, by name; a name starts with
    its protocol, as Istio reads it (`http`, `http-admin`, `tcp-db`).
    """

    namespace: str
    labels: Mapping[str, str]
    ports: Mapping[str, int]
    probe: Probe
    services: Mapping[str, Service]
    service_account: str | None = None
    pods: Pods | None = None


@dataclass(frozen=True, kw_only=True)
class DockerMachine:
    """A container with systemd and sshd on this machine's Docker engine, as a machine of the mesh."""

    platform: Literal["docker"]
    workload: str
    network: str
    image: str = "istio-vm-mesh/machine:bookworm"
    rotation: int = 0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A whole stack file. `verify` says what a failed verification does: fail the update, warn, or not run at all."""

    networks: Mapping[str, Network]
    cluster: KindCluster
    mesh: Mesh
    workloads: Mapping[str, Workload] = field(default_factory=dict)
    machines: Mapping[str, DockerMachine] = field(default_factory=dict)
    verify: Literal["fail", "warn", "none"] = "fail"

    def machines_of(self, workload: str) -> dict[str, DockerMachine]:
        """The machines that run `workload`, by name."""
        return {name: machine for name, machine in self.machines.items() if machine.workload == workload}


def load(raw: Mapping[str, Any]) -> Settings:
    """Decode and check a stack's configuration (keys without the project's name, values as plain data).

    Raises SettingsError with every problem that was found. Checks that reach across run only on what could be decoded.
    """
    problems: list[Problem] = []
    known = {key_of(name): name for name in Settings.__dataclass_fields__}
    problems.extend(Problem(key, "unknown key" + suggestion(key, known)) for key in raw if key not in known)
    settings = decode(Settings, {key: value for key, value in raw.items() if key in known}, "", problems)
    problems = [Problem(problem.path.removeprefix("."), problem.message) for problem in problems]
    if settings is not None:
        problems.extend(_check(settings))
    if problems:
        raise SettingsError(problems)
    return settings


_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")


def _check(settings: Settings) -> Iterator[Problem]:
    for kind in ("networks", "workloads", "machines"):
        for name in getattr(settings, kind):
            if not _NAME.fullmatch(name):
                yield Problem(f"{kind}.{name}", "is no DNS label: use up to 63 lower-case letters, digits and '-', a letter first")
    yield from _check_networks(settings)
    if not re.fullmatch(r"\d+\.\d+\.\d+", settings.mesh.version):
        yield Problem("mesh.version", f"expected a release of Istio such as 1.31.0; got {settings.mesh.version!r}")
    for name, workload in settings.workloads.items():
        yield from _check_workload(f"workloads.{name}", workload)
    for name, machine in settings.machines.items():
        path = f"machines.{name}"
        if machine.workload not in settings.workloads:
            yield Problem(
                f"{path}.workload", f"{machine.workload!r} is no workload of this stack" + suggestion(machine.workload, settings.workloads)
            )
        if machine.network not in settings.networks:
            yield Problem(
                f"{path}.network", f"{machine.network!r} is no network of this stack" + suggestion(machine.network, settings.networks)
            )


def machine_ranges(settings: Settings, network: str) -> tuple[str, ...]:
    """The ranges of a network in which machines live: all but those of the cluster's pods and Services."""
    of_cluster = {settings.cluster.pod_range, settings.cluster.service_range}
    return tuple(text for text in settings.networks[network].ranges if text not in of_cluster)


def _check_networks(settings: Settings) -> Iterator[Problem]:
    ranges: list[tuple[str, IPv4Network]] = []
    for name, network in settings.networks.items():
        for index, text in enumerate(network.ranges):
            path = f"networks.{name}.ranges[{index}]"
            try:
                parsed = ip_network(text)
            except ValueError as error:
                yield Problem(path, f"expected an address range such as 10.0.0.0/24; {error}")
                continue
            if not isinstance(parsed, IPv4Network):
                yield Problem(path, "IPv6 ranges are not supported")
                continue
            yield from (Problem(path, f"{text} overlaps {other} of {where}") for where, other in ranges if other.overlaps(parsed))
            ranges.append((path, parsed))
    inhabited = {settings.cluster.network, *(machine.network for machine in settings.machines.values())}
    for name in sorted(inhabited & set(settings.networks)):
        if not machine_ranges(settings, name):
            yield Problem(
                f"networks.{name}.ranges", "no range is left for nodes and machines besides the cluster's pods and Services: add one"
            )
    cluster = settings.cluster
    if cluster.network not in settings.networks:
        yield Problem(
            "cluster.network", f"{cluster.network!r} is no network of this stack" + suggestion(cluster.network, settings.networks)
        )
    elif cluster.pod_range not in settings.networks[cluster.network].ranges:
        yield Problem(f"networks.{cluster.network}.ranges", f"the cluster's pods are in this network: add their range {cluster.pod_range}")


def _check_workload(path: str, workload: Workload) -> Iterator[Problem]:
    if not workload.labels:
        yield Problem(f"{path}.labels", "a Service selects its workload by labels: give at least one, such as app")
    for key, value in workload.labels.items():
        if len(value) > 63 or not _LABEL.fullmatch(value):
            yield Problem(f"{path}.labels.{key}", f"{value!r} is no label value: up to 63 letters, digits, '-', '_' and '.'")
    if workload.service_account == "":
        # istio/istio#39603: pods would call machines without a service account in plaintext.
        yield Problem(
            f"{path}.serviceAccount", "must not be empty: the machines would have no identity (leave the key out for the workload's name)"
        )
    for name, port in workload.ports.items():
        if not 0 < port < 65536:
            yield Problem(f"{path}.ports.{name}", f"{port} is no port: expected 1 to 65535")
        elif port in RESERVED_PORTS:
            yield Problem(f"{path}.ports.{name}", f"port {port} is Istio's own on every machine: choose another")
        elif port == 22:
            yield Problem(f"{path}.ports.{name}", "port 22 is never captured by the proxy (SSH): choose another")
    if (workload.probe.http is None) == (workload.probe.tcp is None):
        yield Problem(f"{path}.probe", "give exactly one of http and tcp")
    elif workload.probe.port not in workload.ports.values():
        yield Problem(
            f"{path}.probe", f"port {workload.probe.port} is none of the workload's ports ({', '.join(map(str, workload.ports.values()))})"
        )
    for service_name, service in workload.services.items():
        for port_name in service.ports:
            if port_name not in workload.ports:
                where = f"{path}.services.{service_name}.ports.{port_name}"
                yield Problem(where, "is no port of the workload" + suggestion(port_name, workload.ports))
    if workload.pods and workload.pods.replicas < 0:
        yield Problem(f"{path}.pods.replicas", "must not be negative")


def within(address: str, ranges: tuple[str, ...]) -> bool:
    """Whether an address lies in one of the ranges."""
    return any(ip_address(address) in ip_network(text) for text in ranges)
