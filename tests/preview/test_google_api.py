"""What Google Cloud is asked for, held against Google's own descriptions of its APIs: names, kinds of values, and values where they are listed.

The SDK's types know that a channel is a text, the descriptions (discovery documents) know which texts. `google-api-python-client` ships them as
files, and requirements.txt pins it. The provider calls some things otherwise than the API; that is `ELSEWHERE`, so that every name is either the API's
or known not to be.
"""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Iterator
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

from components.config.google import GkeCluster
from tests.support import harness
from tests.support.harness import Node

STACKS = [stack for stack in harness.stacks() if "google" in harness.configuration(stack)]
API = {
    "gcp:compute/address:Address": ("compute.v1", "Address"),
    "gcp:compute/firewall:Firewall": ("compute.v1", "Firewall"),
    "gcp:compute/forwardingRule:ForwardingRule": ("compute.v1", "ForwardingRule"),
    "gcp:compute/healthCheck:HealthCheck": ("compute.v1", "HealthCheck"),
    "gcp:compute/instance:Instance": ("compute.v1", "Instance"),
    "gcp:compute/instanceGroup:InstanceGroup": ("compute.v1", "InstanceGroup"),
    "gcp:compute/instanceGroupMembership:InstanceGroupMembership": ("compute.v1", "InstanceReference"),
    "gcp:compute/network:Network": ("compute.v1", "Network"),
    "gcp:compute/networkPeering:NetworkPeering": ("compute.v1", "NetworkPeering"),
    "gcp:compute/regionAutoscaler:RegionAutoscaler": ("compute.v1", "Autoscaler"),
    "gcp:compute/regionBackendService:RegionBackendService": ("compute.v1", "BackendService"),
    "gcp:compute/regionHealthCheck:RegionHealthCheck": ("compute.v1", "HealthCheck"),
    "gcp:compute/regionInstanceGroupManager:RegionInstanceGroupManager": ("compute.v1", "InstanceGroupManager"),
    "gcp:compute/regionInstanceTemplate:RegionInstanceTemplate": ("compute.v1", "InstanceProperties"),
    "gcp:compute/router:Router": ("compute.v1", "Router"),
    "gcp:compute/routerNat:RouterNat": ("compute.v1", "RouterNat"),
    "gcp:compute/subnetwork:Subnetwork": ("compute.v1", "Subnetwork"),
    "gcp:container/cluster:Cluster": ("container.v1", "Cluster"),
    "gcp:container/nodePool:NodePool": ("container.v1", "NodePool"),
    "gcp:dns/managedZone:ManagedZone": ("dns.v1", "ManagedZone"),
    "gcp:dns/recordSet:RecordSet": ("dns.v1", "ResourceRecordSet"),
    "gcp:projects/iAMCustomRole:IAMCustomRole": ("iam.v1", "Role"),
    "gcp:projects/iAMMember:IAMMember": ("cloudresourcemanager.v1", "Binding"),
    "gcp:serviceaccount/account:Account": ("iam.v1", "ServiceAccount"),
}
"""Where the API describes a type of resource: document and schema."""

