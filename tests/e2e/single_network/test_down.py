"""The end of a lab: nothing secret was seen anywhere, a machine that leaves keeps nothing, and `down` leaves nothing of the lab.

Runs last, so that the secrets of every update are looked for.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

import pytest

from components import shell
from components.local import openssh
from components.machines.bundle import Owner, leave_script
from components.platforms.docker import names
from tests.support.lab import CHECKOUT_ID, Config, Lab
from tools.lab.offline import packages


@pytest.fixture(scope="module")
def lab(single_network_lab: Lab) -> Lab:
    """The stack `lab`, with whatever changes."""
    single_network_lab.ensure_any()
    return single_network_lab


def test_nothing_secret_was_on_a_command_line_in_an_environment_or_in_a_log(lab: Lab) -> None:
    secret_texts = lab.secrets()
    assert {"token of product-1", "SSH key", "key of the kubeconfig"} <= set(secret_texts)
    assert any(b"kind\0create\0cluster" in text for text in lab.watch.seen)
    assert not [what for what, text in secret_texts.items() if any(text.encode() in seen for seen in lab.watch.seen)]
    assert any("product-1-join" in log for log in lab.logs)
    assert not [what for what, text in secret_texts.items() if any(text in log for log in [*lab.logs, lab.first_output])]
    state = lab.state(secrets=False)
    assert "product-1-join" in state
    assert not [what for what, text in secret_texts.items() if text in state]
    for directory in (".lab/state", ".lab/home", ".lab/logs"):
        assert (lab.root / directory).stat().st_mode & 0o077 == 0


READER = """
import os, stat, sys
since, *tops = sys.argv[1:]
wanted = [text.encode() for text in sys.stdin.read().split()]
for top in tops:
    for directory, _, names in os.walk(top):
        for name in names:
            path = os.path.join(directory, name)
            try:
                of = os.lstat(path)
                if stat.S_ISREG(of.st_mode) and of.st_mtime > float(since) and of.st_size < 4e6:
                    with open(path, "rb") as file:
                        data = file.read()
                    if any(text in data for text in wanted):
                        print(path)
            except OSError:
                continue
"""
"""Prints the files below some directories that hold one of the texts on standard input, as far as its user can read them."""
PLACES = ["/etc", "/var", "/run", "/tmp", "/home", "/root", "/opt"]
PLANTED = secrets.token_hex(16)


def test_no_preview_shows_a_secret(lab: Lab) -> None:
    def everything(config: Config) -> None:
        config["machines"]["product-1"]["rotation"] = 7
        config["workloads"]["product"]["labels"]["tier"] = "y"

    secret_texts = lab.secrets()
    lab.configure(everything)
    for form in ([], ["--diff"], ["--json"], ["--json", "--diff"]):
        shown = lab.pulumi("preview", *form)
        assert "product-1-join" in shown
        assert not [what for what, text in secret_texts.items() if text in shown], form


def test_no_other_user_can_read_a_secret_on_this_computer(lab: Lab) -> None:
    with tempfile.NamedTemporaryFile("w") as planted:
        planted.write(PLANTED)
        planted.flush()
        os.chmod(planted.name, 0o644)
        command = [
            shutil.which("python3", path="/usr/bin:/bin") or sys.executable,
            "-c",
            READER,
            str(time.time() - 3600),
            *PLACES,
            str(lab.root),
        ]
        nobody: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.getuid() == 0 else {}
        texts = "\n".join([PLANTED, *lab.secrets().values()])
        reader = subprocess.run(command, input=texts, capture_output=True, text=True, check=True, cwd="/", **nobody)
        assert set(reader.stdout.split()) == {planted.name}


@pytest.mark.istio_case(29)
def test_a_machine_that_leaves_keeps_nothing(lab: Lab) -> None:
    """The state does not say that the machine has left, so no `lab up` brings it back."""
    lab.useless = True
    stamp = dict(line.split("=", 1) for line in lab.ssh("product-1", "cat /var/lib/istio-vm-mesh/owner").splitlines())
    del stamp["address"]
    script = re.sub(r"^ASK=.+$", "ASK=", shell.run_as_root(leave_script(Owner(**stamp))), flags=re.MULTILINE)
    leave = shell.b64encode(script)
    for _ in range(2):
        lab.ssh("product-1", f"echo {leave} | base64 -d | {openssh.COMMAND}")
    rules = "iptables-save; iptables-legacy-save 2>/dev/null"
    look = f"sudo sh -c 'pgrep -l \"pilot|envoy\"; getent passwd istio-proxy; systemctl cat istio-vm-mesh 2>/dev/null; {rules}'"
    directories = "/opt/istio-vm-mesh /var/lib/istio-vm-mesh /run/istio-vm-mesh*"
    remains = lab.ssh("product-1", f"{look}; sudo ls -d {directories}", check=False)
    assert "istio" not in remains.lower() and "envoy" not in remains and "certs" not in remains
    assert lab.ssh("product-1", "curl --silent http://localhost:8080/ | grep -c Hostname").strip() == "1"


def test_down_removes_a_node_whose_kind_was_killed_before_it_started(lab: Lab) -> None:
    """Neither a state nor a file has the stack any more. Docker lists such a container by its network's name, and not by its ID."""
    image = lab.resource("product-1-container")["inputs"]["triggers"][0]
    killed = f"killed-{CHECKOUT_ID}"
    network, node = names.docker_name(killed, "pods"), names.node_name(killed)
    lab.docker("network", "create", "--label", names.stack_label(killed), network)
    lab.docker("create", "--name", node, "--network", network, image)
    lab.run("./scripts/lab", "down", "--stack", killed)
    assert node not in lab.docker("ps", "--all", "--format", "{{.Names}}").split()
    assert network not in lab.docker("network", "ls", "--format", "{{.Name}}").split()


def test_down_removes_all_of_the_lab_and_nothing_of_another(lab: Lab) -> None:
    image = lab.resource("product-1-container")["inputs"]["triggers"][0]
    other = names.docker_name("other", CHECKOUT_ID)
    network, machine = f"{other}.network", f"{other}.machine"
    lab.docker("network", "create", "--label", names.stack_label("other"), network)
    lab.docker("run", "--detach", "--name", machine, "--network", network, "--entrypoint", "sleep", image, "infinity")
    try:
        output = lab.down().stdout
        assert "Command cluster-kind deleted" in output
        running = set(lab.docker("ps", "--format", "{{.Names}}").split())
        assert {packages.CONTAINER, machine} <= running
    finally:
        lab.docker("rm", "--force", machine)
        lab.docker("network", "rm", network)
    assert not [name for name in lab.docker("ps", "--all", "--format", "{{.Names}}").split() if lab.container("") in name]
    networks = lab.docker("network", "ls", "--format", "{{.Name}}").split()
    assert not [name for name in networks if lab.container("") in name]
    assert sorted(path.name for path in (lab.root / ".lab").iterdir()) == ["logs", "run"]
