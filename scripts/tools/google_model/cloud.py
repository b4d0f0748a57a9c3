"""The resources of a stack as Google Cloud sees them: by type, and by what refers to what. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tools.mock_engine import Node
from tools.plan import resources

ACCOUNT = "gcp:serviceaccount/account:Account"
ADDRESS = "gcp:compute/address:Address"
BACKENDS = "gcp:compute/regionBackendService:RegionBackendService"
HEALTH_CHECK = "gcp:compute/healthCheck:HealthCheck"
INSTANCE_GROUP = "gcp:compute/instanceGroup:InstanceGroup"
MANAGER = "gcp:compute/regionInstanceGroupManager:RegionInstanceGroupManager"
MEMBERSHIP = "gcp:compute/instanceGroupMembership:InstanceGroupMembership"
NAT = "gcp:compute/routerNat:RouterNat"
NETWORK = "gcp:compute/network:Network"
PEERING = "gcp:compute/networkPeering:NetworkPeering"
RECORD = "gcp:dns/recordSet:RecordSet"
REGION_HEALTH_CHECK = "gcp:compute/regionHealthCheck:RegionHealthCheck"
ROLE = "gcp:projects/iAMCustomRole:IAMCustomRole"
ROLE_MEMBER = "gcp:projects/iAMMember:IAMMember"
ROUTER = "gcp:compute/router:Router"
SUBNETWORK = "gcp:compute/subnetwork:Subnetwork"
ZONE = "gcp:dns/managedZone:ManagedZone"

ZONES = 3
"""Zones that GKE and instance groups use of a region, unless a resource names them."""


def plain(value: Any) -> Any:
    """Return a value without the marks of secrets."""
    if isinstance(value, Mapping):
        if set(value) == {"secret"}:
            return plain(value["secret"])
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Cloud:
    """The declared resources of a stack, by their names."""

    nodes: Mapping[str, Node]

    @classmethod
    def of(cls, nodes: Iterable[Node]) -> Cloud:
        """Return the resources without those that a stack only reads, and without secrets' marks.

        nodes: what a program declares, in any order.
        """
        return cls(
            {
                node.name: Node(**{**vars(node), "inputs": plain(node.inputs)})
                for node in nodes
                if set(node.inputs) != {"id"}
            }
        )

    def of_type(self, *types: str) -> list[Node]:
        """Return the resources of some types, sorted by name."""
        return sorted(
            (node for node in self.nodes.values() if node.type in types), key=lambda node: node.name
        )

    def on_google(self) -> list[Node]:
        """Return the resources of Google's provider, sorted by name."""
        return sorted(
            (node for node in self.nodes.values() if node.type.startswith("gcp:")),
            key=lambda node: node.name,
        )

    @cached_property
    def _references(self) -> Mapping[str, list[Node]]:
        references: dict[str, list[Node]] = {}
        for node in self.on_google():
            # The name of a record is that of its zone.
            keys = (
                "selfLink",
                "email",
                "member",
                "address",
                "instanceGroup",
                *(("name",) * (node.type != RECORD)),
            )
            values = {node.id, *(node.state.get(key) for key in keys)}
            for value in values:
                if isinstance(value, str) and value:
                    references.setdefault(value, []).append(node)
        return references

    def resolve(self, reference: object, *types: str) -> Node | None:
        """Return the resource of some types that an input refers to, None where there is none.

        reference: an ID, a link, a name, an address, or the email of an account.
        """
        if not isinstance(reference, str):
            return None
        return next(
            (node for node in self._references.get(reference, []) if node.type in types), None
        )

    def references(self, node: Node) -> Iterator[Node]:
        """Yield each resource on Google Cloud that the inputs of another refer to."""
        seen: set[str] = set()
        for text in _texts(node.inputs):
            for other in self._references.get(text, []):
                if other.name not in seen and other.name != node.name:
                    seen.add(other.name)
                    yield other

    def vpc(self, reference: object) -> str:
        """Return the name of a VPC; of a VPC of others, the reference itself."""
        network = self.resolve(reference, NETWORK)
        return network.name if network else str(reference)

    def earlier(self, name: str) -> frozenset[str]:
        """Return all that exists before a resource, and is deleted after it."""
        earlier: set[str] = set()
        waiting = [name]
        while waiting:
            node = self.nodes.get(waiting.pop())
            if node is None:
                continue
            for each in (*node.dependencies, node.provider):
                if each and each not in earlier:
                    earlier.add(each)
                    waiting.append(each)
        return frozenset(earlier)

    def zones_of(self, location: str) -> int:
        """Return how many zones a location has: one, or those of a region."""
        return 1 if location.count("-") == 2 else ZONES


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value


def service_of_gateway(cloud: Cloud) -> list[Node]:
    """Return the Helm releases whose Services GKE gives a load balancer."""
    if not cloud.of_type(resources.CLUSTER):
        return []
    return [
        node
        for node in cloud.of_type(resources.RELEASE)
        if resources.value_at(node.inputs, "values.service.type") == "LoadBalancer"
    ]


def has_unique_id(stack: Cloud, role: Node) -> bool:
    """Return whether a custom role has another ID in each stack, and in each life of a stack.

    It is where it contains what Google gives to no two resources: the unique ID of an account.
    """
    unique = (str(each.state.get("uniqueId") or "") for each in stack.of_type(ACCOUNT))
    return any(each and each in str(role.inputs["roleId"]) for each in unique)
