"""What happens to a stack over time: deletions, replacements, destroys. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tools.google_model import cloud
from tools.google_model.cloud import Cloud, service_of_gateway
from tools.google_model.remnants import remnants
from tools.mock_engine import Node
from tools.plan import resources
from tools.plan.resources import identity_keys, value_at

# ---- What Google refuses to delete, because something uses it.


class Use(NamedTuple):
    """A resource that another one uses, so it must outlive it. why: what would fail."""

    user: str
    used: str
    why: str


def uses(stack: Cloud) -> Iterator[Use]:
    """Yield what uses what: references between resources, and what Google makes of them."""
    for node in stack.on_google():
        for other in stack.references(node):
            if node.type == cloud.PEERING and other.type == cloud.PEERING:
                continue
            yield Use(node.name, other.name, "its inputs refer to it")
    nats = [node.name for node in stack.of_type(cloud.NAT)]
    peerings = [node.name for node in stack.of_type(cloud.PEERING)]
    pools = [node.name for node in stack.of_type(resources.NODE_POOL)]
    clusters = stack.of_type(resources.CLUSTER)
    for cluster in clusters:
        yield from (Use(cluster.name, nat, "nodes get images through it") for nat in nats)
        yield from (Use(cluster.name, each, "machines reach it over it") for each in peerings)
    for release in service_of_gateway(stack):
        balancer = "GKE removes its load balancer while the cluster runs"
        yield from (Use(release.name, each.name, balancer) for each in clusters)
        yield from (Use(release.name, each, balancer) for each in pools)
        address = stack.resolve(value_at(release.inputs, "values.service.loadBalancerIP"), cloud.ADDRESS)
        if address:
            yield Use(release.name, address.name, "its load balancer has the address")
    for node in stack.nodes.values():
        if node.type.startswith("kubernetes:"):
            yield from (Use(node.name, each.name, "it is in the cluster") for each in clusters)
    for node in stack.of_type(resources.INSTANCE):
        yield from (Use(node.name, nat, "its startup script needs packages") for nat in nats)
    for manager in stack.of_type(cloud.MANAGER):
        yield from (Use(manager.name, nat, "startup scripts need packages") for nat in nats)
        yield from _rights(stack, manager)


def _rights(stack: Cloud, manager: Node) -> Iterator[Use]:
    """Yield the roles without which a group's machines cannot join, and so do not get healthy."""
    for version in manager.inputs["versions"]:
        template = stack.resolve(version["instanceTemplate"], resources.TEMPLATE)
        assert template is not None
        account = stack.resolve(value_at(template.inputs, "serviceAccount.email"), cloud.ACCOUNT)
        for member in stack.of_type(cloud.ROLE_MEMBER):
            if account and stack.resolve(member.inputs["member"], cloud.ACCOUNT) is account:
                yield Use(manager.name, member.name, "its machines need the role to join")


def too_short_lived(stack: Cloud) -> list[Use]:
    """Return what is deleted, or may be, while it is still in use."""
    return [use for use in uses(stack) if use.used not in stack.earlier(use.user)]


# ---- Replacements.


class Exclusive(NamedTuple):
    """What only one resource at a time can have.

    keys: the inputs that are its claim. moves: inputs of which a change moves the claim as well,
    or that no stack can change alone.
    """

    keys: tuple[str, ...]
    moves: tuple[str, ...] = ()


EXCLUSIVE: Mapping[str, Exclusive] = {
    resources.INSTANCE: Exclusive(("name",)),
    resources.CLUSTER: Exclusive(("name",)),
    cloud.ACCOUNT: Exclusive(("accountId",)),
    cloud.ROLE: Exclusive(("roleId",)),
    # An address is given out once. Another subnet or region has other addresses.
    cloud.ADDRESS: Exclusive(("address",), ("region", "subnetwork", "addressType", "purpose")),
    # CIDRs of a VPC's subnets do not overlap, in any region. Another VPC has its own.
    cloud.SUBNETWORK: Exclusive(("ipCidrRange", "secondaryIpRanges"), ("network",)),
    # Two VPCs have one peering. Another VPC at either end is another pair.
    cloud.PEERING: Exclusive(("network", "peerNetwork"), ("network", "peerNetwork")),
    cloud.RECORD: Exclusive(("name",), ("managedZone",)),
    cloud.ZONE: Exclusive(("dnsName",), ("visibility",)),
}
"""By type, what a second one cannot claim while the first one is there."""
IN_PLACE = {
    cloud.MANAGER: (resources.TEMPLATE, cloud.HEALTH_CHECK),
    cloud.BACKENDS: (cloud.INSTANCE_GROUP, cloud.MANAGER, cloud.REGION_HEALTH_CHECK),
}
"""Types whose references change in place, and what Google does not delete until they have."""


