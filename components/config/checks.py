"""Checks that reach across a stack file. They run on what could be decoded and report every problem."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from ipaddress import IPv4Network, ip_network

from . import docker, existing, google, workload_checks
from .docker import KindCluster
from .existing import ExistingCluster
from .problems import Problem, suggestion
from .stack import Cluster, Settings

_LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")


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
    yield from docker.check(settings)
    yield from existing.check(settings, secrets)
    yield from google.check(settings, secrets)
    yield from _check_mesh(settings)
    yield from workload_checks.check(settings)
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
    if mesh.id and not _LABEL.fullmatch(mesh.id):
        yield Problem("mesh.id", f"{mesh.id!r} is no label value: up to 63 letters, digits, '-', '_' and '.'")
    if not re.fullmatch(r"https?://\S+", mesh.package.url):
        yield Problem("mesh.package.url", f"expected an address that begins with https:// or http://; got {mesh.package.url!r}")
    for word in re.findall(r"{(.*?)}", mesh.package.url):
        if word not in ("version", "package"):
            yield Problem("mesh.package.url", f"{{{word}}} stands for nothing here{suggestion(word, ('version', 'package'))}")
    if mesh.package.sha256 is not None:
        if not re.fullmatch(r"[0-9a-f]{64}", mesh.package.sha256):
            yield Problem("mesh.package.sha256", "expected 64 hexadecimal digits, as sha256sum prints them")
        elif "{package}" in mesh.package.url:
            yield Problem("mesh.package.sha256", "cannot fit every package that {package} in the URL stands for: name one package there")
    env = mesh.values.istiod.get("env") or {}
    if mesh.values.istiod.get("profile") == "ambient" or str(env.get("PILOT_ENABLE_AMBIENT", "")).lower() == "true":
        yield Problem(
            "mesh.values.istiod", "machines are sidecars, which a mesh in ambient mode reaches in ways of its own: leave ambient mode out"
        )
    yield from _check_versions(mesh.version, cluster)


# Which Kubernetes minors a minor of Istio supports (istio.io: Supported Releases, "Support status of Istio releases").
_KUBERNETES = {(1, 29): range(31, 36), (1, 30): range(32, 37), (1, 31): range(32, 37)}


def _check_versions(version: str, cluster: Cluster) -> Iterator[Problem]:
    istio = re.fullmatch(r"(\d+)\.(\d+)\.\d+", version)
    if istio is None:
        yield Problem("mesh.version", f"expected a release of Istio such as 1.31.0; got {version!r}")
        return
    supported = _KUBERNETES.get((int(istio[1]), int(istio[2])))
    image = re.search(r":v1\.(\d+)\.", cluster.image) if isinstance(cluster, KindCluster) else None
    if supported and image and int(image[1]) not in supported:
        between = f"1.{supported[0]} to 1.{supported[-1]}"
        yield Problem("cluster.image", f"is Kubernetes 1.{image[1]}; Istio {istio[1]}.{istio[2]} supports {between}")


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
            if parsed.is_loopback or parsed.is_link_local or parsed.is_multicast or parsed.prefixlen == 0:
                yield Problem(path, f"{text} is no range that machines can have")
                continue
            yield from (Problem(path, f"{text} overlaps {other} of {where}") for where, other in ranges if other.overlaps(parsed))
            ranges.append((path, parsed))
        if not network.ranges:
            yield Problem(f"networks.{name}.ranges", "must not be empty: say which addresses are in the network")
    cluster = settings.cluster
    if cluster.network not in settings.networks:
        yield Problem(
            "cluster.network", f"{cluster.network!r} is no network of this stack" + suggestion(cluster.network, settings.networks)
        )
    elif cluster.pod_range not in settings.networks[cluster.network].ranges:
        yield Problem(f"networks.{cluster.network}.ranges", f"the cluster's pods are in this network: add their range {cluster.pod_range}")
