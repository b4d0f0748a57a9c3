"""Every name that the program derives for Google Cloud is one that Google takes, whatever a stack is called."""

from __future__ import annotations

import json
import random
import re
import string
from collections.abc import Iterator
from typing import Any

import pytest

from components.platforms.google import names
from tests.support import harness
from tests.support.harness import Node
from tests.support.tiers import some_quick

SUFFIX = 8
"""Characters that Pulumi appends to a resource's name where the program gives none."""
RFC_1035 = r"[a-z]([-a-z0-9]*[a-z0-9])?"
OF_NAMES = (RFC_1035, 1, names.LIMITS["name"])
TITLE = (r"[^\n]*", 0, names.LIMITS["title"])
NAMED = {"name": OF_NAMES}
NAMELESS: dict[str, tuple[str, int, int]] = {}
TABLE: dict[str, dict[str, tuple[str, int, int]]] = {
    "gcp:compute/address:Address": NAMED,
    "gcp:compute/firewall:Firewall": NAMED,
    "gcp:compute/forwardingRule:ForwardingRule": NAMED,
    "gcp:compute/healthCheck:HealthCheck": NAMED,
    "gcp:compute/instance:Instance": NAMED,
    "gcp:compute/instanceGroup:InstanceGroup": NAMED,
    "gcp:compute/instanceGroupMembership:InstanceGroupMembership": NAMELESS,
    "gcp:compute/network:Network": NAMED,
    "gcp:compute/networkPeering:NetworkPeering": NAMED,
    "gcp:compute/regionAutoscaler:RegionAutoscaler": NAMED,
    "gcp:compute/regionBackendService:RegionBackendService": NAMED,
    "gcp:compute/regionHealthCheck:RegionHealthCheck": NAMED,
    "gcp:compute/regionInstanceGroupManager:RegionInstanceGroupManager": {
        **NAMED,
        "baseInstanceName": (RFC_1035, 1, names.LIMITS["base"]),
    },
    "gcp:compute/regionInstanceTemplate:RegionInstanceTemplate": NAMED,
    "gcp:compute/router:Router": NAMED,
    "gcp:compute/routerNat:RouterNat": NAMED,
    "gcp:compute/subnetwork:Subnetwork": NAMED,
    "gcp:container/cluster:Cluster": {"name": (RFC_1035, 1, names.LIMITS["cluster"])},
    "gcp:container/nodePool:NodePool": {"name": (RFC_1035, 1, 40)},
    "gcp:dns/managedZone:ManagedZone": NAMED,
    "gcp:dns/recordSet:RecordSet": {"name": (r"[a-z0-9.-]+\.", 2, 254)},
    "gcp:projects/iAMCustomRole:IAMCustomRole": {"roleId": (r"[a-zA-Z0-9_.]+", 3, names.LIMITS["role"]), "title": TITLE},
    "gcp:projects/iAMMember:IAMMember": NAMELESS,
    "gcp:serviceaccount/account:Account": {
        "accountId": (RFC_1035, names.SHORTEST_ACCOUNT, names.LIMITS["account"]),
        "displayName": TITLE,
    },
}
"""By type, what a name must match, and how long it is at least and at most."""


def problems(graph: dict[str, Node]) -> Iterator[str]:
    for node in graph.values():
        for key, (pattern, least, most) in TABLE[node.type].items() if node.type.startswith("gcp:") else ():
            name = node.inputs.get(key) or f"{node.name}-{'0' * (SUFFIX - 1)}"
            if not re.fullmatch(pattern, name) or not least <= len(name) <= most:
                yield f"{node.type} {key} {name!r}: {len(name)} of {most}"
    for key, value in json.loads(graph["google-provider"].inputs["defaultLabels"]).items():
        if not re.fullmatch(r"[a-z0-9_-]{1,63}", value):
            yield f"label {key} {value!r}"


def word(dice: random.Random, length: int) -> str:
    """Return a name of a stack file, of exactly this length."""
    inner = "".join(dice.choice(string.ascii_lowercase + string.digits + "-") for _ in range(length - 2))
    return (dice.choice(string.ascii_lowercase) + inner + dice.choice(string.ascii_lowercase))[:length]


def longest(dice: random.Random) -> dict[str, Any]:
    """Return a stack whose names are as long as the settings take them."""
    vpc, other = word(dice, dice.randint(1, 22)), word(dice, 22)
    network, workload = word(dice, min(26, 30 - len(vpc))), word(dice, 38 - len(vpc))
    config = harness.configuration("multi-network")
    config["google"]["subnets"] = {
        word(dice, 40): {"vpc": vpc, "network": network, "cidr": "10.40.0.0/24"},
        "nodes": {"vpc": other, "network": "pods", "cidr": "10.10.0.0/22"},
    }
    gateway = {"machines": 3, "zones": [f"europe-west1-{letter}" for letter in "bcd"]}
    third = word(dice, len(network))
    config["google"]["subnets"]["third"] = {"vpc": vpc, "network": third, "cidr": "10.41.0.0/24"}
    config["networks"] = {"pods": {}, network: {"gateway": gateway}, third: {"gateway": {**gateway, "group": True}}}
    config["workloads"] = {workload: config["workloads"]["product"]}
    config["machines"] = {
        word(dice, 63): {"platform": "gce", "workload": workload, "network": network, "zone": "europe-west1-b"},
        word(dice, 44): {"platform": "gce-instance-group", "workload": workload, "network": network},
        word(dice, 44): {"platform": "gce", "workload": workload, "network": third, "zone": "europe-west1-c"},
    }
    return config


def stack_name(dice: random.Random, length: int) -> str:
    return "".join(dice.choice(string.ascii_letters + string.digits + "-_.") for _ in range(length))


@pytest.mark.parametrize("seed", some_quick(range(12), 0))
def test_the_longest_names_of_a_stack_make_names_that_google_takes(seed: int) -> None:
    dice = random.Random(seed)
    length = (100, 1, 40, 63)[seed] if seed < 4 else dice.randint(1, 100)
    graph = harness.run(longest(dice), stack=stack_name(dice, length)).graph
    assert list(problems(graph)) == []
    assert {node.type for node in graph.values() if node.type.startswith("gcp:")} == set(TABLE)


def test_names_that_are_cut_stay_apart() -> None:
    one, other = f"{'x' * 90}-blue", f"{'x' * 90}-blur"
    for name in (
        lambda stack: names.cluster_name(stack),
        lambda stack: names.resource_name(stack, "product-1"),
        lambda stack: names.base_instance_name(stack, "product-fleet"),
        lambda stack: names.account_id(stack, "product"),
        lambda stack: names.stack_label_value(stack),
    ):
        assert name(one) != name(other)
    assert names.cluster_name("payments-production-europe-west1-europe-blue") != names.cluster_name(
        "payments-production-europe-west1-europe-blur"
    )


def test_a_role_that_was_deleted_is_never_needed_again() -> None:
    """Google keeps its ID for up to 37 days. The account is another one after each destroy."""
    assert names.role_id("dev", "1" * 21) != names.role_id("dev", "2" * 21)
    assert names.role_id("a-b", "1" * 21).endswith("_" + "1" * 21)
    assert len(names.role_id("x" * 100, "1" * 21)) == names.LIMITS["role"]


def test_a_title_keeps_its_purpose() -> None:
    assert names.title("dev", "nodes of the cluster") == "istio-vm-mesh dev: nodes of the cluster"
    long = names.title("x" * 100, "nodes of the cluster")
    assert long.endswith("x: nodes of the cluster") and len(long) == names.LIMITS["title"]
