"""Resources as all levels read them: declared under mocks, or in a preview and a state.

`describe` runs programs of other checkouts with this module, so it imports nothing of `components`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import Any

from .model import Operation

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""What Pulumi shows in place of a value that a preview does not know (sdk/python: rpc.UNKNOWN)."""
SECRET = "[secret]"
MADE_UP = "198.18."
"""How addresses begin that nothing has assigned, in descriptions (RFC 2544: benchmarks)."""
STACK = "pulumi:pulumi:Stack"
COMMAND = "command:local:Command"
MACHINE = "istio-vm-mesh:machines:Machine"
GROUP = "istio-vm-mesh:machines:InstanceGroup"
WORKLOAD = "istio-vm-mesh:workloads:Workload"
INSTANCE = "gcp:compute/instance:Instance"
TEMPLATE = "gcp:compute/regionInstanceTemplate:RegionInstanceTemplate"
AUTOSCALER = "gcp:compute/regionAutoscaler:RegionAutoscaler"
CLUSTER = "gcp:container/cluster:Cluster"
NODE_POOL = "gcp:container/nodePool:NodePool"
FIREWALL = "gcp:compute/firewall:Firewall"
FORWARDING_RULE = "gcp:compute/forwardingRule:ForwardingRule"
RELEASE = "kubernetes:helm.sh/v3:Release"
NAMESPACE = "kubernetes:core/v1:Namespace"
SERVICE = "kubernetes:core/v1:Service"
DEPLOYMENT = "kubernetes:apps/v1:Deployment"
WORKLOAD_GROUP = "kubernetes:networking.istio.io/v1:WorkloadGroup"
PEER_AUTHENTICATION = "kubernetes:security.istio.io/v1:PeerAuthentication"
ISTIO_GATEWAY = "kubernetes:networking.istio.io/v1:Gateway"
NETWORK_GATEWAY = "kubernetes:gateway.networking.k8s.io/v1:Gateway"
CONFIG_MAP = "kubernetes:core/v1:ConfigMap"
CLUSTER_CHECK = "pulumi-python:dynamic/cluster:ClusterCheck"
MESH_READING = "pulumi-python:dynamic/mesh:MeshReading"

