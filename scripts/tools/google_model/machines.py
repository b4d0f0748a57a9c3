"""The VMs of a stack: machines, nodes, and those that GKE creates without a resource. Pure.

GKE creates a first node pool with every Standard cluster. `removeDefaultNodePool` removes it once
the cluster exists, so quotas and organisation policies apply to it. What its `nodeConfig` leaves
out has GKE's defaults.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tools.mock_engine import Node
from tools.plan import resources
from tools.plan.resources import items, mapping, number, value_at

from . import cloud
from .cloud import Cloud

GKE_DEFAULTS = {"machineType": "e2-medium", "diskSizeGb": 100, "diskType": "pd-balanced"}
"""What GKE takes where a node pool states nothing (container.v1, `NodeConfig`)."""
GKE_IMAGE = "projects/gke-node-images/global/images/family/cos"
_CPUS_OF_GPU = {"a2": 12, "a3": 26, "a4": 28, "a4x": 35}
"""vCPUs that come with each GPU, by series."""
_SHARED_CORES = {"e2-micro": 2, "e2-small": 2, "e2-medium": 2, "f1-micro": 1, "g1-small": 1}


@dataclass(frozen=True, kw_only=True)
class MachineSet:
    """VMs of one kind.

    source: the resource that they follow from. temporary: they exist during the cluster's creation.
    image: the image or its family. account: the email of their service account, "" for the
    project's default. public: they have external addresses.
    start, maximum: how many there are at least and at most. surge: how many more in an upgrade.
    """

    source: str
    machine_type: str
    disk_type: str
    disk_gb: int
    image: str
    shielded: frozenset[str]
    metadata: Mapping[str, str]
    account: str
    public: bool
    start: int
    maximum: int
    surge: int = 0
    temporary: bool = False
    spot: bool = False

    @property
    def cpus(self) -> int:
        """The vCPUs of one VM, as quotas count them."""
        return cpus(self.machine_type)


class UnknownSizeError(ValueError):
    """A machine type that does not say how many vCPUs it has."""


def cpus(machine_type: str) -> int:
    """Return the vCPUs of a machine type. Raises UnknownSizeError."""
    if machine_type in _SHARED_CORES:
        return _SHARED_CORES[machine_type]
    if accelerators := re.fullmatch(r"(a[234]x?)-[a-z]+-(\d+)g(?:-\w+)*", machine_type):
        return _CPUS_OF_GPU[accelerators[1]] * int(accelerators[2])
    match = re.fullmatch(r"(?:[a-z]\w*-)?(?:[a-z]+-)?(\d+)(?:-\w+)*", machine_type)
    if match is None:
        raise UnknownSizeError(f"{machine_type!r} does not say how many vCPUs it has")
    return int(match[1])


def machine_sets(stack: Cloud) -> list[MachineSet]:
    """Return the VMs of a stack. Those of Autopilot are Google's, and not known here."""
    sets: list[MachineSet] = []
    for node in stack.of_type(resources.CLUSTER):
        sets += _first_pool(stack, node)
    sets += [_pool(stack, node) for node in stack.of_type(resources.NODE_POOL)]
    sets += [_instance(node) for node in stack.of_type(resources.INSTANCE)]
    for node in stack.of_type(cloud.MANAGER):
        sets += _group(stack, node)
    return sets


def _shielded(config: Mapping[str, Any], default: Mapping[str, bool]) -> frozenset[str]:
    given = {**default, **mapping(config.get("shieldedInstanceConfig"))}
    return frozenset(key for key, value in given.items() if value)


