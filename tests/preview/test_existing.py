"""The stack `existing`: a cluster by its kubeconfig, a mesh that is adopted, machines over SSH. Nothing of anybody's is made or edited."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pulumi
import pytest

from components.local import openssh, private_files
from components.machines import proxy_metadata
from tests.support import harness
from tests.support.meshes import MESHES, of_cluster
from tests.support.sshd import key_pair


@pytest.fixture
def config() -> dict[str, Any]:
    return harness.configuration("existing")


def graph_of(config: dict[str, Any]) -> dict[str, harness.Node]:
    return harness.run(config).graph


def test_an_adopted_mesh_gets_only_what_machines_need() -> None:
    graph = harness.declared("existing").graph
    kinds = sorted({node.type for node in graph.values()})
    assert not [kind for kind in kinds if "istiod" in kind or kind.startswith(("gcp:", "docker"))]
    releases = [node.name for node in graph.values() if node.type == "kubernetes:helm.sh/v3:Release"]
    assert releases == ["istio-vm-mesh-gateway"]
    namespaces = [node.name for node in graph.values() if node.type == "kubernetes:core/v1:Namespace"]
    assert namespaces == ["namespace-billing"]
    reads = {node.inputs["id"] for node in graph.values() if set(node.inputs) == {"id"}}
    assert reads == {"istio-system/istio-ca-root-cert"}


def test_strict_mtls_covers_the_stacks_namespaces_alone(config: dict[str, Any]) -> None:
    policies = [node for node in harness.declared("existing").graph.values() if node.type.endswith(":PeerAuthentication")]
    assert [policy.inputs["metadata"]["namespace"] for policy in policies] == ["billing"]
    config["cluster"]["namespaces"] = ["billing"]
    graph = graph_of(config)
    assert not [node for node in graph.values() if node.type.endswith((":PeerAuthentication", ":Namespace"))]


def test_machines_are_configured_as_the_adopted_mesh_says() -> None:
    metadata = proxy_metadata.complete(harness.payload(harness.declared("existing").graph["billing-1-join"])["bundle"]["proxy"])[
        "proxyMetadata"
    ]
    assert (metadata["ISTIO_META_CLUSTER_ID"], metadata["ISTIO_META_MESH_ID"]) == ("their-cluster", "theirs")


def adopt(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, name: str, revision: str | None = None) -> dict[str, harness.Node]:
    """Adopt a mesh of tests/support/meshes.yaml."""
    mesh = MESHES[name]
    monkeypatch.setattr(harness, "THEIR_MESH", of_cluster(mesh, revision))
    config["mesh"]["namespace"] = mesh["namespace"]
    return graph_of(config)


def test_a_mesh_with_everything_of_its_own_is_what_machines_and_objects_fit(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = adopt(config, monkeypatch, "elsewhere", "blue")
    join = harness.payload(graph["billing-1-join"])
    assert join["root_config_map"] == "mesh-system/corp-roots"
    assert join["bundle"]["grace_s"] == 90
    assert join["bundle"]["proxy"]["discoveryAddress"] == "istiod-blue.mesh-system.svc:15012"
    assert join["bundle"]["proxy"]["proxyMetadata"]["TRUST_DOMAIN"] == "corp.example"
    assert {node.inputs["id"] for node in graph.values() if set(node.inputs) == {"id"}} == {"mesh-system/corp-roots"}
    gateway = graph["mesh-gateway-istio-vm-mesh-istiod"].inputs
    assert gateway["metadata"]["namespace"] == "mesh-system"
    assert gateway["spec"]["servers"][0]["hosts"] == ["istiod-blue.mesh-system.svc"]
    [route] = graph["mesh-virtualservice-istio-vm-mesh-istiod"].inputs["spec"]["tls"][0]["route"]
    assert route["destination"]["host"] == "istiod-blue.mesh-system.svc.corp.local"
    release = graph["istio-vm-mesh-gateway"].inputs
    assert release["namespace"] == "mesh-system"
    assert (release["values"]["revision"], release["values"]["imagePullSecrets"]) == ("blue", [{"name": "corp"}])
    labels = graph["namespace-billing"].inputs["metadata"]["labels"]
    assert labels["istio.io/rev"] == "blue" and "istio-injection" not in labels
    job = harness.payload(graph["billing-billing-callers"])["pair"]["outside"]["spec"]["template"]["spec"]
    assert job["containers"][0]["image"] == "registry.example.com/istio/proxyv2:1.31.0"
    assert job["imagePullSecrets"] == [{"name": "corp"}]
    proof = graph["billing-1-proof"].inputs
    assert "billing.billing.svc.corp.local" in str(proof) and "spiffe://corp.example/ns/billing/sa/" in str(proof)
    everything = "\n".join(harness.texts([node.inputs for node in graph.values()]))
    assert "cluster.local" not in everything and "istio-system" not in everything


def test_machines_of_pods_without_a_network_name_name_none_either(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A default install has no network's name, and istiod takes machines for neighbours of its pods then."""
    graph = adopt(config, monkeypatch, "default")
    join = harness.payload(graph["billing-1-join"])
    assert join["bundle"]["proxy"]["proxyMetadata"]["ISTIO_META_NETWORK"] == ""
    assert graph["billing-group"].inputs["spec"]["template"]["network"] == ""
    assert graph["billing-1-registration"].inputs["entry"] == "billing-10.11.0.5", "as istiod calls it"
    assert harness.payload(graph["billing-verification"])["entries"][0]["entry"] == "billing-10.11.0.5"


