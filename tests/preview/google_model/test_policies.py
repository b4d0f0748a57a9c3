"""Organisation policies and quotas, with what Google derives from what a stack declares."""

from __future__ import annotations

import pytest

from tests.support import google_stacks
from tests.support.google_stacks import STACKS, built, shipped, with_input
from tools import costs
from tools.google_model import machines, policies, quotas
from tools.google_model.cloud import Cloud
from tools.google_model.quotas import Moment

LIMITS = costs.limits()
NOT_OFFERED = {
    "container.managed.enableSecretsEncryption": ("cluster-gke",),
    "container.managed.enableBinAuthz": ("cluster-gke",),
    "container.managed.enableGoogleGroupsRBAC": ("cluster-gke",),
}
OF_EVERY_STACK = {"compute.requireVpcFlowLogs", "iam.disableServiceAccountCreation"}
"""What refuses the subnets or the accounts that every stack creates."""
SSH = ("compute.requireOsLogin", "compute.disableGuestAttributesAccess")
"""What machines that are joined by SSH cannot keep: their host keys are guest attributes."""
SINGLE = {
    "fleet": (),
    "multi-network": ("far-gateway-1-instance", "far-gateway-2-instance", "product-1-instance"),
    "single-network": ("product-1-instance", "product-2-instance"),
}


@pytest.mark.parametrize("stack", STACKS)
def test_policies_refuse_machines_with_ssh_and_what_no_setting_offers(stack: str) -> None:
    by_ssh = {name: SINGLE[stack] for name in SSH if SINGLE[stack]}
    assert refusals(shipped(stack)) == by_ssh | NOT_OFFERED


@pytest.mark.parametrize("build", [google_stacks.group_of_one, google_stacks.groups_alone])
def test_groups_of_machines_keep_every_policy_for_machines(build: google_stacks.Build) -> None:
    """So every shipped scenario runs where an organisation forbids what SSH needs."""
    assert refusals(built(build)) == NOT_OFFERED


def refusals(stack: Cloud) -> dict[str, tuple[str, ...]]:
    """Return what policies refuse of a stack, besides what they refuse of every stack."""
    refused = policies.refusals(stack)
    assert refused.keys() >= OF_EVERY_STACK
    return {name: named for name, named in refused.items() if name not in OF_EVERY_STACK}


@pytest.mark.parametrize("stack", STACKS)
def test_the_table_names_the_way_out_of_policies_against_ssh(stack: str) -> None:
    table = policies.table({stack: shipped(stack)})
    for name in SSH:
        [line] = [line for line in table.splitlines() if f"`{name}`" in line]
        assert ("use a group of exactly one machine" in line) == bool(SINGLE[stack])


@pytest.mark.parametrize("stack", STACKS)
def test_what_gke_creates_is_as_shielded_as_what_the_stack_does(stack: str) -> None:
    """GKE's first node pool is removed again, but a policy refuses it first."""
    sets = machines.machine_sets(shipped(stack))
    assert [each for each in sets if each.temporary]
    for each in sets:
        assert each.shielded >= policies.SHIELDED, each.source


@pytest.mark.parametrize("stack", STACKS)
def test_what_gke_creates_first_is_smaller_than_what_follows(stack: str) -> None:
    [first] = [each for each in machines.machine_sets(shipped(stack)) if each.temporary]
    [pool] = [each for each in machines.machine_sets(shipped(stack)) if each.source == "cluster-nodes"]
    assert first.cpus <= pool.cpus and first.disk_gb < pool.disk_gb
    assert first.disk_type == "pd-standard", "its disks take nothing of the quota for SSDs"


@pytest.mark.parametrize("stack", STACKS)
def test_a_new_project_has_the_quotas_to_create_a_shipped_stack(stack: str) -> None:
    assert quotas.over(shipped(stack), Moment.CREATION, LIMITS) == {}


def test_vcpus_are_counted_at_each_moment() -> None:
    moments = (Moment.CREATION, Moment.UPGRADE, Moment.MAXIMUM, Moment.MOST)
    counted = {stack: [quotas.usage(shipped(stack), each)["CPUS_ALL_REGIONS"] for each in moments] for stack in STACKS}
    assert counted == {
        "fleet": [10, 18, 32, 40],
        "multi-network": [10, 12, 14, 16],
        "single-network": [8, 10, 12, 14],
    }


def test_firewall_rules_are_counted_with_those_of_gke() -> None:
    rules = len(shipped("multi-network").of_type("gcp:compute/firewall:Firewall"))
    assert quotas.usage(shipped("multi-network"), Moment.CREATION)["FIREWALLS"] == rules + 4 + 2


def test_other_machine_types_have_quotas_of_their_own() -> None:
    other = with_input(shipped("fleet"), "cluster-nodes", "nodeConfig.machineType", "n2-standard-8")
    counts = quotas.usage(other, Moment.CREATION)
    assert (counts["N2_CPUS"], counts["CPUS"], counts["CPUS_ALL_REGIONS"]) == (24, 6, 28)


