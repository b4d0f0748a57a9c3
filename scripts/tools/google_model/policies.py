"""Organisation policies that Google recommends or companies use, and what they do to a stack. Pure.

Each constraint is a predicate on what the program declares, and on what GKE derives from it.
Sources: Google's list of constraints, and terraform-google-modules/terraform-example-foundation
(`1-org/envs/shared/org_policy.tf`), which is Google's blueprint for an organisation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tools.mock_engine import Node
from tools.plan import resources
from tools.plan.resources import value_at

from . import cloud
from .cloud import Cloud
from .machines import MachineSet, machine_sets

Refusals = Iterator[str]
WITHOUT_SSH = "use a group of exactly one machine, or one for a network's gateway (`group: true`)"
SHIELDED = frozenset({"enableIntegrityMonitoring", "enableSecureBoot", "enableVtpm"})


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """An organisation policy.

    name: its names, without `constraints/`. by_default: enforced in new organisations (2024 and
    later). blueprint: "yes", "often" and so on, in companies that follow Google's blueprint.
    refused: yields the resources that it refuses. needs: returns what a list of permitted values
    must have in it, "" for nothing. fix: what a stack can use instead of what is refused.
    """

    name: str
    by_default: str = "no"
    blueprint: str = "sometimes"
    refused: Callable[[Cloud], Refusals]
    needs: Callable[[Cloud], str] = lambda stack: ""
    fix: str = ""


def _by_machine(wrong: Callable[[MachineSet], bool]) -> Callable[[Cloud], Refusals]:
    def refused(stack: Cloud) -> Refusals:
        for each in machine_sets(stack):
            if wrong(each):
                yield f"{each.source}{' (first node pool)' if each.temporary else ''}"

    return refused


def _by_resource(wrong: Callable[[Node], bool], *types: str) -> Callable[[Cloud], Refusals]:
    def refused(stack: Cloud) -> Refusals:
        yield from (
            node.name
            for node in (stack.of_type(*types) if types else stack.on_google())
            if wrong(node)
        )

    return refused


def _true(values: Mapping[str, str], key: str) -> bool:
    return str(values.get(key, "")).upper() in ("TRUE", "1", "YES")


def _false(values: Mapping[str, str], key: str) -> bool:
    return str(values.get(key, "")).upper() in ("FALSE", "0", "NO")


def _cluster(path: str, wanted: Any) -> Callable[[Cloud], Refusals]:
    return _by_resource(lambda node: value_at(node.inputs, path) != wanted, resources.CLUSTER)


def _needs_balancers(stack: Cloud) -> str:
    internal = stack.of_type(resources.FORWARDING_RULE) or stack.of_type(resources.CLUSTER)
    return "`INTERNAL_TCP_UDP`" if internal else ""


def _needs_peering(stack: Cloud) -> str:
    return "the project's own VPCs" if stack.of_type(cloud.PEERING) else ""


def _needs_nat(stack: Cloud) -> str:
    return "the stack's subnets" if stack.of_type(cloud.NAT) else ""


def _needs_images(stack: Cloud) -> str:
    projects = {each.image.split("/")[1] for each in machine_sets(stack) if "/" in each.image}
    return ", ".join(f"`projects/{project}`" for project in sorted(projects))


def _needs_locations(stack: Cloud) -> str:
    regions = sorted({node.inputs["region"] for node in stack.of_type(cloud.SUBNETWORK)})
    if stack.of_type(cloud.HEALTH_CHECK, cloud.ZONE):
        regions.append("global")
    return ", ".join(f"`{region}`" for region in regions)


def _needs_services(stack: Cloud) -> str:
    """Disks, machines and clusters have Google's keys, and their memory is not encrypted."""
    clusters = ["`container.googleapis.com`"] if stack.of_type(resources.CLUSTER) else []
    return ", ".join(["`compute.googleapis.com`", *clusters])


def _foreign_members(node: Node) -> bool:
    return not str(node.inputs["member"]).startswith("serviceAccount:")


