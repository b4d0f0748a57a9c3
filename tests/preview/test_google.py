"""The stacks on Google Cloud: nothing is public, nothing is open that was not declared, and nobody has more rights than needed."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from components.config import google_machine_types, load
from components.config.checks.google import rules_of_workloads
from components.local import openssh, scripting
from components.platforms.google import firewall
from components.verification.scripts import calling_pods
from tests.support import google_stacks, harness
from tests.support.harness import Node, declared
from tests.support.scripts import machine_files
from tests.support.tiers import some_quick

STACKS = ["single-network", "multi-network", "fleet"]
INSTANCE, TEMPLATE = "gcp:compute/instance:Instance", "gcp:compute/regionInstanceTemplate:RegionInstanceTemplate"
FIREWALL = "gcp:compute/firewall:Firewall"


def of_type(stack: str, *types: str) -> dict[str, Node]:
    return {name: node for name, node in declared(stack).graph.items() if node.type in types}


def graph_with(stack: str, **sections: dict[str, Any]) -> dict[str, Node]:
    """The graph of a stack with keys of its sections set."""
    config = copy.deepcopy(harness.configuration(stack))
    for section, values in sections.items():
        config[section].update(values)
    return harness.run(config).graph


@pytest.mark.parametrize("stack", STACKS)
def test_nothing_has_a_public_address(stack: str) -> None:
    for name, node in of_type(stack, INSTANCE, TEMPLATE).items():
        for interface in node.inputs["networkInterfaces"]:
            assert set(interface) == {"subnetwork"}, name
    for name, node in of_type(stack, "gcp:compute/address:Address").items():
        assert node.inputs["addressType"] == "INTERNAL", name
    cluster = declared(stack).graph["cluster-gke"].inputs
    assert cluster["privateClusterConfig"] == {"enablePrivateNodes": True}
    assert cluster["controlPlaneEndpointsConfig"]["ipEndpointsConfig"] == {"enabled": False}
    service = declared(stack).graph["istio-vm-mesh-gateway"].inputs["values"]["service"]
    assert service["annotations"]["networking.gke.io/load-balancer-type"] == "Internal"


@pytest.mark.parametrize("stack", STACKS)
def test_names_of_firewall_rules_are_those_that_the_settings_compare(stack: str) -> None:
    """Two workloads whose rules have one name are refused in the stack file, not by the engine."""
    settings = load(harness.configuration(stack))
    compared = {rule for rules in rules_of_workloads(settings).values() for rule in rules}
    assert {rule.name for rule in firewall.firewall_rules(settings)} <= {*compared, "mesh-pods"}


@pytest.mark.parametrize("stack", STACKS)
def test_firewall_rules_name_ports_sources_and_targets(stack: str) -> None:
    for name, node in of_type(stack, FIREWALL).items():
        rule = node.inputs
        assert rule["direction"] == "INGRESS", name
        assert rule["sourceRanges"] and not [text for text in rule["sourceRanges"] if text.endswith("/0")], name
        assert rule["targetServiceAccounts"] and "targetTags" not in rule, name
        assert [allowed["protocol"] for allowed in rule["allows"]] == ["tcp"], name
        for port in rule["allows"][0]["ports"]:
            assert port.isdigit(), f"{name}: {port} is a range"
    values = declared(stack).graph["istio-vm-mesh-gateway"].inputs["values"]["service"]
    assert values["loadBalancerSourceRanges"] == (["10.40.0.0/24"] if stack == "multi-network" else ["10.11.0.0/24"])


def open_ports(stack: str) -> dict[str, tuple[list[str], list[str]]]:
    return {name: (node.inputs["sourceRanges"], node.inputs["allows"][0]["ports"]) for name, node in of_type(stack, FIREWALL).items()}


PODS, MACHINES, FAR, IAP = "10.20.0.0/16", "10.11.0.0/24", "10.40.0.0/24", "35.235.240.0/20"
CHECKS = ["35.191.0.0/16", "130.211.0.0/22"]


def test_the_firewall_in_one_network_opens_pods_and_machines() -> None:
    assert open_ports("single-network") == {
        "firewall-mesh-product": ([MACHINES, PODS], ["80"]),
        "firewall-mesh-product-ssh": ([IAP], ["22"]),
        "firewall-mesh-pods": ([MACHINES], ["80"]),
    }


def test_the_firewall_between_networks_opens_gateways_alone() -> None:
    assert open_ports("multi-network") == {
        "firewall-far-far-gateway": ([PODS], ["15443"]),
        "firewall-far-far-gateway-health": (CHECKS, ["15021"]),
        "firewall-far-far-gateway-ssh": ([IAP], ["22"]),
        "firewall-far-product": ([FAR], ["80"]),
        "firewall-far-product-ssh": ([IAP], ["22"]),
    }


def test_machines_are_in_the_region_and_the_zone_that_they_are_created_in() -> None:
    """Else outlier detection leaves calls to pods, whose nodes have a zone."""
    graph = declared("multi-network").graph
    joins = {name: node for name, node in graph.items() if name.endswith("-join")}
    assert len(joins) > 2
    for name, node in joins.items():
        zone = graph[name.replace("-join", "-instance")].inputs["zone"]
        assert harness.payload(node)["bundle"]["locality"] == f"europe-west1/{zone}"


def test_instance_groups_take_no_ssh() -> None:
    assert open_ports("fleet") == {
        "firewall-mesh-product": ([MACHINES, PODS], ["80"]),
        "firewall-mesh-product-health": (CHECKS, ["15021"]),
    }
    assert not [node for node in declared("fleet").graph.values() if harness.on_machine(node)]
    metadata = declared("fleet").graph["product-fleet-template"].inputs["metadata"]
    assert "ssh-keys" not in metadata and metadata["block-project-ssh-keys"] == "TRUE"


def test_a_group_machine_drains_before_its_application_stops() -> None:
    """Its unit orders it; tests of units hold its times."""
    startup = declared("fleet").graph["product-fleet-template"].inputs["metadata"]["startup-script"]
    files = machine_files(startup)
    assert "After=multi-user.target" in files["/etc/systemd/system/istio-vm-mesh-drain.service"]
    assert "Wants=istio-vm-mesh-drain.service" in files["/etc/systemd/system/istio-vm-mesh.service.d/drain.conf"]


def test_declared_pod_ports_are_opened_in_the_firewall() -> None:
    graph = graph_with("fleet", cluster={"podPorts": [9090]})
    assert graph["firewall-mesh-pods"].inputs["allows"][0]["ports"] == ["9090"]


@pytest.mark.parametrize("stack", STACKS)
def test_machines_and_nodes_have_service_accounts_with_least_privilege(stack: str) -> None:
    graph = declared(stack).graph
    for name, node in of_type(stack, INSTANCE, TEMPLATE).items():
        account = node.inputs["serviceAccount"]
        assert account["email"].endswith("-google-account@project.iam.gserviceaccount.com"), name
        narrow = {"https://www.googleapis.com/auth/logging.write", "https://www.googleapis.com/auth/monitoring.write"}
        # A group's machines prove who they are to GKE's API server, which takes no narrower scope.
        assert set(account["scopes"]) <= narrow or node.type == TEMPLATE, name
    for pool in of_type(stack, "gcp:container/nodePool:NodePool").values():
        assert pool.inputs["nodeConfig"]["serviceAccount"] == "nodes-google-account@project.iam.gserviceaccount.com"
    roles = {node.inputs["role"] for node in graph.values() if node.type == "gcp:projects/iAMMember:IAMMember"}
    custom = {"fleet-role-0123456"} if stack == "fleet" else set()
    assert roles == {"roles/container.defaultNodeServiceAccount"} | custom
    if stack == "fleet":
        assert graph["fleet-role"].inputs["roleId"].endswith(f"_{graph['nodes-google-account'].state['uniqueId']}")
        assert graph["fleet-role"].inputs["permissions"] == ["container.clusters.connect"]
        assert graph["product-machines-role"].inputs["rules"] == [
            {"apiGroups": [""], "resources": ["serviceaccounts/token"], "resourceNames": ["product"], "verbs": ["create"]}
        ]


@pytest.mark.slow
@pytest.mark.parametrize("stack", STACKS)
def test_clusters_are_protected_until_the_stack_says_otherwise(stack: str) -> None:
    config = copy.deepcopy(harness.configuration(stack))
    assert config["cluster"].pop("deletionProtection") is True, "the stack says it, so that people find it"
    assert harness.run(config).graph["cluster-gke"].inputs["deletionProtection"] is True
    assert graph_with(stack, cluster={"deletionProtection": False})["cluster-gke"].inputs["deletionProtection"] is False


@pytest.mark.parametrize("stack", some_quick(STACKS, "fleet"))
def test_a_protected_cluster_is_refused_before_anything_in_it_is_deleted(stack: str) -> None:
    """Google's provider refuses only once Pulumi comes to the cluster, which is then empty."""
    assert declared(stack).graph["cluster-gke"].options["protect"] is True
    assert "protect" not in graph_with(stack, cluster={"deletionProtection": False})["cluster-gke"].options