NOT_OF_THE_API = ""
ELSEWHERE = {
    ("AttachedDisk", "diskType"): "initializeParams.diskType",
    ("AttachedDisk", "sourceImage"): "initializeParams.sourceImage",
    ("AttachedDiskInitializeParams", "image"): "sourceImage",
    ("AttachedDiskInitializeParams", "size"): "diskSizeGb",
    ("AttachedDiskInitializeParams", "type"): "diskType",
    ("AutoscalingPolicy", "cooldownPeriod"): "coolDownPeriodSec",
    ("AutoscalingPolicy", "maxReplicas"): "maxNumReplicas",
    ("AutoscalingPolicy", "minReplicas"): "minNumReplicas",
    ("AutoscalingPolicyCpuUtilization", "target"): "utilizationTarget",
    ("BackendService", "connectionDrainingTimeoutSec"): "connectionDraining.drainingTimeoutSec",
    ("Binding", "member"): "members",
    ("Binding", "project"): NOT_OF_THE_API,
    ("Cluster", "allowNetAdmin"): "autopilot.workloadPolicyConfig.allowNetAdmin",
    ("Cluster", "clusterAutoscaling"): "autoscaling",
    ("Cluster", "datapathProvider"): "networkConfig.datapathProvider",
    ("Cluster", "deletionProtection"): NOT_OF_THE_API,
    ("Cluster", "enableAutopilot"): "autopilot.enabled",
    ("Cluster", "enableL4IlbSubsetting"): "networkConfig.enableL4ilbSubsetting",
    ("Cluster", "enableShieldedNodes"): "shieldedNodes.enabled",
    ("Cluster", "removeDefaultNodePool"): NOT_OF_THE_API,
    ("ClusterAutoscaling", "autoProvisioningDefaults"): "autoprovisioningNodePoolDefaults",
    ("Firewall", "allows"): "allowed",
    ("Firewall", "project"): NOT_OF_THE_API,
    ("Firewall.allowed", "protocol"): "IPProtocol",
    ("ForwardingRule", "ipAddress"): "IPAddress",
    ("ForwardingRule", "ipProtocol"): "IPProtocol",
    ("Instance", "allowStoppingForUpdate"): NOT_OF_THE_API,
    ("Instance", "bootDisk"): "disks",
    ("Instance", "desiredStatus"): NOT_OF_THE_API,  # the provider starts an instance that was stopped
    ("Instance", "metadata"): NOT_OF_THE_API,  # a map there, a list here
    ("Instance", "serviceAccount"): "serviceAccounts",
    ("InstanceGroupManager", "waitForInstances"): NOT_OF_THE_API,
    ("InstanceGroupManager", "waitForInstancesStatus"): NOT_OF_THE_API,
    ("InstanceGroupManager", "distributionPolicyZones"): NOT_OF_THE_API,
    ("InstanceGroupManagerUpdatePolicy", "maxSurgeFixed"): "maxSurge.fixed",
    ("InstanceGroupManagerUpdatePolicy", "maxUnavailableFixed"): "maxUnavailable.fixed",
    ("InstanceProperties", "metadata"): NOT_OF_THE_API,
    ("InstanceProperties", "region"): NOT_OF_THE_API,
    ("InstanceProperties", "serviceAccount"): "serviceAccounts",
    ("InstanceReference", "instanceGroup"): NOT_OF_THE_API,
    ("InstanceReference", "zone"): NOT_OF_THE_API,
    ("MaintenancePolicy", "recurringWindow"): "window.recurringWindow",
    ("Network", "routingMode"): "routingConfig.routingMode",
    ("NetworkPeering", "peerNetwork"): "network",
    ("NodePool", "cluster"): NOT_OF_THE_API,
    ("NodePool", "location"): NOT_OF_THE_API,
    ("NodePool", "nodeConfig"): "config",
    ("RecurringTimeWindow", "endTime"): "window.endTime",
    ("RecurringTimeWindow", "startTime"): "window.startTime",
    ("ResourceRecordSet", "managedZone"): NOT_OF_THE_API,
    ("Role", "permissions"): "includedPermissions",
    ("Role", "roleId"): NOT_OF_THE_API,
    ("RouterNat", "region"): NOT_OF_THE_API,
    ("RouterNat", "router"): NOT_OF_THE_API,
    ("ServiceAccount", "accountId"): NOT_OF_THE_API,
}
"""By schema and the provider's name: the API's name below that schema, or NOT_OF_THE_API."""

DEPRECATED = {
    "initialNodeCount": "the provider's own way to make a cluster without a pool of its own",
    "nodeConfig": "of the pool that is made first and removed",
    "enablePrivateNodes": "the provider has no other field for it",
}
"""Fields of clusters that the API calls deprecated, and why they are used all the same."""


@cache
def document(name: str) -> dict[str, Any]:
    place = f"googleapiclient/discovery_cache/documents/{name}.json"
    description: dict[str, Any] = json.loads(Path(str(distribution("google-api-python-client").locate_file(place))).read_text())
    return description


class Schema(typing.NamedTuple):
    """A part of a document. `name` is that of the schema; of one that stands inside of another, the other's with the field's."""

    document: str
    name: str
    says: dict[str, Any]

    def field(self, path: str) -> Schema | None:
        """What a field holds, an item of it if it is a list; None if there is none."""
        first, _, rest = path.partition(".")
        says = self.says.get("properties", {}).get(first)
        if says is None:
            return None
        inner = says["items"] if says.get("type") == "array" else says
        part = Schema(self.document, f"{self.name}.{first}", {**inner, "deprecated": says.get("deprecated", False)})
        if "$ref" in inner:
            schema = document(self.document)["schemas"][inner["$ref"]]
            part = Schema(self.document, inner["$ref"], {**schema, "deprecated": says.get("deprecated", False)})
        return part.field(rest) if rest else part


KINDS: dict[str, tuple[type, ...]] = {
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "string": (str, int),
    "any": (object,),
}  # 64 bits travel as text


def wrong(value: Any, schema: Schema, path: str, used: set[tuple[str, str]]) -> Iterator[str]:
    """What the API does not know below `value`; adds to `used` what ELSEWHERE was needed for."""
    if isinstance(value, dict) and set(value) == {"secret"}:
        value = value["secret"]
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from wrong(item, schema, f"{path}[{index}]", used)
    elif isinstance(value, dict):
        for key, item in value.items() if "properties" in schema.says else ():
            name = ELSEWHERE.get((schema.name, str(key)), str(key))
            if (schema.name, key) in ELSEWHERE:
                used.add((schema.name, key))
            if name == NOT_OF_THE_API or key == "__provider":
                continue
            if (field := schema.field(name)) is None:
                yield f"{path}.{key}: {schema.name} has no {name}"
                continue
            if field.says["deprecated"] and key not in DEPRECATED:
                yield f"{path}.{key}: is deprecated"
            yield from wrong(item, field, f"{path}.{key}", used)
    elif "enum" in schema.says:
        if value not in schema.says["enum"]:
            yield f"{path}: {value!r} is none of {', '.join(schema.says['enum'])}"
    elif schema.says.get("type") == "boolean" and value in ("TRUE", "FALSE"):
        return  # the provider's way to tell false from absent
    elif not isinstance(value, KINDS.get(schema.says.get("type", "any"), ())):
        yield f"{path}: {value!r} is no {schema.says.get('type')}"
    elif "pattern" in schema.says and not re.fullmatch(schema.says["pattern"], str(value)):
        yield f"{path}: {value!r} does not match {schema.says['pattern']}"


