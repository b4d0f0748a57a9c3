"""Settings of networks and of the mesh."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class NetworkGateway:
    """Machines that carry calls from other networks to the machines of this one; this program makes them beside those machines.

    On Compute Engine they are spread over `zones`, in turn; without, all are in the zone of the network's first machine.
    """

    machines: int = 1
    zones: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network in Istio's sense: everything in its ranges reaches everything else in them without a gateway.

    In another network than the cluster's, machines without a `gateway` call pods, and nothing outside of the network calls them.
    """

    ranges: tuple[str, ...]
    gateway: NetworkGateway | None = None


@dataclass(frozen=True, kw_only=True)
class Package:
    """Where machines get Istio's sidecar package.

    In `url`, `{version}` stands for the mesh's version and `{package}` for what fits the machine: `deb/istio-sidecar.deb` or
    `rpm/istio-sidecar.rpm`, with `-arm64` before the dot on such machines. Without `sha256` the digest is taken from `<url>.sha256`,
    where Istio publishes it.
    """

    url: str = "https://blob.istio.io/istio-release/releases/{version}/{package}"
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class ChartValues:
    """Values for Istio's charts, merged over the program's own."""

    base: Mapping[str, Any] = field(default_factory=dict)
    istiod: Mapping[str, Any] = field(default_factory=dict)
    gateway: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MeshSettings:
    """The mesh and its control plane, installed by Istio's charts.

    `charts` is a Helm repository or a directory that holds `base`, `istiod` and `gateway`. `hub` is where images come from. `gateway_api`
    (a file, a directory or a URL) has the Gateway API's CRDs, for clusters without them; they are needed where machines are in networks of their own.
    `version` is that of the control plane that is installed, and of the machines' proxies.

    With `adopt: true` the mesh exists in the cluster: nothing of its configuration is edited, and `id`, `clusterId` and the proxies' default
    configuration are read there.
    """

    id: str = ""
    adopt: bool = False
    version: str
    cluster_id: str = "Kubernetes"
    charts: str = "https://blob.istio.io/istio-release/charts"
    hub: str = "docker.io/istio"
    gateway_api: str = "https://github.com/kubernetes-sigs/gateway-api/releases/download/v1.6.0/standard-install.yaml"
    package: Package = Package()
    values: ChartValues = ChartValues()
