"""The look at the cluster: the real dynamic provider, engine and API server, by kubeconfigs of several people."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pulumi
import pytest
from pulumi_kubernetes.core.v1 import ConfigMap

from components.kubernetes import check_cluster, cluster_options
from components.platforms.existing.cluster import ExistingClusterArgs, existing_cluster
from components.config.existing import ExistingGateway
from tests.support import harness
from tests.support.cli_stack import Program, Stack
from tests.support.control_plane import ControlPlane, program
from tools.standins.kubernetes.plugin import Kubernetes
from tools.standins.provider import Provider

pytestmark = pytest.mark.slow


@pytest.fixture
def mesh(stack: Stack, sdk: Path, host: Callable[[Provider], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """An empty stack with the dynamic provider, the `kubernetes` provider and kubectl."""
    plugin = tmp_path / "bin" / "pulumi-resource-pulumi-python"
    plugin.parent.mkdir()
    shutil.copy(sdk / plugin.name, plugin)
    plugin.chmod(0o755)
    places = [str(plugin.parent), str(program("kubectl").parent), os.environ["PATH"]]
    settings = {
        "PATH": os.pathsep.join(places),
        "PYTHONPATH": str(harness.ROOT),
        "PULUMI_PYTHON_CMD": sys.executable,
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }
    stack.environment.update(settings)
    for name in ("PATH", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, settings[name])
    host(Kubernetes(settle=0.2))
    return stack


def one_object(namespace: str, **reached: Any) -> Program:
    """Declare one object in a cluster that exists, reached as `reached` says."""

    def declare() -> None:
        gateway = ExistingGateway(address="192.0.2.1", install=False)
        args = ExistingClusterArgs(network="pods", pod_cidr="10.0.0.0/16", gateway=gateway, **reached)
        cluster = check_cluster("cluster-check", existing_cluster(args))
        options = cluster_options("kubernetes", cluster)
        ConfigMap("one", metadata={"name": "one", "namespace": namespace}, data={"a": "b"}, opts=options)
        pulumi.export("access", cluster.access.apply(lambda access: access.context))

    return declare


def write_kubeconfig(file: Path, plane: ControlPlane, context: str, user: dict[str, Any] | None = None) -> Path:
    """Write a kubeconfig with one context, by default with the administrator's certificate."""
    document = json.loads(plane.kubeconfig)
    document["contexts"] = [{"name": context, "context": {"cluster": "test", "user": "test"}}]
    document["current-context"] = "somewhere-else"
    if user is not None:
        document["users"] = [{"name": "test", "user": user}]
    file.parent.mkdir(exist_ok=True, parents=True)
    file.write_text(json.dumps(document))
    return file


def test_who_runs_it_and_how_makes_no_difference(mesh: Stack, plane: ControlPlane, namespace: str, tmp_path: Path) -> None:
    mine = write_kubeconfig(tmp_path / "mine", plane, "production")
    first = mesh.preview(one_object(namespace, context="production", path=str(mine)))
    assert first.changes() == {"create": 4}
    mesh.up(one_object(namespace, context="production", path=str(mine)))
    theirs = write_kubeconfig(tmp_path / "theirs", plane, "prod-eu")
    mine.unlink()
    again = one_object(namespace, context="prod-eu", path=str(theirs))
    assert mesh.preview(again).changes() == {"unchanged": 4}
    assert mesh.up(again).changes() == {"unchanged": 4}
    mesh.destroy()
    assert plane.cluster.get("v1", "ConfigMap", namespace, "one") is None