SSD_QUOTA_GB = 250
"""Of a region, for new projects (docs/costs.yaml)."""


@pytest.mark.parametrize("stack", STACKS)
def test_the_first_pool_of_gke_is_as_shielded_as_nodes_and_fits_a_new_project(stack: str) -> None:
    """GKE creates it in each zone, and the provider removes it."""
    graph = declared(stack).graph
    first, nodes = graph["cluster-gke"].inputs["nodeConfig"], graph["cluster-nodes"].inputs["nodeConfig"]
    for key in ("serviceAccount", "oauthScopes", "metadata", "workloadMetadataConfig", "shieldedInstanceConfig", "imageType"):
        assert first[key] == nodes[key], key
    assert first["diskType"] == "pd-standard", "SSD disks have a quota of their own"
    assert first["diskSizeGb"] * 3 <= SSD_QUOTA_GB / 4
    assert first["machineType"] == "e2-medium"


def test_a_pool_begins_with_as_many_nodes_as_the_stack_asks_for() -> None:
    """GKE's autoscaler adds no node to reach the minimum. The number is of each zone."""
    assert declared("single-network").graph["cluster-nodes"].inputs["initialNodeCount"] == 2
    assert declared("fleet").graph["cluster-nodes"].inputs["initialNodeCount"] == 1
    four = graph_with("fleet", cluster={"nodes": {"minNodes": 4, "maxNodes": 6}})
    assert four["cluster-nodes"].inputs["initialNodeCount"] == 2
    assert "initialNodeCount" in four["cluster-nodes"].options["ignore_changes"], "the autoscaler changes it"


