"""What the stacks on Google Cloud cost a month: `docs/costs.md` from `docs/costs.yaml` and the stack files. Written by `./scripts/schema`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tools import ROOT
from tools.google_model import quotas
from tools.plan.cost import PODS_OF_AUTOPILOT, disk_item

if TYPE_CHECKING:
    from components.config.stack import Settings
    from tools.google_model.cloud import Cloud

PRICES, PAGE = ROOT / "docs" / "costs.yaml", ROOT / "docs" / "costs.md"


def stacks() -> Iterator[tuple[str, Settings]]:
    """Yield the stacks on Google Cloud, gateways expanded into machines."""
    from components.config import load, reader

    for name in reader.stacks():
        raw = reader.read_file(name)
        if "google" in raw:
            yield name, load(raw)


def bill(settings: Settings, *, at_most: bool = False) -> tuple[Counter[str], Counter[str]]:
    """Return what a stack has, by the prices' names: as it starts, and what of that is at a spot
    price.

    at_most: what it has once autoscalers have added all nodes and machines that it permits.
    """
    from components.config import gateway_machines
    from components.config.google import ZONES, GceInstanceGroup, GkeCluster
    from components.config.google_machine_types import default_disk_type
    from components.istio import network_gateways
    from components.platforms.google.topology import vpcs

    counts: Counter[str] = Counter()
    spot: Counter[str] = Counter()
    cluster = settings.cluster
    if isinstance(cluster, GkeCluster):
        nodes = cluster.nodes
        counts.update({"cluster": 1, "balancer": 1, "zone": 1 if cluster.gateway.dns_name else 0})
        if cluster.autopilot:
            counts[PODS_OF_AUTOPILOT] += 1
        else:
            per_zone = math.ceil(nodes.min_nodes / ZONES)
            start = nodes.min_nodes if cluster.zone else per_zone * ZONES
            count = nodes.max_nodes if at_most else start
            disk = disk_item(nodes.disk_type or default_disk_type(nodes.machine_type))
            counts.update({nodes.machine_type: count, "nat-machine": count})
            counts.update({disk: count * nodes.disk_size})
            spot.update({nodes.machine_type: count if nodes.spot else 0})
    counts["balancer"] += sum(
        network_gateways.has_load_balancer(settings, network) for network in gateway_machines.networks_with_gateway(settings)
    )
    existing = settings.google.vpcs if settings.google else {}
    counts["nat"] += len(set(vpcs(settings)) - existing.keys())
    for machine in settings.google_machines.values():
        count = 1
        if isinstance(machine, GceInstanceGroup):
            count = machine.max_replicas if at_most else machine.min_replicas
        disk = disk_item(machine.disk_type or default_disk_type(machine.machine_type))
        counts.update({machine.machine_type: count, "nat-machine": count})
        counts.update({disk: count * machine.disk_size})
        spot.update({machine.machine_type: count if machine.spot else 0})
    return counts, spot


def vcpus(counts: Mapping[str, int]) -> int:
    """Return how many vCPUs machines have, by what their types end with; e2-small and e2-medium have two."""
    sizes = {item: item.rpartition("-")[2] for item in counts if "-" in item}
    return sum(
        counts[item] * (int(size) if size.isdecimal() else 2) for item, size in sizes.items() if size.isdecimal() or item.startswith("e2-")
    )


def monthly(settings: Settings) -> float:
    """Return what a stack costs a month as it starts, in US dollars, without what has no price."""
    import yaml

    return _total(settings, yaml.safe_load(PRICES.read_text()), at_most=False)


def unpriced(settings: Settings) -> list[str]:
    """Return what a stack has, as it starts, that has no price in the table."""
    import yaml

    counts, _ = bill(settings)
    return sorted(item for item, count in counts.items() if count and item not in yaml.safe_load(PRICES.read_text())["prices"])


def _total(settings: Settings, data: Mapping[str, Any], *, at_most: bool) -> float:
    counts, spot = bill(settings, at_most=at_most)
    prices = data["prices"]
    return sum(_cost(count - spot[item] * (1 - data["spot"]), prices[item]) for item, count in counts.items() if count and item in prices)


def _cost(count: float, price: Mapping[str, Any]) -> float:
    """What `count` of something cost; of some things several share a price (`for`)."""
    return math.ceil(count / price["for"]) * price["each"] if "for" in price else count * price["each"]


def limits() -> list[quotas.Limit]:
    """Return the quotas that a first run meets, and what new projects often have of them."""
    import yaml

    return [quotas.Limit(**each) for each in yaml.safe_load(PRICES.read_text())["quotas"]]


def page(clouds: Mapping[str, Cloud]) -> str:
    """Return the page. clouds: the resources of the stacks on Google Cloud, by the stacks' names."""
    import yaml

    data: Mapping[str, Any] = yaml.safe_load(PRICES.read_text()) if PRICES.exists() else {}
    prices: Mapping[str, Any] = data["prices"]
    text = [
        "# Costs and quotas\n\nWhat the stacks on Google Cloud cost a month as they start, in US dollars, at list prices of\n"
        "us-central1. In europe-west1, the region of the stack files, they cost about a tenth more. Traffic\n"
        "is not included. `./scripts/schema` writes this page from `docs/costs.yaml` and the stack files;\n"
        f"change those. The prices are of {data['read']}.\n\n"
        "| stack | a month | at most | vCPUs | the most of it |\n| --- | ---: | ---: | ---: | --- |\n"
    ]
    sections: list[str] = []
    for name, settings in stacks():
        counts, spot = bill(settings)
        costs = {item: _cost(count - spot[item] * (1 - data["spot"]), prices[item]) for item, count in counts.items() if count}
        total = sum(costs.values())
        most = sorted(costs, key=lambda item: -costs[item])[:3]
        named = ", ".join(f"{prices[item]['what']} {costs[item] / total:.0%}" for item in most)
        largest = _total(settings, data, at_most=True)
        cores = " to ".join(str(vcpus(bill(settings, at_most=at_most)[0])) for at_most in (False, True))
        text.append(f"| [{name}](#{name}) | {total:.0f} | {largest:.0f} | {cores} | {named} |\n")
        rows = [
            f"| {prices[item]['what']} | {count:g} | {costs[item]:.0f} | {prices[item].get('note', '')} |\n"
            for item, count in sorted(counts.items())
            if count
        ]
        sections.append(
            f"\n## {name}\n\n| what | how many | a month | |\n| --- | ---: | ---: | --- |\n"
            + "".join(rows)
            + f"| **sum** | | **{total:.0f}** | |\n"
        )
    text.append(
        "\nAt most: once autoscalers have added all nodes and machines that the stack permits. Updates add a\n"
        "node and a few machines of a group for a while.\n"
    )
    text += [*sections, f"\n## Also\n\n{''.join(f'- {line}{chr(10)}' for line in data['more'])}"]
    text.append(
        "\n## Cheaper\n\n"
        f"- `cluster.nodes.spot: true` and `spot: true` of machines: about {1 - data['spot']:.0%} less for these, and they may stop at any time.\n"
        "- One zonal cluster of a billing account is free of the management fee.\n"
        "- `pulumi destroy` when the stack is not used: a stack is up again in 12 to 20 minutes (`cluster.deletionProtection: false` and `pulumi up` first).\n"
        "\n## Quotas that a first run meets\n\nA preview does not see them; `pulumi up` fails at the resource, and continues there once the quota is raised.\n"
        "Three numbers are what a stack needs: until it is up, while all nodes and groups are replaced, and the\n"
        "same at its upper bounds. Bold ones exceed what new projects often have. GKE's first node pool, which\n"
        "is removed once the cluster exists, is in the first number; its firewall rules and load balancers are\n"
        "in all. `gcloud compute regions describe REGION` and `gcloud compute project-info describe` show yours.\n\n"
    )
    text.append(quotas.table(clouds, limits()))
    return "".join(text)
