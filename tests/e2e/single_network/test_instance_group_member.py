"""Machines that are shaped like Compute Engine's, with Google's own guest agent: one of an instance group, and one with SSH.

They have exactly the metadata that the program gives such machines. The first joins with its startup script, which Google's own unit
runs, and leaves when it is shut down. Its "Google identity" is a ServiceAccount with the rights that the program gives machines, and its
token comes from the lab's API server.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.config import load_file
from components.config.google import GceMachine
from components.config.stack import Settings
from components.istio import charts
from components.names import PROJECT, SSH_KEY, STATUS_PORT, entry_name
from components.platforms.google import names, startup
from components.platforms.google.instance_options import machine_metadata
from components.platforms.google.scripts import host_key
from tests.support import metadata_server
from tests.support.compute_engine import Instance
from tests.support.google_fakes import clients
from tests.support.istio_cases import without_istiod
from tests.support.lab import Lab
from tests.support.waiting import wait_until
from tools.lab import stacks

NAME, WITH_SSH = "product-x7k2", "product-9"
HOST, HOST_WITH_SSH, HOST_OF_BALANCER = 100, 101, 110
"""Addresses in the network that neither Docker nor the program gives."""
ACCOUNT = "machines-google-identity"
SETUP = "#!/bin/bash\necho set up >>/var/log/setup\n"
STRANGER = "machines-balancer"
"""A Service outside of the mesh's knowledge: the address of a load balancer."""


@dataclass
class Member:
    """The machine of the group. `entry` is its WorkloadEntry, `balancer` the address of a load balancer in front of it."""

    instance: Instance
    metadata: dict[str, Any] = field(repr=False)
    balancer: str

    @property
    def address(self) -> str:
        return self.instance.address

    @property
    def entry(self) -> str:
        return entry_name("product", self.address, "pods")

    def run(self, command: str, check: bool = True) -> str:
        return self.instance.run(command, check)


@pytest.fixture(scope="module")
def lab(single_network_lab: Lab) -> Lab:
    """The stack `lab`."""
    single_network_lab.ensure()
    return single_network_lab


@pytest.fixture(scope="module")
def settings(lab: Lab) -> Settings:
    return load_file(lab.stack, lab.root / "stacks")


@dataclass(frozen=True)
class Identity:
    """What the metadata server says that a machine is; pytest shows arguments."""

    token: str = field(repr=False)


@pytest.fixture(scope="module")
def identity(lab: Lab, settings: Settings) -> Iterator[Identity]:
    """Somebody who may do in the cluster what the program lets a group's machines do."""
    workload = settings.workloads["product"]
    user = f"system:serviceaccount:shop:{ACCOUNT}"
    objects = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": "shop"}},
        startup.token_role(workload),
        startup.token_role_binding(workload, user, "1"),
    ]
    manifest = yaml.safe_dump_all(objects)
    lab.run("kubectl", "apply", "--filename", "-", stdin=manifest)
    yield Identity(lab.kubectl("create", "token", ACCOUNT).strip())
    lab.run("kubectl", "delete", "--filename", "-", stdin=manifest)


def address(settings: Settings, host: int) -> str:
    return str(IPv4Network(settings.machine_cidrs("pods")[0])[host])


def metadata(name: str, token: str, attributes: dict[str, str]) -> dict[str, Any]:
    """Return what the metadata server of a machine answers."""
    tree = metadata_server.identity(name, token)
    return {**tree, "instance": {**tree["instance"], "attributes": attributes}}


@pytest.fixture(scope="module")
def with_ssh(lab: Lab, settings: Settings) -> Iterator[Instance]:
    """A machine of the stack `single-network`, with a setup that the lab's network permits."""
    declared = load_file("single-network").google_machines["product-1"]
    assert isinstance(declared, GceMachine)
    public_key = stacks.command_result(lab.resource(SSH_KEY))["public"]
    attributes = machine_metadata(declared.model_copy(update={"startup_script": SETUP}), public_key)
    instance = Instance(lab, WITH_SSH, address(settings, HOST_WITH_SSH), str(settings.cluster.pod_cidr))
    try:
        instance.create(metadata(WITH_SSH, "", attributes), {})
        instance.start()
        yield instance
    finally:
        instance.remove()


