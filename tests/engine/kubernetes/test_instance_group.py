"""A machine of a group mints its own token: at a real API server, with the identity that a stand-in for Google's metadata server gives it."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.config.workload import HttpProbe, Probe, WorkloadSettings
from components.platforms.google import startup
from tests.support import metadata_server
from tests.support.control_plane import MACHINE_TOKEN, MACHINE_USER, ControlPlane
from tests.support.samples import FACTS, MESH
from tests.support.scripts import Sourced, add_program

ANSWERS = {**metadata_server.identity("product-x7k2", MACHINE_TOKEN), "/instance/network-interfaces/0/ip": "10.11.0.9"}


@pytest.fixture
def metadata() -> Iterator[str]:
    with metadata_server.serving("127.0.0.1", ANSWERS) as url:
        yield url


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
    for account in ("product", "other"):
        plane.create("v1", "ServiceAccount", namespace, account)
    role, binding = startup.token_role(settings), startup.token_role_binding(settings, MACHINE_USER, "1")
    plane.create("rbac.authorization.k8s.io/v1", "Role", namespace, role["metadata"]["name"], rules=role["rules"])
    rest = {key: value for key, value in binding.items() if key != "metadata"}
    plane.create("rbac.authorization.k8s.io/v1", "RoleBinding", namespace, binding["metadata"]["name"], **rest)
    return settings


def run(plane: ControlPlane, workload: WorkloadSettings, metadata: str, home: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Source the startup script, and run `text`. Whatever curl is given on its command line is in `home`/curl."""
    inputs = startup.StartupInputs(
        project="istio-vm-mesh",
        stack="fleet",
        network="pods",
        gateway="10.10.0.250",
        root_certificate="root",
        workload=workload,
        mesh=MESH,
        facts=FACTS,
        api_server=plane.server,
        setup="#!/bin/bash\necho set up >>$HOME/log\n",
    )
    script = home / "startup-script"
    script.write_text(startup.startup_script(inputs))
    real = subprocess.run(["bash", "-c", "command -v curl"], capture_output=True, text=True, check=True).stdout.strip()
    add_program(home / "bin", "curl", f'echo "$@" >>{home}/curl\nexec {real} "$@"')
    environment = {"METADATA": metadata, "CURL_CA_BUNDLE": str(plane.authority), "HOME": str(home), "TMPDIR": str(home)}
    sourced = Sourced(scripts=[script], programs=home / "bin", environment=environment)
    return sourced.run(f"chown() {{ :; }}\n{text}", {"ROOT": f"{home}/root"})


def test_the_machine_gets_a_token_for_its_own_account(
    plane: ControlPlane, workload: WorkloadSettings, metadata: str, tmp_path: Path
) -> None:
    done = run(plane, workload, metadata, tmp_path, 'prepare\nprintf %s "$TOKEN"')
    assert done.returncode == 0, done.stderr
    _, claims, _ = done.stdout.split(".")
    token = json.loads(base64.urlsafe_b64decode(claims + "=="))
    assert token["aud"] == ["istio-ca"]
    assert token["sub"] == f"system:serviceaccount:{workload.namespace}:product"
    assert token["exp"] - token["iat"] == 3600


def test_nothing_secret_is_on_a_command_line(plane: ControlPlane, workload: WorkloadSettings, metadata: str, tmp_path: Path) -> None:
    assert run(plane, workload, metadata, tmp_path, "prepare").returncode == 0
    assert MACHINE_TOKEN not in (tmp_path / "curl").read_text()
    assert "serviceaccounts/product/token" in (tmp_path / "curl").read_text()


def test_other_accounts_tokens_are_refused(plane: ControlPlane, workload: WorkloadSettings, metadata: str, tmp_path: Path) -> None:
    done = run(plane, workload, metadata, tmp_path, "SERVICE_ACCOUNT=other\nprepare")
    assert done.returncode == 1
    assert f"the API server gives no token for the service account {workload.namespace}/other" in done.stderr
    assert "forbidden" in done.stderr


def test_the_files_say_which_machine_it_is(plane: ControlPlane, workload: WorkloadSettings, metadata: str, tmp_path: Path) -> None:
    done = run(plane, workload, metadata, tmp_path, "prepare\nset -e\nSTAGING=$ROOT\nstage_files")
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


def test_the_stacks_setup_runs_first(plane: ControlPlane, workload: WorkloadSettings, metadata: str, tmp_path: Path) -> None:
    assert run(plane, workload, metadata, tmp_path, "prepare").returncode == 0
    assert (tmp_path / "log").read_text() == "set up\n"