def _nodes(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what nodes have: a vTPM and integrity monitoring always, secure boot if stated."""
    given = {**GKE_DEFAULTS, **config}
    return {
        "machine_type": given["machineType"],
        "disk_type": given["diskType"],
        "disk_gb": given["diskSizeGb"],
        "image": GKE_IMAGE,
        "shielded": _shielded(config, {"enableVtpm": True, "enableIntegrityMonitoring": True}),
        "metadata": mapping(config.get("metadata")),
        "account": str(config.get("serviceAccount") or ""),
        "spot": bool(config.get("spot")),
    }


def _first_pool(stack: Cloud, node: Node) -> Iterator[MachineSet]:
    if node.inputs.get("enableAutopilot"):
        return
    if not node.inputs.get("removeDefaultNodePool"):
        raise ValueError(f"{node.name} keeps its first node pool, which is not in this model")
    count = number(node.inputs["initialNodeCount"]) * stack.zones_of(node.inputs["location"])
    yield MachineSet(
        source=node.name,
        **_nodes(mapping(node.inputs.get("nodeConfig"))),
        public=_public_nodes(node),
        start=count,
        maximum=count,
        temporary=True,
    )


def _public_nodes(node: Node) -> bool:
    return not value_at(node.inputs, "privateClusterConfig.enablePrivateNodes")


def _pool(stack: Cloud, node: Node) -> MachineSet:
    inputs = node.inputs
    zones = stack.zones_of(inputs["location"])
    first = number(inputs["initialNodeCount"]) * zones
    scaling = mapping(inputs["autoscaling"])
    cluster = next(
        each for each in stack.of_type(resources.CLUSTER) if each.name in stack.earlier(node.name)
    )
    return MachineSet(
        source=node.name,
        **_nodes(inputs["nodeConfig"]),
        public=_public_nodes(cluster),
        start=max(first, number(scaling["totalMinNodeCount"])),
        maximum=max(first, number(scaling["totalMaxNodeCount"])),
        surge=number(value_at(inputs, "upgradeSettings.maxSurge")),
    )


def _public(inputs: Mapping[str, Any]) -> bool:
    interfaces = items(inputs.get("networkInterfaces"))
    return any("accessConfigs" in each or "ipv6AccessConfigs" in each for each in interfaces)


def _account(inputs: Mapping[str, Any]) -> str:
    return str(value_at(inputs, "serviceAccount.email") or "")


def _instance(node: Node) -> MachineSet:
    inputs = node.inputs
    disk = mapping(value_at(inputs, "bootDisk.initializeParams"))
    return MachineSet(
        source=node.name,
        machine_type=inputs["machineType"],
        disk_type=disk["type"],
        disk_gb=disk["size"],
        image=disk["image"],
        shielded=_shielded(inputs, {}),
        metadata=inputs["metadata"],
        account=_account(inputs),
        public=_public(inputs),
        start=1,
        maximum=1,
        spot=value_at(inputs, "scheduling.provisioningModel") == "SPOT",
    )


def _group(stack: Cloud, node: Node) -> Iterator[MachineSet]:
    scaler = next(
        (
            mapping(each.inputs["autoscalingPolicy"])
            for each in stack.of_type(resources.AUTOSCALER)
            if stack.resolve(each.inputs["target"], cloud.MANAGER) is node
        ),
        {
            "minReplicas": node.inputs.get("targetSize"),
            "maxReplicas": node.inputs.get("targetSize"),
        },
    )
    for version in node.inputs["versions"]:
        template = stack.resolve(version["instanceTemplate"], resources.TEMPLATE)
        assert template is not None, f"{node.name} has no template"
        inputs = template.inputs
        [disk] = inputs["disks"]
        yield MachineSet(
            source=template.name,
            machine_type=inputs["machineType"],
            disk_type=disk["diskType"],
            disk_gb=disk["diskSizeGb"],
            image=disk["sourceImage"],
            shielded=_shielded(inputs, {}),
            metadata=inputs["metadata"],
            account=_account(inputs),
            public=_public(inputs),
            start=number(scaler["minReplicas"]),
            maximum=number(scaler["maxReplicas"]),
            surge=number(value_at(node.inputs, "updatePolicy.maxSurgeFixed")),
            spot=value_at(inputs, "scheduling.provisioningModel") == "SPOT",
        )