@pytest.fixture(scope="module")
def member(lab: Lab, settings: Settings, identity: Identity, with_ssh: Instance) -> Iterator[Member]:
    """A machine of a group, which has been started once. It trusts the lab's API server as it would GKE's, which has a public certificate."""
    gateway = lab.outputs()["gateway"]
    package = settings.mesh.package.model_copy(update={"sha256": str(lab.root / str(settings.mesh.package.sha256))})
    attributes = startup.group_metadata(
        startup.startup_script(
            startup.StartupInputs(
                project=PROJECT,
                stack=lab.stack,
                network="pods",
                gateway=gateway,
                root_certificate=lab.get("configmap", "istio-ca-root-cert")["data"]["root-cert.pem"],
                workload=settings.workloads["product"],
                mesh=settings.mesh.model_copy(update={"package": package}),
                facts=charts.facts(settings.mesh, "pods"),
                api_server=f"https://{gateway}:6443",
                setup=SETUP,
            )
        )
    )
    kubeconfig = yaml.safe_load(lab.run("kubectl", "config", "view", "--raw").stdout)
    authority = base64.b64decode(kubeconfig["clusters"][0]["cluster"]["certificate-authority-data"]).decode()
    instance = Instance(lab, NAME, address(settings, HOST), str(settings.cluster.pod_cidr))
    member = Member(instance, metadata(NAME, identity.token, attributes), address(settings, HOST_OF_BALANCER))
    try:
        instance.create(member.metadata, {"/etc/ssl/certs/ca-certificates.crt": authority})
        instance.start()
        instance.wait_for_boot()
        wait_until(lambda: not is_active(member, "boot"), description="it has joined", interval=0.5)
        yield member
    finally:
        instance.remove()


def test_the_agent_publishes_the_host_key_and_makes_our_user(lab: Lab, with_ssh: Instance, tmp_path: Path) -> None:
    """gcloud, or a stub of it, reads what the agent has written. So the program validates the host key that sshd really has."""
    published = f"hostkeys/{host_key_type()}"
    wait_until(lambda: published in with_ssh.guest_attributes(), description="the agent has published its host keys", interval=0.5)
    with clients.serving(tmp_path) as google, pytest.MonkeyPatch.context() as monkeypatch:
        clients.use(google, tmp_path / "bin", clients.STUB, monkeypatch)
        google.apis.guest_attributes.update(with_ssh.guest_attributes())
        key = host_key.run(host_key.Payload("my-project", "europe-west1-b", with_ssh.name, host_key_type())).host_key
    known_hosts = tmp_path / "known-hosts"
    known_hosts.write_text(f"{with_ssh.address} {key}\n")
    options, _ = lab.ssh_options("product-1")
    options = [f"-oUserKnownHostsFile={known_hosts}", *options]
    ssh = ["ssh", *options, f"{names.SSH_USER}@{with_ssh.address}"]
    wait_until(lambda: lab.run(*ssh, "true", check=False).returncode == 0, description="the agent has authorised the key", interval=0.5)
    assert lab.run(*ssh, "id --user --name; sudo --non-interactive id --user --name").stdout.split() == [names.SSH_USER, "root"]
    other = tmp_path / "other-host-key"
    other.write_text(f"{with_ssh.address} {host_key_type()} {base64.b64encode(b'other').decode()}\n")
    refused = lab.run("ssh", f"-oUserKnownHostsFile={other}", *options, ssh[-1], "true", check=False)
    assert refused.returncode == 255 and "verification failed" in refused.stderr


def host_key_type() -> str:
    return names.HOST_KEY_TYPES["ed25519"]


def test_googles_unit_runs_the_setup_of_a_machine_with_ssh(with_ssh: Instance) -> None:
    with_ssh.wait_for_boot()
    assert with_ssh.run("cat /var/log/setup") == "set up\n"


def test_it_joins_with_a_token_that_it_mints_itself(lab: Lab, member: Member, identity: Identity) -> None:
    wait_until(lambda: lab.entry_health(member.entry) == "True", description="the machine's entry is healthy")
    entry = lab.entries()[member.address]
    assert entry["spec"]["serviceAccount"] == "product"
    assert entry["spec"]["labels"]["app"] == "product"
    lab.wait_until_answered_by("pod", {"pod", "product-1", NAME})
    assert member.run("cat /var/log/setup") == "set up\n"
    claims = member.run("cut -d . -f 2 /var/lib/istio-vm-mesh/var/run/secrets/tokens/istio-token").strip()
    token = json.loads(base64.urlsafe_b64decode(claims + "=="))
    assert (token["aud"], token["sub"]) == (["istio-ca"], "system:serviceaccount:shop:product")
    assert identity.token not in member.run("journalctl --output cat")


def test_it_may_mint_this_token_and_do_nothing_else(lab: Lab, identity: Identity) -> None:
    def may(*what: str) -> bool:
        user = f"system:serviceaccount:shop:{ACCOUNT}"
        return lab.kubectl("auth", "can-i", *what, "--as", user, check=False).strip() == "yes"

    assert may("create", "serviceaccounts/product", "--subresource", "token")
    assert not may("create", "serviceaccounts", "--subresource", "token")
    assert not may("create", "serviceaccounts/default", "--subresource", "token")
    assert not may("get", "secrets") and not may("list", "pods") and not may("delete", "workloadentries")


def test_running_the_script_again_restarts_nothing(member: Member) -> None:
    agent = member.run("systemctl show --property MainPID --value istio-vm-mesh")
    member.run("systemctl restart google-startup-scripts")
    wait_until(lambda: not is_active(member, "boot"), description="the script has ended", interval=0.5)
    assert member.run("cat /var/log/setup") == "set up\n" * 2
    assert member.run("systemctl show --property MainPID --value istio-vm-mesh") == agent


