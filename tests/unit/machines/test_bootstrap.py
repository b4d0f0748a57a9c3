"""What a machine is joined with, and when it must be restarted or registered again."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.config.capture import Capture
from components.config.mesh import Package
from components.config.problems import SettingsError
from components.config.workload import ServiceAccount
from components.local import scripting
from components.machines import bootstrap, bundle
from components.machines.bootstrap import JoinInputs
from components.machines.bundle import Bundle, Owner, digest, join_script, leave_script
from components.machines.files import configuration_files
from tests.support.samples import FACTS, MESH, PRODUCT
from tests.support.scripts import machine_files

OWNER = Owner("istio-vm-mesh", "prod", "product-1", "r-1", "shop", "product")
INPUTS = JoinInputs(
    owner=OWNER,
    network="pods",
    address="172.31.6.130",
    gateway="172.31.6.2",
    root_certificate="-----BEGIN CERTIFICATE-----\n",
    workload=PRODUCT,
    mesh=MESH,
    facts=FACTS,
)
BUNDLE = bootstrap.bundle(INPUTS)


@pytest.mark.parametrize("change", [{"labels": {"app": "other"}}, {"ports": {"http": 8081}}, {"service_account": ServiceAccount(name="x")}])
def test_what_istiod_reads_once_needs_a_new_registration(change: dict[str, Any]) -> None:
    before = bootstrap.registered(PRODUCT, "pods")
    assert before != bootstrap.registered(PRODUCT.model_copy(update=change), "pods")
    assert before != bootstrap.registered(PRODUCT, "far")


def test_another_registration_is_registered_again() -> None:
    def value(owner: Owner) -> str:
        return bundle.join_variables(replace(BUNDLE, owner=owner))["REGISTERED"]

    assert value(OWNER) != value(replace(OWNER, registration="r-2"))


def test_a_new_token_alone_restarts_nothing() -> None:
    ends = [re.findall(r"^DIGEST=(.*)$", join_script(BUNDLE, token), re.MULTILINE) for token in ("a", "b")]
    assert ends == [[digest(BUNDLE)]] * 2


@pytest.mark.parametrize(
    "change",
    [
        {"address": "172.31.6.131"},
        {"owner": replace(OWNER, machine="product-2")},
        {"owner": replace(OWNER, registration="r-2")},
        {"gateway": "gateway.example.com"},
        {"root_certificate": "another"},
        {"network": "far"},
        {"workload": PRODUCT.model_copy(update={"name": "other"})},
        {"workload": PRODUCT.model_copy(update={"labels": {"app": "product", "version": "v2"}})},
        {"workload": PRODUCT.model_copy(update={"fail_closed": True})},
        {"workload": PRODUCT.model_copy(update={"capture": Capture(exclude_inbound_ports=(9100,))})},
        {"capture": Capture(exclude_outbound_cidrs=("10.9.0.0/16",))},
        {"firewall": "manage"},
        {"mesh": MESH.model_copy(update={"version": "1.31.1"})},
        {"mesh": MESH.model_copy(update={"package": Package(sha256="0" * 64)})},
        {"facts": replace(FACTS, mesh_id="other")},
        {"facts": replace(FACTS, trust_domain="corp.example")},
        {"facts": replace(FACTS, cluster_id="other")},
        {"facts": replace(FACTS, grace_s=20)},
        {"facts": replace(FACTS, default_config={"discoveryAddress": "istiod-1-31.istio-system.svc:15012"})},
    ],
)
def test_all_else_that_the_agent_depends_on_restarts_it(change: dict[str, Any]) -> None:
    assert digest(bootstrap.bundle(replace(INPUTS, **change))) != digest(BUNDLE)


def test_a_join_waits_for_its_confirmation_as_long_as_the_workload_says() -> None:
    patient = bootstrap.bundle(replace(INPUTS, workload=PRODUCT.model_copy(update={"confirm_within": 90})))
    assert "\nCONFIRM_S=90\n" in join_script(patient, "token")
    assert digest(patient) == digest(BUNDLE), "another time restarts no agent"


def test_the_bundle_survives_the_way_to_a_script_beside_pulumi() -> None:
    assert scripting.decode(Bundle, json.loads(scripting.encode(BUNDLE))) == BUNDLE
    tree = ast.parse(Path(bundle.__file__).read_text(), feature_version=(3, 9))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level}
    assert imported == {"manifest", "names", "proxy_metadata", "shell"}


def test_the_files_follow_from_what_a_joins_payload_says() -> None:
    payload = json.dumps(json.loads(scripting.encode(replace(BUNDLE, files=()))), sort_keys=True)
    files = configuration_files(scripting.decode(Bundle, json.loads(payload)))
    assert [*files] == [file for file in BUNDLE.files if file.path != bundle.ROOT_CERTIFICATE]
    assert len(files) == 3


def test_an_input_of_the_join_has_neither_scripts_nor_units() -> None:
    text = scripting.encode(BUNDLE)
    assert len(text) < 5300 and "ExecStart" not in text and "main()" not in text


def test_a_join_carries_every_file_and_the_token_apart() -> None:
    script = join_script(BUNDLE, "a.b.c", "me:pass")
    assert sorted(machine_files(script)) == [
        "/etc/systemd/system/istio-vm-mesh-redirect.service",
        "/etc/systemd/system/istio-vm-mesh-undo.service",
        "/etc/systemd/system/istio-vm-mesh.service",
        "/etc/systemd/system/istio-vm-mesh.service.d/sidecar.conf",
        "/opt/istio-vm-mesh/scripts/redirect.sh",
        "/opt/istio-vm-mesh/scripts/redirect_firewall.sh",
        "/opt/istio-vm-mesh/scripts/redirect_guard.sh",
        "/opt/istio-vm-mesh/scripts/redirect_host.sh",
        "/opt/istio-vm-mesh/scripts/undo.sh",
        "/opt/istio-vm-mesh/scripts/withdraw.sh",
        "/var/lib/istio-vm-mesh/cluster.env",
        "/var/lib/istio-vm-mesh/etc/certs/root-cert.pem",
        "/var/lib/istio-vm-mesh/etc/istio/config/mesh",
        "/var/lib/istio-vm-mesh/overrides.env",
    ]
    assert "TOKEN=a.b.c\n" in script and "PACKAGE_CREDENTIALS=me:pass\n" in script and "ASK=14400\n" in script
    assert not [path for path, text in machine_files(script).items() if "a.b.c" in text]
    assert script.rstrip().endswith("then main 3<&0 </dev/null; fi")


def test_a_leave_names_the_owner_alone() -> None:
    script = leave_script(OWNER)
    assert script.startswith("MACHINE=product-1\nPROJECT=istio-vm-mesh\nSTACK=prod\nREGISTRATION=r-1\n")
    assert script.rstrip().endswith("then main 3<&0 </dev/null; fi")


def test_a_digest_may_be_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "istio-sidecar.deb.sha256"
    file.write_text("0" * 64 + "  istio-sidecar.deb\n")
    assert bootstrap.package_digest(Package(sha256=str(file))) == "0" * 64
    file.write_text("<html>")
    for path in (file, tmp_path / "missing"):
        with pytest.raises(SettingsError, match=rf"mesh.package.sha256: the file {path} does not begin with a SHA-256"):
            bootstrap.package_digest(Package(sha256=str(path)))
