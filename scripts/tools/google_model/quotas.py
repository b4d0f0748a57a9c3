"""What a stack needs of Google's quotas, as it is created, upgraded and at its upper bounds. Pure.

Metrics are those of `gcloud compute regions describe` and `gcloud compute project-info describe`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from tools.plan import resources

from . import cloud
from .cloud import Cloud, service_of_gateway
from .machines import MachineSet, machine_sets

FIREWALL_RULES_OF_GKE = 4
"""Of a cluster: `-all`, `-vms`, `-inkubelet`, `-exkubelet`."""
FIREWALL_RULES_OF_SERVICE = 2
"""Of a Service with a load balancer: one for its clients, one for health checks."""
PORTS_OF_VM, PORTS_OF_ADDRESS = 64, 64512
"""Of Cloud NAT: what each VM has at least, and what an address has for them."""
_DISKS = {
    "hyperdisk-balanced": "HDB_TOTAL_GB",
    "pd-balanced": "SSD_TOTAL_GB",
    "pd-ssd": "SSD_TOTAL_GB",
    "pd-standard": "DISKS_TOTAL_GB",
}
_SHARED_QUOTA = ("e2", "f1", "g1", "n1", "t2a")
"""Families that count as `CPUS`; others have a quota each."""


SERVICE_ACCOUNTS, PEERINGS = "service accounts", "peerings"
"""Quotas that are no metrics of Compute Engine."""


class Moment(StrEnum):
    """When a stack is looked at."""

    CREATION = "creation"
    UPGRADE = "upgrade"
    MAXIMUM = "maximum"
    MOST = "most"


@dataclass(frozen=True)
class Limit:
    """A quota.

    metric: Google's name. what: in words. new: what new projects often have.
    """

    metric: str
    what: str
    new: int


def usage(stack: Cloud, moment: Moment) -> Counter[str]:
    """Return what a stack uses of each quota at a moment.

    CREATION: the most until it is up, with the node pool that GKE creates first and removes.
    UPGRADE: at its lower bounds, while all nodes and groups are replaced. MAXIMUM: at its upper
    bounds. MOST: at these, while all is replaced.
    """
    sets = machine_sets(stack)
    if moment is Moment.CREATION:
        first = [each for each in sets if each.temporary or _before_cluster(stack, each)]
        counts = _of_machines(first, lambda each: each.start)
        later = [each for each in sets if not each.temporary]
        counts |= _of_machines(later, lambda each: each.start)  # the larger of each
    else:
        later = [each for each in sets if not each.temporary]
        counts = _of_machines(later, lambda each: _count(each, moment))
    return counts + _of_resources(stack, counts["INSTANCES"])


def _before_cluster(stack: Cloud, each: MachineSet) -> bool:
    clusters = {node.name for node in stack.of_type(resources.CLUSTER)}
    return not clusters & stack.earlier(each.source)


def _count(each: MachineSet, moment: Moment) -> int:
    count = each.start if moment is Moment.UPGRADE else each.maximum
    return count if moment is Moment.MAXIMUM else count + each.surge


def _of_machines(sets: Iterable[MachineSet], count: Callable[[MachineSet], int]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for each in sets:
        family = each.machine_type.partition("-")[0]
        vcpus, machines = f"{family.upper()}_CPUS", count(each)
        counts["CPUS" if family in _SHARED_QUOTA else vcpus] += machines * each.cpus
        counts["CPUS_ALL_REGIONS"] += machines * each.cpus
        counts[_DISKS[each.disk_type]] += machines * each.disk_gb
        counts["INSTANCES"] += machines
    return counts


def _of_resources(stack: Cloud, machines: int) -> Counter[str]:
    services = len(service_of_gateway(stack))
    clusters = len(stack.of_type(resources.CLUSTER))
    nats = len(stack.of_type(cloud.NAT))
    counts = Counter(
        {
            "NETWORKS": len(stack.of_type(cloud.NETWORK)),
            "SUBNETWORKS": len(stack.of_type(cloud.SUBNETWORK)),
            "ROUTERS": len(stack.of_type(cloud.ROUTER)),
            "FIREWALLS": len(stack.of_type(resources.FIREWALL))
            + clusters * FIREWALL_RULES_OF_GKE
            + services * FIREWALL_RULES_OF_SERVICE,
            # More only where the VMs of a VPC need more ports than one address has.
            "IN_USE_ADDRESSES": nats * max(1, -(-machines * PORTS_OF_VM // PORTS_OF_ADDRESS)),
            "FORWARDING_RULES": len(stack.of_type(resources.FORWARDING_RULE)) + services,
            SERVICE_ACCOUNTS: len(stack.of_type(cloud.ACCOUNT)),
            PEERINGS: _peerings(stack),
        }
    )
    return +counts


def _peerings(stack: Cloud) -> int:
    """Return the peerings of the VPC that has the most."""
    counts = Counter(stack.vpc(each.inputs["network"]) for each in stack.of_type(cloud.PEERING))
    return max(counts.values(), default=0)


def table(stacks: Mapping[str, Cloud], limits: Iterable[Limit]) -> str:
    """Return the table of docs/costs.md: three numbers of each stack, those over a limit bold.

    stacks: the columns, by name. Raises ValueError for a metric that a stack uses and `limits` has
    not.
    """
    moments = (Moment.CREATION, Moment.UPGRADE, Moment.MOST)
    used = {
        name: [usage(stack, moment) for moment in moments] for name, stack in sorted(stacks.items())
    }
    rows = tuple(limits)
    absent = {metric for each in used.values() for counts in each for metric in counts}
    if absent := absent - {limit.metric for limit in rows}:
        raise ValueError(f"quotas without a limit: {', '.join(sorted(absent))}")
    lines = [
        f"| quota | new projects | {' | '.join(used)} |",
        f"| --- | ---: | {' | '.join('---:' for _ in used)} |",
    ]
    for limit in rows:
        cells = [_cell([each[limit.metric] for each in counts], limit) for counts in used.values()]
        words = limit.what
        if limit.metric not in (SERVICE_ACCOUNTS, PEERINGS):
            words += f" (`{limit.metric}`)"
        lines.append(f"| {words} | {limit.new} | {' | '.join(cells)} |")
    return "".join(f"{line}\n" for line in lines)


def _cell(counts: list[int], limit: Limit) -> str:
    if not any(counts):
        return ""
    texts = [f"**{count}**" if count > limit.new else str(count) for count in counts]
    return texts[0] if len(set(texts)) == 1 else " / ".join(texts)


def over(stack: Cloud, moment: Moment, limits: Iterable[Limit]) -> dict[str, int]:
    """Return what a stack uses at a moment of the quotas that new projects have too little of."""
    counts = usage(stack, moment)
    return {each.metric: counts[each.metric] for each in limits if counts[each.metric] > each.new}
