"""The stack `existing`: a cluster by its kubeconfig, a mesh that is adopted, machines over SSH. Nothing of anybody's is made or edited."""

from __future__ import annotations

import json
from typing import Any

import pulumi
import pytest

from tests.support import harness
from tests.support.scripts import machine_files


@pytest.fixture
def config() -> dict[str, Any]:
    return harness.configuration("existing")


def graph_of(config: dict[str, Any], **secrets: str) -> dict[str, harness.Node]:
    return harness.run(config, secrets={**harness.SECRETS, **secrets}).graph


def test_an_adopted_mesh_gets_only_what_machines_need(config: dict[str, Any]) -> None:
    graph = graph_of(config)
    kinds = sorted({node.type for node in graph.values()})
    assert not [kind for kind in kinds if "istiod" in kind or kind.startswith(("gcp:", "docker"))]
    releases = [node.name for node in graph.values() if node.type == "kubernetes:helm.sh/v3:Release"]
    assert releases == ["istio-eastwestgateway"]
    namespaces = [node.name for node in graph.values() if node.type == "kubernetes:core/v1:Namespace"]
    assert namespaces == ["namespace-billing"]
    reads = {node.inputs["id"] for node in graph.values() if set(node.inputs) == {"id"}}
    assert reads == {"istio-system/istio", "istio-system/istio-sidecar-injector", "istio-system/istio-ca-root-cert"}


def test_strict_mtls_covers_the_stacks_namespaces_alone(config: dict[str, Any]) -> None:
    policies = [node for node in graph_of(config).values() if node.type.endswith(":PeerAuthentication")]
    assert [policy.inputs["metadata"]["namespace"] for policy in policies] == ["billing"]
    config["cluster"]["namespaces"] = ["billing"]
    graph = graph_of(config)
    assert not [node for node in graph.values() if node.type.endswith((":PeerAuthentication", ":Namespace"))]


def test_machines_are_configured_as_the_adopted_mesh_says(config: dict[str, Any]) -> None:
    join = harness.payload(graph_of(config)["billing-1-join"])["script"]
    text = machine_files(join)["/var/lib/istio-vm-mesh/cluster.env"]
    assert "ISTIO_META_CLUSTER_ID='their-cluster'" in text
    assert "ISTIO_META_MESH_ID='theirs'" in text


def test_a_mesh_whose_network_has_another_name_is_refused(config: dict[str, Any]) -> None:
    config["networks"] = {"vpc": config["networks"]["pods"]}
    config["cluster"]["network"] = "vpc"
    for machine in config["machines"].values():
        machine["network"] = "vpc"
    with pytest.raises(pulumi.RunError, match="is called 'pods': give it this name"):
        graph_of(config)


def test_the_provider_gets_the_named_context_alone_as_a_secret(config: dict[str, Any]) -> None:
    graph = graph_of(config)
    kubeconfig = json.loads(graph["kubernetes"].inputs["kubeconfig"]["secret"])
    assert kubeconfig["current-context"] == "production"
    assert [item["name"] for item in kubeconfig["clusters"]] == ["theirs"]
    assert "certificate-authority-data" in kubeconfig["clusters"][0]["cluster"]
    assert graph["kubernetes"].inputs["clusterIdentifier"] == "production"


def test_a_kubeconfig_may_be_a_secret(config: dict[str, Any]) -> None:
    del config["cluster"]["kubeconfig"]
    text = (harness.ROOT / "tests/preview/kubeconfig.yaml").read_text().replace(", certificate-authority: kubeconfig.yaml", "")
    graph = graph_of(config, kubeconfig=text)
    assert json.loads(graph["kubernetes"].inputs["kubeconfig"]["secret"])["current-context"] == "production"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"kubeconfig": "/nowhere/config"}, "cluster.kubeconfig: cannot read /nowhere/config: No such file or directory"),
        ({"context": "produktion"}, r"has no context 'produktion' \(did you mean 'production'\?\)"),
        ({"kubeconfig": None}, "cluster.kubeconfig: is missing: name a file"),
    ],
)
def test_a_wrong_kubeconfig_is_an_error_before_any_resource(config: dict[str, Any], change: dict, problem: str) -> None:
    config["cluster"] = {key: value for key, value in {**config["cluster"], **change}.items() if value is not None}
    with pytest.raises(pulumi.RunError, match=problem):
        graph_of(config)


def test_a_key_in_the_clear_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(pulumi.RunError, match="sshPrivateKey: must be a secret"):
        harness.run({**config, "sshPrivateKey": "in the clear"}, secrets={})


def test_ssh_connections_follow_the_settings(config: dict[str, Any]) -> None:
    graph = graph_of(config)
    target = harness.payload(graph["billing-2-join"])["target"]
    hop, bastion = target["hop"], target["bastion"]
    assert (hop["host"], hop["port"], hop["user"]) == ("10.11.0.6", 2222, "admin")
    assert hop["host_key"].startswith("ssh-ed25519 ")
    assert bastion["host"] == "bastion.example.com"
    assert bastion["host_key"].startswith("ssh-ed25519 ")
    assert hop["private_key"] == bastion["private_key"] == harness.CANARIES["private key"]
    join = harness.payload(graph["billing-1-join"])
    assert "exec sudo -n timeout" in join["script"]
    assert f"DIGEST={join['last_line']}\n" in join["script"], "the join has failed unless its output ends so"


def test_a_machine_that_stays_leaves_the_mesh_when_it_is_removed(config: dict[str, Any]) -> None:
    drain = graph_of(config)["billing-1-drain"]
    payload = harness.payload(drain, "delete")
    assert payload["entry"].startswith("billing-10.11.0.5")
    assert payload["leave"]["required"], "it stays, so a leave that fails is an error"
    assert payload["leave"]["target"]["hop"]["host_key"].startswith("ssh-ed25519 ")
    assert "systemctl disable --now" in payload["leave"]["script"]
    assert drain.inputs["delete"] == "python3 -I components/local/run.py machines/scripts/drain.py delete"
    assert "create" not in drain.inputs