def problems(node: Node, used: set[tuple[str, str]]) -> list[str]:
    name, schema = API[node.type]
    return list(wrong(node.inputs, Schema(name, schema, document(name)["schemas"][schema]), node.name, used))


@cache
def graphs() -> list[dict[str, Node]]:
    """Of the stacks as they are, and of what they may say otherwise."""
    other = [harness.configuration(stack) for stack in STACKS]
    for config in other:
        config["cluster"]["channel"] = "EXTENDED"
        config["cluster"].pop("nodes", None)
        config["cluster"] |= {"autopilot": True, "zone": None}
        for machine in config["machines"].values():
            machine["spot"] = True
            if machine["platform"] == "gce-instance-group":
                machine["zones"] = ["europe-west1-b", "europe-west1-c"]
    shared = harness.configuration("single-network")
    shared["google"]["vpcs"] = {"mesh": {"existing": "projects/net-host/global/networks/shared"}}
    for name, subnet in shared["google"]["subnets"].items():
        subnet["existing"] = f"projects/net-host/regions/europe-west1/subnetworks/{name}"
    return [harness.declared(stack).graph for stack in STACKS] + [harness.run(config).graph for config in (*other, shared)]


def nodes() -> list[Node]:
    resources = [node for graph in graphs() for node in graph.values() if node.type.startswith("gcp:")]
    assert {node.type for node in resources} == set(API), "this test knows the types that are in use, and no others"
    return resources


def test_the_api_has_every_name_and_takes_every_value() -> None:
    assert [problem for node in nodes() for problem in problems(node, set())] == []


def test_every_listed_rename_of_a_field_is_in_use() -> None:
    used: set[tuple[str, str]] = set()
    for node in nodes():
        problems(node, used)
    assert used == set(ELSEWHERE)


def test_scopes_are_ones_that_google_has() -> None:
    names = ("compute.v1", "logging.v2", "monitoring.v3", "oauth2.v2")
    scopes = {scope for name in names for scope in document(name)["auth"]["oauth2"]["scopes"]}
    asked = {scope for node in nodes() for scope in re.findall(r"https://www\.googleapis\.com/auth/[^'\"]+", str(node.inputs))}
    assert asked and asked <= scopes


def test_channels_of_the_settings_are_the_apis() -> None:
    channels = typing.get_args(typing.get_type_hints(GkeCluster)["channel"])
    listed = document("container.v1")["schemas"]["ReleaseChannel"]["properties"]["channel"]["enum"]
    assert set(channels) == set(listed) - {"UNSPECIFIED"}


@pytest.mark.parametrize(
    ("type_", "inputs", "says"),
    [
        ("gcp:container/cluster:Cluster", {"releaseChannel": {"channel": "REGULR"}}, "n.releaseChannel.channel: 'REGULR' is none of UNSPECIFIED, RAPID"),
        ("gcp:container/cluster:Cluster", {"datapathProvider": "DATAPLANE_V2"}, "n.datapathProvider: 'DATAPLANE_V2' is none of"),
        ("gcp:compute/firewall:Firewall", {"direction": "INWARD"}, "n.direction: 'INWARD' is none of EGRESS, INGRESS"),
        ("gcp:compute/firewall:Firewall", {"allows": [{"port": ["80"]}]}, "n.allows[0].port: Firewall.allowed has no port"),
        ("gcp:compute/instance:Instance", {"networkInterfaces": [{"nicType": "FAST"}]}, "n.networkInterfaces[0].nicType: 'FAST' is none of"),
        ("gcp:compute/healthCheck:HealthCheck", {"httpHealthCheck": {"port": "http"}}, "n.httpHealthCheck.port: 'http' is no integer"),
        ("gcp:compute/instance:Instance", {"name": "Product_1"}, "n.name: 'Product_1' does not match"),
        ("gcp:container/cluster:Cluster", {"binaryAuthorization": {"enabled": True}}, "n.binaryAuthorization.enabled: is deprecated"),
    ],
)  # fmt: skip
def test_names_and_values_unknown_to_google_are_reported(type_: str, inputs: dict[str, Any], says: str) -> None:
    (problem,) = problems(Node(type_, "n", inputs, {}, ""), set())
    assert problem.startswith(says)
