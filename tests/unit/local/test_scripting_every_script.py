"""Every script as Pulumi runs it: by `python3 -I`, with nothing on PATH but python3 and the programs that the documentation names."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import pytest

from components.istio.scripts import gateway_api, remove_namespace
from components.local import openssh, over_ssh, update_id
from components.local.cluster_access import ClusterAccess
from components.local.scripts import credentials
from components.machines.bundle import Bundle, Owner, digest, with_root_certificate
from components.machines.files import configuration_files
from components.machines.scripts import create_ssh_key, drain, join_machine, remove_ssh_key
from components.names import CONNECTED_ANNOTATION, MACHINES_ANNOTATION, MAX_UNAVAILABLE_ANNOTATION, REGISTRATION_LABEL
from components.platforms.google.scripts import host_key
from components.verification.scripts import calling_pods, remove_calling_pods, verify_workload
from components.verification.scripts.cluster_objects import WorkloadPods
from components.verification.target import Caller
from tests.support.fake_programs import Programs
from tests.support.machine import PROXY
from tests.support.tiers import some_quick
from tests.unit.platforms.docker import test_scripts
from tests.unit.test_commands import SCRIPTS

KEY, KUBECONFIG, JOIN = "canary-private-key", "canary-kubeconfig", "canary-token"
ACCESS = ClusterAccess(context="theirs")
HOP = openssh.Hop("192.0.2.7", 22, "admin", "ssh-ed25519 AAAA")
TARGET = openssh.Target("product-1", HOP, (HOP,))
LEAVE = drain.Leave(TARGET, required=True)
OWNER = Owner("p", "s", "product-1", "0123", "shop", "product")
ROOT_SHA256 = hashlib.sha256(b"ROOT").hexdigest()
BUNDLE = Bundle(OWNER, PROXY, "192.0.2.7", "192.0.2.250", "https://example.com/{package}", "{}")
DIGEST = digest(with_root_certificate(replace(BUNDLE, files=configuration_files(BUNDLE)), "ROOT"))
JOB = {"metadata": {"labels": {}}, "spec": {"template": {"spec": {"containers": [{"name": "calls"}]}}}}
PAIR = calling_pods.Pair("verify-product", "shop", JOB, JOB, "mesh.dev")
PAYLOADS: dict[str, Any] = {
    "platforms/docker/scripts/create_network.py": test_scripts.NETWORK,
    "platforms/docker/scripts/attach_network.py": test_scripts.attach_network.Payload("node", "far", "10.0.0.0/8", "10.1.0.0/16"),
    "platforms/docker/scripts/detach_network.py": test_scripts.detach_network.Payload("node", "far"),
    "platforms/docker/scripts/create_cluster.py": test_scripts.CLUSTER,
    "platforms/docker/scripts/delete_cluster.py": test_scripts.delete_cluster.Payload("lab", "near"),
    "platforms/docker/scripts/remove.py": test_scripts.remove.Payload("network", "n", "a=b"),
    "platforms/docker/scripts/load_images.py": test_scripts.load_images.Payload("lab", ("a:1",)),
    "platforms/docker/scripts/create_machine.py": test_scripts.MACHINE,
    "platforms/google/scripts/host_key.py": host_key.Payload("p", "z", "i", "ssh-ed25519"),
    "machines/scripts/create_ssh_key.py": create_ssh_key.Payload("mesh"),
    "machines/scripts/remove_ssh_key.py": remove_ssh_key.Payload("state:o/p/s/ssh-key"),
    "machines/scripts/drain.py": drain.Payload(ACCESS, OWNER, 0, "e", "192.0.2.7", LEAVE),
    "machines/scripts/join_machine.py": join_machine.Payload(ACCESS, TARGET, BUNDLE, ROOT_SHA256, 0),
    "istio/scripts/gateway_api.py": gateway_api.Payload(ACCESS, "crds.yaml"),
    "istio/scripts/remove_namespace.py": remove_namespace.Payload(ACCESS, "shop", "mesh.lab"),
    "verification/scripts/verify_workload.py": verify_workload.Payload(
        access=ACCESS,
        workload="product",
        entries=(),
        pods=WorkloadPods("shop", {"app": "product"}, 80),
        port=80,
        target=None,
        caller=Caller("Job verify-product", "pods", 30),
        network="pods",
        gateways={},
        pair=PAIR,
        shared="verify-product",
        strict=True,
        warn_only=False,
        timeout_s=60,
    ),
    "verification/scripts/calling_pods.py": calling_pods.Payload(ACCESS, PAIR),
    "verification/scripts/remove_calling_pods.py": remove_calling_pods.Payload(
        ACCESS, "shop", "a=b", update_id.Process(2**22, 1, "pulumi", "never")
    ),
    "local/scripts/credentials.py": credentials.Payload(ACCESS),
    "verification/scripts/prove_machine.py": over_ssh.Payload(TARGET, f"TOKEN={JOIN}\n", timeout_s=60),
}
ENTRY = {
    "metadata": {"name": "e", "labels": {REGISTRATION_LABEL: "0123"}, "annotations": {CONNECTED_ANNOTATION: "now"}},
    "status": {"conditions": [{"type": "Healthy", "status": "True"}]},
}
LEASE = {
    "metadata": {
        "name": "slots",
        "resourceVersion": "1",
        "annotations": {MACHINES_ANNOTATION: "product-1", MAX_UNAVAILABLE_ANNOTATION: "1"},
    }
}
JOINED = (
    ("create token", 0, JOIN, ""),
    ("get --filename", 0, json.dumps({"kind": "ConfigMap", "data": {"root-cert.pem": "ROOT"}}), ""),
    ("get workloadentries.v1.networking.istio.io product-192.0.2.7-pods", 0, json.dumps(ENTRY), ""),
    ("lease", 0, json.dumps({**LEASE, "items": [LEASE]}), ""),
)
"""What kubectl answers to a join."""
ASKING = f"import sys\nfor line in sys.stdin:\n    if line == 'exit\\n':\n        break\nprint('{openssh.MARK}\\n{{last_line}}')\n"
"""An ssh whose machine waits for answers: its standard input stays open after the script."""
CONTEXT = json.dumps({"clusters": [{"cluster": {"server": "s"}}], "users": [{"user": {"token": "a-token"}}]})
KEYGEN = "import sys\nopen(sys.argv[-1], 'w').write('PRIVATE')\nopen(sys.argv[-1] + '.pub', 'w').write('ssh-ed25519 AAAA c')\n"


@pytest.fixture
def api_server() -> Iterator[socket.socket]:
    """A port that takes connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def every_program(programs: Programs, api_server: socket.socket) -> Programs:
    """All programs that scripts call, each of which succeeds."""
    rules = test_scripts.rules()
    port = f"127.0.0.1:{api_server.getsockname()[1]}"
    programs.add("docker", ("inspect .*IPAM", 1, "", ""), ("^port", 0, port, ""), *rules)
    programs.add("kind", ("get kubeconfig", 0, KUBECONFIG, ""))
    groups = ("get --raw /apis", 0, '{"groups": []}', "")
    programs.add("kubectl", ("config view", 0, CONTEXT, ""), ("get namespace", 0, "{}", ""), ("get pods", 0, '{"items": []}', ""), groups)
    programs.add("gcloud", ("", 0, "AAAAC3NzaC1lZDI1NTE5AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", ""))
    programs.add("ssh", ("", 0, f"{openssh.MARK}\ndone\n", ""))
    programs.add_script("ssh-keygen", KEYGEN)
    return programs


