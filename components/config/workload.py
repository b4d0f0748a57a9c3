"""Settings of workloads: identity, ports, probe, Services and pods."""

from __future__ import annotations

import re
from collections.abc import Mapping
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
        description="Whether a machine drops new TCP connections from outside to ports that "
        "nothing redirects to the agent, also while the agent starts, stops or has crashed. Ports "
        "of SSH and of the agent stay open. It needs nftables 1.0 and Linux 5.12; a join refuses "
        "other machines. Default: connections reach the application without the agent then.",
    )
    firewall: Firewall = Field(
        default="report",
        description="What a join does where a firewall of the machine (nftables, iptables, ufw, "
        "firewalld) drops redirected connections to the workload: `report` says so, with the "
        "command that opens it; `manage` opens it for these alone, while the agent redirects. "
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
        "Default: those of the mesh (`global.imagePullSecrets` of istiod's values).",
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
    def existing_services(self) -> list[str]:
        """The names of its Services that are in the cluster already."""
        return [name for name, service in self.services.items() if service.existing]

    @property
    def service_account_name(self) -> str:
        """The name of the workload's service account."""
        return self.service_account.name or self.name