@pytest.mark.parametrize("stack", STACKS)
def test_a_node_that_is_drained_takes_no_machine_out_of_the_mesh(stack: str) -> None:
    """All machines' connections to istiod go through the gateway, and GKE drains nodes by itself."""
    graph = declared(stack).graph
    gateway, istiod = (graph[name].inputs["values"] for name in ("istio-vm-mesh-gateway", "istiod"))
    assert (gateway["replicaCount"], gateway["podDisruptionBudget"]) == (2, {"minAvailable": 1})
    assert (istiod["autoscaleMin"], istiod["replicaCount"]) == (2, 2)
    for values, labels in ((gateway, {"istio": "vm-mesh-gateway"}), (istiod, {"app": "istiod"})):
        constraints = values["topologySpreadConstraints"]
        assert [each["topologyKey"] for each in constraints] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
        for each in constraints:
            assert each["labelSelector"] == {"matchLabels": labels}
            assert each["whenUnsatisfiable"] == "ScheduleAnyway", "a cluster may have one node for a while"


def test_a_cluster_of_one_node_has_one_gateway() -> None:
    for name in ("istio-vm-mesh-gateway", "istiod"):
        values = declared("lab").graph[name].inputs["values"]
        assert not {"replicaCount", "podDisruptionBudget", "topologySpreadConstraints", "autoscaleMin"} & set(values)


def test_pods_wait_for_nodes_that_are_added() -> None:
    """Autopilot has no node until a pod waits for one."""
    graph = declared("single-network").graph
    for name in ("istio-base", "istiod", "istio-vm-mesh-gateway"):
        assert graph[name].inputs["timeout"] >= 600
    assert calling_pods.START_TIMEOUT_S >= 300


@pytest.mark.parametrize("stack", STACKS)
def test_busy_nodes_do_not_run_out_of_ports_for_connections_to_the_internet(stack: str) -> None:
    for node in of_type(stack, "gcp:compute/routerNat:RouterNat").values():
        assert node.inputs["enableDynamicPortAllocation"] and not node.inputs["enableEndpointIndependentMapping"]
        assert node.inputs["logConfig"] == {"enable": True, "filter": "ERRORS_ONLY"}


DISKS = {
    "e2-small": "pd-balanced",
    "n1-standard-1": "pd-balanced",
    "n2d-standard-2": "pd-balanced",
    "t2a-standard-1": "pd-balanced",
    "c3-standard-4": "pd-balanced",
    "c3-standard-192-metal": "hyperdisk-balanced",
    "n4-standard-2": "hyperdisk-balanced",
    "c4-standard-2": "hyperdisk-balanced",
    "c4a-standard-1": "hyperdisk-balanced",
    "c4d-standard-2": "hyperdisk-balanced",
    "m4-ultramem-112": "hyperdisk-balanced",
    "custom-2-4096": "pd-balanced",
}


@pytest.mark.slow
def test_disks_are_of_a_type_that_the_machine_type_takes() -> None:
    """Google refuses an n4 with Persistent Disk, and an e2 with Hyperdisk."""
    for machine_type, disk_type in DISKS.items():
        assert google_machine_types.default_disk_type(machine_type) == disk_type, machine_type
        assert disk_type != "hyperdisk-balanced" or google_machine_types.takes_hyperdisk(machine_type), machine_type
    config = harness.configuration("fleet")
    config["machines"]["product-fleet"]["machineType"] = "n4-standard-2"
    config["machines"]["product-1"] = {"platform": "gce", "workload": "product", "network": "pods", "zone": "europe-west1-b"}
    config["machines"]["product-1"]["diskType"] = "pd-ssd"
    config["cluster"]["nodes"]["machineType"] = "c4-standard-2"
    graph = harness.run(config).graph
    assert graph["product-fleet-template"].inputs["disks"][0]["diskType"] == "hyperdisk-balanced"
    assert graph["product-1-instance"].inputs["bootDisk"]["initializeParams"]["type"] == "pd-ssd"
    assert graph["cluster-nodes"].inputs["nodeConfig"]["diskType"] == "hyperdisk-balanced"


