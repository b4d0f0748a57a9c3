"""The stacks on Google Cloud: nothing is public, nothing is open that was not declared, and nobody has more rights than needed."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest

from components.platforms.google import names
from tests.support import harness
from tests.support.harness import Node, declared
from tests.support.scripts import machine_files

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
    graph = harness.run(harness.configuration("multi-network")).graph
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
        assert graph["fleet-role"].inputs["permissions"] == ["container.clusters.connect"]
        assert graph["product-machines-role"].inputs["rules"] == [
            {"apiGroups": [""], "resources": ["serviceaccounts/token"], "resourceNames": ["product"], "verbs": ["create"]}
        ]


@pytest.mark.parametrize("stack", STACKS)
def test_clusters_are_protected_until_the_stack_says_otherwise(stack: str) -> None:
    config = copy.deepcopy(harness.configuration(stack))
    assert config["cluster"].pop("deletionProtection") is True, "the stack says it, so that people find it"
    assert harness.run(config).graph["cluster-gke"].inputs["deletionProtection"] is True
    assert graph_with(stack, cluster={"deletionProtection": False})["cluster-gke"].inputs["deletionProtection"] is False


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


def test_a_network_gateway_is_machines_behind_one_internal_address() -> None:
    graph = declared("multi-network").graph
    name = "far-gateway-balancer"
    rule, backends = (graph[f"{name}-{part}"] for part in ("rule", "backends"))
    groups = {"far-gateway-1": graph[f"{name}-instances"], "far-gateway-2": graph[f"{name}-instances-europe-west1-c"]}
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


def test_clients_of_a_headless_service_change_no_gateways() -> None:
    """They call addresses of pods, so a rule for gateways would touch calls that go through none."""
    config = copy.deepcopy(harness.configuration("multi-network"))
    config["workloads"]["product"]["services"]["peers"] = {"ports": {"http": 80}, "headless": True}
    graph = harness.run(config).graph
    assert {name for name in graph if name.endswith("-failover")} == {"product-service-product-failover"}


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


def test_a_group_starts_with_its_machines_and_the_autoscaler_alone_changes_their_number() -> None:
    """An empty group is complete at once, so an update would wait for nothing."""
    group = declared("fleet").graph["product-fleet-manager"]
    assert group.inputs["targetSize"] == 2 and group.options["ignore_changes"] == ["targetSize"]
    assert group.inputs["waitForInstances"] and group.inputs["waitForInstancesStatus"] == "UPDATED"
    assert group.inputs["updatePolicy"]["maxSurgeFixed"] == 3, "0, or at least one a zone"
    large = copy.deepcopy(harness.configuration("fleet"))
    large["machines"]["product-fleet"]["maxReplicas"] = 100
    assert harness.run(large).graph["product-fleet-manager"].inputs["updatePolicy"]["maxSurgeFixed"] == 20, "within an hour"
    assert "name" not in declared("fleet").graph["product-fleet-template"].inputs, "a named template cannot be replaced while it is in use"


def test_autopilot_declares_no_nodes_and_lets_sidecars_redirect() -> None:
    graph = graph_with("single-network", cluster={"autopilot": True})
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
    assert target["proxy_command"] == (
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
        assert "proxy_command" not in target
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


def test_a_group_is_as_many_resources_whatever_its_size() -> None:
    assert graph_with("fleet", machines={}).keys() == declared("fleet").graph.keys()
    config = copy.deepcopy(harness.configuration("fleet"))
    config["machines"]["product-fleet"].update(minReplicas=50, maxReplicas=900)
    assert harness.run(config).graph.keys() == declared("fleet").graph.keys()
    assert sum(node.parent == "product-fleet" for node in declared("fleet").graph.values()) == 4


@pytest.mark.parametrize("stack", ["dev", "Team_A.staging", "2026", "x" * 80])
def test_any_name_of_a_stack_makes_names_that_google_takes(stack: str) -> None:
    for name in (
        names.resource_name(stack, "product-1"),
        names.cluster_name(stack),
        names.account_id(stack, "product"),
        names.slug(stack),
    ):
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name), name
    assert len(names.resource_name(stack, "product-1")) <= 63
    assert len(names.cluster_name(stack)) <= 40
    assert 6 <= len(names.account_id(stack, "product")) <= 30
