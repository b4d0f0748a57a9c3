"""The kubeconfig of a GKE cluster: client-go and Google's plugin, at a real API server behind a stand-in for its DNS endpoint."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.platforms.kubeconfig import gke_kubeconfig
from tests.support.control_plane import ControlPlane, program
from tests.support.google_fakes import clients
from tests.support.google_fakes.clients import PLUGIN, Google
from tests.support.google_fakes.cluster import Endpoint, serving_endpoint

NAME = "my-project_europe-west1_mesh"


class Runner:
    """Who runs Pulumi: Helm, which is client-go, with the program's kubeconfig.

    endpoint: the cluster's DNS endpoint.
    """

    def __init__(self, google: Google, endpoint: Endpoint, home: Path, public: Path) -> None:
        self.google, self.endpoint = google, endpoint
        self._home = home
        self._kubeconfig = home / "kubeconfig"
        self._kubeconfig.write_text(gke_kubeconfig(NAME, endpoint.url.removeprefix("https://")))
        # Google's certificate is publicly trusted, and so is that of the stand-in.
        self.environment = {"HOME": str(home), "PATH": str(home / "bin"), "SSL_CERT_FILE": str(public)}

    def add_plugin(self, kind: str) -> None:
        self.google.add_clients(self._home / "bin", kind)

    def releases(self, namespace: str) -> subprocess.CompletedProcess[str]:
        words = [str(program("helm")), "list", "--output=json", f"--namespace={namespace}", f"--kubeconfig={self._kubeconfig}"]
        environment = {**self.google.environment(), **self.environment}
        return subprocess.run(words, env=environment, capture_output=True, text=True)


@pytest.fixture
def runner(plane: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[Runner]:
    """The user, who may do anything in a namespace by its address, and may connect."""
    (tmp_path / "google").mkdir()
    (tmp_path / "bin").mkdir()
    with (
        clients.serving(tmp_path / "google", plane.identities) as google,
        serving_endpoint(plane.identities, plane.server, plane.authority, tmp_path) as (endpoint, public),
    ):
        api = "rbac.authorization.k8s.io"
        subject = {"apiGroup": api, "kind": "User", "name": google.runner.email}
        role = {"apiGroup": api, "kind": "ClusterRole", "name": "cluster-admin"}
        plane.create(f"{api}/v1", "RoleBinding", namespace, "runner", roleRef=role, subjects=[subject])
        plane.wait_until_may(google.runner.email, namespace, "list", "secrets")
        endpoint.may_connect.add(google.runner)
        yield Runner(google, endpoint, tmp_path, public)


def test_the_user_of_the_default_credentials_logs_in_by_its_address(runner: Runner, plugin_kind: str, namespace: str) -> None:
    runner.add_plugin(plugin_kind)
    done = runner.releases(namespace)
    assert (done.returncode, json.loads(done.stdout or "null")) == (0, []), done.stderr
    assert runner.google.apis.requests == ["POST /token"], "one token for all requests of a client"
    assert runner.endpoint.requests


def test_credentials_that_google_refuses_are_named(runner: Runner, plugin_kind: str, namespace: str) -> None:
    runner.add_plugin(plugin_kind)
    runner.google.apis.refuses_assertions = True
    done = runner.releases(namespace)
    assert done.returncode != 0
    assert f"executable {PLUGIN} failed with exit code 1" in done.stderr and "Invalid JWT Signature" in done.stderr


def test_a_user_who_may_not_connect_is_refused_before_the_api_server(runner: Runner, plugin_kind: str, namespace: str) -> None:
    runner.add_plugin(plugin_kind)
    runner.endpoint.may_connect.clear()
    done = runner.releases(namespace)
    assert done.returncode != 0 and "forbidden" in done.stderr.lower()
    assert {request.rpartition(" ")[2] for request in runner.endpoint.requests} == {"403"}


def test_a_user_without_the_plugin_reads_what_to_install(runner: Runner, namespace: str) -> None:
    done = runner.releases(namespace)
    assert done.returncode != 0
    assert "gcloud components install gke-gcloud-auth-plugin" in done.stderr.replace("\\n", "\n")