X86 = {"enableSecureBoot": True, "enableVtpm": True, "enableIntegrityMonitoring": True}
ARM = X86 | {"enableSecureBoot": False}
STOPS = {"onHostMaintenance": "TERMINATE"}
HARDWARE: dict[str, tuple[dict[str, bool] | None, dict[str, str] | None]] = {
    "n4-standard-2": (X86, None),
    "c4-standard-2": (X86, None),
    "t2a-standard-1": (ARM, None),
    "c4a-standard-1": (ARM, None),
    "n4a-standard-2": (ARM, None),
    "a2-highgpu-1g": (X86, STOPS),
    "a3-highgpu-8g": (X86, STOPS),
    "g2-standard-4": (X86, STOPS),
    "h3-standard-88": (X86, STOPS),
    "c3-standard-192-metal": (None, STOPS),
    "x4-480-6t-metal": (None, STOPS),
}


@pytest.mark.slow
def test_machines_get_what_their_hardware_takes() -> None:
    """Debian does not boot securely on ARM, and Google refuses machines with GPUs, and bare metal, that would have to move."""
    config = harness.configuration("fleet")
    machines = config["machines"]
    image = "projects/debian-cloud/global/images/family/debian-12-arm64"
    for name, machine_type in enumerate(HARDWARE):
        common = {"workload": "product", "network": "pods", "machineType": machine_type, "image": image}
        machines[f"one-{name}"] = {"platform": "gce", "zone": "europe-west1-b", **common}
        machines[f"group-{name}"] = {"platform": "gce-instance-group", **common}
    graph = harness.run(config).graph
    for name, (machine_type, expected) in enumerate(HARDWARE.items()):
        for node in (graph[f"one-{name}-instance"], graph[f"group-{name}-template"]):
            assert (node.inputs.get("shieldedInstanceConfig"), node.inputs.get("scheduling")) == expected, machine_type


def test_pods_run_on_nodes_with_arm_processors() -> None:
    """GKE keeps pods off such nodes by default, and the cluster has no others."""
    nodes = graph_with("single-network", cluster={"nodes": {"machineType": "c4a-standard-2"}})["cluster-nodes"].inputs["nodeConfig"]
    assert nodes["taintConfig"] == {"architectureTaintBehavior": "NONE"}
    assert "taintConfig" not in declared("single-network").graph["cluster-nodes"].inputs["nodeConfig"]


@pytest.mark.parametrize("stack", STACKS)
def test_every_google_resource_is_in_the_stacks_project(stack: str) -> None:
    """The default provider would take the project of whoever runs Pulumi."""
    for name, node in declared(stack).graph.items():
        if node.type.startswith("gcp:"):
            assert node.provider == "google-provider", name
    assert declared(stack).graph["google-provider"].inputs["project"] == "my-project"


@pytest.mark.parametrize("stack", STACKS)
def test_machines_boot_securely_and_keep_their_startup_script_replaceable(stack: str) -> None:
    for name, node in of_type(stack, INSTANCE, TEMPLATE).items():
        assert node.inputs["shieldedInstanceConfig"] == {"enableSecureBoot": True, "enableVtpm": True, "enableIntegrityMonitoring": True}, (
            name
        )
        assert node.inputs["metadata"]["serial-port-enable"] == "FALSE", name
        assert "metadataStartupScript" not in node.inputs, f"{name} would be replaced when its script changes"


def test_a_spot_machine_that_google_stopped_is_started_again() -> None:
    """A group replaces its machines by itself."""
    config = copy.deepcopy(harness.configuration("single-network"))
    config["machines"]["product-1"]["spot"] = True
    graph = harness.run(config).graph
    assert graph["product-1-instance"].inputs["desiredStatus"] == "RUNNING"
    assert "desiredStatus" not in graph["product-2-instance"].inputs, "one that was stopped by hand stays so"


def test_the_two_peerings_of_a_pair_are_created_one_after_the_other() -> None:
    graph = declared("multi-network").graph
    assert "peering-mesh-far" in graph["peering-far-mesh"].dependencies


def peered(config: dict[str, Any]) -> set[tuple[str, str]]:
    """Return the pairs of VPCs that packets pass between: both halves of a peering exist."""
    graph = harness.run(config).graph
    halves = {
        tuple(node.inputs[key].rpartition("/")[2].removeprefix("vpc-") for key in ("network", "peerNetwork"))
        for node in graph.values()
        if node.type == "gcp:compute/networkPeering:NetworkPeering"
    }
    assert halves == {(other, one) for one, other in halves}
    return {(one, other) for one, other in halves if one < other}


