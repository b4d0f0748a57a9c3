"""The look at a cluster: one that does not answer, and one with releases of Helm of others."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest
from pulumi.runtime.rpc import UNKNOWN

from components import cluster_check
from components.local.cluster_access import ClusterAccess
from tests.support.fake_programs import Programs

CONFIG = '{"clusters": [{"cluster": {"server": "https://192.0.2.1"}}], "users": [{"user": {}}]}'
BEFORE = {"created_by": "", "uid": "0a1b", "recorded": {"context": "c"}, "kubeconfig": "{}", "kubernetes": "1.35"}
DERIVED = ("uid", "recorded", "kubeconfig", "kubernetes")


def check(programs: Programs, monkeypatch: pytest.MonkeyPatch, words: str, *, preview: bool, olds: dict[str, Any]) -> Any:
    """Look at a cluster of which kubectl says `words`."""
    programs.add("kubectl", ("config view", 0, CONFIG, ""), ("get namespace", 1, "", words))
    news = {"access": asdict(ClusterAccess(context="c")), "created_by": "", "stack": "s", "objects": [], "preview": preview}
    result = cluster_check.ClusterCheckProvider().check(olds, news)
    assert "preview" not in result.inputs, "else every update after a preview would show a difference"
    return result


REFUSED = "The connection to the server 192.0.2.1 was refused - did you specify the right host or port?"


@pytest.mark.parametrize("words", [REFUSED, "dial tcp: lookup api.example.com: no such host", "net/http: TLS handshake timeout"])
def test_a_preview_goes_on_with_what_the_last_update_saw(programs: Programs, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    first = check(programs, monkeypatch, words, preview=True, olds={})
    assert not first.failures and {first.inputs[key] for key in DERIVED} == {UNKNOWN}
    later = check(programs, monkeypatch, words, preview=True, olds=BEFORE)
    assert not later.failures and {key: later.inputs[key] for key in DERIVED} == {key: BEFORE[key] for key in DERIVED}


@pytest.mark.parametrize("olds", [{}, BEFORE])
def test_an_update_fails(programs: Programs, monkeypatch: pytest.MonkeyPatch, olds: dict[str, Any]) -> None:
    [failure] = check(programs, monkeypatch, REFUSED, preview=False, olds=olds).failures
    assert "leads to no cluster that can be identified" in failure.reason and "was refused" in failure.reason


@pytest.mark.parametrize(
    "words", ["error: You must be logged in to the server (Unauthorized)", "x509: certificate signed by unknown authority"]
)
def test_a_cluster_that_refuses_is_an_error_in_a_preview_too(programs: Programs, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    [failure] = check(programs, monkeypatch, words, preview=True, olds=BEFORE).failures
    assert words in failure.reason


@pytest.mark.parametrize(
    ("entry", "fix"),
    [
        ({"server": "https://me:canary@192.0.2.1"}, "log in by a token, a certificate or a plugin"),
        ({"server": "https://192.0.2.1", "proxy-url": "http://me:canary@192.0.2.9:3128"}, "set HTTPS_PROXY instead"),
        ({"server": "https://192.0.2.1", "proxy-url": "me:canary@192.0.2.9:3128"}, "set HTTPS_PROXY instead"),
        ({"server": "me:canary@192.0.2.1:6443"}, "log in by a token, a certificate or a plugin"),
    ],
)
def test_a_password_in_a_url_of_a_kubeconfig_is_refused(programs: Programs, entry: dict[str, str], fix: str) -> None:
    config = json.dumps({"clusters": [{"cluster": entry}], "users": [{"user": {}}]})
    programs.add("kubectl", ("config view", 0, config, ""), ("get namespace", 0, "0a1b", ""), ("get --raw", 0, "{}", ""))
    news = {"access": asdict(ClusterAccess(context="c")), "created_by": "", "stack": "s", "objects": [], "preview": True}
    result = cluster_check.ClusterCheckProvider().check({}, news)
    [failure] = result.failures
    assert "holds a password, which the state would keep" in failure.reason and failure.reason.endswith(fix)
    assert "canary" not in json.dumps(result.inputs)


GATEWAY = {"group": "helm.sh", "kind": "Release", "namespace": "istio-system", "name": "gateway"}
ISTIOD = {**GATEWAY, "name": "istiod"}
SELECTOR = "get secrets,configmaps --namespace istio-system --selector owner=helm,name in (%s) "


def look(programs: Programs, objects: list[dict[str, str]], olds: dict[str, Any], *present: str) -> Any:
    """Look at a cluster that has these releases, which the stack is to install."""
    items = [{"metadata": {"labels": {"owner": "helm", "name": name}}} for name in present]
    programs.add(
        "kubectl",
        ("config view", 0, CONFIG, ""),
        ("get namespace", 0, "0a1b", ""),
        (SELECTOR.partition("%s")[0], 0, json.dumps({"items": items}), ""),
    )
    news = {"access": asdict(ClusterAccess(context="c")), "created_by": "", "stack": "s", "objects": objects, "preview": True}
    return cluster_check.ClusterCheckProvider().check(olds, news)


def test_a_release_of_others_is_refused_in_a_preview_with_the_ways_out(programs: Programs) -> None:
    [failure] = look(programs, [GATEWAY, ISTIOD], {}, "gateway", "gateway").failures
    assert "would install, and has not installed: istio-system/gateway. Nothing was changed" in failure.reason
    assert "`cluster.gateway.install: false`" in failure.reason
    assert failure.reason.endswith("\n  helm uninstall gateway --namespace istio-system")
    [listed] = [line for line in programs.lines("kubectl") if "--selector" in line]
    assert SELECTOR % "gateway,istiod" in listed


def test_a_release_that_the_last_update_declared_is_the_stacks(programs: Programs) -> None:
    assert not look(programs, [GATEWAY], {**BEFORE, "objects": [GATEWAY]}, "gateway").failures
    [failure] = look(programs, [GATEWAY, ISTIOD], {**BEFORE, "objects": [GATEWAY]}, "istiod").failures
    assert "istio-system/istiod" in failure.reason and "gateway" not in failure.reason.partition(". ")[0]


def test_a_release_of_the_stack_in_another_cluster_says_nothing_about_this_one(programs: Programs) -> None:
    [failure] = look(programs, [GATEWAY], {**BEFORE, "created_by": "another", "objects": [GATEWAY]}, "gateway").failures
    assert "istio-system/gateway" in failure.reason


def test_releases_that_cannot_be_listed_are_an_error(programs: Programs) -> None:
    refusal = 'secrets is forbidden: User "ops" cannot list resource "secrets"'
    programs.add("kubectl", ("config view", 0, CONFIG, ""), ("get namespace", 0, "0a1b", ""), ("get secrets", 1, "", refusal))
    news = {"access": asdict(ClusterAccess(context="c")), "created_by": "", "stack": "s", "objects": [GATEWAY], "preview": True}
    [failure] = cluster_check.ClusterCheckProvider().check({}, news).failures
    assert refusal in failure.reason and "it is not certain whose they are" in failure.reason


def versioned(programs: Programs, kubernetes: str, istio: str, olds: dict[str, Any]) -> Any:
    """Look at a cluster with a version of Kubernetes, on which a version of Istio is to be installed."""
    answer = json.dumps({"major": "1", "minor": "35+", "gitVersion": kubernetes}) if kubernetes else "Forbidden"
    programs.add("kubectl", ("config view", 0, CONFIG, ""), ("get namespace", 0, "0a1b", ""), ("get --raw /version", 0, answer, ""))
    news = {"access": asdict(ClusterAccess(context="c")), "created_by": "", "stack": "s", "objects": [], "istio": istio, "preview": True}
    return cluster_check.ClusterCheckProvider().check(olds, news)


@pytest.mark.parametrize("kubernetes", ["v1.31.9", "v1.38.0-gke.1201000", "v1.38.2+k3s1", "v1.38.1-eks-abc123"])
@pytest.mark.parametrize("olds", [{}, {**BEFORE, "created_by": "another", "istio": "1.31.0"}])
def test_a_mesh_is_not_installed_on_kubernetes_that_istio_does_not_support(
    programs: Programs, kubernetes: str, olds: dict[str, Any]
) -> None:
    [failure] = versioned(programs, kubernetes, "1.31.0", olds).failures
    assert (
        f"the context c of ~/.kube/config has Kubernetes {kubernetes}; Istio 1.31 supports Kubernetes 1.32 to 1.37. Nothing"
        in failure.reason
    )
    assert "`rules.disabled.kubernetesVersion`, with a reason, permits" in failure.reason


@pytest.mark.parametrize(
    ("before", "istio", "refused"),
    [
        ("1.31.0", "1.31.0", False),
        ("1.31.0", "1.31.4", False),  # a patch mends what does not depend on Kubernetes
        ("", "1.31.0", False),  # the rule was disabled
        ("1.29.8", "1.30.2", False),  # on the way to a version that is supported
        ("1.31.0", "1.30.2", True),
    ],
)
def test_a_mesh_that_runs_stays_changeable_and_does_not_get_worse(programs: Programs, before: str, istio: str, refused: bool) -> None:
    """GKE upgrades a cluster by itself. Nobody can mend a stack that every update refuses."""
    kubernetes = "v1.37.1" if refused else "v1.38.1"
    assert bool(versioned(programs, kubernetes, istio, {**BEFORE, "istio": before}).failures) == refused


def test_the_state_of_an_earlier_program_is_that_of_a_mesh_that_runs(programs: Programs) -> None:
    assert not versioned(programs, "v1.38.1", "1.31.0", BEFORE).failures


@pytest.mark.parametrize(("kubernetes", "istio"), [("v1.35.4", "1.31.0"), ("v1.38.0", ""), ("v1.38.0", "1.99.0"), ("", "1.31.0")])
def test_what_is_supported_or_not_known_is_not_refused(programs: Programs, kubernetes: str, istio: str) -> None:
    result = versioned(programs, kubernetes, istio, {})
    assert not result.failures
    assert result.inputs["kubernetes"] == ".".join(kubernetes.removeprefix("v").split(".")[:2])


def test_only_another_minor_version_is_a_difference(programs: Programs) -> None:
    """GKE changes the patch version every few weeks."""
    first = versioned(programs, "v1.35.1-gke.1", "1.31.0", {}).inputs
    patched = versioned(programs, "v1.35.9-gke.7", "1.31.0", first).inputs
    upgraded = versioned(programs, "v1.36.1-gke.2", "1.31.0", first).inputs
    provider = cluster_check.ClusterCheckProvider()
    assert not provider.diff("", first, patched).changes
    assert provider.diff("", first, upgraded).changes
