"""A machine of an instance group: it joins with the startup script that Google Cloud would run, and leaves when it is shut down.

Google's part is played by stand-ins: a metadata server of this process, whose "Google identity" is a ServiceAccount with the rights that the program gives
machines, and a unit that runs the script in the metadata. The token comes from the lab's API server.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import yaml

from components.config import load_file
from components.config.stack import Settings
from components.istio import charts
from components.names import PROJECT
from components.platforms.docker import configuration, names
from components.platforms.google import startup
from tests.support import metadata_server
from tests.support.lab import Lab
from tests.support.waiting import wait_until

NAME = "product-x7k2"
ACCOUNT = "machines-google-identity"
SETUP = "#!/bin/bash\necho set up >>/var/log/setup\n"
UNIT = """\
[Unit]
Description=Stand-in for Google's unit of this name
After=network-online.target
[Service]
Type=oneshot
Environment=METADATA={metadata} CURL_CA_BUNDLE=/etc/api-server.pem
ExecStart=/bin/bash /opt/startup-script
KillMode=process
"""


@dataclass
class Member:
    """The machine, a container; `entry` is its WorkloadEntry."""

    lab: Lab
    address: str

    @property
    def entry(self) -> str:
        return f"product-{self.address}-pods"

    def run(self, command: str, check: bool = True) -> str:
        return self.lab.exec_in_container(NAME, command, check)

    def put(self, path: str, text: str) -> None:
        self.lab.docker("exec", "--interactive", container(self.lab), "tee", path, stdin=text)


def container(lab: Lab) -> str:
    return names.docker_name(lab.stack, NAME)


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
    kind = {"apiVersion": "rbac.authorization.k8s.io/v1"}
    user = f"system:serviceaccount:shop:{ACCOUNT}"
    objects = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": "shop"}},
        {**kind, "kind": "Role", **startup.token_role(workload)},
        {**kind, "kind": "RoleBinding", **startup.token_role_binding(workload, user, "1")},
    ]
    manifest = yaml.safe_dump_all(objects)
    lab.run("kubectl", "apply", "--filename", "-", stdin=manifest)
    yield Identity(lab.kubectl("create", "token", ACCOUNT).strip())
    lab.run("kubectl", "delete", "--filename", "-", stdin=manifest)


@pytest.fixture(scope="module")
def metadata(settings: Settings, identity: Identity) -> Iterator[tuple[str, dict[str, str]]]:
    """The stand-in for the metadata server: its URL as machines of the lab reach it, and what it answers."""
    answers = metadata_server.identity(NAME, identity.token)
    host = str(configuration.docker_cidr(settings, "pods")[1])  # this computer, in the machines' network
    with metadata_server.serving(host, answers) as url:
        yield url, answers


@pytest.fixture(scope="module")
def member(lab: Lab, settings: Settings, metadata: tuple[str, dict[str, str]]) -> Iterator[Member]:
    """A plain machine of the lab's image, with what Google's image would have, and started as Google would start it."""
    url, answers = metadata
    gateway = lab.outputs()["gateway"]
    kubeconfig = yaml.safe_load(lab.run("kubectl", "config", "view", "--raw").stdout)
    authority = base64.b64decode(kubeconfig["clusters"][0]["cluster"]["certificate-authority-data"]).decode()
    package = settings.mesh.package.model_copy(update={"sha256": str(lab.root / str(settings.mesh.package.sha256))})
    scripts = startup.group_metadata(
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
    image = lab.resource("product-1-container")["inputs"]["triggers"][0]
    lab.docker("rm", "--force", "--volumes", container(lab), check=False)
    lab.docker(
        "run", "--detach", "--name", container(lab), "--hostname", NAME, "--label", names.stack_label(lab.stack), "--privileged",
        "--network", names.docker_name(lab.stack, "pods"), "--add-host", "host.docker.internal:host-gateway",
        "--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp", "--stop-signal", "SIGRTMIN+3", image, "/sbin/init",
    )  # fmt: skip
    try:
        address = lab.docker("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", container(lab)).strip()
        answers["/instance/network-interfaces/0/ip"] = address
        member = Member(lab, address)
        wait_until(lambda: member.run("systemctl is-active dbus", check=False).strip() == "active", 30, "systemd runs")
        member.run(f"ip route replace {settings.cluster.pod_cidr} via {gateway}")
        member.put("/etc/api-server.pem", authority)
        member.put("/opt/startup-script", scripts["startup-script"])
        member.put("/etc/systemd/system/google-startup-scripts.service", UNIT.format(metadata=url))
        member.run("systemctl daemon-reload")
        member.run("systemctl start google-startup-scripts || { journalctl --unit google-startup-scripts --output cat >&2; exit 1; }")
        yield member
    finally:
        lab.docker("rm", "--force", "--volumes", container(lab))


def test_it_joins_with_a_token_that_it_mints_itself(lab: Lab, member: Member, identity: Identity) -> None:
    wait_until(lambda: lab.entry_health(member.entry) == "True", 30, "the machine's entry is healthy")
    entry = lab.entries()[member.address]
    assert entry["spec"]["serviceAccount"] == "product"
    assert entry["spec"]["labels"]["app"] == "product"
    lab.wait_until_answered_by("pod", {"pod", "product-1", NAME})
    assert member.run("cat /var/log/setup") == "set up\n"
    claims = member.run("cut -d . -f 2 /var/lib/istio-vm-mesh/var/run/secrets/tokens/istio-token").strip()
    token = json.loads(base64.urlsafe_b64decode(claims + "=="))
    assert (token["aud"], token["sub"]) == (["istio-ca"], "system:serviceaccount:shop:product")
    assert identity.token not in member.run("journalctl --output cat; cat /opt/startup-script")


def test_it_may_mint_this_token_and_do_nothing_else(lab: Lab, identity: Identity) -> None:
    def may(*what: str) -> bool:
        user = f"system:serviceaccount:shop:{ACCOUNT}"
        return lab.kubectl("auth", "can-i", *what, "--as", user, check=False).strip() == "yes"

    assert may("create", "serviceaccounts/product", "--subresource", "token")
    assert not may("create", "serviceaccounts", "--subresource", "token")
    assert not may("create", "serviceaccounts/default", "--subresource", "token")
    assert not may("get", "secrets") and not may("list", "pods") and not may("delete", "workloadentries")


def test_another_boot_restarts_nothing(member: Member) -> None:
    agent = member.run("systemctl show --property MainPID --value istio-vm-mesh")
    member.run("systemctl restart google-startup-scripts")
    assert member.run("systemctl show --property MainPID --value istio-vm-mesh") == agent


def test_when_it_is_shut_down_no_call_fails_and_its_entry_goes(lab: Lab, member: Member) -> None:
    """As when its group shrinks."""
    enough = "/tmp/enough"
    calling = (
        f"while [ ! -e {enough} ]; do curl --silent --max-time 5 --output /dev/null --write-out '%{{http_code}}\\n' http://product/; done"
    )
    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.extend(lab.ssh("product-1", calling).split()))
    thread.start()
    try:
        lab.docker("stop", "--time", "60", container(lab))
        wait_until(lambda: lab.entry_health(member.entry) is None, 5, "its entry is gone before the machine is")
    finally:
        lab.ssh("product-1", f"touch {enough}")
        thread.join()
        lab.ssh("product-1", f"rm {enough}")
    assert len(answers) > 100 and set(answers) == {"200"}, answers