def with_vpcs(**networks: str) -> dict[str, Any]:
    """Return a stack with a VPC, a subnet and a machine for each name. networks: that of each, by name."""
    config = harness.configuration("multi-network")
    for number, (vpc, network) in enumerate(networks.items(), 41):
        config["google"]["subnets"][vpc] = {"vpc": vpc, "network": network, "cidr": f"10.{number}.0.0/24"}
        machine = {"platform": "gce", "workload": "product", "network": network, "zone": "europe-west1-b", "subnet": vpc}
        config["machines"][f"product-{vpc}"] = machine
        config["networks"].setdefault(network, {})
    config["machines"]["product-1"]["subnet"] = "far"
    config["networks"]["far"]["gateway"]["subnet"] = "far"
    return config


@pytest.mark.slow
def test_vpcs_of_one_network_reach_each_other() -> None:
    """Peering is not transitive: that both are peered with the cluster's VPC is not enough."""
    assert peered(with_vpcs(far2="far")) == {("far", "mesh"), ("far2", "mesh"), ("far", "far2")}
    of_pods = with_vpcs(more="pods", other="pods")
    assert peered(of_pods) >= {("mesh", "more"), ("mesh", "other"), ("more", "other")}


@pytest.mark.slow
def test_vpcs_are_peered_with_those_whose_gateways_their_machines_call() -> None:
    assert ("far", "north") in peered(with_vpcs(north="north")), "machines of the north call the gateway of far"


@pytest.mark.slow
def test_vpcs_without_declared_traffic_are_not_peered() -> None:
    assert ("north", "south") not in peered(with_vpcs(north="north", south="south")), "neither has a gateway"
    config = harness.configuration("multi-network")
    config["google"]["subnets"]["empty"] = {"vpc": "empty", "network": "far", "cidr": "10.50.0.0/24"}
    config["machines"]["product-1"]["subnet"] = config["networks"]["far"]["gateway"]["subnet"] = "far"
    assert peered(config) == {("far", "mesh")}


SHARED = "projects/net-host/global/networks/shared"


def in_a_shared_vpc(stack: str = "single-network", **vpc: Any) -> dict[str, Any]:
    """Return a stack whose cluster's VPC exists in another project."""
    config = harness.configuration(stack)
    google = config["google"]
    google["vpcs"] = {"mesh": {"existing": SHARED, **vpc}}
    for name, subnet in google["subnets"].items():
        if subnet["vpc"] == "mesh":
            subnet["existing"] = f"projects/net-host/regions/europe-west1/subnetworks/{name}"
    config["cluster"].update(podRangeName="gke-pods", serviceRangeName="gke-services")
    return config


def test_a_vpc_of_others_gets_firewall_rules_and_nothing_else() -> None:
    graph = harness.run(in_a_shared_vpc()).graph
    of_networks = {"Network", "Subnetwork", "Router", "RouterNat", "NetworkPeering"}
    assert not of_networks & {node.type.rpartition(":")[2] for node in graph.values()}
    rules = {name: node.inputs for name, node in graph.items() if node.type == FIREWALL}
    assert rules.keys() == of_type("single-network", FIREWALL).keys()
    assert {(rule["project"], rule["network"]) for rule in rules.values()} == {("net-host", SHARED)}
    cluster = graph["cluster-gke"].inputs
    assert (cluster["network"], cluster["subnetwork"]) == (SHARED, "projects/net-host/regions/europe-west1/subnetworks/nodes")
    assert cluster["ipAllocationPolicy"] == {"clusterSecondaryRangeName": "gke-pods", "servicesSecondaryRangeName": "gke-services"}
    machines = "projects/net-host/regions/europe-west1/subnetworks/machines"
    assert graph["product-1-instance"].inputs["networkInterfaces"] == [{"subnetwork": machines}]
    assert graph["gateway-address"].inputs["subnetwork"].endswith("/subnetworks/nodes")


def test_rules_of_own_vpcs_are_in_the_stacks_project() -> None:
    assert not [name for name, node in of_type("single-network", FIREWALL).items() if "project" in node.inputs]


@pytest.mark.slow
def test_a_vpc_of_others_is_peered_by_its_link() -> None:
    graph = harness.run(in_a_shared_vpc("multi-network")).graph
    halves = {name: (node.inputs["network"], node.inputs["peerNetwork"]) for name, node in graph.items() if name.startswith("peering-")}
    shared = f"https://www.googleapis.com/compute/v1/{SHARED}"
    assert halves == {"peering-mesh-far": (shared, "https://google/vpc-far"), "peering-far-mesh": ("https://google/vpc-far", shared)}
    assert {name for name in graph if name.startswith(("vpc-", "nat-"))} == {"vpc-far", "nat-far"}


