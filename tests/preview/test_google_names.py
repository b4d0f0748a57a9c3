"""Every name that the program derives for Google Cloud is one that Google takes, whatever a stack is called."""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from components.platforms.google import names
from tests.support import harness
from tests.support.google_model import naming
from tests.support.tiers import some_quick
from tools.google_model.cloud import Cloud


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
    cloud = Cloud.of(harness.run(longest(dice), stack=stack_name(dice, length)).graph.values())
    assert naming.problems(cloud) == []
    assert {node.type for node in cloud.on_google()} == naming.NAMES.keys() | naming.NAMELESS


FIXED = (names.cluster_name, names.resource_name, names.base_instance_name, names.account_id)
"""What makes names that only one stack of a project can have."""


def test_no_two_stacks_have_a_name_in_common() -> None:
    """Names of stacks and of machines have hyphens, and Google takes fewer letters than Pulumi."""
    stacks = ["".join(letters) for length in (1, 2, 3, 4) for letters in product("ab-_.A", repeat=length)]
    machines = ["a", "b", *(f"{first}{inner}{last}" for first, inner, last in product("ab", "ab-", "ab")), "a--b"]
    every = [names.resource_name(stack, machine) for stack in stacks for machine in machines]
    assert len(every) == len(set(every))


@pytest.mark.parametrize("fixed", FIXED)
def test_names_that_are_cut_stay_apart(fixed: Callable[[str, str], str]) -> None:
    one, other = f"{'x' * 90}-blue", f"{'x' * 90}-blur"
    assert len({fixed(stack, name) for stack in (one, other, "dev") for name in ("product", one, other)}) == 9


@pytest.mark.parametrize("fixed", FIXED)
def test_a_name_that_fits_can_be_told_from_the_stack_file(fixed: Callable[[str, str], str]) -> None:
    assert fixed("eu-dev", "product-1") in ("eu-dev--product-1", "eu-dev--product-1-mesh")


def test_a_role_that_was_deleted_is_never_needed_again() -> None:
    """Google keeps its ID for up to 37 days. The account is another one after each destroy."""
    assert names.role_id("dev", "1" * 21) != names.role_id("dev", "2" * 21)
    assert names.role_id("a-b", "1" * 21).endswith("_" + "1" * 21)
    assert len(names.role_id("x" * 100, "1" * 21)) == names.LIMITS["role"]


def test_a_title_keeps_its_purpose() -> None:
    assert names.title("dev", "nodes of the cluster") == "istio-vm-mesh dev: nodes of the cluster"
    long = names.title("x" * 100, "nodes of the cluster")
    assert long.endswith("x: nodes of the cluster") and len(long) == names.LIMITS["title"]