def blocked_replacements(stack: Cloud) -> list[str]:
    """Return the resources whose replacement Google refuses, each with its reason.

    A replacement is created first, unless the resource is deleted before. The first needs what the
    old one still claims, the second deletes what is in use.
    """
    return [*_claimed(stack), *_in_use(stack), *_in_use_of_deleted(stack)]


def _claimed(stack: Cloud) -> Iterator[str]:
    for node in stack.on_google():
        exclusive = EXCLUSIVE.get(node.type)
        if exclusive is None or node.options.get("delete_before_replace"):
            continue
        claims = {key for key in exclusive.keys if node.inputs.get(key)}
        keys = _replacing_keys(node) - set(exclusive.moves)
        for key in sorted(keys):
            if kept := claims - {key}:
                claim = " and ".join(sorted(kept))
                yield f"{node.name}: another {key} needs a second one with the same {claim}"


def _replacing_keys(node: Node) -> set[str]:
    """Return the inputs of which a change replaces a resource, of those that it has."""
    keys = identity_keys(node.type)
    present = set(node.inputs) if "*" in keys else {key for key in keys if _has(node, key)}
    present |= {key.partition("[")[0] for key in node.options.get("replace_on_changes", ())}
    return present - set(node.options.get("ignore_changes", ()))


def _has(node: Node, path: str) -> bool:
    return value_at(node.inputs, path) is not None


def _in_use(stack: Cloud) -> Iterator[str]:
    for user in stack.of_type(*IN_PLACE):
        for used in stack.references(user):
            if used.type not in IN_PLACE[user.type] or not _replacing_keys(used):
                continue
            if used.options.get("delete_before_replace"):
                yield f"{used.name}: it would be deleted while {user.name} uses it"
            elif used.inputs.get("name"):
                yield f"{used.name}: a second one needs another name while {user.name} uses it"


def deleted_first(stack: Cloud, root: str) -> frozenset[str]:
    """Return what the engine deletes before it replaces a resource that is deleted first.

    It is the resource, and all whose identity follows from what is deleted. The rest stays, and
    refers to what is gone until its update.
    Source: pulumi/pulumi, pkg/resource/deploy/step_generator.go, calculateDependentReplacements.
    """
    deleted = {root}
    for node in sorted(stack.nodes.values(), key=lambda each: len(stack.earlier(each.name))):
        keys = {re.split(r"[.[]", key)[0] for key in _replacing_keys(node)}
        if provider_key := resources.OF_PROVIDERS.get(node.type):
            keys = {provider_key}
        identity = {name for key in keys for name in node.property_dependencies.get(key, ())}
        if node.provider in deleted or identity & deleted:
            deleted.add(node.name)
    return frozenset(deleted)


def _in_use_of_deleted(stack: Cloud) -> Iterator[str]:
    for root in stack.on_google():
        if not root.options.get("delete_before_replace") or not _replacing_keys(root):
            continue
        deleted = deleted_first(stack, root.name)
        for use in uses(stack):
            type_ = stack.nodes[use.user].type
            # A record holds an address as text. What is in a cluster is deleted with it.
            if type_ == cloud.RECORD or type_.startswith("kubernetes:"):
                continue
            if use.used in deleted and use.user not in deleted:
                yield f"{root.name}: {use.used} would be deleted while {use.user} uses it"


# ---- Destroys.


@dataclass(frozen=True)
class Destruction:
    """How a destroy ends.

    removed: what is gone. refused_by: the resource at which it stops, "" if it does not.
    """

    removed: tuple[str, ...]
    refused_by: str = ""


def destroy(stack: Cloud) -> Destruction:
    """Return what `pulumi destroy` does.

    The engine refuses before anything is removed where a resource has `protect`. A provider refuses
    a resource only when its turn comes: after all that depends on it.
    """
    if protected := [node.name for node in stack.nodes.values() if node.options.get("protect")]:
        return Destruction((), min(protected))
    for node in stack.of_type(resources.CLUSTER):
        if node.inputs.get("deletionProtection", True):
            later = [other for other in stack.nodes if node.name in stack.earlier(other)]
            return Destruction(tuple(sorted(later)), node.name)
    kept = {name for name, node in stack.nodes.items() if node.options.get("retain_on_delete")}
    return Destruction(tuple(sorted(set(stack.nodes) - kept)))


def blocked_again(stack: Cloud, days: int) -> list[str]:
    """Return what prevents a stack from being created again, so many days after a destroy."""
    return [each.name for each in remnants(stack) if each.blocks and each.blocks[0] <= days < each.blocks[1]]