@pytest.mark.slow
def test_owners_of_a_vpc_that_is_not_managed_read_what_to_do() -> None:
    config = in_a_shared_vpc("multi-network", managed=False)
    del config["cluster"]["gateway"]["dnsName"]
    config["google"]["subnets"]["machines"] = {
        "vpc": "mesh",
        "network": "pods",
        "cidr": "10.11.0.0/24",
        "existing": "projects/net-host/regions/europe-west1/subnetworks/machines",
    }
    config["machines"]["product-2"] = {"platform": "gce", "workload": "product", "network": "pods", "zone": "europe-west1-b"}
    graph = harness.run(config).graph
    assert not [name for name, node in graph.items() if node.type == FIREWALL and node.inputs["network"] == SHARED]
    assert "peering-far-mesh" in graph and "peering-mesh-far" not in graph
    notes = firewall.unmanaged_notes("dev", load(config))
    assert (
        "VPC mesh is not managed. For calls to the workload product, its owners run: gcloud compute firewall-rules create "
        "dev--mesh-product --project net-host --network shared --direction INGRESS --allow tcp:80 "
        "--source-ranges 10.11.0.0/24,10.20.0.0/16 --target-service-accounts dev--product@my-project.iam.gserviceaccount.com"
    ) in notes
    assert "VPC mesh is not managed: its owners peer it with the VPC far of this stack (gcloud compute networks list)" in notes
    assert len(notes) == 1 + len([rule for rule in firewall.firewall_rules(load(config)) if rule.vpc == "mesh"])


@pytest.mark.slow
def test_machines_beside_a_cluster_of_others_are_in_its_vpc_or_peered_with_it() -> None:
    config = harness.configuration("existing")
    subnets = {
        "machines": {
            "vpc": "theirs",
            "network": "pods",
            "cidr": "10.12.0.0/24",
            "existing": "projects/my-project/regions/europe-west1/subnetworks/machines",
        },
        "own": {"vpc": "own", "network": "pods", "cidr": "10.13.0.0/24"},
    }
    vpcs = {"theirs": {"existing": "projects/my-project/global/networks/theirs"}}
    config["google"] = {"project": "my-project", "region": "europe-west1", "subnets": subnets, "vpcs": vpcs}
    config["cluster"]["additionalPodCidrs"] = ["10.21.0.0/16"]
    machine = {"platform": "gce", "workload": "billing", "network": "pods", "zone": "europe-west1-b"}
    config["machines"] |= {"billing-3": {**machine, "subnet": "machines"}, "billing-4": {**machine, "subnet": "own"}}
    assert peered(config) == {("own", "theirs")}
    graph = harness.run(config).graph
    both = copy.deepcopy(config)
    both["google"]["vpcs"]["own"] = {"existing": "projects/my-project/global/networks/own"}
    both["google"]["subnets"]["own"]["existing"] = "projects/my-project/regions/europe-west1/subnetworks/own"
    assert peered(both) == set(), "their owners connect them"
    assert "vpc-theirs" not in graph and graph["billing-3-instance"].inputs["networkInterfaces"] == [
        {"subnetwork": subnets["machines"]["existing"]}
    ]
    assert {"10.20.0.0/16", "10.21.0.0/16"} <= {*graph["firewall-own-billing"].inputs["sourceRanges"]}


def test_a_network_gateway_is_machines_behind_one_internal_address() -> None:
    graph = declared("multi-network").graph
    name = "far-gateway-balancer"
    rule, backends = (graph[f"{name}-{part}"] for part in ("rule", "backends"))
    groups = {"far-gateway-1": graph[f"{name}-instances"], "far-gateway-2": graph[f"{name}-instances-c"]}
    reserved = graph[f"{name}-address"]
    address = reserved.state["address"]
    assert (reserved.inputs["addressType"], reserved.inputs["subnetwork"]) == ("INTERNAL", "subnet-far-id")
    assert (rule.inputs["loadBalancingScheme"], rule.inputs["ipAddress"], rule.inputs["ports"]) == ("INTERNAL", address, ["15443"])
    assert not rule.inputs["allowGlobalAccess"], "a stack is in one region"
    assert rule.inputs["backendService"] == f"{name}-backends-id"
    assert backends.inputs["backends"] == [{"group": group.state["selfLink"], "balancingMode": "CONNECTION"} for group in groups.values()]
    assert backends.inputs["healthChecks"] == f"{name}-health-id"
    assert graph[f"{name}-health"].inputs["httpHealthCheck"] == {"port": 15021, "requestPath": "/healthz/ready"}
    for machine, group in groups.items():
        member, instance = graph[f"{name}-{machine}"], graph[f"{machine}-instance"]
        assert member.inputs["instance"] == instance.state["selfLink"]
        assert member.inputs["zone"] == group.inputs["zone"] == instance.inputs["zone"]
        assert member.inputs["instanceGroup"] == group.state["name"]
        assert f"{machine}-join" in member.dependencies, "no call goes to a machine that has not joined"
        assert member.options["replace_with"] == [f"{machine}-instance"], "a machine that is made again is no member any more"
        assert member.options["delete_before_replace"]


