"""A machine of a group mints its own token: at a real API server, with the identity that a stand-in for Google's metadata server gives it."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from control_plane import MACHINE_TOKEN, MACHINE_USER, ControlPlane

from components.config.google import GceInstanceGroup
from components.config.mesh import MeshSettings
from components.config.workload import HttpProbe, Probe, WorkloadSettings
from components.platforms.google import startup
from tests import metadata as metadata_server

GROUP = GceInstanceGroup(
    platform="gce-instance-group",
    name="product-fleet",
    workload="product",
    network="pods",
    startup_script="#!/bin/bash\necho set up >>$HOME/log\n",
)
ANSWERS = {**metadata_server.identity("product-x7k2", MACHINE_TOKEN), "/instance/network-interfaces/0/ip": "10.11.0.9"}


@pytest.fixture
def metadata() -> Iterator[str]:
    with metadata_server.serving("127.0.0.1", ANSWERS) as url:
        yield url


@pytest.fixture
def workload(plane: ControlPlane, namespace: str) -> WorkloadSettings:
    """A workload in a namespace of its own, whose machines have the rights that the program gives them."""
    made = WorkloadSettings(
        name="product",
        namespace=namespace,
        labels={"app": "product"},
        ports={"http": 80},
        probe=Probe(http=HttpProbe(port=80)),
        services={},
    )
    for account in ("product", "other"):
        plane.create("v1", "ServiceAccount", namespace, account)
    role, binding = startup.token_role("product", made), startup.token_role_binding("product", made, MACHINE_USER, "1")
    plane.create("rbac.authorization.k8s.io/v1", "Role", namespace, role["metadata"]["name"], rules=role["rules"])
    rest = {key: value for key, value in binding.items() if key != "metadata"}
    plane.create("rbac.authorization.k8s.io/v1", "RoleBinding", namespace, binding["metadata"]["name"], **rest)
    return made


def boot(plane: ControlPlane, workload: WorkloadSettings, metadata: str, home: Path, end: str) -> subprocess.CompletedProcess[str]:
    """Run the boot script up to its join, then `end` instead of it. Whatever curl is given on its command line is in `home`/curl."""
    text = startup.startup_script(
        MeshSettings(id="m", version="1.31.0"), GROUP, workload, gateway="10.10.0.250", root_certificate="root", api_server=plane.server
    )
    assert text.startswith("#!/bin/bash\n")
    before, main, after = text.rpartition("\nmain </dev/null\n")
    assert main and not after
    real = subprocess.run(["bash", "-c", "command -v curl"], capture_output=True, text=True, check=True).stdout.strip()
    curl = home / "bin" / "curl"
    curl.parent.mkdir()
    curl.write_text(f'#!/bin/bash\necho "$@" >>{home}/curl\nexec {real} "$@"\n')
    curl.chmod(curl.stat().st_mode | stat.S_IXUSR)
    environment = {
        "PATH": f"{curl.parent}:{os.environ['PATH']}",
        "METADATA": metadata,
        "CURL_CA_BUNDLE": str(plane.authority),
        "HOME": str(home),
        "TMPDIR": str(home),
    }
    put = 'put() { printf "%s\\t" "$1" >>$HOME/files; printf %s "$4" | base64 -d | base64 -w0 >>$HOME/files; echo >>$HOME/files; }; chown() { :; }\n'
    return subprocess.run(["bash", "-s"], input=f"{before}\n{put}{end}", env=environment, capture_output=True, text=True, timeout=60)


def test_the_machine_gets_a_token_for_its_own_account(
    plane: ControlPlane, workload: WorkloadSettings, metadata: str, tmp_path: Path
) -> None:
    done = boot(plane, workload, metadata, tmp_path, "token\n")
    assert done.returncode == 0, done.stderr
    path, _, content = (tmp_path / "files").read_text().strip().partition("\t")
    assert path == "/var/lib/istio/envoy/istio-token"
    _, claims, _ = base64.b64decode(content).decode().split(".")
    known = json.loads(base64.urlsafe_b64decode(claims + "=="))
    assert known["aud"] == ["istio-ca"]
    assert known["sub"] == f"system:serviceaccount:{workload.namespace}:product"
    assert known["exp"] - known["iat"] == 3600


def test_nothing_secret_is_on_a_command_line(plane: ControlPlane, workload: WorkloadSettings, metadata: str, tmp_path: Path) -> None:
    assert boot(plane, workload, metadata, tmp_path, "token\n").returncode == 0
    assert MACHINE_TOKEN not in (tmp_path / "curl").read_text()
    assert "serviceaccounts/product/token" in (tmp_path / "curl").read_text()


def test_other_accounts_tokens_are_refused(plane: ControlPlane, workload: WorkloadSettings, metadata: str, tmp_path: Path) -> None:
    done = boot(plane, workload, metadata, tmp_path, "SERVICE_ACCOUNT=other\ntoken\n")
    assert done.returncode == 1
    assert f"the API server gives no token for the service account {workload.namespace}/other" in done.stderr
    assert "forbidden" in done.stderr


def test_the_files_say_which_machine_it_is(plane: ControlPlane, workload: WorkloadSettings, metadata: str, tmp_path: Path) -> None:
    done = boot(plane, workload, metadata, tmp_path, "files\n")
    assert done.returncode == 0, done.stderr
    files = dict(line.split("\t") for line in (tmp_path / "files").read_text().splitlines())
    own = base64.b64decode(files["/var/lib/istio/envoy/istio-vm-mesh.env"]).decode()
    assert "INSTANCE_IP='10.11.0.9'" in own
    assert "POD_NAME='product-x7k2'" in own
    assert all("@MACHINE@" not in base64.b64decode(content).decode() for content in files.values())


def test_the_stacks_setup_runs_first_and_its_failure_is_said(
    plane: ControlPlane, workload: WorkloadSettings, metadata: str, tmp_path: Path
) -> None:
    assert boot(plane, workload, metadata, tmp_path, "").returncode == 0
    assert (tmp_path / "log").read_text() == "set up\n"
