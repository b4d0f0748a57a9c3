"""What the stacks on Google Cloud cost a month: `docs/costs.md` from `docs/costs.yaml` and the stack files. Written by `./scripts/schema`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tools import ROOT

if TYPE_CHECKING:
    from components.config.stack import Settings

PRICES, PAGE = ROOT / "docs" / "costs.yaml", ROOT / "docs" / "costs.md"


def stacks() -> Iterator[tuple[str, Settings]]:
    """The stacks on Google Cloud, gateways expanded into machines."""
    from components.config import load, reader

    for name in reader.stacks():
        raw = reader.read_file(name)
        if "google" in raw:
            yield name, load(raw)


def bill(settings: Settings) -> tuple[Counter[str], Counter[str]]:
    """What a stack has, by the prices' names: as it starts, and what of that is at a spot price."""
    from components.config import gateway_machines
    from components.config.google import GceInstanceGroup, GkeCluster
    from components.istio import network_gateways
    from components.platforms.google import names

    counts: Counter[str] = Counter()
    spot: Counter[str] = Counter()
    cluster = settings.cluster
    if isinstance(cluster, GkeCluster):
        nodes = cluster.nodes
        counts.update({"cluster": 1, "balancer": 1, "zone": 1 if cluster.gateway.dns_name else 0})
        if not cluster.autopilot:
            counts.update({nodes.machine_type: nodes.min_nodes, "disk": nodes.min_nodes * nodes.disk_size, "nat-machine": nodes.min_nodes})
            spot.update({nodes.machine_type: nodes.min_nodes if nodes.spot else 0})
    counts["balancer"] += sum(
        network_gateways.has_load_balancer(settings, network) for network in gateway_machines.networks_with_gateway(settings)
    )
    counts["nat"] += len(names.vpcs(settings))
    for machine in settings.google_machines.values():
        count = machine.min_replicas if isinstance(machine, GceInstanceGroup) else 1
        counts.update({machine.machine_type: count, "disk": count * machine.disk_size, "nat-machine": count})
        spot.update({machine.machine_type: count if machine.spot else 0})
    return counts, spot


def _cost(count: float, price: Mapping[str, Any]) -> float:
    """What `count` of something cost; of some things several share a price (`for`)."""
    return math.ceil(count / price["for"]) * price["each"] if "for" in price else count * price["each"]


def page() -> str:
    """The page."""
    import yaml

    data: Mapping[str, Any] = yaml.safe_load(PRICES.read_text()) if PRICES.exists() else {}
    prices: Mapping[str, Any] = data["prices"]
    text = [
        "# Costs and quotas\n\nWhat the stacks on Google Cloud cost a month as they start, in US dollars, at list prices of\n"
        "us-central1; europe-west1, the region of the stack files, costs about a tenth more. Traffic is not\n"
        "in it. Written by `./scripts/schema` from `docs/costs.yaml` and the stack files; change those. The\n"
        f"prices are of {data['read']}.\n\n"
        "| stack | a month | the most of it |\n| --- | ---: | --- |\n"
    ]
    sections: list[str] = []
    for name, settings in stacks():
        counts, spot = bill(settings)
        costs = {item: _cost(count - spot[item] * (1 - data["spot"]), prices[item]) for item, count in counts.items() if count}
        total = sum(costs.values())
        most = sorted(costs, key=lambda item: -costs[item])[:3]
        named = ", ".join(f"{prices[item]['what']} {costs[item] / total:.0%}" for item in most)
        text.append(f"| [{name}](#{name}) | {total:.0f} | {named} |\n")
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
    text += sections
    text.append(
        "\n## Cheaper\n\n"
        f"- `cluster.nodes.spot: true` and `spot: true` of machines: about {1 - data['spot']:.0%} less for these, and they may stop at any time.\n"
        "- One zonal cluster of a billing account is free of the management fee.\n"
        "- `pulumi destroy` when the stack is not used: a stack is up again in 12 to 20 minutes (`cluster.deletionProtection: false` and `pulumi up` first).\n"
        "\n## Quotas that a first run meets\n\nA preview does not see them; `pulumi up` fails at the resource, and continues there once the quota is raised.\n\n"
    )
    text += [f"- {quota['name']}: {quota['why']}\n" for quota in data["quotas"]]
    return "".join(text)