def _nothing(stack: Cloud) -> Refusals:
    yield from ()


CONSTRAINTS = (
    Constraint(
        name="compute.requireOsLogin",
        blueprint="yes",
        refused=_by_machine(lambda each: _false(each.metadata, "enable-oslogin")),
        fix=WITHOUT_SSH,
    ),
    Constraint(
        name="compute.disableGuestAttributesAccess",
        blueprint="yes",
        refused=_by_machine(lambda each: _true(each.metadata, "enable-guest-attributes")),
        fix=WITHOUT_SSH,
    ),
    Constraint(
        name="compute.requireShieldedVm",
        blueprint="often",
        refused=_by_machine(lambda each: not each.shielded >= SHIELDED),
    ),
    Constraint(
        name="compute.vmExternalIpAccess",
        blueprint="yes",
        refused=_by_machine(lambda each: each.public),
    ),
    Constraint(
        name="compute.disableSerialPortAccess",
        blueprint="yes",
        refused=_by_machine(lambda each: _true(each.metadata, "serial-port-enable")),
    ),
    Constraint(
        name="compute.skipDefaultNetworkCreation",
        blueprint="yes",
        refused=_by_resource(
            lambda node: str(node.inputs["network"]).rpartition("/")[2] == "default",
            cloud.SUBNETWORK,
            resources.CLUSTER,
        ),
    ),
    Constraint(
        name="compute.disableVpcExternalIpv6",
        blueprint="yes",
        refused=_by_resource(
            lambda node: node.inputs.get("ipv6AccessType") == "EXTERNAL", cloud.SUBNETWORK
        ),
    ),
    Constraint(
        name="compute.restrictProtocolForwardingCreationForTypes",
        by_default="`INTERNAL`",
        blueprint="`INTERNAL`",
        refused=_by_resource(
            lambda node: (
                "targetInstances" in str(node.inputs.get("target", ""))
                and node.inputs.get("loadBalancingScheme") != "INTERNAL"
            ),
            resources.FORWARDING_RULE,
        ),
    ),
    Constraint(
        name="compute.restrictLoadBalancerCreationForTypes",
        refused=_by_resource(
            lambda node: node.inputs.get("loadBalancingScheme") != "INTERNAL",
            resources.FORWARDING_RULE,
        ),
        needs=_needs_balancers,
    ),
    Constraint(name="compute.restrictVpcPeering", refused=_nothing, needs=_needs_peering),
    Constraint(name="compute.restrictCloudNATUsage", refused=_nothing, needs=_needs_nat),
    Constraint(name="compute.trustedImageProjects", refused=_nothing, needs=_needs_images),
    Constraint(
        name="iam.disableServiceAccountKeyCreation, iam.disableServiceAccountKeyUpload",
        by_default="yes",
        blueprint="yes",
        refused=_by_resource(lambda node: node.type.startswith("gcp:serviceaccount/key:")),
    ),
    Constraint(
        name="iam.automaticIamGrantsForDefaultServiceAccounts",
        by_default="yes",
        blueprint="yes",
        refused=_by_machine(lambda each: not each.account),
    ),
    Constraint(
        name="iam.allowedPolicyMemberDomains",
        by_default="yes",
        blueprint="yes",
        refused=_by_resource(_foreign_members, cloud.ROLE_MEMBER),
    ),
    Constraint(
        name="storage.uniformBucketLevelAccess",
        by_default="yes",
        blueprint="yes",
        refused=_by_resource(lambda node: node.type.startswith("gcp:storage/")),
    ),
    Constraint(
        name="container.managed.enablePrivateNodes",
        blueprint="growing",
        refused=_cluster("privateClusterConfig.enablePrivateNodes", True),
    ),
    Constraint(
        name="container.managed.enableControlPlaneDNSOnlyAccess",
        blueprint="growing",
        refused=_cluster("controlPlaneEndpointsConfig.ipEndpointsConfig.enabled", False),
    ),
    Constraint(
        name="container.managed.disableLegacyClientCertificateIssuance",
        blueprint="growing",
        refused=_cluster("masterAuth.clientCertificateConfig.issueClientCertificate", False),
    ),
    Constraint(
        name="container.managed.disableABAC",
        blueprint="growing",
        refused=_by_resource(
            lambda node: bool(node.inputs.get("enableLegacyAbac")), resources.CLUSTER
        ),
    ),
    Constraint(
        name="container.managed.disableRBACSystemBindings",
        blueprint="growing",
        refused=_cluster("rbacBindingConfig.enableInsecureBindingSystemAuthenticated", False),
    ),
    Constraint(
        name="container.managed.enableSecretsEncryption",
        blueprint="growing",
        refused=_cluster("databaseEncryption.state", "ENCRYPTED"),
        fix="no setting offers it",
    ),
    Constraint(
        name="container.managed.enableBinAuthz",
        blueprint="growing",
        refused=_cluster("binaryAuthorization.evaluationMode", "PROJECT_SINGLETON_POLICY_ENFORCE"),
        fix="no setting offers it",
    ),
    Constraint(
        name="container.managed.enableGoogleGroupsRBAC",
        blueprint="growing",
        refused=_by_resource(
            lambda node: not value_at(node.inputs, "authenticatorGroupsConfig.securityGroup"),
            resources.CLUSTER,
        ),
        fix="no setting offers it",
    ),
    Constraint(
        name="compute.requireVpcFlowLogs",
        refused=_by_resource(lambda node: not node.inputs.get("logConfig"), cloud.SUBNETWORK),
        fix="use subnets that exist, in `google.vpcs`",
    ),
    Constraint(
        name="iam.disableServiceAccountCreation",
        refused=_by_resource(lambda node: True, cloud.ACCOUNT),
        fix="no setting offers it",
    ),
    Constraint(
        name="gcp.restrictNonCmekServices, compute.restrictNonConfidentialComputing",
        refused=_nothing,
        needs=_needs_services,
    ),
    Constraint(
        name="gcp.resourceLocations", blueprint="often", refused=_nothing, needs=_needs_locations
    ),
)


