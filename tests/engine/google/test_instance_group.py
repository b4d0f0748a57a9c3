"""A machine of a group mints its own token with its Google identity: metadata server, DNS endpoint of the cluster, API server.

The API server is a real one with the Role and the RoleBinding that the program declares. Google's servers are stand-ins.
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from components.config.workload import HttpProbe, Probe, WorkloadSettings
from components.platforms.google import startup
from tests.support import metadata_server
from tests.support.control_plane import ControlPlane
from tests.support.google_fakes.cluster import serving_endpoint
from tests.support.google_fakes.identities import Account
from tests.support.samples import FACTS, MESH
from tests.support.scripts import Sourced, add_program


class Machine:
    """A machine of a group, up to its join.

    endpoint: of the cluster. account: the machine's, or another one. token: the access token that it got last.
    """

    def __init__(self, plane: ControlPlane, workload: WorkloadSettings, home: Path, stack: ExitStack) -> None:
        self.endpoint, self._public = stack.enter_context(serving_endpoint(plane.identities, plane.server, plane.authority, home))
        self.account = account_of(plane, workload.namespace)
        self.endpoint.may_connect.add(self.account)
        self.token = ""
        self._identities, self._workload, self._home = plane.identities, workload, home

    def run(self, text: str, scopes: Sequence[str] = startup.SCOPES) -> subprocess.CompletedProcess[str]:
        """Source the startup script, and run `text`. scopes: of the machine's access tokens."""
        inputs = startup.StartupInputs(
            project="istio-vm-mesh",
            stack="fleet",
            network="pods",
            gateway="10.10.0.250",
            root_certificate="root",
            workload=self._workload,
            mesh=MESH,
            facts=FACTS,
            api_server=self.endpoint.url,
            setup="#!/bin/bash\necho set up >>$HOME/log\n",
        )
        script = self._home / "startup-script"
        script.write_text(startup.startup_script(inputs))
        self.token = self._identities.issue(self.account, scopes)
        with metadata_server.serving("127.0.0.1", metadata_server.identity("product-x7k2", self.token, "10.11.0.9")) as metadata:
            home = str(self._home)
            environment = {"METADATA": metadata, "CURL_CA_BUNDLE": str(self._public), "HOME": home, "TMPDIR": home}
            sourced = Sourced(scripts=[script], programs=self._home / "bin", environment=environment)
            return sourced.run(f"chown() {{ :; }}\n{text}", {"ROOT": f"{home}/root"})


def account_of(plane: ControlPlane, namespace: str) -> Account:
    """Return the Google service account of the workload in a namespace."""
    return plane.identities.account(f"product-{namespace}")


@pytest.fixture
def workload(plane: ControlPlane, namespace: str) -> WorkloadSettings:
    """A workload in a namespace of its own, whose machines have the rights that the program gives them."""
    settings = WorkloadSettings(
        name="product",
        namespace=namespace,
        labels={"app": "product"},
        ports={"http": 80},
        probe=Probe(http=HttpProbe(port=80)),
        services={},
    )
    for name in ("product", "other"):
        plane.create("v1", "ServiceAccount", namespace, name)
    account = account_of(plane, namespace)
    role, binding = startup.token_role(settings), startup.token_role_binding(settings, account.email, account.unique_id)
    for manifest in (role, binding):
        rest = {key: value for key, value in manifest.items() if key not in ("apiVersion", "kind", "metadata")}
        plane.create(manifest["apiVersion"], manifest["kind"], namespace, manifest["metadata"]["name"], **rest)
    plane.wait_until_may(account.email, namespace, "create", "serviceaccounts/token", "product")
    return settings


@pytest.fixture
def machine(plane: ControlPlane, workload: WorkloadSettings, tmp_path: Path) -> Iterator[Machine]:
    with ExitStack() as stack:
        yield Machine(plane, workload, tmp_path, stack)


