"""The mesh that a `World` has: from what providers created and what joins delivered. Nothing of `tools.plan` is used here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import components.platforms.google.names
from components import names
from components.machines.scripts import slot_decision
from tests.support.fake_providers import MESH_READING
from tests.support.noting_world import TEMPLATE, Joined, Thing, World, owner_of

NETWORK_GATEWAY = "kubernetes:gateway.networking.k8s.io/v1:Gateway"
AUTOSCALER = "gcp:compute/regionAutoscaler:RegionAutoscaler"
OUTSIDE = "outside"
"""Clients without an identity in the mesh, where one of the mesh's workloads admits them."""

Ports = dict[str, tuple[int, int]]
Endpoints = dict[str, tuple[int, int]]
"""Pods and machines by network."""


@dataclass(frozen=True)
class Service:
    """A Service as its callers see it. ports: its own and the endpoints', by name."""

    ports: Ports
    endpoints: Endpoints
    callers: frozenset[str]
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Pods:
    """A Deployment. template: all that its pods follow from."""

    replicas: int
    template: str


@dataclass(frozen=True)
class Seen:
    """A mesh. Keys are `<namespace>/<name>`, and kind and name of openings."""

    services: Mapping[str, Service]
    pods: Mapping[str, Pods]
    identities: frozenset[str]
    paths: Mapping[tuple[str, str], str]
    openings: Mapping[tuple[str, str], str]
    versions: tuple[str, str]
    limits: Mapping[str, int]


NOTHING = Seen({}, {}, frozenset(), {}, {}, ("", ""), {})
"""No mesh."""


@dataclass(frozen=True)
class _Endpoint:
    namespace: str
    labels: Mapping[str, str]
    network: str
    pods: int = 0
    machines: int = 0


def see(world: World, networks: Mapping[str, str], pods_network: str) -> Seen:
    """Return the mesh of a world.

    networks: those of instance groups, by their names. pods_network: the network of the cluster's pods.
    """
    things = list(world.things.values())
    if not any(each.type.endswith(":WorkloadGroup") for each in things):
        return NOTHING
    groups = list(_groups(things, networks))
    endpoints = [*_pod_endpoints(things, pods_network), *map(_endpoint, world.entries.values()), *(group.endpoint for group in groups)]
    gateways = names.gateway_workload_name("")
    open_networks = {pods_network} | {entry.network for entry in world.entries.values() if entry.workload.endswith(gateways)}
    open_networks |= {group.endpoint.network for group in groups if group.identity.endswith(gateways)}
    of_gateways = {each.inputs["metadata"]["labels"][names.NETWORK_LABEL] for each in _of(things, NETWORK_GATEWAY)}
    every = sorted(open_networks | of_gateways | {each.network for each in endpoints})
    paths = {(one, other): _path(one, other, open_networks) for one in every for other in every}
    deployments = list(_of(things, "kubernetes:apps/v1:Deployment"))
    identities = {_key(each) for each in _of(things, "kubernetes:core/v1:ServiceAccount")}
    used = {entry.identity for entry in world.entries.values()} | {group.identity for group in groups}
    assert used <= identities
    versions = [_version(entry.package) for entry in world.entries.values()] + [group.version for group in groups]
    istiod = [each.inputs["values"]["global"]["tag"] for each in things if each.name == "istiod" and "values" in each.inputs]
    istiod += [json.loads(each.inputs["facts"])["image_tag"] for each in things if each.type == MESH_READING]
    return Seen(
        services={
            _key(each): _service(each, endpoints, paths, _strict(things, each)) for each in _of(things, "kubernetes:core/v1:Service")
        },
        pods={_key(each): Pods(each.inputs["spec"].get("replicas", 1), _text(each.inputs["spec"]["template"])) for each in deployments},
        identities=frozenset(identities),
        paths=paths,
        openings=dict(opening for each in things for opening in _openings(each)),
        versions=(istiod[0] if istiod else "", min(versions, key=_numbers, default="")),
        limits={
            _key(each).removesuffix(names.slots_lease_name("")): _limit(each)
            for each in _of(things, "kubernetes:coordination.k8s.io/v1:Lease")
        },
    )


def _of(things: list[Thing], type_: str) -> Iterator[Thing]:
    return (each for each in things if each.type == type_)


def _key(thing: Thing) -> str:
    metadata = thing.inputs["metadata"]
    return f"{metadata['namespace']}/{metadata['name']}"


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _version(url: str) -> str:
    matched = re.search(r"\d+\.\d+\.\d+", url)
    assert matched, url
    return matched[0]


def _path(source: str, target: str, open_networks: set[str]) -> str:
    if source == target:
        return "direct"
    return "gateway" if target in open_networks else "none"


def _limit(lease: Thing) -> int:
    annotations = lease.inputs["metadata"]["annotations"]
    machines = [name for name in annotations[names.MACHINES_ANNOTATION].split(",") if name]
    return slot_decision.limit_of(annotations[names.MAX_UNAVAILABLE_ANNOTATION], len(machines))


