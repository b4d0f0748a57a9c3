"""The Services of a workload: their ports, endpoints and callers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from components import names
from components.existing_objects import endpoint_port

from . import resources
from .graph import Graph
from .mesh_model import Endpoints, Fact, NetworkPath, Path, Port, ServicePicture, WorkloadPicture
from .resources import UNKNOWN, items, mapping, number, value_at

OUTSIDE = "outside"
"""Among the callers of a Service: clients outside of the mesh, in plaintext."""


def services_of(
    graph: Graph,
    workload: WorkloadPicture,
    every: Sequence[WorkloadPicture],
    pods_network: str,
    paths: Sequence[NetworkPath],
) -> tuple[ServicePicture, ...]:
    """Return the Services of a workload, with the endpoints of all that they select."""
    pictures = []
    for each in graph.children.get(workload.name, ()):
        if each.type != resources.SERVICE:
            continue
        manifest = each.outputs if each.read else each.inputs
        metadata, spec = mapping(manifest.get("metadata")), mapping(manifest.get("spec"))
        selector = mapping(spec.get("selector"))
        if each.read:
            # A look at the cluster refuses one that does not select the machines.
            selector = selector or _group_labels(graph, workload)
        counts: dict[str, list[int]] = {}
        for other in every:
            if other.namespace != workload.namespace:
                continue
            if other.replicas and _selects(selector, _pod_labels(graph, other)):
                counts.setdefault(pods_network, [0, 0])[0] += other.replicas
            if _selects(selector, _group_labels(graph, other)):
                for machine in other.machines:
                    counts.setdefault(machine.network, [0, 0])[1] += machine.count
        endpoints = tuple(
            Endpoints(network=network, pods=pods, machines=machines)
            for network, (pods, machines) in sorted(counts.items())
        )
        prefix = names.service_resource_name(workload.name, "")
        pictures.append(
            ServicePicture(
                name=str(metadata.get("name") or each.name.removeprefix(prefix)),
                namespace=str(metadata.get("namespace", workload.namespace)),
                workload=workload.name,
                ports=tuple(_ports(items(spec.get("ports")), _group_ports(graph, workload))),
                endpoints=endpoints,
                callers=_callers(workload, endpoints, paths),
                existing=each.read,
                headless=spec.get("clusterIP") == "None",
                annotations=() if each.read else _stated(metadata),
            )
        )
    return tuple(sorted(pictures, key=lambda service: service.name))


def _ports(listed: Sequence[Mapping[str, Any]], of_machines: Mapping[str, int]) -> Iterator[Port]:
    """Yield the ports of a Service. of_machines: those of the machines by name."""
    for port in listed:
        target = port.get("targetPort") or port.get("port")
        yield Port(
            name=str(port.get("name") or ""),
            port=number(port.get("port")),
            target=number(endpoint_port(dict(port), of_machines))
            if isinstance(target, str) and target != UNKNOWN
            else number(target),
            protocol=str(port.get("appProtocol") or ""),
        )


def _stated(metadata: Mapping[str, Any]) -> tuple[Fact, ...]:
    """Return the annotations that a stack states: all but instructions to Pulumi."""
    annotations = sorted(mapping(metadata.get("annotations")).items())
    return tuple(
        Fact(key=key, value=str(value))
        for key, value in annotations
        if not key.startswith("pulumi.com/")
    )


def _group_ports(graph: Graph, workload: WorkloadPicture) -> Mapping[str, int]:
    group = graph.child(workload.name, names.WORKLOAD_GROUP)
    return mapping(value_at(group.inputs, "spec.template.ports")) if group else {}


def _selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return bool(selector) and selector.items() <= labels.items()


def _pod_labels(graph: Graph, workload: WorkloadPicture) -> Mapping[str, str]:
    deployment = graph.child(workload.name, names.PODS)
    return (
        mapping(value_at(deployment.inputs, "spec.template.metadata.labels")) if deployment else {}
    )


def _group_labels(graph: Graph, workload: WorkloadPicture) -> Mapping[str, str]:
    group = graph.child(workload.name, names.WORKLOAD_GROUP)
    return mapping(value_at(group.inputs, "spec.metadata.labels")) if group else {}


def _callers(
    workload: WorkloadPicture, endpoints: Sequence[Endpoints], paths: Sequence[NetworkPath]
) -> tuple[str, ...]:
    targets = {each.network for each in endpoints}
    networks = {
        path.source for path in paths if path.target in targets and path.path is not Path.NONE
    }
    return tuple(sorted({*networks, *(() if workload.strict else (OUTSIDE,))}))