IDENTITY_KEYS: Mapping[str, tuple[str, ...]] = {
    COMMAND: ("triggers",),
    "pulumi-python:dynamic/registration:Registration": ("identity",),
    # A larger disk is one in place. Another subnet would be too, but for `replaceOnChanges`.
    INSTANCE: (
        "name",
        "zone",
        "bootDisk.initializeParams.image",
        "bootDisk.initializeParams.type",
        "networkInterfaces",
        "scheduling",
    ),
    CLUSTER: (
        "name",
        "location",
        "network",
        "subnetwork",
        "ipAllocationPolicy",
        "enableAutopilot",
        "datapathProvider",
        "masterAuth.clientCertificateConfig",
    ),
    NODE_POOL: (
        "name",
        "cluster",
        "location",
        "nodeConfig.metadata",
        "nodeConfig.oauthScopes",
        "nodeConfig.serviceAccount",
        "nodeConfig.shieldedInstanceConfig",
        "nodeConfig.spot",
    ),
    TEMPLATE: ("*",),
    FIREWALL: ("name", "direction"),
    FORWARDING_RULE: (
        "name",
        "region",
        "ipAddress",
        "network",
        "subnetwork",
        "loadBalancingScheme",
        "backendService",
        "ipProtocol",
        "ports",
    ),
    "gcp:compute/address:Address": (
        "name",
        "region",
        "subnetwork",
        "addressType",
        "purpose",
        "address",
    ),
    "gcp:compute/healthCheck:HealthCheck": ("name",),
    "gcp:compute/instanceGroup:InstanceGroup": ("name", "zone", "network"),
    "gcp:compute/instanceGroupMembership:InstanceGroupMembership": ("*",),
    "gcp:compute/network:Network": ("name", "autoCreateSubnetworks"),
    "gcp:compute/networkPeering:NetworkPeering": ("name", "network", "peerNetwork"),
    "gcp:compute/regionBackendService:RegionBackendService": (
        "name",
        "region",
        "loadBalancingScheme",
    ),
    "gcp:compute/regionHealthCheck:RegionHealthCheck": ("name", "region"),
    "gcp:compute/regionInstanceGroupManager:RegionInstanceGroupManager": (
        "name",
        "baseInstanceName",
        "region",
        "distributionPolicyZones",
    ),
    AUTOSCALER: ("name", "region"),
    "gcp:compute/router:Router": ("name", "network", "region"),
    "gcp:compute/routerNat:RouterNat": ("name", "router", "region"),
    "gcp:compute/subnetwork:Subnetwork": ("name", "network", "region", "ipCidrRange"),
    "gcp:dns/managedZone:ManagedZone": ("name", "dnsName", "visibility"),
    "gcp:dns/recordSet:RecordSet": ("name", "managedZone"),
    "gcp:projects/iAMCustomRole:IAMCustomRole": ("roleId",),
    "gcp:projects/iAMMember:IAMMember": ("project", "role", "member"),
    "gcp:serviceaccount/account:Account": ("accountId",),
    RELEASE: ("name", "namespace"),
    DEPLOYMENT: ("metadata.name", "metadata.namespace", "spec.selector"),
    "kubernetes:rbac.authorization.k8s.io/v1:RoleBinding": (
        "metadata.name",
        "metadata.namespace",
        "roleRef",
    ),
    SERVICE: ("metadata.name", "metadata.namespace", "spec.clusterIP"),
}
"""The input properties of which a change replaces a resource, by type. `*`: each of them.

Only plans of the level FILES use them: the providers decide at the others. Sources: `ForceNew` in
terraform-provider-google 7.45 (google/services), and pulumi-kubernetes,
provider/pkg/provider/diff.go.
"""
OF_OBJECTS = ("metadata.name", "metadata.namespace")
"""The same for all objects in Kubernetes."""
OF_PROVIDERS: Mapping[str, str] = {
    "pulumi:providers:gcp": "project",
    "pulumi:providers:kubernetes": "clusterIdentifier",
}
"""The input of a provider of which a change replaces all of its resources, by the provider's type.

Sources: pulumi-kubernetes (`DiffConfig`: another cluster); terraform-provider-google
(`DefaultProviderProject`: `project` of a resource forces a new one).
"""


@dataclass(frozen=True)
class Resource:
    """A resource of one side of a plan.

    type, name, parent: as Pulumi has them; `parent` is a name.
    inputs, outputs: plain values; secrets are `SECRET`, what a preview does not know is `UNKNOWN`.
    op: what the update does to it, where a preview states it.
    read: whether it is only looked up.
    ignored: inputs of which a change changes nothing.
    deleted_with: the name of the resource whose deletion removes it too.
    retained: whether it stays where it is when it is removed from the stack.
    """

    type: str
    name: str
    parent: str = ""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)
    op: str = ""
    read: bool = False
    ignored: tuple[str, ...] = ()
    deleted_with: str = ""
    retained: bool = False

    @property
    def is_component(self) -> bool:
        """Whether it stands for others, or for a provider, and is nothing by itself."""
        return self.type.startswith(("istio-vm-mesh:", "pulumi:"))


def identity_keys(type_: str) -> tuple[str, ...]:
    """Return the input properties of which a change replaces a resource."""
    if type_ in IDENTITY_KEYS:
        return IDENTITY_KEYS[type_]
    return OF_OBJECTS if type_.startswith("kubernetes:") else ()


def value_at(values: Any, path: str) -> Any:
    """Return a value of nested maps, None where there is none. path: keys with dots between."""
    for key in path.split("."):
        if not isinstance(values, Mapping):
            return None
        values = values.get(key)
    return values


def mapping(value: object) -> Mapping[str, Any]:
    """Return a map; an empty one for what is none, or not known yet."""
    return value if isinstance(value, Mapping) else {}


def items(value: object) -> Sequence[Any]:
    """Return a list; an empty one for what is none, or not known yet."""
    return value if isinstance(value, list | tuple) else ()


def number(value: object) -> int:
    """Return a number; 0 for what is none, or not known yet."""
    return int(value) if isinstance(value, int | float) else 0


def digest(*values: object) -> str:
    """Return a short digest of plain values."""
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def identity(type_: str, inputs: Mapping[str, Any]) -> str:
    """Return a digest that is another one where a resource is another one."""
    keys = identity_keys(type_)
    return digest(inputs if "*" in keys else [value_at(inputs, key) for key in keys])


