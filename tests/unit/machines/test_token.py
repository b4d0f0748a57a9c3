"""When a machine's token is minted again, and that nothing secret is left about. kubectl is a small program of the test's."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from components.local.cluster_access import ClusterAccess
from components.machines.token import TokenProvider

PROPS = {
    "access": asdict(ClusterAccess(context="theirs")),
    "cluster": "cluster-1",
    "workload": "product",
    "workloads": ["orders", "product"],
    "namespace": "shop",
    "service_account": "product",
    "identity": "machine-1",
    "rotation": 0,
    "entry": "product-172.31.6.130-pods",
}
KUBECTL = r"""#!/bin/bash
echo "$*" >>"$STATE/calls"
[ ! -e "$STATE/down" ] || { echo "Unable to connect to the server" >&2; exit 1; }
case "$*" in
*"create token"*) echo '{"status": {"token": "the-token", "expirationTimestamp": "2026-11-23T09:00:00Z"}}' ;;
*workloadentry*) cat "$STATE/entry" ;;
esac
"""


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a kubectl on PATH that answers from files in it."""
    (tmp_path / "kubectl").write_text(KUBECTL)
    (tmp_path / "kubectl").chmod(0o755)
    (tmp_path / "entry").write_text("")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("STATE", str(tmp_path))
    return tmp_path


def entry(*, healthy: str = "True", disconnected: bool = False) -> str:
    annotations = {"istio.io/disconnectedAt": "now"} if disconnected else {}
    return json.dumps({"metadata": {"annotations": annotations}, "status": {"conditions": [{"type": "Healthy", "status": healthy}]}})


def changes(news: dict[str, Any], expires: float) -> bool | None:
    return TokenProvider().diff("id", {**PROPS, "token": "old", "expires": expires}, news).changes


def test_a_token_is_minted_for_istiod_alone_and_lives_an_hour(state: Path) -> None:
    outs = TokenProvider().create(dict(PROPS)).outs
    assert outs is not None
    assert outs["token"] == "the-token"
    assert outs["expires"] == 1795424400.0
    call = (state / "calls").read_text()
    assert "create token product --namespace shop --audience istio-ca --duration 3600s" in call
    assert call.startswith("--context theirs ")


@pytest.mark.parametrize(
    "change", [{"cluster": "cluster-2"}, {"identity": "machine-2"}, {"rotation": 1}, {"service_account": "other"}, {"workload": "orders"}]
)
def test_another_machine_or_identity_needs_another_token(state: Path, change: dict[str, Any]) -> None:
    assert changes({**PROPS, **change}, time.time() + 3600)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"workload": "goods", "workloads": ["goods", "orders"]}, "the workload product, which this machine runs, is now called goods"),
        ({"namespace": "other"}, "the workload product moves from the namespace shop to other"),
    ],
)
def test_a_workload_with_machines_cannot_be_renamed_or_moved(change: dict[str, Any], says: str) -> None:
    with pytest.raises(RuntimeError, match=says):
        changes({**PROPS, **change}, time.time() + 3600)


def test_a_machine_may_move_to_another_workload_in_another_namespace() -> None:
    assert changes({**PROPS, "workload": "orders", "namespace": "other"}, time.time() + 3600)


def test_a_token_that_still_lives_is_kept_without_a_call(state: Path) -> None:
    assert not changes(dict(PROPS), time.time() + 3600)
    assert not changes({**PROPS, "access": asdict(ClusterAccess(path="another"))}, time.time() + 3600)
    assert not (state / "calls").exists()


@pytest.mark.parametrize(
    ("text", "minted"),
    [("", True), (entry(), False), (entry(healthy="False"), True), (entry(disconnected=True), True)],
    ids=["never joined", "joined", "unhealthy", "disconnected"],
)
def test_an_expired_token_is_renewed_only_outside_the_mesh(state: Path, text: str, minted: bool) -> None:
    (state / "entry").write_text(text)
    assert changes(dict(PROPS), time.time() - 1) is minted


def test_an_api_server_that_does_not_answer_changes_nothing(state: Path) -> None:
    (state / "down").touch()
    assert not changes(dict(PROPS), time.time() - 1)


def test_an_api_server_that_does_not_answer_mints_nothing(state: Path) -> None:
    (state / "down").touch()
    with pytest.raises(RuntimeError, match="kubectl create token failed: Unable to connect to the server"):
        TokenProvider().create(dict(PROPS))
