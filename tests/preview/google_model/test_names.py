"""Names that Google Cloud takes, whatever the stack file says and the stack is called."""

from __future__ import annotations

import pytest

from tests.support import google_stacks, harness
from tests.support.google_model import naming
from tests.support.google_stacks import STACKS, built, shipped, with_input
from tests.support.tiers import some_quick

LONG = "platform-team-of-the-european-online-shop-production-in-europe-west-"
STACK_NAMES = (f"{LONG}blue", f"{LONG}blur", "Team_A.staging", "2026", "x" * 100)


@pytest.mark.parametrize("stack", STACKS)
def test_google_takes_the_names_of_shipped_stacks(stack: str) -> None:
    assert naming.problems(shipped(stack)) == []


@pytest.mark.parametrize("what", some_quick(google_stacks.LONGEST, google_stacks.LONGEST[0]))
def test_google_takes_the_longest_names_that_settings_accept(what: str) -> None:
    assert naming.problems(google_stacks.with_longest(what)) == []


@pytest.mark.parametrize("name", some_quick(STACK_NAMES, STACK_NAMES[0]))
def test_google_takes_what_follows_from_any_name_of_a_stack(name: str) -> None:
    assert naming.problems(built(google_stacks.several_vpcs, name)) == []


@pytest.mark.slow
def test_two_stacks_have_nothing_of_one_name() -> None:
    names = [naming.identities(built(google_stacks.several_vpcs, name)).keys() for name in STACK_NAMES]
    assert all(names)
    assert len(set().union(*names)) == sum(map(len, names))


@pytest.mark.parametrize(
    ("name", "path", "value", "problem"),
    [
        ("cluster-gke", "name", "c" * 41, "has 41 characters; Google takes 1 to 40"),
        ("cluster-gke", "name", "Mesh", "does not match"),
        ("product-1-instance", "name", "i" * 64, "has 64 characters"),
        ("product-google-account", "accountId", "short", "Google takes 6 to 30"),
        ("product-google-account", "displayName", "d" * 101, "Google takes 0 to 100"),
        ("google-provider", "defaultLabels", '{"stack": "%s"}' % ("l" * 64), "Google takes 0 to 63"),
        ("google-provider", "defaultLabels", '{"Stack": "l"}', "does not match"),
    ],
)  # fmt: skip
def test_a_name_that_google_refuses_is_reported(name: str, path: str, value: str, problem: str) -> None:
    [reported] = naming.problems(with_input(shipped("single-network"), name, path, value))
    assert reported.startswith(name) and problem in reported


def test_a_generated_name_counts_with_what_pulumi_appends() -> None:
    name = "firewall-" + "w" * 46
    node = shipped("single-network").nodes["firewall-mesh-product"]
    assert len(naming.final_name(harness.Node(node.type, name, {}, {}, ""))) == 63
    longer = harness.Node(node.type, f"{name}w", {}, {}, "")
    [reported] = naming.problems(google_stacks.Cloud({longer.name: longer}))
    assert "has 64 characters" in reported


def test_a_type_without_known_limits_is_refused() -> None:
    node = harness.Node("gcp:compute/vpnTunnel:VpnTunnel", "tunnel", {}, {}, "")
    with pytest.raises(ValueError, match="limits of names of gcp:compute/vpnTunnel"):
        naming.problems(google_stacks.Cloud({node.name: node}))