# ---- Endpoints.


def _pod_endpoints(things: list[Thing], network: str) -> Iterator[_Endpoint]:
    for each in _of(things, "kubernetes:apps/v1:Deployment"):
        spec = each.inputs["spec"]
        labels = spec["template"]["metadata"]["labels"]
        yield _Endpoint(each.inputs["metadata"]["namespace"], labels, network, pods=spec.get("replicas", 1))


def _endpoint(entry: Joined) -> _Endpoint:
    return _Endpoint(entry.workload.partition("/")[0], entry.labels, entry.network, machines=1)


@dataclass(frozen=True)
class _Group:
    endpoint: _Endpoint
    identity: str
    version: str


def _groups(things: list[Thing], networks: Mapping[str, str]) -> Iterator[_Group]:
    """Yield the instance groups as the startup scripts of their machines join them."""
    sizes = {
        owner_of(each.name, components.platforms.google.names.AUTOSCALER): each.inputs["autoscalingPolicy"]["minReplicas"]
        for each in _of(things, AUTOSCALER)
    }
    labels = {_key(each): each.inputs["spec"]["metadata"]["labels"] for each in things if each.type.endswith(":WorkloadGroup")}
    for each in _of(things, TEMPLATE):
        group = owner_of(each.name, components.platforms.google.names.TEMPLATE)
        values = dict(re.findall(r"^([A-Z_]+)=(\S+)$", each.inputs["metadata"]["startup-script"], re.MULTILINE))
        namespace = values["NAMESPACE"]
        endpoint = _Endpoint(namespace, labels[f"{namespace}/{values['WORKLOAD']}"], networks[group], machines=sizes[group])
        yield _Group(endpoint, f"{namespace}/{values['SERVICE_ACCOUNT']}", _version(values["PACKAGE_URL"]))


# ---- Services.


def _service(thing: Thing, endpoints: list[_Endpoint], paths: Mapping[tuple[str, str], str], strict: bool) -> Service:
    spec, namespace = thing.inputs["spec"], thing.inputs["metadata"]["namespace"]
    selected = [each for each in endpoints if each.namespace == namespace and spec["selector"].items() <= each.labels.items()]
    by_network: Endpoints = {}
    for each in selected:
        pods, machines = by_network.get(each.network, (0, 0))
        by_network[each.network] = (pods + each.pods, machines + each.machines)
    by_network = {network: counts for network, counts in by_network.items() if counts != (0, 0)}
    callers = {source for (source, target), path in paths.items() if target in by_network and path != "none"}
    ports = {port["name"]: (int(port["port"]), int(port["targetPort"])) for port in spec["ports"]}
    annotations = thing.inputs["metadata"].get("annotations", {})
    stated = {key: value for key, value in annotations.items() if not key.startswith("pulumi.com/")}
    return Service(ports, by_network, frozenset(callers if strict else {*callers, OUTSIDE}), stated)


def _strict(things: list[Thing], service: Thing) -> bool:
    policies = {each.inputs["metadata"]["namespace"]: each.inputs["spec"]["mtls"]["mode"] for each in things if "PeerAuth" in each.type}
    namespace = service.inputs["metadata"]["namespace"]
    return bool(policies.get(namespace, policies.get(names.ISTIO_NAMESPACE)) == "STRICT")


# ---- What lets traffic in.


def _openings(thing: Thing) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield kind and name of what lets traffic in, with all that it depends on."""
    inputs = thing.inputs
    match thing.type.rpartition(":")[2]:
        case "Firewall" if inputs["direction"] == "INGRESS":
            yield (
                ("firewall", components.platforms.google.names.rule_of_resource(thing.name)),
                _text([sorted(inputs["sourceRanges"]), inputs["allows"]]),
            )
        case "ForwardingRule":
            yield ("load-balancer", thing.name), _text([inputs["ports"], inputs["loadBalancingScheme"]])
        case "Release":
            service: Mapping[str, Any] = inputs["values"].get("service") or {}
            if service.get("type") in ("LoadBalancer", "NodePort") or service.get("externalIPs"):
                ports = [(port["name"], port["port"]) for port in service.get("ports", ())]
                yield ("load-balancer", thing.name), _text([service["type"], service.get("loadBalancerSourceRanges"), ports])
        case "PeerAuthentication":
            yield ("mutual-tls", inputs["metadata"]["namespace"]), inputs["spec"]["mtls"]["mode"]
        case "Instance" if any("accessConfigs" in each for each in inputs["networkInterfaces"]):
            yield ("public-address", owner_of(thing.name, components.platforms.google.names.INSTANCE)), ""
        case "Address" if inputs["addressType"] == "EXTERNAL":
            yield ("public-address", thing.name), ""
        case "Gateway" if thing.type != NETWORK_GATEWAY:
            yield ("gateway", inputs["metadata"]["name"]), _text(inputs["spec"]["servers"])
        case _:
            pass