@dataclass(frozen=True)
class Outcome:
    """What a constraint does to a stack.

    refused: the resources that cannot be created. needs: what a list of values must permit.
    """

    refused: tuple[str, ...] = ()
    needs: str = ""


def outcomes(stack: Cloud) -> dict[str, Outcome]:
    """Return what each constraint does to a stack, by the constraint's name."""
    return {
        each.name: Outcome(tuple(sorted(each.refused(stack))), each.needs(stack))
        for each in CONSTRAINTS
    }


def table(stacks: Mapping[str, Cloud]) -> str:
    """Return the table of docs/google.md. stacks: the stacks of its columns, by name."""
    names = sorted(stacks)
    listed = {name: outcomes(stacks[name]) for name in names}
    lines = [
        f"| constraint | new organisations | Google's blueprint | {' | '.join(names)} |",
        f"| --- | --- | --- | {' | '.join('---' for _ in names)} |",
    ]
    for each in CONSTRAINTS:
        cells = [_cell(listed[name][each.name], each.fix) for name in names]
        constraints = ", ".join(f"`{name}`" for name in each.name.split(", "))
        lines.append(
            f"| {constraints} | {each.by_default} | {each.blueprint} | {' | '.join(cells)} |"
        )
    return "".join(f"{line}\n" for line in lines)


def _cell(outcome: Outcome, fix: str) -> str:
    if outcome.refused:
        names = ", ".join(f"`{name}`" for name in outcome.refused)
        return f"**refuses** {names}{f': {fix}' if fix else ''}"
    return f"permit {outcome.needs}" if outcome.needs else "met"


def refusals(stack: Cloud) -> dict[str, tuple[str, ...]]:
    """Return the constraints that refuse something of a stack, with the resources."""
    return {name: outcome.refused for name, outcome in outcomes(stack).items() if outcome.refused}