def test_a_gateway_may_be_a_group_that_joins_by_itself() -> None:
    """No machine has a key, and nothing connects to one."""
    graph = harness.run(google_stacks.groups_alone()).graph
    assert not [name for name, node in graph.items() if node.type == INSTANCE or name.endswith(("-join", "-drain", "-proof"))]
    manager = graph["far-gateway-machines-manager"]
    backends = graph["far-gateway-balancer-backends"]
    assert [each["group"] for each in backends.inputs["backends"]] == [manager.state["instanceGroup"]]
    assert manager.inputs["targetSize"] == 2
    assert manager.inputs["distributionPolicyZones"] == ["europe-west1-b", "europe-west1-c"]
    script = graph["far-gateway-machines-template"].inputs["metadata"]["startup-script"]
    files = machine_files(script)
    assert not [path for path in files if "redirect" in path and path.startswith("/etc/systemd")], "it captures nothing"
    assert {f"/etc/systemd/system/{name}" for name in ("istio-vm-mesh-drain.service", "istio-vm-mesh.service.d/drain.conf")} <= files.keys()
    assert "PROXY_ROLE='router'" in files["/var/lib/istio-vm-mesh/overrides.env"]
    assert {"far-gateway-machines-manager", "far-gateway-balancer-rule"} <= set(graph["far-gateway-addresses"].dependencies)
    policy = graph["product-service-product-failover"].inputs["spec"]["trafficPolicy"]
    assert policy["connectionPool"]["tcp"]["connectTimeout"] == "1s"


def test_a_gateway_behind_a_load_balancer_is_published_by_its_address_alone() -> None:
    graph = declared("multi-network").graph
    address = graph["far-gateway-balancer-address"].state["address"]
    addresses = graph["far-gateway-addresses"]
    assert addresses.inputs["spec"]["addresses"] == [{"type": "IPAddress", "value": address}]
    assert {"far-gateway-balancer-rule", "far-gateway-balancer-far-gateway-1", "far-gateway-balancer-far-gateway-2"} <= set(
        addresses.dependencies
    )
    policy = graph["product-service-product-failover"].inputs["spec"]["trafficPolicy"]
    assert policy["connectionPool"]["tcp"]["connectTimeout"] == "1s"
    assert "outlierDetection" not in policy, "setting the one address aside would set all machines aside"


@pytest.mark.slow
def test_clients_of_a_headless_service_change_no_gateways() -> None:
    """They call addresses of pods, so a rule for gateways would touch calls that go through none."""
    config = copy.deepcopy(harness.configuration("multi-network"))
    config["workloads"]["product"]["services"]["peers"] = {"ports": {"http": 80}, "headless": True}
    graph = harness.run(config).graph
    assert {name for name in graph if name.endswith("-failover")} == {"product-service-product-failover"}


@pytest.mark.slow
def test_verification_leaves_out_unreachable_networks() -> None:
    config = copy.deepcopy(harness.configuration("multi-network"))
    del config["networks"]["far"]["gateway"]
    assert harness.payload(harness.run(config).graph["product-verification"])["target"], "there are pods to answer"
    del config["workloads"]["product"]["pods"]
    graph = harness.run(config).graph
    assert harness.payload(graph["product-verification"])["target"] is None
    assert "shop-product-callers" not in graph
    assert not {"firewall-far-far-gateway", "far-gateway-addresses"} & set(graph)
    assert "mesh-gateway-far-no-gateway" in graph


def test_gateway_machines_install_what_istios_package_needs() -> None:
    graph = declared("multi-network").graph
    setup = graph["far-gateway-1-instance"].inputs["metadata"]["startup-script"]
    assert setup.startswith("#!/bin/bash\n") and "iptables" in setup and "nginx" not in setup


def test_a_group_starts_with_its_machines_and_the_autoscaler_changes_their_number() -> None:
    """An empty group is complete at once, so an update would wait for nothing."""
    group = declared("fleet").graph["product-fleet-manager"]
    assert group.inputs["targetSize"] == 2 and group.options["ignore_changes"] == ["targetSize"]
    assert group.inputs["waitForInstances"] and group.inputs["waitForInstancesStatus"] == "UPDATED"
    assert group.inputs["updatePolicy"]["maxSurgeFixed"] == 3, "0, or at least one a zone"
    large = copy.deepcopy(harness.configuration("fleet"))
    large["machines"]["product-fleet"]["maxReplicas"] = 100
    assert harness.run(large).graph["product-fleet-manager"].inputs["updatePolicy"]["maxSurgeFixed"] == 20, "within an hour"
    assert "name" not in declared("fleet").graph["product-fleet-template"].inputs, "a named template cannot be replaced while it is in use"


@pytest.mark.slow
def test_autopilot_declares_no_nodes_and_lets_sidecars_redirect() -> None:
    graph = graph_with("single-network", cluster={"autopilot": True, "zone": None})
    cluster = graph["cluster-gke"].inputs
    assert cluster["enableAutopilot"] and cluster["allowNetAdmin"]
    for conflicting in ("removeDefaultNodePool", "initialNodeCount", "nodeConfig", "datapathProvider", "enableShieldedNodes"):
        assert conflicting not in cluster
    account = cluster["clusterAutoscaling"]["autoProvisioningDefaults"]["serviceAccount"]
    assert account == "nodes-google-account@project.iam.gserviceaccount.com"
    assert "cluster-nodes" not in graph


