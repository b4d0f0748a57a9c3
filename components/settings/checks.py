"""Checks that reach across a stack file. They run on what could be decoded and report every problem."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from ipaddress import IPv4Network, ip_address, ip_network

from components.decode import Problem, suggestion
from components.settings import existing, google, kind
from components.settings.existing import ExistingCluster
from components.settings.mesh import Workload
from components.settings.stack import Settings

# Ports of the agent and of Envoy on every machine (istio.io: Application Requirements, "Ports used by Istio").
RESERVED_PORTS = frozenset({15000, 15001, 15004, 15006, 15008, 15020, 15021, 15053, 15090})

_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")


def check(settings: Settings, secrets: Collection[str]) -> Iterator[Problem]:
    """Every problem of a stack file. `secrets` are the names of the secrets that the stack's configuration has."""
    for section in ("networks", "workloads", "machines"):
        for name in getattr(settings, section):
            if not _NAME.fullmatch(name):
                yield Problem(f"{section}.{name}", "is no DNS label: use up to 63 lower-case letters, digits and '-', a letter first")
    yield from _check_networks(settings)
    for name, network in settings.networks.items():
        if network.gateway and name == settings.cluster.network:
            yield Problem(f"networks.{name}.gateway", "the cluster's own network has the east-west gateway in the cluster: leave this out")
        elif network.gateway and network.gateway.machines < 1:
            yield Problem(f"networks.{name}.gateway.machines", "must be at least 1")
        elif network.gateway and not any(machine.network == name for machine in settings.singles.values()):
            yield Problem(
                f"networks.{name}.gateway", "there is no single machine in this network: leave the gateway out until there is one"
            )
    yield from kind.check(settings)
    yield from existing.check(settings, secrets)
    yield from google.check(settings, secrets)
    yield from _check_mesh(settings)
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


def _check_mesh(settings: Settings) -> Iterator[Problem]:
    mesh, cluster = settings.mesh, settings.cluster
    if not mesh.adopt and not mesh.id:
        yield Problem("mesh.id", "is missing")
    if mesh.adopt:
        if mesh.id:
            yield Problem("mesh.id", "is read from the mesh that is adopted: leave it out")
        if not isinstance(cluster, ExistingCluster):
            yield Problem(
                "mesh.adopt", f"a cluster that is made here ({cluster.platform}) has no mesh yet: adopt one of an existing cluster"
            )
        for chart in ("base", "istiod"):
            if getattr(mesh.values, chart):
                yield Problem(f"mesh.values.{chart}", "an adopted mesh is not edited: leave these values out")


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
        for key, value in (service.selector or {}).items():
            if workload.labels.get(key) != value:
                has = f"is {workload.labels[key]!r}" if key in workload.labels else "is none of its labels"
                yield Problem(f"{path}.services.{service_name}.selector.{key}", f"selects nothing: the workload's {key!r} {has}")
        for port_name in service.ports:
            if port_name not in workload.ports:
                where = f"{path}.services.{service_name}.ports.{port_name}"
                yield Problem(where, "is no port of the workload" + suggestion(port_name, workload.ports))
    if workload.pods and workload.pods.replicas < 0:
        yield Problem(f"{path}.pods.replicas", "must not be negative")


def within(address: str, ranges: tuple[str, ...]) -> bool:
    """Whether an address lies in one of the ranges."""
    return any(ip_address(address) in ip_network(text) for text in ranges)
