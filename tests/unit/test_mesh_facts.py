"""What a mesh is, by texts of Istio's chart (tests/support/meshes.yaml)."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import yaml

from components import mesh_facts, mesh_namespaces
from components.machines import bootstrap, files
from components.machines.bootstrap import JoinInputs
from components.machines.bundle import Owner
from components.mesh_facts import BASELINE, RESTRICTED
from tests.support.meshes import MESHES, of_cluster
from tests.support.samples import MESH, PRODUCT

WITHOUT_CNI = "without Istio's CNI plugin (pilot.cni.enabled), sidecars have an init container with NET_ADMIN"


@pytest.mark.parametrize("name", MESHES)
def test_a_cluster_says_of_its_mesh_what_the_values_of_the_chart_say(name: str) -> None:
    mesh = MESHES[name]
    values = copy.deepcopy(mesh["values"])
    images = values.setdefault("global", {})
    images.setdefault("hub", "registry.istio.io/testing"), images.setdefault("tag", "latest")
    by_values = mesh_facts.from_values(values, mesh["namespace"])
    by_cluster = of_cluster(mesh)
    labels = by_cluster.injection_labels  # a tag is known in the cluster alone
    assert replace(by_values, injection_labels=labels, default_config={}) == replace(by_cluster, default_config={})
    assert by_values.default_config == by_cluster.default_config


def test_a_default_mesh_has_no_names_and_lacks_nothing() -> None:
    facts = of_cluster(MESHES["default"])
    assert (facts.network, facts.mesh_id, facts.revision, facts.cluster_id) == ("", "", "", "Kubernetes")
    assert (facts.trust_domain, facts.cluster_domain, facts.root_namespace) == ("cluster.local", "cluster.local", "istio-system")
    assert (facts.istiod, facts.istiod_port, facts.grace_s) == ("istiod.istio-system.svc", 15012, 10)
    assert facts.root_config_map == "istio-ca-root-cert"
    assert facts.injection_labels == {"istio-injection": "enabled"}
    assert facts.proxy_image == "registry.istio.io/testing/proxyv2:latest"
    assert not facts.unserved
    assert facts.sidecar_privileges == {BASELINE: WITHOUT_CNI}


def test_a_mesh_with_everything_of_its_own_is_read_as_it_is() -> None:
    facts = of_cluster(MESHES["elsewhere"])
    assert (facts.network, facts.revision, facts.trust_domain, facts.cluster_domain) == ("vpc", "blue", "corp.example", "corp.local")
    assert (facts.namespace, facts.root_namespace, facts.root_config_map) == ("mesh-system", "policies", "corp-roots")
    assert facts.istiod_host == "istiod-blue.mesh-system.svc.corp.local"
    assert facts.spiffe_id("shop", "product") == "spiffe://corp.example/ns/shop/sa/product"
    assert (facts.grace_s, facts.sidecar_privileges, facts.pull_secrets) == (90, {}, ("corp",))
    assert facts.proxy_image == "registry.example.com/istio/proxyv2:1.31.0", "scripts need a shell"
    assert facts.default_config["concurrency"] == 2
    assert not facts.unserved


def test_all_that_cannot_be_served_is_named_at_once() -> None:
    text = "\n".join(of_cluster(MESHES["unserved"]).unserved)
    for name in (
        "ENABLE_CA_SERVER=false",
        "PILOT_ENABLE_WORKLOAD_ENTRY_AUTOREGISTRATION=false",
        "PILOT_ENABLE_WORKLOAD_ENTRY_HEALTHCHECKS=0",
        "cert-manager-istio-csr.cert-manager.svc:443 (global.caAddress)",
        "proxyInboundListenPort is 15106",
    ):
        assert name in text


@pytest.mark.parametrize(
    ("grace", "seconds"),
    [
        ("10s", 10),
        ("500ms", 1),
        ("1m30s", 90),
        ("0s", 0),
        ("1.5s", 2),
        ("2m", 120),
        ("0", 0),
        ("1m0.5s", 61),
        ("0.5m", 30),
        ("+10s", 10),
        (".5s", 1),
        ("1s1m", 61),
        ("1000000us", 1),
        ("1µs", 1),
        ("0.02h", 72),
    ],
)
def test_istiods_grace_period_is_a_duration_of_go(grace: str, seconds: int) -> None:
    facts = mesh_facts.from_values({"env": {"PILOT_WORKLOAD_ENTRY_GRACE_PERIOD": grace}}, "istio-system")
    assert (facts.grace_s, facts.unserved) == (seconds, ())


@pytest.mark.parametrize("grace", ["121s", "1h", "ten", "-5s", "10", "s", "5 s", "1..5s"])
def test_a_grace_period_that_no_machine_waits_for_is_refused(grace: str) -> None:
    facts = mesh_facts.from_values({"env": {"PILOT_WORKLOAD_ENTRY_GRACE_PERIOD": grace}}, "istio-system")
    assert "PILOT_WORKLOAD_ENTRY_GRACE_PERIOD" in facts.unserved[0]


def test_a_variable_that_is_somewhere_else_is_not_assumed() -> None:
    mesh = copy.deepcopy(MESHES["default"])
    [container] = mesh["deployments"][0]["spec"]["template"]["spec"]["containers"]
    container["env"].append({"name": "ENABLE_CA_SERVER", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}})
    assert "ENABLE_CA_SERVER comes from another object" in of_cluster(mesh).unserved[0]


def with_env(mesh: str, name: str, value: str) -> dict[str, Any]:
    """The same mesh, whose istiod has a variable."""
    changed = copy.deepcopy(MESHES[mesh])
    changed["deployments"][0]["spec"]["template"]["spec"]["containers"][0]["env"].append({"name": name, "value": value})
    return changed


def test_a_shared_mesh_config_is_below_that_of_the_revision() -> None:
    """istio/istio: pilot/pkg/bootstrap/mesh.go, "User configuration is applied first"."""
    mesh = with_env("default", "SHARED_MESH_CONFIG", "theirs")
    text = "trustDomain: shared.example\nrootNamespace: policies\ndefaultConfig: {meshId: shared, concurrency: 3}\n"
    mesh["config_maps"]["theirs"] = {"mesh": text}
    istio = mesh["config_maps"]["istio"]
    istio["mesh"] = istio["mesh"].replace("trustDomain: cluster.local", "").replace("rootNamespace: istio-system", "")
    facts = of_cluster(mesh)
    assert (facts.trust_domain, facts.root_namespace, facts.mesh_id) == ("shared.example", "policies", "shared")
    assert facts.istiod == "istiod.istio-system.svc" and facts.default_config["concurrency"] == 3
    assert facts.root_namespace != of_cluster(MESHES["default"]).root_namespace


@pytest.mark.parametrize(("audiences", "is_served"), [("istio-ca", True), ("vault,istio-ca", True), ("vault", False)])
def test_an_istiod_that_takes_no_tokens_of_machines_is_refused(audiences: str, is_served: bool) -> None:
    unserved = of_cluster(with_env("default", "TOKEN_AUDIENCES", audiences)).unserved
    assert ("istiod takes tokens for vault alone (TOKEN_AUDIENCES): add istio-ca" in "".join(unserved)) is not is_served


@pytest.mark.parametrize(("value", "is_served"), [("true", False), ("1", False), ("false", True)])
def test_a_root_certificate_that_is_in_no_config_map_is_refused(value: str, is_served: bool) -> None:
    unserved = of_cluster(with_env("default", "ENABLE_CLUSTER_TRUST_BUNDLE_API", value)).unserved
    assert ("root certificate is in a ClusterTrustBundle (ENABLE_CLUSTER_TRUST_BUNDLE_API)" in "".join(unserved)) is not is_served


@pytest.mark.parametrize("text", ["- a list", "text", "a: {b", "\tdefaultConfig: {}"])
@pytest.mark.parametrize("which", ["istio", "istio-sidecar-injector"])
def test_a_config_map_that_istiod_could_not_read_is_named(which: str, text: str) -> None:
    mesh = copy.deepcopy(MESHES["default"])
    (key,) = mesh["config_maps"][which]
    mesh["config_maps"][which][key] = text
    with pytest.raises(ValueError, match=r"its (MeshConfig|sidecar injector's values) (cannot be read as YAML|is no map of keys)"):
        of_cluster(mesh)


ODD_VALUES: tuple[Any, ...] = (None, [], {}, "", "x y", -1, 1.5, True, ["a"], [{}], {"a": "b"}, [None], "$(x)\n'")


def keys_of(document: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in document.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from keys_of(value, (*above, key))


def with_value(document: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    key, *rest = path
    return {**document, key: with_value(document[key], tuple(rest), value) if rest else value}


@pytest.mark.slow
@pytest.mark.parametrize(("config_map", "key"), [("istio-blue", "mesh"), ("istio-sidecar-injector-blue", "values")])
def test_whatever_somebody_wrote_into_a_config_map_is_used_or_named(config_map: str, key: str) -> None:
    """No value of another type, and no null, ends in an exception: here, or where machines get it."""
    written = yaml.safe_load(MESHES["elsewhere"]["config_maps"][config_map][key])
    mesh = copy.deepcopy(MESHES["elsewhere"])
    owner = Owner("mesh", "prod", "product-1", "r-1", "shop", "product")
    for path in keys_of(written):
        for value in ODD_VALUES:
            mesh["config_maps"][config_map][key] = json.dumps(with_value(written, path, value))
            facts = of_cluster(mesh)
            mesh_namespaces.left_out(facts.discovery_selectors, {"shop": {}})
            if not facts.unserved:
                inputs = JoinInputs(
                    owner=owner,
                    network="vpc",
                    address="10.0.0.1",
                    gateway="gw",
                    root_certificate="",
                    workload=PRODUCT,
                    mesh=MESH,
                    facts=facts,
                )
                files.configuration_files(bootstrap.bundle(inputs))


def test_null_in_a_mesh_config_is_a_key_that_is_left_out() -> None:
    """So does the JSON of protobuf, by which istiod reads it."""
    mesh = copy.deepcopy(MESHES["default"])
    mesh["config_maps"]["istio"]["mesh"] += "\ndiscoverySelectors: null\ntrustDomainAliases: null\n"
    mesh["config_maps"]["istio"]["mesh"] = mesh["config_maps"]["istio"]["mesh"].replace(
        "defaultConfig:", "defaultConfig:\n  proxyMetadata: null"
    )
    assert of_cluster(mesh) == of_cluster(MESHES["default"])


@pytest.mark.parametrize(
    ("aliases", "domains"),
    [
        (None, []),
        (["old.example", "td-2"], ["old.example", "td-2"]),
        (["cluster.local", "old.example", "old.example"], ["old.example"]),
        (["*.example", "*", 7, "a,b", "old.example"], ["old.example"]),
        ("old.example", []),
    ],
)
def test_a_certificate_of_an_alias_of_the_trust_domain_is_accepted(aliases: Any, domains: list[str]) -> None:
    """As by istiod. A pattern is for policies alone."""
    facts = mesh_facts.from_values({"meshConfig": {"trustDomainAliases": aliases}}, "istio-system")
    assert not facts.unserved and mesh_facts.decode(mesh_facts.encode(facts)) == facts
    assert facts.spiffe_ids("shop", "product") == tuple(f"spiffe://{each}/ns/shop/sa/product" for each in ["cluster.local", *domains])


def test_the_policy_for_other_hosts_changes_no_machine() -> None:
    """Istiod sends it to all proxies. Joins, proofs and startup scripts follow from the facts."""
    policy = {"outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}}
    assert mesh_facts.from_values({"meshConfig": policy}, "istio-system") == mesh_facts.from_values({}, "istio-system")


@pytest.mark.parametrize(
    ("values", "mode", "privileges"),
    [
        ({"pilot": {"cni": {"enabled": True}}}, "REDIRECT", {}),
        ({"pilot": {"cni": {"enabled": True}}}, "TPROXY", {BASELINE: "sidecars have NET_ADMIN (defaultConfig.interceptionMode is TPROXY)"}),
        ({"pilot": {"cni": {"enabled": True}}, "global": {"proxy": {"privileged": True}}}, None, {BASELINE: "sidecars are privileged (global.proxy.privileged)"}),
        ({"pilot": {"cni": {"enabled": True}}, "global": {"proxy": {"capNetBindService": "true"}}}, None, {RESTRICTED: "sidecars run as root (global.proxy.capNetBindService)"}),
        ({"istio_cni": {"enabled": True}}, None, {}),
        ({}, "NONE", {}),
        ({}, None, {BASELINE: WITHOUT_CNI}),
    ],
)  # fmt: skip
def test_what_pod_security_refuses_in_sidecars_is_a_fact(values: dict[str, Any], mode: str | None, privileges: dict[str, str]) -> None:
    mesh = copy.deepcopy(MESHES["default"])
    config = yaml.safe_load(mesh["config_maps"]["istio"]["mesh"])
    config["defaultConfig"] |= {"interceptionMode": mode} if mode else {}
    mesh["config_maps"]["istio"]["mesh"] = yaml.safe_dump(config)
    mesh["config_maps"]["istio-sidecar-injector"]["values"] = json.dumps(values)
    assert of_cluster(mesh).sidecar_privileges == privileges


def silent(mesh: dict[str, Any]) -> dict[str, Any]:
    """The same mesh with an injector's ConfigMap that says nothing."""
    mesh = copy.deepcopy(mesh)
    for name in mesh["config_maps"]:
        if "injector" in name:
            mesh["config_maps"][name]["values"] = "{}"
    return mesh