def test_a_quota_that_the_page_does_not_have_is_an_error() -> None:
    other = with_input(shipped("fleet"), "cluster-nodes", "nodeConfig.machineType", "n2-standard-8")
    with pytest.raises(ValueError, match="quotas without a limit: N2_CPUS"):
        quotas.table({"fleet": other}, LIMITS)


@pytest.mark.parametrize(
    ("machine_type", "vcpus"), [("e2-small", 2), ("c3-standard-22-lssd", 22), ("n2-custom-6-8192", 6), ("custom-4-8192", 4), ("f1-micro", 1), ("a3-highgpu-8g", 208), ("a2-highgpu-1g", 12), ("a4x-highgpu-4g", 140), ("x4-480-6t-metal", 480)]
)  # fmt: skip
def test_machine_types_say_their_vcpus(machine_type: str, vcpus: int) -> None:
    assert machines.cpus(machine_type) == vcpus


def test_a_machine_type_that_does_not_is_refused() -> None:
    with pytest.raises(ValueError, match="'m1-huge' does not say"):
        machines.cpus("m1-huge")


def test_costs_and_vcpus_are_those_of_the_upper_bounds_as_well() -> None:
    """The page counts from the settings, the model from the resources."""
    page = costs.PAGE.read_text()
    for stack, settings in costs.stacks():
        counted = {costs.vcpus(costs.bill(settings, at_most=at_most)[0]) for at_most in (False, True)}
        later = [each for each in machines.machine_sets(shipped(stack)) if not each.temporary]
        assert counted == {sum(each.cpus * each.start for each in later), sum(each.cpus * each.maximum for each in later)}
    assert "`channel: EXTENDED` costs about 0.50 an hour" in page


BREAK = [
    ("compute.requireShieldedVm", "product-1-instance", "shieldedInstanceConfig.enableSecureBoot", False),
    ("compute.requireShieldedVm", "cluster-nodes", "nodeConfig.shieldedInstanceConfig", {}),
    ("compute.vmExternalIpAccess", "product-1-instance", "networkInterfaces.0.accessConfigs", [{}]),
    ("compute.vmExternalIpAccess", "cluster-gke", "privateClusterConfig.enablePrivateNodes", False),
    ("compute.disableSerialPortAccess", "product-1-instance", "metadata.serial-port-enable", "TRUE"),
    ("compute.skipDefaultNetworkCreation", "cluster-gke", "network", "default"),
    ("compute.disableVpcExternalIpv6", "subnet-far", "ipv6AccessType", "EXTERNAL"),
    ("compute.restrictLoadBalancerCreationForTypes", "far-gateway-balancer-rule", "loadBalancingScheme", "EXTERNAL"),
    ("iam.automaticIamGrantsForDefaultServiceAccounts", "product-1-instance", "serviceAccount", {}),
    ("iam.allowedPolicyMemberDomains", "nodes-role", "member", "user:someone@example.com"),
    ("container.managed.enablePrivateNodes", "cluster-gke", "privateClusterConfig.enablePrivateNodes", False),
    ("container.managed.enableControlPlaneDNSOnlyAccess", "cluster-gke", "controlPlaneEndpointsConfig.ipEndpointsConfig.enabled", True),
    ("container.managed.disableLegacyClientCertificateIssuance", "cluster-gke", "masterAuth.clientCertificateConfig.issueClientCertificate", True),
    ("container.managed.disableABAC", "cluster-gke", "enableLegacyAbac", True),
    ("compute.requireVpcFlowLogs", "subnet-far", "region", "europe-west1"),
    ("iam.disableServiceAccountCreation", "nodes-google-account", "description", "any"),
    ("container.managed.disableRBACSystemBindings", "cluster-gke", "rbacBindingConfig.enableInsecureBindingSystemAuthenticated", True),
]  # fmt: skip


@pytest.mark.parametrize(("constraint", "name", "path", "value"), BREAK)
def test_what_a_policy_refuses_is_named(constraint: str, name: str, path: str, value: object) -> None:
    broken = with_input(shipped("multi-network"), name, path, value)
    assert name in " ".join(policies.refusals(broken)[constraint])


def test_lists_of_values_need_what_the_stack_uses() -> None:
    outcomes = policies.outcomes(shipped("multi-network"))
    assert outcomes["compute.restrictVpcPeering"].needs == "the project's own VPCs"
    assert outcomes["compute.trustedImageProjects"].needs == "`projects/debian-cloud`, `projects/gke-node-images`"
    assert outcomes["gcp.resourceLocations"].needs == "`europe-west1`, `global`"
    assert policies.outcomes(shipped("fleet"))["compute.restrictVpcPeering"].needs == ""
    keys = outcomes["gcp.restrictNonCmekServices, compute.restrictNonConfidentialComputing"]
    assert keys.needs == "`compute.googleapis.com`, `container.googleapis.com`"


def test_autopilot_has_no_first_node_pool() -> None:
    stack = built(google_stacks.autopilot)
    assert not [each for each in machines.machine_sets(stack) if each.image == machines.GKE_IMAGE]
