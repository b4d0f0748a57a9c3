"""Settings of workloads: identity, ports, probe, Services and pods."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from .capture import Capture, Firewall
from .record import MAP_KEY, ROLE, Items, Named, Record

_COUNT_OR_PERCENTAGE = re.compile(r"[1-9][0-9]{0,5}|([1-9][0-9]?|100)%")


def _count_or_percentage(value: Any) -> str:
    text = str(value)
    if (
        isinstance(value, int | str)
        and not isinstance(value, bool)
        and _COUNT_OR_PERCENTAGE.fullmatch(text)
    ):
        return text
    expected = "expected a number from 1, or a percentage from 1% to 100%"
    raise PydanticCustomError("count_or_percentage", expected)


CountOrPercentage = Annotated[
    str,
    BeforeValidator(_count_or_percentage),
    WithJsonSchema(
        {
            "type": ["integer", "string"],
            "minimum": 1,
            "pattern": f"^({_COUNT_OR_PERCENTAGE.pattern})$",
        }
    ),
]
"""A number of machines or a percentage of them, as text: "2", "25%"."""

_STATUS_RANGE = re.compile(r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?")


def _status_range(value: Any) -> str:
    text = str(value)
    matched = _STATUS_RANGE.fullmatch(text) if not isinstance(value, bool) else None
    if matched and int(matched[1]) <= int(matched[2] or matched[1]):
        return text
    expected = "expected an HTTP status from 100 to 599, or a range of them such as 200-299"
    raise PydanticCustomError("status_range", expected)


StatusRange = Annotated[
    str,
    BeforeValidator(_status_range),
    WithJsonSchema(
        {
            "type": ["integer", "string"],
            "minimum": 100,
            "maximum": 599,
            "pattern": f"^{_STATUS_RANGE.pattern}$",
        }
    ),
]
"""A status of HTTP or a range of them, as text: "404", "200-399"."""

VerificationMode = Literal["fail", "warn", "none"]
"""What a failed verification does to the update; with `none` there is no verification."""
HTTP_PROTOCOLS = frozenset({"http", "http2"})
"""Protocols of which a request has a path, and a response a status of HTTP."""
# The protocols that Istio distinguishes (istio/istio: pkg/config/kube/conversion.go,
# ConvertProtocol; pkg/config/protocol/instance.go, Parse), by what a call of each is.
_CALLED_AS = {
    "http": "http",
    "http_proxy": "http",
    "grpc-web": "http",
    "kubernetes.io/ws": "http",
    "http2": "http2",
    "kubernetes.io/h2c": "http2",
    "grpc": "grpc",
    "https": "tls",
    "tls": "tls",
    "kubernetes.io/wss": "tls",
}


def called_as(protocol: str) -> str:
    """Return how a port of a Service is called: `http`, `http2`, `grpc`, `tls` or `tcp`.

    protocol: its `appProtocol`, else its name, which begins with its protocol.

    What is no protocol to Istio is called by TCP.
    """
    protocol = protocol.lower()
    if protocol.startswith("grpc-web"):
        return _CALLED_AS["grpc-web"]
    return _CALLED_AS.get(protocol, _CALLED_AS.get(protocol.partition("-")[0], "tcp"))


class HttpProbe(Record):
    """Declare an HTTP GET probe. The application is healthy if it answers with 200 to 399."""

    port: int = Field(
        description="Port of the HTTP request (1 to 65535); one of the workload's `ports`."
    )
    path: str = Field(
        default="/",
        description="Path of the HTTP request, beginning with a slash. Default: the root path.",
    )
    scheme: Literal["HTTP", "HTTPS"] = Field(
        default="HTTP",
        description="`HTTPS` for an application that ends TLS itself; its certificate is not "
        "checked, and verification calls it by a TCP connection. Default: `HTTP`.",
    )
    headers: Mapping[str, str] = Field(
        default={},
        description="Headers of the HTTP request, by name. They are in the cluster and on machines "
        "as they stand here, so put no secret into them. Default: none but those of HTTP.",
    )


class TcpProbe(Record):
    """Declare a TCP probe. The application is healthy if the port accepts a connection."""

    port: int = Field(
        description="Port of the TCP connection (1 to 65535); one of the workload's `ports`."
    )


class Probe(Record):
    """Declare how the agent on a machine checks the application: exactly one of `http` and `tcp`.

    gRPC probes do not exist, because Istio's webhook refuses them (istio/istio#53085).
    """

    http: HttpProbe | None = Field(
        default=None, description="Probe by an HTTP request. Leave it out if `tcp` is given."
    )
    tcp: TcpProbe | None = Field(
        default=None, description="Probe by a TCP connection. Leave it out if `http` is given."
    )
    period: int = Field(
        default=2, description="Seconds from one probe to the next. Default: two seconds."
    )
    timeout: int = Field(
        default=1, description="Seconds until an unanswered probe fails. Default: one second."
    )
    failure_threshold: int = Field(
        default=3,
        description="Number of failures in a row that take the machine out of its Services. "
        "Default: three.",
    )

    @property
    def port(self) -> int:
        """The port that is probed; 0 if the probe has neither `http` nor `tcp`."""
        method = self.http or self.tcp
        return method.port if method else 0


class Service(Record):
    """Declare a Kubernetes Service over the pods and the machines of a workload."""

    name: str = Field(
        default="", alias=MAP_KEY, description="Name of the Service, as in `services`."
    )
    existing: bool = Field(
        default=False,
        description="Whether the Service is in the cluster already. If true it is used as it is, "
        "and neither changed nor deleted. A preview refuses one that is missing, or whose selector "
        "or ports do not fit the workload. Its namespace is in `cluster.namespaces`. Default: the "
        "program creates it.",
    )
    ports: Mapping[str, int] = Field(
        default={},
        description="Port of the Service (1 to 65535) by the name of the workload's port that it "
        "leads to. Required, unless the Service is `existing`; then its own ports are used.",
    )
    selector: Mapping[str, str] | None = Field(
        default=None,
        description="Labels that the Service selects, a subset of the workload's. Default: the "
        "label `app`, else `app.kubernetes.io/name`, else all labels of the workload. So versions "
        "of one application can share a Service.",
    )
    annotations: Mapping[str, str] = Field(
        default={},
        description="Annotations of the Service, such as `networking.istio.io/exportTo`. "
        "Default: the program's own alone.",
    )
    app_protocols: Mapping[str, str] = Field(
        default={},
        description="Protocol (`appProtocol`) by the name of a port of the Service, such as "
        "`grpc` or `kubernetes.io/h2c`. Default: Istio takes it from the port's name.",
    )
    headless: bool = Field(
        default=False,
        description="Whether the Service has no cluster IP. The cluster's DNS then gives clients "
        "its pods alone, so no verification calls machines by it. Default: it has a cluster IP.",
    )

    def called_as(self, port_name: str) -> str:
        """Return how clients call one of its ports (`called_as`)."""
        return called_as(self.app_protocols.get(port_name, port_name))

    def selected(self, labels: Mapping[str, str]) -> dict[str, str]:
        """Return the labels that the Service selects, for a workload with these `labels`."""
        if self.selector is not None:
            return dict(self.selector)
        name = next((key for key in ("app", "app.kubernetes.io/name") if key in labels), None)
        return {name: labels[name]} if name else dict(labels)


class Resources(Record):
    """Declare what the container of a pod requests of its node, and its limits."""

    requests: Mapping[str, str] = Field(
        default={"cpu": "50m", "memory": "64Mi"},
        description="Resources that the scheduler reserves, as Kubernetes quantities. "
        "Default: `{cpu: 50m, memory: 64Mi}`.",
    )
    limits: Mapping[str, str] = Field(
        default={"cpu": "1", "memory": "512Mi"},
        description="Most that the container may use of each resource, as Kubernetes quantities. "
        "Default: `{cpu: '1', memory: 512Mi}`.",
    )


class Pods(Record):
    """Declare a Deployment of the workload that this program creates."""

    image: str = Field(description="Container image of the application, as in a pod's manifest.")
    args: Items[str] = Field(
        default=(),
        description="Arguments of the container. Default: those of the image (its CMD).",
    )
    replicas: int = Field(default=1, description="Number of pods; 0 is allowed. Default: one pod.")
    labels: Mapping[str, str] = Field(
        default={},
        description="Labels of the pods alone, merged over the workload's. A DestinationRule can "
        "tell pods from machines by a `version`, for instance. Default: the workload's labels.",
    )
    resources: Resources = Field(
        default_factory=Resources,
        description="Requests and limits of the application's container, which quotas of a "
        "namespace may demand. Default: small ones.",
    )
    restricted: bool = Field(
        default=True,
        description="Whether the application's container has no privileges and is not root, as Pod "
        "Security's level `restricted` demands. Set it to false for an image that must be root. "
        "Default: true.",
    )
    run_as_user: int | None = Field(
        default=None,
        description="ID of the user that the application's container runs as, for an image whose "
        "user is root or has no number. It is not 1337, whose traffic bypasses the sidecar. "
        "Default: the image's user.",
    )


class ServiceAccount(Record):
    """Declare the Kubernetes service account of a workload, from which its identity follows."""

    name: str | None = Field(
        default=None,
        description="Name of the service account in the workload's namespace. "
        "Default: the workload's name.",
    )
    create: bool = Field(
        default=True,
        description="Whether the program creates the service account. If false it is in the "
        "cluster already, is used as it is, and is neither changed nor deleted. Its namespace is "
        "in `cluster.namespaces`. Default: it is created.",
    )


class WorkloadVerification(Record):
    """Declare how a workload is verified, where the defaults do not fit.

    What is called follows from the protocol of a port of its Services, not from the probe.
    """

    mode: VerificationMode | None = Field(
        default=None,
        description="`fail`: a failed verification fails the update. `warn`: it is a warning. "
        "`none`: the workload is not verified. Default: `verify.mode` of the stack.",
    )
    port: int | None = Field(
        default=None,
        description="Port that is called, one of the workload's `ports` that a Service with a "
        "cluster IP leads to. Default: the probe's port if a Service leads to it, else the first "
        "one of its Services.",
    )
    path: str | None = Field(
        default=None,
        description="Path of the HTTP request, beginning with a slash; for ports of HTTP. "
        "Default: that of the HTTP probe if it is on the same port, else the root path.",
    )
    expect_status: Items[StatusRange] = Field(
        default=(),
        description="Statuses that the response may have, such as `404` or `200-299`; for ports "
        "of HTTP. Default: 200 to 399.",
    )
    timeout: int = Field(
        default=3,
        description="Seconds until one call without a response has failed, at most 60. "
        "Default: three.",
    )


@dataclass(frozen=True)
class OfferedPort:
    """A port of a Service with a cluster IP.

    service: the Service's name. port: its number there. target: the endpoints' port.
    protocol: how it is called (`called_as`).
    """

    service: str
    port: int
    target: int
    protocol: str


class WorkloadSettings(Record):
    """Declare one application with one identity, on machines, in pods, or on both."""

    name: str = Field(alias=MAP_KEY, description="Name of the workload, as in `workloads`.")
    namespace: str = Field(
        description="Kubernetes namespace of the workload's objects. It is created unless an "
        "existing cluster lists it in `namespaces`."
    )
    labels: Mapping[str, str] = Field(
        description="Labels of the workload's pods and WorkloadEntries, for Services and policies "
        "to select. At least one; no two workloads of a namespace may select each other."
    )
    ports: Mapping[str, int] = Field(
        description="Ports on which the application listens (1 to 65535), by name. A name begins "
        "with its protocol as in Istio's protocol selection: `http`, `http-admin`, `tcp-db`. One "
        "that only Services which are `existing` lead to may have any name."
    )
    probe: Probe = Field(
        description="Health check of the application. A machine whose probe fails gets no requests."
    )
    services: Named[Service] = Field(
        description="Kubernetes Services of the workload, by name. May be an empty map, for an "
        "application that is not called by name."
    )
    fail_closed: bool = Field(
        default=False,
        description="Whether a machine drops new TCP connections from outside that are not "
        "redirected to the agent, also while the agent starts, stops or has crashed. Ports "
        "of SSH and of the agent stay open. It needs nftables 1.0 and Linux 5.12; a join refuses "
        "other machines. Default: connections reach the application without the agent then.",
    )
    firewall: Firewall = Field(
        default="report",
        description="What a join does where a firewall of the machine (nftables, iptables, ufw, "
        "firewalld) drops redirected connections to the workload. `report` prints the command that "
        "opens it. `manage` opens it for these connections alone, while the agent redirects. "
        "Default: `report`.",
    )
    capture: Capture = Field(
        default_factory=Capture,
        description="What of the traffic of the workload's machines bypasses the proxy. Default: "
        "SSH, the agent's own ports, and connections to link-local addresses.",
    )
    confirm_within: int = Field(
        default=60,
        description="Seconds in which a second SSH connection must reach a machine, once its "
        "traffic is redirected. Otherwise the machine takes the join back. From 20 to 600, or 0 "
        "for no second connection: for logins that need a person each time. Default: 60 seconds.",
    )
    service_account: ServiceAccount = Field(
        default_factory=ServiceAccount,
        description="Service account that the identity of pods and machines is derived from. "
        "Default: one with the workload's name.",
    )
    pods: Pods | None = Field(
        default=None,
        description="Deployment that this program creates for the workload. "
        "Without it the program creates no pods; other pods with the labels are still selected.",
    )
    image_pull_secrets: Items[str] = Field(
        default=(),
        description="Secrets of the workload's namespace with which nodes pull the images of its "
        "pods and of the Jobs that verify it. They exist; this program does not create them. "
        "Those of the mesh (`global.imagePullSecrets` of istiod's values) are added. "
        "Default: those of the workload's ServiceAccount.",
    )
    verify: WorkloadVerification = Field(
        default_factory=WorkloadVerification,
        description="Verification of this workload: its mode, and what is called. "
        "Default: the mode of the stack, and a call that follows from the port's protocol.",
    )
    locality: str | None = Field(
        default=None,
        description="Where machines of the workload are that state no `locality` and no zone, as "
        "`region/zone`. With a DestinationRule that has outlier detection, Istio prefers endpoints "
        "near the caller: without a locality, machines get no requests while a pod is healthy. "
        "Default: none.",
    )
    max_unavailable: CountOrPercentage = Field(
        default="25%",
        description="How many agents of the workload's machines an update stops at once: a number, "
        "or a percentage of its machines, rounded down, at least one. Machines that are out of the "
        "mesh count; network gateways restart one at a time. Default: 25 %.",
    )
    # Gateway machines run the agent as a router. `gateway_machines` alone sets this.
    role: Literal["sidecar", "router"] = Field(
        default="sidecar", alias=ROLE, description="Role of the proxy on the workload's machines."
    )

    @property
    def offered_ports(self) -> list[OfferedPort]:
        """What clients call: the ports of its Services that have a cluster IP.

        The cluster's DNS has no machines for headless Services.
        """
        return [
            OfferedPort(service.name, port, self.ports[name], service.called_as(name))
            for service in self.services.values()
            if not service.headless
            for name, port in service.ports.items()
            if name in self.ports
        ]

    @property
    def verified_port(self) -> OfferedPort | None:
        """What a verification calls; None if no Service leads to the workload, or to that port."""
        offered, stated = self.offered_ports, self.verify.port
        wanted = self.probe.port if stated is None else stated
        other = next(iter(offered), None) if stated is None else None
        return next((each for each in offered if each.target == wanted), other)

    @property
    def _probed(self) -> HttpProbe | None:
        """The HTTP probe, if it is on the port that a verification calls."""
        called, probed = self.verified_port, self.probe.http
        return probed if called and probed and probed.port == called.target else None

    @property
    def verified_path(self) -> str:
        """The path of a verification's HTTP request."""
        if self.verify.path is not None:
            return self.verify.path
        return self._probed.path if self._probed else "/"

    @property
    def verified_headers(self) -> Mapping[str, str]:
        """The headers of a verification's HTTP request: the probe's.

        Another host would lead to another Service.
        """
        headers = self._probed.headers if self._probed else {}
        return {name: value for name, value in headers.items() if name.lower() != "host"}

    @property
    def ends_tls(self) -> bool:
        """Whether the application ends TLS on the port that a verification calls.

        Envoy passes it on as it is, so a plain request would be none.
        """
        return self._probed is not None and self._probed.scheme == "HTTPS"

    @property
    def existing_services(self) -> list[str]:
        """The names of its Services that are in the cluster already."""
        return [name for name, service in self.services.items() if service.existing]

    @property
    def service_account_name(self) -> str:
        """The name of the workload's service account."""
        return self.service_account.name or self.name
