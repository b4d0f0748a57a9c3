"""The look at a cluster that does not answer: unknown in a preview, an error in an update."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
from pulumi.runtime.rpc import UNKNOWN

from components import cluster_check
from components.local.cluster_access import ClusterAccess
from tests.support.fake_programs import Programs

CONFIG = '{"clusters": [{"cluster": {"server": "https://192.0.2.1"}}], "users": [{"user": {}}]}'
BEFORE = {"created_by": "", "uid": "0a1b", "recorded": {"context": "c"}, "kubeconfig": "{}"}
DERIVED = ("uid", "recorded", "kubeconfig")


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
    assert "leads to no cluster that tells its identity" in failure.reason and "was refused" in failure.reason


@pytest.mark.parametrize(
    "words", ["error: You must be logged in to the server (Unauthorized)", "x509: certificate signed by unknown authority"]
)
def test_a_cluster_that_refuses_is_an_error_in_a_preview_too(programs: Programs, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    [failure] = check(programs, monkeypatch, words, preview=True, olds=BEFORE).failures
    assert words in failure.reason
