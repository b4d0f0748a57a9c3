"""The mesh that a list of resources makes. Pure: all levels decode their resources here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from components import mesh_facts, names
from components.machines.scripts.slot_decision import limit_of
from components.versions import numbers, version_in

from . import cost, facts, openings, resources
from .graph import Graph
from .mesh_model import (
    Fact,
    Host,
    MachinePicture,
    MeshPicture,
    NetworkPath,
    NetworkPicture,
    Path,
    Versions,
    WorkloadPicture,
)
from .resources import UNKNOWN, Resource, digest, mapping, number, value_at
from .service_picture import services_of

Owner = tuple[str, str]
"""Namespace and name of a workload."""


def decode(
    stack: str,
    listed: Iterable[Resource],
    machine_files: Mapping[str, Mapping[str, str]] | None = None,
    declared: Mapping[str, Owner] | None = None,
) -> MeshPicture:
    """Return the mesh of a stack.

    stack: its name. listed: its resources.
    machine_files: digests of what machines get from the program, by role and path. None: only
        digests of all of it are compared, as joins return them.
    declared: the workloads of instance groups, for those whose resources do not say it yet.
    """
    graph = Graph.of(listed)
    files = {role: facts.files_fact(paths) for role, paths in (machine_files or {}).items()}
    workloads = _workloads(graph, files, declared or {})
    verifications = {
        each.name: command
        for each in workloads
        if (command := graph.child(each.name, names.VERIFICATION))
    }
    cluster = next(iter(graph.of_type(resources.CLUSTER)), None)
    mesh = MeshPicture(
        stack=stack,
        protected=bool(cluster.inputs.get("deletionProtection", True)) if cluster else None,
        workloads=workloads,
        openings=openings.decode(graph.resources),
        versions=_versions(graph, workloads),
        verified=tuple(verifications),
        warned=tuple(
            name for name, each in verifications.items() if resources.payload(each).get("warn_only")
        ),
        cost=cost.parts(graph.resources),
    )
    return with_services(mesh, graph)


def with_services(mesh: MeshPicture, graph: Graph) -> MeshPicture:
    """Return a mesh with its networks, paths and Services, which follow from where machines are."""
    pods_network = _pods_network(graph)
    inhabited = {
        machine.network for each in mesh.workloads for machine in each.machines if machine.network
    }
    networks = _networks(graph, pods_network, inhabited)
    paths = _paths(networks)
    workloads = tuple(
        replace(each, services=services_of(graph, each, mesh.workloads, pods_network, paths))
        for each in mesh.workloads
    )
    return replace(mesh, networks=networks, paths=paths, workloads=workloads)


def facts_of_mesh(graph: Graph) -> Mapping[str, Any]:
    """Return what the mesh is, by the keys of `MeshFacts`; empty where it is not known.

    Another version of the program may have written it, so it may have other keys.
    """
    for each in graph.of_type(resources.MESH_READING):
        text = _text(each.inputs.get("facts")) or _text(each.outputs.get("facts"))
        return mapping(json.loads(text)) if text else {}
    for each in graph.of_type(resources.RELEASE):
        if each.name == names.ISTIOD_DEPLOYMENT:
            values = dict(mapping(each.inputs.get("values")))
            return asdict(mesh_facts.from_values(values, str(each.inputs.get("namespace", ""))))
    return {}


def _text(value: object) -> str:
    return value if isinstance(value, str) and value != UNKNOWN else ""


def _pods_network(graph: Graph) -> str:
    """Return the network of the cluster's pods.

    It is called as the stack calls it: in a mesh of others it may have no name.
    """
    for each in graph.of_type(resources.MESH_READING):
        return str(json.loads(each.inputs["wanted"])["network"])
    for each in graph.of_type(resources.NAMESPACE):
        labels = mapping(value_at(each.inputs, "metadata.labels"))
        if names.NETWORK_LABEL in labels:
            return str(labels[names.NETWORK_LABEL])
    return ""


def _networks(graph: Graph, pods_network: str, inhabited: set[str]) -> tuple[NetworkPicture, ...]:
    gateways: dict[str, int] = {}
    for each in graph.of_type(resources.NETWORK_GATEWAY):
        network = value_at(each.inputs, "metadata.labels")
        name = network.get(names.NETWORK_LABEL, "")
        closed = value_at(each.inputs, "metadata.name") == names.blackhole_gateway_name(name)
        machines = len(graph_machines(graph, names.gateway_workload_name(name)))
        machines += _group_size(graph, names.gateway_group_name(name))
        gateways[name] = 0 if closed else max(1, machines)
    every = {*gateways, *inhabited, *([pods_network] if pods_network else [])}
    return tuple(
        NetworkPicture(
            name=name,
            pods=name == pods_network,
            gateways=gateways.get(name, 0),
            open=name == pods_network or gateways.get(name, 0) > 0,
        )
        for name in sorted(every)
    )


def graph_machines(graph: Graph, workload: str) -> list[str]:
    """Return the names of the single machines of a workload."""
    of_workload = []
    for each in graph.of_type(resources.MACHINE):
        registration = graph.child(each.name, names.REGISTRATION)
        if registration and registration.inputs.get("workload") == workload:
            of_workload.append(each.name)
    return of_workload


def _paths(networks: Sequence[NetworkPicture]) -> tuple[NetworkPath, ...]:
    """Return how requests go between networks.

    Pods of another network are behind the east-west gateway, machines behind their network's.
    """
    paths = []
    for source in networks:
        for target in networks:
            path = (
                Path.DIRECT
                if source.name == target.name
                else Path.GATEWAY
                if target.open
                else Path.NONE
            )
            paths.append(NetworkPath(source=source.name, target=target.name, path=path))
    return tuple(paths)


def _workloads(
    graph: Graph, files: Mapping[str, str], declared: Mapping[str, Owner]
) -> tuple[WorkloadPicture, ...]:
    of_mesh = facts_of_mesh(graph)
    istio_namespace = of_mesh.get("namespace") or names.ISTIO_NAMESPACE
    trust_domain = str(of_mesh.get("trust_domain") or names.DEFAULT_DOMAIN)
    single = [_machine(graph, each, files) for each in graph.of_type(resources.MACHINE)]
    grouped = [_group(graph, each, declared) for each in graph.of_type(resources.GROUP)]
    pictures = []
    for each in graph.of_type(resources.WORKLOAD):
        group = graph.child(each.name, names.WORKLOAD_GROUP)
        if group is None:
            continue
        metadata, spec = mapping(group.inputs.get("metadata")), mapping(group.inputs.get("spec"))
        name, namespace = str(metadata.get("name", each.name)), str(metadata.get("namespace", ""))
        account = str(value_at(spec, "template.serviceAccount") or name)
        mine = [machine for owner, machine in [*single, *grouped] if owner == (namespace, name)]
        annotations = _annotations(graph.child(each.name, names.SLOTS))
        limit = str(annotations.get(names.MAX_UNAVAILABLE_ANNOTATION, ""))
        in_slots = list(
            filter(None, str(annotations.get(names.MACHINES_ANNOTATION, "")).split(","))
        )
        is_gateway = namespace == istio_namespace and name.endswith(names.gateway_workload_name(""))
        deployment = graph.child(each.name, names.PODS)
        pod_spec = mapping(deployment.inputs.get("spec")) if deployment else {}
        pictures.append(
            WorkloadPicture(
                name=name,
                namespace=namespace,
                identity=names.spiffe_id(trust_domain, namespace, account),
                role="router" if is_gateway else "sidecar",
                replicas=number(pod_spec.get("replicas", 1)) if deployment else None,
                pods=digest(pod_spec.get("template")) if deployment else "",
                max_unavailable=limit,
                at_once=limit_of(limit, len(in_slots)) if limit else 1,
                strict=_is_strict(graph, namespace, str(of_mesh.get("root_namespace", ""))),
                machines=tuple(sorted(mine, key=lambda machine: machine.name)),
            )
        )
    return tuple(sorted(pictures, key=lambda each: (each.namespace, each.name)))


def _annotations(resource: Resource | None) -> Mapping[str, object]:
    metadata = mapping(resource.inputs.get("metadata")) if resource else {}
    annotations: Mapping[str, object] = mapping(metadata.get("annotations"))
    return annotations


def _is_strict(graph: Graph, namespace: str, root_namespace: str) -> bool:
    modes = {
        str(value_at(each.inputs, "metadata.namespace")): value_at(each.inputs, "spec.mtls.mode")
        for each in graph.of_type(resources.PEER_AUTHENTICATION)
        if not value_at(each.inputs, "spec.selector")
    }
    return modes.get(namespace, modes.get(root_namespace)) == "STRICT"


def host_of(graph: Graph, machine: str) -> Resource | None:
    """Return the resource that is the machine itself; None where it exists without this program."""
    for each in graph.children.get(machine, ()):
        container = resources.runs(each, "platforms/docker/scripts/create_machine.py")
        if each.type == resources.INSTANCE or (each.type == resources.COMMAND and container):
            return each
    return None


def _machine(
    graph: Graph, component: Resource, files: Mapping[str, str]
) -> tuple[Owner, MachinePicture]:
    name = component.name
    parts = {
        part: graph.child(name, part) for part in (names.REGISTRATION, names.JOIN, names.DRAIN)
    }
    registration, join, drain = parts.values()
    registered = registration.inputs if registration else {}
    owner = (str(registered.get("namespace", "")), str(registered.get("workload", "")))
    payload = resources.payload(join) if join else {}
    of_join = facts.of_join(payload, mapping(join.inputs.get("environment")) if join else {})
    leaving = resources.payload(drain, "delete") if drain else {}
    address = of_join.address or _text(leaving.get("address"))
    host = host_of(graph, name)
    role = next((fact.value for fact in of_join.restart if fact.key == "role"), "sidecar")
    more = (
        (Fact(key="machine-files", value=files[role]),) if role in files and of_join.restart else ()
    )
    entry = _text(registered.get("entry"))
    # Machines in the network of pods that has no name name none either.
    named = of_join.network or names.entry_network(entry, owner[1], address)
    network = named or (_pods_network(graph) if of_join.restart else "")
    # The machine's identity: of what this program created, another one whenever it is recreated.
    identity = _text(registered.get("identity"))
    done = resources.result(join) if join and not files else {}
    picture = MachinePicture(
        name=name,
        network=network,
        address="" if resources.is_made_up(address) else address,
        host=Host.SSH
        if host is None
        else Host.INSTANCE
        if host.type == resources.INSTANCE
        else Host.CONTAINER,
        identity=identity,
        server="" if host else _server(payload, leaving),
        restart=tuple(
            sorted((*of_join.restart, *more, *_of_host(host)), key=lambda fact: fact.key)
        ),
        register=of_join.register,
        changes=of_join.changes,
        digest=str(done.get("digest", "")),
        stays=host is None,
        forgotten=bool(registered.get("forgotten"))
        or bool((leaving.get("leave") or {}).get("forget")),
        undrained_with=drain.deleted_with if drain else "",
    )
    return owner, picture


def _server(join: Mapping[str, Any], leaving: Mapping[str, Any]) -> str:
    """Return by what SSH reaches a machine; "" where neither payload is known."""
    target = join.get("target") or (leaving.get("leave") or {}).get("target")
    hops = [*target.get("jumps", ()), target["hop"]] if target else []
    return server_of((hop["host"], hop.get("port")) for hop in hops)


def server_of(hops: Iterable[tuple[str, int | None]]) -> str:
    """Return a digest of the hosts and ports by which SSH reaches a machine; "" of none."""
    servers = [f"{host}:{port or ''}" for host, port in hops]
    return digest(servers) if servers else ""


def _of_host(host: Resource | None) -> tuple[Fact, ...]:
    """Return what a machine of this program is created from, and what stops it where it changes."""
    if host is None:
        return ()
    if host.type != resources.INSTANCE:
        return (Fact(key="image", value=facts.text(resources.payload(host).get("image"))),)
    disk = mapping(value_at(host.inputs, "bootDisk.initializeParams"))
    stops = {
        key: host.inputs.get(key)
        for key in ("machineType", "serviceAccount", "shieldedInstanceConfig")
    }
    return (
        Fact(key="image", value=facts.text(disk.get("image"))),
        Fact(key="disk-type", value=facts.text(disk.get("type"))),
        Fact(key="machine-type", value=str(stops["machineType"])),
        Fact(key="template", value=digest(stops)),
    )


def _child(graph: Graph, parent: str, type_: str) -> Resource | None:
    children = graph.children.get(parent, ())
    return next((each for each in children if each.type == type_), None)


def _group_size(graph: Graph, group: str) -> int:
    """Return the lowest number of machines of an instance group; 0 where there is none."""
    scaler = _child(graph, group, resources.AUTOSCALER)
    return number(value_at(scaler.inputs, "autoscalingPolicy.minReplicas")) if scaler else 0


def _group(
    graph: Graph, component: Resource, declared: Mapping[str, Owner]
) -> tuple[Owner, MachinePicture]:
    template = _child(graph, component.name, resources.TEMPLATE)
    of_group, values = facts.of_group(template.inputs if template else {})
    picture = MachinePicture(
        name=component.name,
        network=of_group.network,
        host=Host.GROUP,
        identity=component.name,
        count=_group_size(graph, component.name),
        restart=of_group.restart,
        register=of_group.register,
    )
    owner = (values.get("NAMESPACE", ""), values.get("WORKLOAD", ""))
    return owner if owner[1] else declared.get(component.name, owner), picture


def _versions(graph: Graph, workloads: Sequence[WorkloadPicture]) -> Versions:
    control_plane = version_in(str(facts_of_mesh(graph).get("image_tag", "")))
    urls = [
        fact.value
        for each in workloads
        for machine in each.machines
        for fact in machine.restart
        if fact.key == "version"
    ]
    machines = [version for version in map(version_in, urls) if version]
    return Versions(
        control_plane=control_plane,
        machines=min(machines, key=numbers) if machines else "",
        pods=control_plane if any(each.replicas for each in workloads) else "",
        kubernetes=next(map(_kubernetes, graph.of_type(resources.CLUSTER_CHECK)), ""),
    )


def _kubernetes(check: Resource) -> str:
    return _text(check.inputs.get("kubernetes"))