def test_a_load_balancer_in_front_of_it_reaches_its_proxy(lab: Lab, member: Member) -> None:
    """It passes packets on as they are, so the agent makes its address one of the machine's. Its health checks are plain HTTP."""
    interface = {"ip": member.address, "forwarded-ips": [member.balancer]}
    instance = {**member.metadata["instance"], "network-interfaces": [interface]}
    member.instance.set_metadata({**member.metadata, "instance": instance})
    wait_until_routed(member)
    probe = (
        f"curl --silent --max-time 20 --output /dev/null --write-out '%{{http_code}}' http://{member.balancer}:{STATUS_PORT}/healthz/ready"
    )
    assert lab.run("sh", "-c", probe).stdout == "200"
    assert lab.run("curl", "--silent", "--max-time", "20", f"http://{member.balancer}:8080/", check=False).returncode == 56  # mTLS alone
    entry = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": STRANGER, "namespace": "shop"},
        "spec": {
            "hosts": [f"{STRANGER}.example"],
            "addresses": [member.balancer],
            "ports": [{"number": 8080, "name": "http", "protocol": "HTTP"}],
            "resolution": "STATIC",
            "location": "MESH_INTERNAL",
            "endpoints": [{"address": member.balancer, "labels": {"security.istio.io/tlsMode": "istio"}}],
        },
    }
    lab.apply(json.dumps(entry))
    try:
        answered = f"curl --silent --max-time 20 http://{member.balancer}:8080/"
        wait_until(lambda: f"Hostname={NAME}" in lab.ssh("product-1", answered, check=False), description="the machine answers")
        assert "X-Forwarded-Client-Cert" in lab.ssh("product-1", answered)  # the proxy of the machine says who calls
    finally:
        lab.kubectl("delete", "serviceentry", STRANGER)


def test_a_machine_that_boots_while_istiod_is_away_comes_back_by_itself(lab: Lab, member: Member) -> None:
    """Its host fails, and it is started again. The guest agent does its work without the proxy, which has no configuration yet."""
    with without_istiod(lab):
        member.instance.cut_power()
        member.instance.start()
        wait_until(lambda: member.run("cat /var/log/setup").count("set up") > 2, description="the startup script runs", interval=0.5)
        captured = "iptables-save --table nat | grep -- '-j ISTIO_OUTPUT'"
        wait_until(lambda: member.run(captured, check=False), description="traffic is redirected to the proxy")
        wait_until_routed(member)
        # What is captured would get no answer now, and root is no exception.
        metadata = "http://metadata.google.internal/computeMetadata/v1/instance/name"
        for user in ("root", "application"):
            curl = f"curl --silent --max-time 20 --header Metadata-Flavor:Google {metadata}"
            assert member.run(f"setpriv --reuid {user} --clear-groups {curl}") == NAME
        wait_until(lambda: is_active(member, "drain"), description="its drain is armed before its join has succeeded", interval=0.5)
        assert is_active(member, "boot")
    wait_until_joined(lab, member)
    lab.wait_until_answered_by("pod", {"pod", "product-1", NAME})


def wait_until_routed(member: Member) -> None:
    """Wait until the guest agent has made the load balancer's address one of the machine's, which it does in its own time."""
    local = "ip route show table local proto 66"
    wait_until(lambda: f"local {member.balancer} " in member.run(local), description="the agent has made the route")


def wait_until_joined(lab: Lab, member: Member) -> None:
    """Wait until the machine is in the mesh, and leaves it in order when it is shut down."""
    wait_until(lambda: lab.entry_health(member.entry) == "True", description="the machine's entry is healthy")
    wait_until(lambda: is_active(member, "drain"), description="its drain is armed", interval=0.5)


def is_active(member: Member, unit: str) -> bool:
    return member.run(f"systemctl is-active istio-vm-mesh-{unit}", check=False) == "active\n"


def test_when_it_is_shut_down_no_call_fails_and_its_entry_goes(lab: Lab, member: Member) -> None:
    """As when its group shrinks. What is ours stops first, while Google's agent and the application still run."""
    wait_until_joined(lab, member)
    enough = "/tmp/enough"
    calling = (
        f"while [ ! -e {enough} ]; do curl --silent --max-time 20 --output /dev/null --write-out '%{{http_code}}\\n' http://product/; done"
    )
    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.extend(lab.ssh("product-1", calling).split()))
    thread.start()
    try:
        stopped = member.instance.shut_down()
        wait_until(lambda: lab.entry_health(member.entry) is None, 5, "its entry is gone before the machine is")
    finally:
        lab.ssh("product-1", f"touch {enough}")
        thread.join()
        lab.ssh("product-1", f"rm {enough}")
    assert set(answers) == {"200"}, answers
    # The first unit that stops ends the agent.
    assert stopped[:2] == ["istio-vm-mesh", "istio-vm-mesh-drain"], stopped
    assert {"echo", "google-guest-agent", "google-shutdown-scripts"} <= set(stopped[2:]), stopped
