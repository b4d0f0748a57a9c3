"""A Kubernetes control plane on loopback for tests: etcd, API server and controllers, real ones, without a node."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.authority import Authority, pem
from tests.support.google_fakes.cluster import serving_logins
from tests.support.google_fakes.identities import CLOUD_PLATFORM, USERINFO_EMAIL, Identities, address
from tests.support.sshd import reserved_port
from tests.support.waiting import wait_until
from tools.lab import paths
from tools.lab.offline import cache, golang, programs
from tools.standins.kubernetes.client import ApiError, Cluster, Object, Unreachable
from tools.standins.kubernetes.kubeconfig import parse

MACHINE_TOKEN, MACHINE_USER = "an-access-token", address("machine")
"""A Google identity without any right, which logs in with an access token."""


def program(name: str) -> Path:
    """Return a program of a directory in `LAB_TOOLS`, of the lab, of its cache, or of PATH; fail the test if it is absent."""
    places = [*os.environ.get("LAB_TOOLS", "").split(os.pathsep), str(paths.BIN)]
    entry = cache.find(golang.key(golang.FAMILIES[programs.PROGRAMS[name].family], name))
    places += [str(entry)] if entry else []
    path = shutil.which(name, path=os.pathsep.join(place for place in places if place)) or shutil.which(name)
    assert path, f"no {name}: run `./scripts/lab tools {name}`, or set LAB_TOOLS to the directories that hold it"
    return Path(path)


@dataclass(frozen=True)
class ControlPlane:
    """A running control plane.

    identities: the Google identities that may log in, with access tokens, as at GKE.
    """

    kubeconfig: str
    cluster: Cluster
    server: str
    authority: Path
    identities: Identities

    def patch(self, path: str, body: Object) -> Object:
        """Send a merge patch under another field manager, as `kubectl patch` does."""
        return self.cluster.call("PATCH", path, {"fieldManager": "a-person"}, body, "application/merge-patch+json")

    def create(self, api_version: str, kind: str, namespace: str, name: str, **fields: Any) -> Object:
        """Create an object under another field manager."""
        body = {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": namespace}, **fields}
        return self.cluster.call("POST", self.cluster.endpoint(api_version, kind).path(namespace), {"fieldManager": "a-person"}, body)

    def wait_until_may(self, user: str, namespace: str, verb: str, resource: str, name: str = "") -> None:
        """Wait until a user may do this: the API server learns of a new binding by watching, and refuses until then."""
        kind, _, subresource = resource.partition("/")
        attributes = {"namespace": namespace, "verb": verb, "resource": kind, "subresource": subresource, "name": name}
        review = {"spec": {"user": user, "resourceAttributes": attributes}}
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        wait_until(lambda: self.cluster.call("POST", path, body=review)["status"]["allowed"], description=f"{user} may {verb} {resource}")


@contextmanager
def running(directory: Path) -> Iterator[ControlPlane]:
    """Start a control plane with its files in `directory`, wait until it is ready, and stop it at the end."""
    authority = Authority()
    authority.save(directory / "ca.crt")
    authority.issue("kube-apiserver", directory / "apiserver", address="127.0.0.1")
    authority.issue("a-person", directory / "admin", organization="system:masters")
    key = rsa.generate_private_key(65537, 2048)
    identities = Identities()
    identities.add(MACHINE_TOKEN, identities.account("machine"), [CLOUD_PLATFORM, USERINFO_EMAIL])
    (directory / "accounts.key").write_bytes(pem(key))
    with ExitStack() as stack:
        client_port, peer_port, server_port = (stack.enter_context(reserved_port()) for _ in range(3))
        logins = stack.enter_context(serving_logins(identities, directory))
        server = f"https://127.0.0.1:{server_port}"
        kubeconfig = _kubeconfig(server, directory)
        (directory / "kubeconfig").write_text(kubeconfig)
        start = lambda name, *arguments: stack.enter_context(_process(name, directory, arguments))  # noqa: E731
        etcd, peer = (f"http://127.0.0.1:{port}" for port in (client_port, peer_port))
        start(
            "etcd",
            f"--data-dir={directory / 'etcd'}",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls={peer}",
            "--unsafe-no-fsync",
        )
        start(
            "kube-apiserver",
            f"--etcd-servers={etcd}",
            "--bind-address=127.0.0.1",
            f"--secure-port={server_port}",
            f"--tls-cert-file={directory / 'apiserver.crt'}",
            f"--tls-private-key-file={directory / 'apiserver.key'}",
            f"--client-ca-file={directory / 'ca.crt'}",
            f"--authentication-token-webhook-config-file={logins}",
            "--authentication-token-webhook-version=v1",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",
            f"--service-account-key-file={directory / 'accounts.key'}",
            f"--service-account-signing-key-file={directory / 'accounts.key'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.96.0.0/16",
        )
        # The controllers end if the API server is not healthy within ten seconds of their start.
        _wait_until(lambda: _healthy(server, directory / "ca.crt"), directory)
        start(
            "kube-controller-manager",
            f"--kubeconfig={directory / 'kubeconfig'}",
            "--leader-elect=false",
            "--secure-port=0",
            "--controllers=deployment-controller,replicaset-controller,job-controller,endpointslice-controller,namespace-controller,"
            "garbage-collector-controller,serviceaccount-controller",
        )
        plane = ControlPlane(kubeconfig, Cluster(parse(kubeconfig)), server, directory / "ca.crt", identities)
        _wait_until(lambda: _has_default_account(plane.cluster), directory)
        yield plane


def _wait_until(condition: Callable[[], bool], directory: Path) -> None:
    try:
        wait_until(condition, interval=0.1)
    except AssertionError:
        log = (directory / "kube-apiserver.log").read_text()
        pytest.fail(f"the control plane did not start: {log[-3000:]}")


def _healthy(server: str, authority: Path) -> bool:
    try:
        context = ssl.create_default_context(cafile=authority)
        with urllib.request.urlopen(f"{server}/healthz", timeout=10, context=context):
            return True
    except OSError:
        return False


def _has_default_account(cluster: Cluster) -> bool:
    try:
        return cluster.get("v1", "ServiceAccount", "default", "default") is not None
    except (ApiError, Unreachable):
        return False


@contextmanager
def _process(name: str, directory: Path, arguments: tuple[str, ...]) -> Iterator[None]:
    with (directory / f"{name}.log").open("w") as log:
        environment = {**os.environ, "GOGC": "400"}  # it runs too short to be worth collecting more
        process = subprocess.Popen([program(name), *arguments], stdout=log, stderr=log, cwd=directory, env=environment)
        try:
            yield
        finally:
            process.kill()  # nothing of it is to be kept
            process.wait()


def _kubeconfig(server: str, directory: Path) -> str:
    cluster = {"server": server, "certificate-authority": str(directory / "ca.crt")}
    user = {"client-certificate": str(directory / "admin.crt"), "client-key": str(directory / "admin.key")}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
    )