def test_another_port_of_the_gateway_is_everywhere_that_machines_go(config: dict[str, Any]) -> None:
    config["cluster"]["gateway"]["port"] = 443
    graph = graph_of(config)
    ports = {port["name"]: port for port in graph["istio-vm-mesh-gateway"].inputs["values"]["service"]["ports"]}
    assert (ports["tls-istiod"]["port"], ports["tls-istiod"]["targetPort"]) == (443, 15012)
    assert harness.payload(graph["billing-1-join"])["bundle"]["gateway_port"] == 443
    assert graph["mesh-gateway-istio-vm-mesh-istiod"].inputs["spec"]["servers"][0]["port"]["number"] == 15012, "as the pods have it"


@pytest.mark.parametrize("platform", ["existing", "gke"])
def test_a_gateway_without_machines_is_not_open_to_every_address(config: dict[str, Any], platform: str) -> None:
    """Before the first machine, and once the last one is removed."""
    if platform == "gke":
        config = harness.configuration("single-network")
    config["machines"] = {}
    config["cluster"].get("gateway", {}).pop("service", None)
    admitted = graph_of(config)["istio-vm-mesh-gateway"].inputs["values"]["service"]["loadBalancerSourceRanges"]
    assert "10.11.0.0/24" in admitted and set(admitted) <= {"10.10.0.0/22", "10.11.0.0/24", "10.20.0.0/16"}


def test_a_load_balancer_with_values_of_its_own_admits_the_machines(config: dict[str, Any]) -> None:
    config["cluster"]["gateway"]["service"] = {"annotations": {"networking.gke.io/load-balancer-type": "Internal"}}
    values = graph_of(config)["istio-vm-mesh-gateway"].inputs["values"]["service"]
    assert values["loadBalancerSourceRanges"] == ["10.11.0.0/24", "10.20.0.0/16"]


def test_behind_nat_other_networks_are_given_the_address_that_they_reach(config: dict[str, Any]) -> None:
    config["networks"]["far"] = {"cidrs": ["10.99.0.0/24"]}
    config["machines"]["billing-1"].update(network="far", host="10.99.0.5")
    config["cluster"]["gateway"] = {"address": "203.0.113.9", "behindNat": True}
    graph = graph_of(config)
    values = graph["istio-vm-mesh-gateway"].inputs["values"]
    assert "networkGateway" not in values and "labels" not in values and "loadBalancerIP" not in values["service"]
    published = graph["pods-gateway-addresses"].inputs
    assert published["metadata"]["labels"]["topology.istio.io/network"] == "pods"
    assert published["spec"]["addresses"] == [{"type": "IPAddress", "value": "203.0.113.9"}]
    assert published["spec"]["listeners"][0]["port"] == 15443
    config["cluster"]["gateway"]["behindNat"] = False
    graph = graph_of(config)
    assert "pods-gateway-addresses" not in graph
    assert graph["istio-vm-mesh-gateway"].inputs["values"]["networkGateway"] == "pods"


@pytest.mark.slow
def test_a_gateway_of_others_is_compared_by_its_address(config: dict[str, Any]) -> None:
    assert "gateway_address" not in harness.declared("existing").graph["mesh-facts"].inputs
    config["cluster"]["gateway"] = {"address": "203.0.113.9", "install": False}
    assert graph_of(config)["mesh-facts"].inputs["gateway_address"] == "203.0.113.9"