def test_a_regional_cluster_is_one_without_a_zone() -> None:
    assert declared("fleet").graph["cluster-gke"].inputs["location"] == "europe-west1"
    assert declared("single-network").graph["cluster-gke"].inputs["location"] == "europe-west1-b"


@pytest.mark.parametrize("stack", STACKS)
def test_the_kubeconfig_holds_no_credential(stack: str) -> None:
    kubeconfig = json.loads(declared(stack).graph["kubernetes"].inputs["kubeconfig"])
    (user,) = kubeconfig["users"]
    assert set(user["user"]) == {"exec"}
    assert user["user"]["exec"]["command"] == "gke-gcloud-auth-plugin"
    assert kubeconfig["clusters"][0]["cluster"] == {"server": "https://gke-0123.europe-west1.gke.goog"}
    assert declared(stack).graph["kubernetes"].inputs["clusterIdentifier"] == harness.THEIR_CLUSTER["uid"]


def test_ssh_pins_the_key_that_the_machine_published_and_passes_identity_aware_proxy() -> None:
    graph = declared("single-network").graph
    target = harness.payload(graph["product-1-join"])["target"]
    hop = target["hop"]
    assert (hop["host"], hop["port"], hop["user"]) == (graph["product-1-instance"].inputs["name"], 22, "mesh")
    assert hop["identity_file"].endswith("/ssh-key")
    assert scripting.decode(openssh.Target, target).proxy_command == (
        f"gcloud compute start-iap-tunnel {hop['host']} 22 --listen-on-stdin --project my-project --zone europe-west1-b --verbosity warning"
    )
    assert hop["host_key"] == "ssh-ed25519 AAAA", "what the command that reads guest attributes returned"
    assert graph["product-1-drain"].inputs["create"] == "python3 -I components/local/run.py platforms/google/scripts/host_key.py create"
    assert "product-1-drain" in graph["product-1-join"].dependencies


def test_keys_are_of_the_type_that_the_stack_names() -> None:
    """Images and computers in FIPS mode have no Ed25519."""
    graph = graph_with("single-network", google={"ssh": {"keyType": "ecdsa"}})
    assert harness.payload(graph["product-1-drain"])["key_type"] == "ecdsa-sha2-nistp256"
    assert harness.payload(graph["ssh-key"])["key_type"] == "ecdsa"


@pytest.mark.slow
def test_direct_and_bastion_ssh_use_the_machines_address() -> None:
    bastion = {"host": "bastion.example.com", "user": "jump", "acceptAnyHostKey": True}
    for ssh in ({"via": "direct", "cidrs": ["10.9.0.0/24"]}, {"via": "bastion", "cidrs": ["10.9.0.0/24"], "bastion": bastion}):
        graph = graph_with("single-network", google={"ssh": ssh})
        target = harness.payload(graph["product-1-join"])["target"]
        assert (target["hop"]["host"], target["hop"]["port"]) == (
            graph["product-1-instance"].state["networkInterfaces"][0]["networkIp"],
            22,
        )
        assert [jump["host"] for jump in target.get("jumps", ())] == (["bastion.example.com"] if ssh["via"] == "bastion" else [])
        assert "iap" not in target
        assert graph["firewall-mesh-product-ssh"].inputs["sourceRanges"] == ["10.9.0.0/24"]


def test_a_gateways_dns_name_has_a_zone_of_its_own_and_is_verified_by_address() -> None:
    graph = declared("multi-network").graph
    assert graph["gateway-record"].inputs["name"] == "gateway.mesh.internal."
    assert graph["gateway-zone"].inputs["dnsName"] == "gateway.mesh.internal.", "a zone of the domain would hide its other names"
    assert "15443" in str(graph["product-1-proof"].inputs["stdin"])
    assert "gateway.mesh.internal:15443" not in str(graph["product-1-proof"].inputs["stdin"])


def test_another_machine_adds_six_resources_and_changes_no_other() -> None:
    before = declared("single-network").graph
    config = copy.deepcopy(harness.configuration("single-network"))
    config["machines"]["product-3"] = dict(config["machines"]["product-1"])
    after = harness.run(config).graph
    assert len(after) - len(before) == 6
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"product-slots", "product-verification", "shop-product-callers"}


@pytest.mark.slow
def test_a_group_is_as_many_resources_whatever_its_size() -> None:
    assert graph_with("fleet", machines={}).keys() == declared("fleet").graph.keys()
    config = copy.deepcopy(harness.configuration("fleet"))
    config["machines"]["product-fleet"].update(minReplicas=50, maxReplicas=200)
    assert harness.run(config).graph.keys() == declared("fleet").graph.keys()
    assert sum(node.parent == "product-fleet" for node in declared("fleet").graph.values()) == 4
