"""What lets traffic in, from resources. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from components import names
from components.platforms.google.names import rule_of_resource, workload_of_account

from . import resources
from .mesh_model import Opening, OpeningKind
from .resources import UNKNOWN, Resource, items, mapping, value_at

WORLD = ("0.0.0.0/0", "::/0")


def decode(listed: Iterable[Resource]) -> tuple[Opening, ...]:
    """Return what lets traffic in, sorted by kind and name."""
    openings = [opening for each in listed for opening in _openings(each)]
    return tuple(sorted(openings, key=lambda opening: (opening.kind, opening.name)))


def _openings(resource: Resource) -> Iterator[Opening]:
    inputs = resource.inputs
    match resource.type:
        case resources.FIREWALL if inputs.get("direction", "INGRESS") == "INGRESS":
            yield _firewall(resource)
        case resources.FORWARDING_RULE | "gcp:compute/globalForwardingRule:GlobalForwardingRule":
            internal = str(inputs.get("loadBalancingScheme", "EXTERNAL")).startswith("INTERNAL")
            yield Opening(
                kind=OpeningKind.LOAD_BALANCER,
                name=resource.name,
                ports=tuple(f"tcp:{port}" for port in items(inputs.get("ports"))),
                world=not internal,
                mode="internal" if internal else "",
            )
        case resources.INSTANCE | resources.TEMPLATE:
            if any(
                each.get("accessConfigs") is not None
                for each in items(inputs.get("networkInterfaces"))
            ):
                yield Opening(
                    kind=OpeningKind.PUBLIC_ADDRESS,
                    name=resource.parent or resource.name,
                    to=resource.name,
                    world=True,
                )
        case "gcp:compute/address:Address" | "gcp:compute/globalAddress:GlobalAddress":
            if inputs.get("addressType", "EXTERNAL") == "EXTERNAL":
                yield Opening(kind=OpeningKind.PUBLIC_ADDRESS, name=resource.name, world=True)
        case resources.CLUSTER:
            if not value_at(inputs, "privateClusterConfig.enablePrivateNodes"):
                yield Opening(
                    kind=OpeningKind.PUBLIC_ADDRESS, name=resource.name, to="nodes", world=True
                )
        case resources.RELEASE:
            yield from _service(resource, mapping(value_at(inputs, "values.service")), "istiod")
        case resources.SERVICE if not resource.read:
            yield from _service(
                resource,
                {**mapping(inputs.get("spec")), **mapping(inputs.get("metadata"))},
                resource.parent,
            )
        case resources.PEER_AUTHENTICATION:
            namespace = str(value_at(inputs, "metadata.namespace") or "")
            mode = str(value_at(inputs, "spec.mtls.mode") or "")
            yield Opening(
                kind=OpeningKind.MUTUAL_TLS, name=namespace, mode=mode, world=mode != "STRICT"
            )
        case resources.ISTIO_GATEWAY:
            yield _gateway(resource)


def _firewall(resource: Resource) -> Opening:
    inputs = resource.inputs
    sources = tuple(sorted(items(inputs.get("sourceRanges"))))
    limited = sources or inputs.get("sourceTags") or inputs.get("sourceServiceAccounts")
    return Opening(
        kind=OpeningKind.FIREWALL,
        name=rule_of_resource(resource.name),
        to=_target(inputs),
        sources=sources,
        ports=tuple(
            f"{allow.get('protocol', 'all')}{f':{port}' if port else ''}"
            for allow in items(inputs.get("allows"))
            for port in allow.get("ports") or ("",)
        ),
        world=not limited or any(source in WORLD for source in sources),
    )


def _target(inputs: Mapping[str, Any]) -> str:
    """Return the workload whose Google service account a rule targets, by the account's name."""
    accounts = [
        str(each).partition("@")[0]
        for each in items(inputs.get("targetServiceAccounts"))
        if each != UNKNOWN
    ]
    return ", ".join(map(workload_of_account, accounts))


def _service(resource: Resource, service: Mapping[str, Any], to: str) -> Iterator[Opening]:
    """Yield what a Service opens that is reached from outside of the cluster."""
    kind, sources = (
        service.get("type"),
        tuple(sorted(items(service.get("loadBalancerSourceRanges")))),
    )
    ports = tuple(
        f"{port.get('protocol', 'TCP').lower()}:{port.get('port')}"
        for port in items(service.get("ports"))
    )
    annotations: Mapping[str, str] = mapping(service.get("annotations"))
    if kind == "LoadBalancer":
        private = any("internal" in f"{key} {value}".lower() for key, value in annotations.items())
        world = any(source in WORLD for source in sources) or not (sources or private)
        yield Opening(
            kind=OpeningKind.LOAD_BALANCER,
            name=resource.name,
            to=to,
            sources=sources,
            ports=ports,
            world=world,
            mode="internal" if private else "",
        )
    elif kind == "NodePort" or service.get("externalIPs"):
        ports = tuple(
            f"{port.get('protocol', 'TCP').lower()}:{port.get('nodePort') or port.get('port')}"
            for port in items(service.get("ports"))
        )
        yield Opening(
            kind=OpeningKind.LOAD_BALANCER,
            name=resource.name,
            to=to,
            sources=("nodes",),
            ports=ports,
        )


def _gateway(resource: Resource) -> Opening:
    """Return what a gateway passes on. What reaches the gateway itself is of others."""
    servers: Sequence[Mapping[str, Any]] = items(value_at(resource.inputs, "spec.servers"))
    hosts = [str(host) for server in servers for host in items(server.get("hosts"))]
    ports = [f"tcp:{value_at(server, 'port.number')}" for server in servers]
    modes = sorted({str(value_at(server, "tls.mode") or "") for server in servers})
    name = str(value_at(resource.inputs, "metadata.name") or resource.name)
    selector = mapping(value_at(resource.inputs, "spec.selector"))
    by = next((str(value) for value in selector.values()), names.EASTWEST_GATEWAY)
    return Opening(
        kind=OpeningKind.GATEWAY,
        name=name,
        to=", ".join(hosts),
        sources=(by,),
        ports=tuple(ports),
        mode=", ".join(modes),
    )