def test_machines_are_where_they_or_their_workload_say(config: dict[str, Any]) -> None:
    config["workloads"]["billing"]["locality"] = "north/north-1"
    config["machines"]["billing-2"]["locality"] = "north/north-2/rack-7"
    graph = graph_of(config)
    localities = {name: harness.payload(graph[f"{name}-join"])["bundle"]["locality"] for name in ("billing-1", "billing-2")}
    assert localities == {"billing-1": "north/north-1", "billing-2": "north/north-2/rack-7"}
    assert graph["billing-group"].inputs["spec"]["template"]["locality"] == "north/north-1"


def test_a_mesh_that_is_read_says_for_what(config: dict[str, Any]) -> None:
    config["mesh"]["revision"] = "prod"
    wanted = json.loads(graph_of(config)["mesh-facts"].inputs["wanted"])
    assert (wanted["namespace"], wanted["revision"], wanted["network"], wanted["hub"]) == ("istio-system", "prod", "pods", "")
    assert (wanted["created_namespaces"], wanted["other_namespaces"]) == ({"billing": {}}, [])
    config["cluster"]["namespaces"] = ["billing"]
    wanted = json.loads(graph_of(config)["mesh-facts"].inputs["wanted"])
    assert (wanted["created_namespaces"], wanted["other_namespaces"]) == ({}, ["billing"])


def test_no_command_is_given_more_of_the_cluster_than_where_it_is(config: dict[str, Any]) -> None:
    graph = harness.declared("existing").graph
    access = graph["cluster-check"].inputs["access"]
    assert {key: value for key, value in access.items() if value is not None} == {
        "context": "production",
        "path": config["cluster"]["kubeconfig"],
    }
    assert graph["kubernetes"].inputs["kubeconfig"] == harness.THEIR_CLUSTER["kubeconfig"]
    assert graph["kubernetes"].inputs["clusterIdentifier"] == harness.THEIR_CLUSTER["uid"]
    assert "cluster-check" in graph["kubernetes"].dependencies
    drain = harness.payload(graph["billing-1-drain"], "delete")
    assert {key: value for key, value in drain["access"].items() if value is not None} == harness.THEIR_CLUSTER["recorded"]


def test_ssh_connections_follow_the_settings() -> None:
    graph = harness.declared("existing").graph
    target = harness.payload(graph["billing-2-join"])["target"]
    hop, (bastion,) = target["hop"], target["jumps"]
    assert (hop["host"], hop["port"], hop["user"]) == ("10.11.0.6", 2222, "admin")
    assert hop["host_key"].startswith("ssh-ed25519 ")
    assert bastion["host"] == "bastion.example.com"
    assert bastion["host_key"].startswith("ssh-ed25519 ")
    assert hop["identity_file"] == "state:organization/istio-vm-mesh/test/identities/machines/billing-2"
    assert bastion["identity_file"] == "state:organization/istio-vm-mesh/test/identities/bastions/billing-2"


@pytest.mark.slow
def test_another_persons_key_shows_no_difference(config: dict[str, Any], tmp_path: Path) -> None:
    """It may be in a file of another path, in an agent, or in the environment."""
    one, two = key_pair(tmp_path / "one"), key_pair(tmp_path / "two")
    before = graph_of(config)
    for path in (one, two):
        config["machines"]["billing-1"]["privateKey"] = str(path)
        config["machines"]["billing-2"]["bastion"]["privateKey"] = str(path)
        assert graph_of(config) == before
        links = private_files.path_of("state:organization/istio-vm-mesh/test/identities")
        assert {str(link.readlink()) for link in links.rglob("billing-*") if link.is_symlink()} == {str(path)}
    del config["machines"]["billing-1"]["privateKey"], config["machines"]["billing-2"]["bastion"]["privateKey"]
    assert graph_of(config) == before
    assert not [link for link in links.rglob("*") if link.is_symlink()]