def is_made_up(address: str) -> bool:
    """Return whether an address is one of a description, which nothing has assigned."""
    return address.startswith(MADE_UP)


def payload(resource: Resource, operation: str = "create") -> Mapping[str, Any]:
    """Return what a command gives its script; empty where it is not known."""
    text = resource.inputs.get("stdin")
    if not isinstance(text, str) or not text.startswith("{"):
        return {}
    payloads: Mapping[str, Mapping[str, Any]] = json.loads(text)
    return payloads.get(operation) or {}


def result(resource: Resource) -> Mapping[str, Any]:
    """Return what a command's script returned; empty where it is not known."""
    text = resource.outputs.get("stdout")
    if not isinstance(text, str) or not text.startswith("{"):
        return {}
    values: Mapping[str, Any] = json.loads(text)
    return values


def runs(resource: Resource, script: str) -> bool:
    """Return whether a command runs a script, such as `machines/scripts/join_machine.py`."""
    return script in _words(resource)


def _words(resource: Resource) -> list[str]:
    lines = (resource.inputs.get("create"), resource.inputs.get("delete"))
    return [word for line in lines if isinstance(line, str) for word in line.split()]


# ---- What differs between two sides, where no provider computes it.

LONGEST = 120
"""Characters of a value in a difference."""
MOST_LINES = 60
"""Lines of the difference of one resource."""
_HIDDEN = ("__provider", "__defaults")
"""Inputs of Pulumi itself."""
_LOOKS = {
    CLUSTER_CHECK: ("istio", "objects", "preview"),
    MESH_READING: ("access", "preview", "wanted"),
}
"""Inputs of looks at the cluster that say what is looked for, so a change of them is none.

Source: `diff` in components/cluster_check.py and components/istio/mesh_reading.py.
"""


def operations(before: Sequence[Resource], after: Sequence[Resource]) -> tuple[Operation, ...]:
    """Return what an update does to resources, from what two sides declare.

    A resource that is only read afterwards is no longer Pulumi's, and stays. The engine deletes it
    where the resource that is read has another ID (pulumi/pulumi:
    pkg/resource/deploy/step_generator.go, `generateReadSteps`).
    """
    let_go = {(each.type, each.name, each.inputs.get("id")) for each in after if each.read}
    old = {
        (each.type, each.name): each
        for each in before
        if not each.read and (each.type, each.name, _object_id(each)) not in let_go
    }
    new = {(each.type, each.name): each for each in after if not each.read}
    moved = dict(_moved(old, new))
    changes = [
        _operation(old.get(key), new.get(key), moved.get(key[0].partition(":")[0], ""))
        for key in sorted({*old, *new}, key=lambda key: key[1])
    ]
    return tuple(change for change in changes if change)


def _object_id(resource: Resource) -> str:
    """Return the ID by which an object in Kubernetes is read."""
    metadata = mapping(resource.inputs.get("metadata"))
    return f"{metadata.get('namespace', '')}/{metadata.get('name', '')}"


_Side = Mapping[tuple[str, str], Resource]


def _moved(before: _Side, after: _Side) -> Iterator[tuple[str, str]]:
    """Yield packages whose resources are all replaced, and the provider's input that differs."""
    for (type_, name), now in after.items():
        was, key = before.get((type_, name)), OF_PROVIDERS.get(type_, "")
        if was and key and was.inputs.get(key) != now.inputs.get(key):
            yield type_.rpartition(":")[2], key


def _operation(
    before: Resource | None, after: Resource | None, moved: str = ""
) -> Operation | None:
    """Return what an update does to a resource. moved: an input of its provider that differs."""
    resource = after or before
    assert resource is not None
    if resource.is_component:
        return None
    if before is None or after is None:
        op = "create" if before is None else removal(resource)
        return Operation(
            op=op,
            type=resource.type,
            name=resource.name,
            parent=resource.parent,
            destructive=op == "delete" and is_precious(resource),
        )
    ignored = (*after.ignored, *_LOOKS.get(after.type, ()))
    lines = list(differences(before.inputs, after.inputs, ignored))
    if not lines and not moved:
        return None
    keys = identity_keys(after.type)
    changed = tuple(dict.fromkeys(path for path, _, _ in lines))
    why = tuple(
        path
        for path, was, now in lines
        if ("*" in keys or any(_covers(key, path) for key in keys)) and not _grows(path, was, now)
    )
    why = tuple(dict.fromkeys(why))
    why += (f"provider.{moved}",) if moved else ()
    return Operation(
        op="replace" if why else "update",
        type=after.type,
        name=after.name,
        parent=after.parent,
        destructive=bool(why) and is_precious(after),
        keys=changed,
        why=why,
        diff=difference_text(lines),
    )


