"""Resources as all levels read them: declared under mocks, or in a preview and a state.

`describe` runs programs of other checkouts with this module, so it imports nothing of `components`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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
