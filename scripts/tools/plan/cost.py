"""What a stack costs a month, from its resources, by the prices of docs/costs.yaml. Pure.

The counts are those of `tools.costs`, which has them from the settings; a test compares
both. What depends on use is not in it, such as traffic.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from components.config.google import ZONES
from tools import ROOT

from . import resources
from .mesh_model import CostPart
from .resources import Resource, items, mapping, number, value_at

PRICES = ROOT / "docs" / "costs.yaml"
PODS_OF_AUTOPILOT = "pods-of-autopilot"
"""The item of what pods request in an Autopilot cluster. It has no price: nodes are Google's."""


@cache
def _prices() -> Mapping[str, Any]:
    import yaml

    prices: Mapping[str, Any] = yaml.safe_load(PRICES.read_text())
    return prices


def parts(listed: Iterable[Resource]) -> tuple[CostPart, ...]:
    """Return the parts of a stack's cost, sorted by item.

    An item without a price costs nothing here: `CostPart.usd` is 0.
    """
    every = list(listed)
    counts, spot = bill(every)
    if not counts:
        return ()
    most, most_spot = bill(every, at_most=True)
    data = _prices()

    def usd(item: str, number: int, of_spot: int) -> float:
        return _cost(number - of_spot * (1 - data["spot"]), data["prices"].get(item))

    return tuple(
        CostPart(
            item=item,
            count=count,
            usd=usd(item, count, spot[item]),
            most=usd(item, most[item], most_spot[item]),
        )
        for item, count in sorted(counts.items())
        if count
    )


def _cost(count: float, price: Mapping[str, Any] | None) -> float:
    if price is None:
        return 0.0
    units = math.ceil(count / price["for"]) if "for" in price else count
    return round(float(units * price["each"]), 2)


def bill(listed: Iterable[Resource], *, at_most: bool = False) -> tuple[Counter[str], Counter[str]]:
    """Return what a stack has, by the prices' names, and what of that is at a spot price.

    at_most: what it has once autoscalers have added all nodes and machines that it permits, not
    what it starts with.
    """
    counts: Counter[str] = Counter()
    spot: Counter[str] = Counter()
    every = list(listed)
    for each in every:
        inputs = each.inputs
        match each.type:
            case resources.CLUSTER:
                counts.update({"cluster": 1, "balancer": 1})
                counts[PODS_OF_AUTOPILOT] += bool(inputs.get("enableAutopilot"))
            case resources.NODE_POOL:
                nodes = _nodes(inputs, at_most)
                machine = str(value_at(inputs, "nodeConfig.machineType"))
                _add_machines(counts, machine, nodes)
                _add_disk(
                    counts,
                    value_at(inputs, "nodeConfig.diskType"),
                    nodes * number(value_at(inputs, "nodeConfig.diskSizeGb")),
                )
                spot.update({machine: nodes if value_at(inputs, "nodeConfig.spot") else 0})
            case resources.INSTANCE:
                machine = str(inputs.get("machineType"))
                disk = mapping(value_at(inputs, "bootDisk.initializeParams"))
                _add_machines(counts, machine, 1)
                _add_disk(counts, disk.get("type"), number(disk.get("size")))
                spot.update({machine: 1 if inputs.get("scheduling") else 0})
            case resources.TEMPLATE:
                replicas = "maxReplicas" if at_most else "minReplicas"
                scalers = (
                    other
                    for other in every
                    if other.type == resources.AUTOSCALER and other.parent == each.parent
                )
                count = next(
                    (
                        number(value_at(other.inputs, f"autoscalingPolicy.{replicas}"))
                        for other in scalers
                    ),
                    0,
                )
                machine, disks = str(inputs.get("machineType")), items(inputs.get("disks"))
                _add_machines(counts, machine, count)
                for disk in disks:
                    size = number(disk.get("diskSizeGb"))
                    _add_disk(counts, disk.get("diskType"), count * size)
                spot.update({machine: count if inputs.get("scheduling") else 0})
            case resources.FORWARDING_RULE:
                counts["balancer"] += 1
            case "gcp:compute/routerNat:RouterNat":
                counts["nat"] += 1
            case "gcp:dns/managedZone:ManagedZone":
                counts["zone"] += 1
    return counts, spot


def _nodes(pool: Mapping[str, Any], at_most: bool) -> int:
    """Return the nodes of a pool. It starts with the same number in each zone of its location."""
    if at_most:
        return number(value_at(pool, "autoscaling.totalMaxNodeCount"))
    is_zonal = str(pool.get("location")).count("-") > 1
    return number(pool.get("initialNodeCount")) * (1 if is_zonal else ZONES)


def _add_machines(counts: Counter[str], machine_type: str, count: int) -> None:
    counts.update({machine_type: count, "nat-machine": count})


def _add_disk(counts: Counter[str], disk_type: object, size_gb: int) -> None:
    counts[disk_item(str(disk_type))] += size_gb


def disk_item(disk_type: str) -> str:
    """Return the item of the prices that a type of disk has."""
    return "disk" if disk_type == "pd-balanced" else disk_type
