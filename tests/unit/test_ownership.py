"""Which kinds a cluster has, where one of its APIs does not answer. kubectl is a fake; tests/engine has a real one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from components.local import scripting
from components.ownership import served_kinds

PRINTED = "deployments deploy apps/v1 true Deployment\npods po v1 true Pod\n"
STALE = (
    'E1126 memcache.go:287] "Unhandled Error" err="..."\n'
    "error: unable to retrieve the complete list of server APIs: metrics.k8s.io/v1beta1: stale GroupVersion discovery: "
    "metrics.k8s.io/v1beta1, theirs.example.com/v1: the server is currently unable to handle the request\n"
)


class Kubectl:
    """kubectl for a cluster with `groups`. error: of `api-resources`. silent: the groups that do not answer."""

    def __init__(self, *groups: str, error: str = "", silent: str = "") -> None:
        self.groups, self.error, self.silent = groups, error, silent

    def call(self, *words: str, **_: Any) -> scripting.Done:
        if "api-resources" in words:
            return scripting.Done(1 if self.error else 0, PRINTED.encode(), self.error.encode())
        if words[-1] == "/apis":
            groups = [{"name": name, "preferredVersion": {"groupVersion": f"{name}/v1"}} for name in self.groups]
            return scripting.Done(0, json.dumps({"groups": groups}).encode(), b"")
        is_silent = bool(self.silent) and self.silent in words[-1]
        return scripting.Done(int(is_silent), b"{}", b"the server is currently unable to handle the request")

    def check(self, *words: str, purpose: str, **_: Any) -> scripting.Done:
        return self.call(*words)


def kinds(kubectl: Kubectl, *groups: str) -> set[tuple[str, str]]:
    return set(served_kinds(kubectl, groups=groups or None))  # type: ignore[arg-type]


def test_a_group_that_is_needed_and_not_listed_is_an_error() -> None:
    kubectl = Kubectl("apps", "metrics.k8s.io", "theirs.example.com", error=STALE)
    assert kinds(kubectl, "apps", "") == {("apps", "Deployment"), ("", "Pod")}
    for needed in ((), ("apps", "metrics.k8s.io"), ("theirs.example.com",)):
        with pytest.raises(scripting.Failed, match=r"does not list all kinds.*metrics.k8s.io/v1beta1: stale"):
            kinds(kubectl, *needed)


@pytest.mark.parametrize("error", ["error: You must be logged in to the server (Unauthorized)", "i/o timeout", "v1: no"])
def test_any_other_failure_of_a_list_is_an_error(error: str) -> None:
    with pytest.raises(scripting.Failed, match="does not list all kinds"):
        kinds(Kubectl("apps", error=error), "apps")


def test_a_group_that_the_cluster_does_not_have_yet_has_no_kinds() -> None:
    assert kinds(Kubectl("apps"), "apps", "networking.istio.io") == {("apps", "Deployment"), ("", "Pod")}


def test_a_group_without_kinds_that_does_not_answer_is_an_error() -> None:
    kubectl = Kubectl("apps", "theirs.example.com", "empty.example.com", silent="theirs.example.com")
    assert kinds(kubectl, "apps", "empty.example.com")
    for needed in ((), ("theirs.example.com",)):
        with pytest.raises(scripting.Failed, match=r"theirs.example.com/v1: the server is currently unable"):
            kinds(kubectl, *needed)
