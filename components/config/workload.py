"""Settings of workloads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


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
    """A Kubernetes Service over the workload's pods and machines: name of a port of the workload → port of the Service.

    It selects the workload's label `app` or `app.kubernetes.io/name`, else all of its labels, unless `selector` says otherwise. So other labels may
    come and go, and versions of one application can share a Service.
    """

    ports: Mapping[str, int]
    selector: Mapping[str, str] | None = None

    def selected(self, labels: Mapping[str, str]) -> dict[str, str]:
        """What it selects of a workload with these labels."""
        if self.selector is not None:
            return dict(self.selector)
        name = next((key for key in ("app", "app.kubernetes.io/name") if key in labels), None)
        return {name: labels[name]} if name else dict(labels)


@dataclass(frozen=True, kw_only=True)
class Pods:
    """A Deployment of the workload that this program shall run; without it the pods, if any, are somebody else's.

    `labels` are on the pods alone, over the workload's: a `version`, for instance, by which a DestinationRule tells pods from machines.
    """

    image: str
    args: tuple[str, ...] = ()
    replicas: int = 1
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class WorkloadSettings:
    """One application with one identity, on machines, in pods, or both.

    `labels` are on its pods and entries, for Services and policies to select. `ports` are the application's own, by name; a name starts with
    its protocol, as Istio reads it (`http`, `http-admin`, `tcp-db`).
    """

    namespace: str
    labels: Mapping[str, str]
    ports: Mapping[str, int]
    probe: Probe
    services: Mapping[str, Service]
    service_account: str | None = None
    pods: Pods | None = None
    # What the proxy on its machines is. No stack file says so: the plan makes routers of networks' gateways.
    role: Literal["sidecar", "router"] = field(default="sidecar", metadata={"internal": True})