@pytest.mark.parametrize("scopes", [startup.SCOPES, startup.SCOPES[:1]], ids=["by its address", "by its number"])
def test_the_machine_gets_a_token_for_its_own_account(machine: Machine, workload: WorkloadSettings, scopes: Sequence[str]) -> None:
    done = machine.run('prepare\nprintf %s "$TOKEN"', scopes)
    assert done.returncode == 0, done.stderr
    _, claims, _ = done.stdout.split(".")
    token = json.loads(base64.urlsafe_b64decode(claims + "=="))
    assert token["aud"] == ["istio-ca"]
    assert token["sub"] == f"system:serviceaccount:{workload.namespace}:product"
    assert token["exp"] - token["iat"] == 3600


def test_an_api_server_that_is_not_available_for_a_moment_is_asked_again(machine: Machine) -> None:
    machine.endpoint.unavailable = 1
    assert machine.run("prepare").returncode == 0
    assert [request.rpartition(" ")[2] for request in machine.endpoint.requests] == ["503", "201"]


def test_a_machine_tries_until_iam_has_its_permission(machine: Machine, tmp_path: Path) -> None:
    """Google refuses a new account for about a minute. Pauses are none here."""
    machine.endpoint.refusals = 2
    attempt = f'source {tmp_path}/startup-script\nprepare\nprintf %s "$TOKEN"\n'
    (tmp_path / "attempt").write_text(attempt)
    done = machine.run(f"try_until_joined {tmp_path}/attempt")
    assert done.returncode == 0, done.stderr
    assert [request.rpartition(" ")[2] for request in machine.endpoint.requests] == ["403", "403", "201"]


def test_an_account_that_may_not_connect_is_named_as_the_cause(machine: Machine, workload: WorkloadSettings) -> None:
    machine.endpoint.may_connect.clear()
    done = machine.run("prepare")
    assert done.returncode == 1
    assert f"the API server gives no token for the service account {workload.namespace}/product" in done.stderr
    assert "403" in done.stderr


def test_another_google_account_gets_no_token(machine: Machine, plane: ControlPlane) -> None:
    machine.account = plane.identities.account("stranger")
    machine.endpoint.may_connect.add(machine.account)
    done = machine.run("prepare")
    assert done.returncode == 1 and "forbidden" in done.stderr and "stranger@" in done.stderr


def test_nothing_secret_is_on_a_command_line(machine: Machine, tmp_path: Path) -> None:
    real = subprocess.run(["bash", "-c", "command -v curl"], capture_output=True, text=True, check=True).stdout.strip()
    add_program(tmp_path / "bin", "curl", f'echo "$@" >>{tmp_path}/curl\nexec {real} "$@"')
    assert machine.run("prepare").returncode == 0
    assert machine.token not in (tmp_path / "curl").read_text()
    assert "serviceaccounts/product/token" in (tmp_path / "curl").read_text()


def test_other_accounts_tokens_are_refused(machine: Machine, workload: WorkloadSettings) -> None:
    done = machine.run("SERVICE_ACCOUNT=other\nprepare")
    assert done.returncode == 1
    assert f"the API server gives no token for the service account {workload.namespace}/other" in done.stderr
    assert "forbidden" in done.stderr


def test_the_files_say_which_machine_it_is(machine: Machine, tmp_path: Path) -> None:
    done = machine.run("prepare\nset -e\nSTAGING=$ROOT\nstage_files")
    assert done.returncode == 0, done.stderr
    overrides = (tmp_path / "root/var/lib/istio-vm-mesh/overrides.env").read_text()
    assert "INSTANCE_IP='10.11.0.9'" in overrides
    assert "POD_NAME='product-x7k2'" in overrides
    assert '"istio-locality":"europe-west1/europe-west1-b"' in overrides
    written = [path for path in (tmp_path / "root").rglob("*") if path.is_file()]
    assert tmp_path / "root/etc/systemd/system/istio-vm-mesh-drain.service" in written
    assert not [
        path for path in written if "@MACHINE@" in path.read_text() or "@ADDRESS@" in path.read_text() or "@LOCALITY@" in path.read_text()
    ]


def test_the_stacks_setup_runs_first(machine: Machine, tmp_path: Path) -> None:
    assert machine.run("prepare").returncode == 0
    assert (tmp_path / "log").read_text() == "set up\n"