@pytest.mark.slow
def test_keys_that_ssh_cannot_use_are_named_in_the_preview_all_at_once(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    locked = key_pair(tmp_path / "locked", passphrase="long enough")
    config["machines"]["billing-1"]["privateKey"] = str(locked)
    config["machines"]["billing-2"]["privateKey"] = "/nowhere/key"
    config["machines"]["billing-2"]["bastion"]["privateKey"] = f"{locked}.pub"
    with pytest.raises(pulumi.RunError) as raised:
        graph_of(config)
    for problem in (
        f"machines.billing-1.privateKey: {locked} needs a passphrase, and no agent has the key: run `ssh-add {locked}` first",
        "machines.billing-2.privateKey: cannot read /nowhere/key: No such file or directory",
        f"machines.billing-2.bastion.privateKey: {locked}.pub is a public key, and no agent has its private key: name {locked}",
    ):
        assert problem in str(raised.value)
    monkeypatch.setenv(openssh.KEY_VARIABLE, "a text")
    with pytest.raises(pulumi.RunError, match=r"have 1 problem:\s+ISTIO_VM_MESH_SSH_KEY: has no private key that ssh can read"):
        graph_of(config)
    monkeypatch.setenv(openssh.KEY_VARIABLE, key_pair(tmp_path / "of-ci").read_text())
    graph_of(config)


def test_a_runner_without_ssh_is_refused_in_the_preview(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pulumi.RunError, match="ssh, which is not on PATH: install OpenSSH's client on the computer that runs Pulumi"):
        graph_of(config)


def test_another_way_to_a_machine_replaces_nothing(config: dict[str, Any]) -> None:
    before = harness.declared("existing").graph
    config["machines"]["billing-1"] |= {"port": 2222, "user": "root", "hostKey": config["machines"]["billing-2"]["hostKey"]}
    config["machines"]["billing-1"] |= {"host": "billing.example.com", "address": "10.11.0.5"}
    after = graph_of(config)
    assert after["billing-1-drain"].inputs["triggers"] == before["billing-1-drain"].inputs["triggers"]
    assert "triggers" not in after["billing-1-join"].inputs
    assert after["billing-1-registration"] == before["billing-1-registration"]


@pytest.mark.parametrize("change", [{"port": 2222}, {"user": "other"}])
def test_a_machine_that_is_reached_otherwise_is_called_again(config: dict[str, Any], change: dict[str, Any]) -> None:
    """Its proof runs again, and counts calls that Envoy forgets soon."""
    before = graph_of(config)
    config["machines"]["billing-1"] |= change
    after = graph_of(config)
    changed = {name for name in after if after[name].inputs != before[name].inputs}
    assert {"billing-1-proof", "billing-verification", "billing-billing-callers"} <= changed
    assert not {"billing-2-join", "billing-2-proof"} & changed


def test_a_machine_at_another_address_is_another_machine(config: dict[str, Any]) -> None:
    before = harness.declared("existing").graph
    config["machines"]["billing-1"]["host"] = "10.11.0.9"
    after = graph_of(config)
    assert after["billing-1-drain"].inputs["triggers"] != before["billing-1-drain"].inputs["triggers"]
    assert "delete_before_replace" not in after["billing-1-drain"].options, "the new one joins before the old one leaves"


def test_a_machine_that_is_given_up_has_nothing_that_connects_to_it(config: dict[str, Any]) -> None:
    config["machines"]["billing-1"]["forget"] = True
    graph = graph_of(config)
    assert not [node.name for node in graph.values() if node.name.startswith("billing-1") and harness.on_machine(node)]
    assert harness.payload(graph["billing-1-drain"], "delete")["leave"]["forget"]
    assert graph["billing-1-registration"].inputs["forgotten"] is True
    verified = harness.payload(graph["billing-verification"])
    assert [entry["machine"] for entry in verified["entries"]] == ["billing-2"]
    assert graph["billing-slots"].inputs["metadata"]["annotations"]["istio-vm-mesh/machines"] == "billing-2"


def test_a_machine_that_stays_leaves_the_mesh_when_it_is_removed() -> None:
    drain = harness.declared("existing").graph["billing-1-drain"]
    payload = harness.payload(drain, "delete")
    assert payload["entry"].startswith("billing-10.11.0.5")
    assert payload["leave"]["required"], "it stays, so a leave that fails is an error"
    assert payload["leave"]["target"]["hop"]["host_key"].startswith("ssh-ed25519 ")
    assert drain.inputs["delete"] == "python3 -I components/local/run.py machines/scripts/drain.py delete"
    assert "create" not in drain.inputs


BILLING = {
    "spec": {
        "selector": {"app": "billing"},
        "ports": [{"name": "http", "port": 8000, "targetPort": 8080, "protocol": "TCP"}],
        "clusterIP": "10.30.0.9",
    }
}
"""What the cluster has of the Service."""


@pytest.fixture
def application(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A stack that joins machines to an application that exists, with its ServiceAccount and its Service."""
    monkeypatch.setitem(harness.ANSWERS, "billing-service-billing", BILLING)
    config["cluster"]["namespaces"] = ["billing"]
    config["workloads"]["billing"] |= {
        "serviceAccount": {"name": "billing-app", "create": False},
        "services": {"billing": {"existing": True}},
    }
    return config


def test_an_applications_account_and_service_are_read_and_never_owned(application: dict[str, Any]) -> None:
    graph = graph_of(application)
    for name, identifier in (("billing-account", "billing/billing-app"), ("billing-service-billing", "billing/billing")):
        assert graph[name].inputs == {"id": identifier}, "it is only read"
        assert graph[name].provider == "kubernetes"
    created = [
        node for node in graph.values() if node.type.endswith((":ServiceAccount", ":Service", ":Deployment")) and "id" not in node.inputs
    ]
    assert created == []
    assert graph["billing-group"].inputs["spec"]["template"]["serviceAccount"] == "billing-app"


def test_an_application_is_verified_as_our_own_is(application: dict[str, Any]) -> None:
    graph = graph_of(application)
    verified = harness.payload(graph["billing-verification"])
    target, identity = verified["target"], "spiffe://cluster.local/ns/billing/sa/billing-app"
    assert (target["service"], target["port"], target["identities"]) == ("billing.billing.svc.cluster.local", 8000, [identity])
    assert verified["port"] == verified["pods"]["port"] == 8080
    assert verified["pair"]["inside"]["spec"]["template"]["spec"]["serviceAccountName"] == "billing-app"
    assert {"billing-1-proof", "billing-2-proof"} <= set(graph)


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"selector": {"app": "billing", "tier": "back"}}, {"type": "LoadBalancer"}])
def test_an_application_is_verified_again_when_what_leads_to_it_changes(
    application: dict[str, Any], monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    """Its selector and its ports do, and nothing else of its Service."""

    def changes() -> dict[str, Any]:
        node = graph_of(application)["billing-verification"]
        values: dict[str, Any] = json.loads(node.inputs["environment"]["CHANGES"])
        return values

    before = changes()
    monkeypatch.setitem(harness.ANSWERS, "billing-service-billing", {"spec": {**BILLING["spec"], **change}})
    assert (changes() != before) == ("selector" in change)


@pytest.mark.parametrize(("where", "change"), [("billing-1", {"connectWithin": 77}), ("cluster", {"additionalPodCidrs": ["10.21.0.0/16"]})])
def test_a_machines_proof_runs_with_the_calls_that_it_counts(config: dict[str, Any], where: str, change: dict[str, Any]) -> None:
    """The agent may have restarted since the last ones."""
    config["workloads"]["billing"]["pods"] = {"image": "billing:1"}
    before = graph_of(config)
    (config["machines"] | config)[where] |= change
    after = graph_of(config)
    assert after["billing-1-proof"].inputs != before["billing-1-proof"].inputs
    assert after["billing-verification"].inputs != before["billing-verification"].inputs


def test_an_application_of_others_is_called_as_its_mesh_names_it(application: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its Service and its ServiceAccount, and a domain, a trust domain and images of the mesh's."""
    application["workloads"]["billing"]["imagePullSecrets"] = ["mine"]
    verified = harness.payload(adopt(application, monkeypatch, "elsewhere", "blue")["billing-verification"])
    inside, outside = (verified["pair"][place]["spec"]["template"]["spec"] for place in ("inside", "outside"))
    assert inside["imagePullSecrets"] == [{"name": "mine"}], "the injection adds the mesh's"
    assert outside["imagePullSecrets"] == [{"name": "mine"}, {"name": "corp"}]
    target, identity = verified["target"], "spiffe://corp.example/ns/billing/sa/billing-app"
    assert (target["service"], target["port"], target["identities"]) == ("billing.billing.svc.corp.local", 8000, [identity])


def test_pods_and_namespaces_of_ours_follow_mesh_and_stack(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    config["namespaces"] = {"billing": {"labels": {"team": "billing"}}}
    config["workloads"]["billing"]["pods"] = {"image": "billing:1"}
    graph = adopt(config, monkeypatch, "elsewhere", "blue")
    labels = graph["namespace-billing"].inputs["metadata"]["labels"]
    assert labels.items() >= {"istio.io/rev": "blue", "team": "billing"}.items() and "istio-injection" not in labels
    deployment = graph["billing-pods"].inputs
    assert deployment["metadata"]["name"] == "billing"
    assert "imagePullSecrets" not in deployment["spec"]["template"]["spec"], "the injection adds the mesh's"
    wanted = json.loads(graph["mesh-facts"].inputs["wanted"])
    assert (wanted["created_namespaces"], wanted["pods"]) == ({"billing": {"team": "billing"}}, {"billing": ["billing"]})


def test_a_machine_takes_the_answer_of_a_pod_of_any_cidr(config: dict[str, Any]) -> None:
    config["cluster"]["additionalPodCidrs"] = ["10.21.0.0/16"]
    config["workloads"]["billing"]["pods"] = {"image": "billing:1"}
    assert "\t10.20.0.0/16,10.21.0.0/16\t" in harness.payload(graph_of(config)["billing-1-proof"])["script"]


@pytest.mark.parametrize(("pods", "mode"), [(True, "fail"), (False, "warn"), (False, "fail")])
def test_a_machines_proof_has_what_explains_its_failure(config: dict[str, Any], pods: bool, mode: str) -> None:
    """The pods that it calls, if any. In the mode `warn` it fails no update."""
    config["verify"] = {"mode": mode}
    if pods:
        config["workloads"]["billing"]["pods"] = {"image": "billing:1"}
    proof = harness.payload(graph_of(config)["billing-1-proof"]).get("proof", {})
    called = proof.get("called", {})
    assert (called.get("address"), called.get("port")) == (("10.11.0.5", 8080) if pods else (None, None))
    assert proof.get("warn_only", False) is (mode == "warn")


@pytest.mark.parametrize(("pods", "must_run"), [(None, False), ({"replicas": 0}, False), ({"replicas": 2}, True)])
def test_a_verification_demands_a_pod_where_the_program_runs_some(
    application: dict[str, Any], pods: dict[str, int] | None, must_run: bool
) -> None:
    """Not where the pods are of others: they may have none."""
    if pods:
        application["workloads"]["billing"]["pods"] = {"image": "billing:1", **pods}
    assert harness.payload(graph_of(application)["billing-verification"]).get("runs_pods", False) is must_run


def test_a_port_that_the_service_names_in_its_own_way_is_called(application: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    ports = [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}]
    monkeypatch.setitem(harness.ANSWERS, "billing-service-billing", {"spec": {**BILLING["spec"], "ports": ports}})
    application["workloads"]["billing"]["ports"] = {"web": 8080}
    graph = graph_of(application)
    verified = harness.payload(graph["billing-verification"])
    assert (verified["port"], verified["pods"]["port"]) == (8080, "web"), "pods may have it elsewhere"
    assert graph["billing-group"].inputs["spec"]["template"]["ports"] == {"web": 8080}


def test_the_look_at_the_cluster_has_what_must_exist(application: dict[str, Any]) -> None:
    objects = graph_of(application)["cluster-check"].inputs["objects"]
    existing = {each["kind"]: each["existing"] for each in objects if "existing" in each}
    assert existing["ServiceAccount"]["name"] == "billing-app"
    assert existing["Service"] == {
        "workload": "billing",
        "kind": "Service",
        "namespace": "billing",
        "name": "billing",
        "labels": {"app": "billing"},
        "pod_labels": {"app": "billing"},
        "ports": {"http": 8080},
    }
    kinds = [each["kind"] for each in objects if "existing" not in each]
    assert "ServiceAccount" not in kinds and "Service" not in kinds, "they are not refused as objects of others"


def test_a_preview_that_knows_nothing_of_the_application_shows_the_same_graph(application: dict[str, Any]) -> None:
    """As where the cluster is not reached: no output of what is read is known."""
    preview = harness.run(application, preview=True).graph
    assert set(preview) == set(graph_of(application))


def test_namespaces_of_this_program_carry_what_the_stack_states(config: dict[str, Any]) -> None:
    stated = {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}, "annotations": {"cost-centre": "42"}}
    config["namespaces"] = {"billing": stated}
    metadata = graph_of(config)["namespace-billing"].inputs["metadata"]
    assert metadata["labels"].items() >= {"istio-injection": "enabled", **stated["labels"]}.items()
    assert metadata["annotations"] == stated["annotations"]
    lab = {**harness.configuration("lab"), "namespaces": {"istio-system": stated}}
    metadata = graph_of(lab)["istio-system"].inputs["metadata"]
    assert metadata["labels"].items() >= {"topology.istio.io/network": "pods", **stated["labels"]}.items()