def _grows(path: str, before: Any, after: Any) -> bool:
    """Return whether a subnet's CIDR contains the one before, which its cloud changes in place."""
    if path != "ipCidrRange":
        return False
    try:
        return IPv4Network(after).supernet_of(IPv4Network(before))
    except (TypeError, ValueError):
        return False


def removal(resource: Resource) -> str:
    """Return the operation by which a resource is removed from its stack."""
    return "retain" if resource.retained else "delete"


def _covers(key: str, path: str) -> bool:
    return path == key or path.startswith((f"{key}.", f"{key}["))


_PRECIOUS_SCRIPTS = frozenset(
    f"platforms/docker/scripts/create_{what}.py" for what in ("cluster", "machine", "network")
)
_PRECIOUS_IN_CLOUD = frozenset(
    {
        "Address",
        "Cluster",
        "ForwardingRule",
        "Instance",
        "Network",
        "NodePool",
        "RegionInstanceGroupManager",
        "Subnetwork",
    }
)
_PRECIOUS_IN_CLUSTER = frozenset(
    {NAMESPACE, SERVICE, DEPLOYMENT, WORKLOAD_GROUP, RELEASE, "kubernetes:core/v1:ServiceAccount"}
)


def is_precious(resource: Resource) -> bool:
    """Return whether the end of a resource is one of a thing that holds state or serves requests.

    Commands that only look or join end without a trace, and so do rights and rules.
    """
    if resource.type == COMMAND:
        return not _PRECIOUS_SCRIPTS.isdisjoint(_words(resource))
    of_cloud = (
        resource.type.startswith("gcp:") and resource.type.rpartition(":")[2] in _PRECIOUS_IN_CLOUD
    )
    return of_cloud or resource.type in _PRECIOUS_IN_CLUSTER


Difference = tuple[str, Any, Any]
"""A path, and its values before and after; None where there is none."""


def differences(
    before: Any, after: Any, ignored: Sequence[str] = (), path: str = ""
) -> Iterator[Difference]:
    """Yield the differences of plain values, JSON in texts opened."""
    if before == after or path.partition(".")[0] in (*_HIDDEN, *ignored):
        return
    before, after = _opened(before), _opened(after)
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted({*before, *after}):
            deeper = f"{path}.{key}" if path else str(key)
            yield from differences(before.get(key), after.get(key), ignored, deeper)
    elif isinstance(before, list | tuple) and isinstance(after, list | tuple):
        for number in range(max(len(before), len(after))):
            was, now = (side[number] if number < len(side) else None for side in (before, after))
            yield from differences(was, now, ignored, f"{path}[{number}]")
    elif before != after:
        yield path, before, after


def _opened(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in ("{", "[") and value != SECRET:
        try:
            return json.loads(value)
        except (ValueError, RecursionError):  # other text, or nested too deeply
            return value
    return value


def difference_text(lines: Sequence[Difference]) -> str:
    """Return differences as lines `path: before -> after`, cut where they are many or long."""
    shown = [
        f"{path}: {short(before)} -> {short(after)}" for path, before, after in lines[:MOST_LINES]
    ]
    if len(lines) > MOST_LINES:
        shown.append(f"and {len(lines) - MOST_LINES} more")
    return "\n".join(shown)


def short(value: Any) -> str:
    """Return a value as one short line."""
    if value is None:
        return "(none)"
    if value == UNKNOWN:
        return "(not known yet)"
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    if "\n" in text.strip("\n"):
        count = len(text.strip("\n").splitlines())
        return f"({count} lines, sha256 {hashlib.sha256(text.encode()).hexdigest()[:8]})"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