def test_every_script_is_run_here() -> None:
    assert set(PAYLOADS) == set(SCRIPTS)


@pytest.mark.parametrize("script", some_quick(PAYLOADS, "machines/scripts/join_machine.py", "platforms/docker/scripts/create_machine.py"))
def test_a_script_takes_json_and_gives_json_and_hides_what_is_secret(every_program: Programs, script: str) -> None:
    if script.endswith("remove_namespace.py"):
        every_program.add("kubectl")
    if script.endswith("join_machine.py"):
        every_program.add("kubectl", *JOINED)
        every_program.add_script("ssh", ASKING.format(last_line=DIGEST))
    if script.endswith("drain.py"):
        every_program.add_script("ssh", ASKING.format(last_line="left"))
    if script.endswith("verify_workload.py"):
        every_program.add("kubectl", ("get namespace", 0, '{"kind": "Namespace"}', ""), ("get pods", 0, '{"items": []}', ""))
    if script.endswith("remove_namespace.py"):
        every_program.add("kubectl")
    done = every_program.run(script, asdict(PAYLOADS[script]))
    assert (done.returncode, done.stderr) == (0, "")
    if done.stdout:
        assert isinstance(json.loads(done.stdout), dict)
    lines = " ".join(every_program.lines())
    for canary in (KEY, KUBECONFIG, JOIN, "PRIVATE"):
        assert canary not in lines


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted({*PAYLOADS} - {"machines/scripts/remove_ssh_key.py"}))
def test_a_program_that_is_missing_is_named_in_one_sentence(programs: Programs, script: str) -> None:
    done = programs.run(script, asdict(PAYLOADS[script]))
    assert done.returncode == 1 and done.stdout == ""
    assert "is not on PATH: install it on the computer that runs Pulumi" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_secret_is_in_a_records_text() -> None:
    """Records end up in tracebacks and in the output of failed tests."""
    text = " ".join(map(repr, PAYLOADS.values())) + repr(create_ssh_key.Result(KEY, "public"))
    assert KEY not in text and KUBECONFIG not in text and JOIN not in text


def test_a_payload_of_another_form_is_refused(every_program: Programs) -> None:
    done = every_program.run("machines/scripts/create_ssh_key.py", {"comment": "x", "remark": "y"})
    assert done.returncode and "remark" in done.stderr