def test_where_the_config_maps_are_silent_istiods_deployment_speaks() -> None:
    facts = of_cluster(silent(MESHES["elsewhere"]))
    assert (facts.revision, facts.cluster_domain, facts.root_config_map) == ("blue", "corp.local", "corp-roots")
    assert facts.hub == "registry.example.com/istio"
    assert facts.image_tag.startswith("1.31.0")
    assert of_cluster(silent(MESHES["revisioned"])).cluster_id == "east"


@pytest.mark.parametrize(
    ("image", "expected"),
    [("pilot:1", ("", "1")), ("r:5000/i/pilot:1.2-x@sha256:a", ("r:5000/i", "1.2-x")), ("r/i/pilot@sha256:a", ("r/i", ""))],
)
def test_images_are_taken_apart(image: str, expected: tuple[str, str]) -> None:
    mesh = silent(MESHES["default"])
    mesh["deployments"][0]["spec"]["template"]["spec"]["containers"][0]["image"] = image
    facts = of_cluster(mesh)
    assert (facts.hub, facts.image_tag) == expected


@pytest.mark.parametrize(
    "address", ["istiod.example.com:15012", "10.0.0.1:15012", "meshconfig.googleapis.com:443", "", "istiod.istio-system.svc"]
)
def test_a_control_plane_outside_of_the_cluster_is_refused(address: str) -> None:
    facts = mesh_facts.from_values({"meshConfig": {"defaultConfig": {"discoveryAddress": address}}}, "istio-system")
    assert any("outside of the cluster is not supported" in problem for problem in facts.unserved)


@pytest.mark.parametrize("address", ["istiod.istio-system.svc:15012", "istiod.istio-system.svc.cluster.local:15012"])
def test_istiod_may_be_named_as_the_authority(address: str) -> None:
    assert not mesh_facts.from_values({"global": {"caAddress": address}}, "istio-system").unserved


def test_facts_are_the_same_after_a_state_kept_them() -> None:
    facts = of_cluster(MESHES["elsewhere"])
    assert mesh_facts.decode(mesh_facts.encode(facts)) == facts
    assert json.loads(mesh_facts.encode(facts))["grace_s"] == 90
