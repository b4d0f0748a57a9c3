"""How the container of a virtual machine starts qemu."""

from __future__ import annotations

import base64
import os
import re
import subprocess
from pathlib import Path

from tests.support.scripts import add_program
from tools.lab.offline import images

RUN = images.DIRECTORY / images.VIRTUAL_MACHINE.directory / "run.sh"
IP = """\
case "$*" in
*"address show"*) echo '2: eth0    inet 172.31.6.120/24 brd 172.31.6.255 scope global eth0' ;;
"route show default") echo 'default via 172.31.6.1 dev eth0' ;;
*"link show"*) echo '2: eth0@if9: <UP> mtu 1500 state UP \\    link/ether 02:42:ac:1f:06:78 brd ff:ff:ff:ff:ff:ff' ;;
esac
"""
NETWORK = """\
[Match]
Name=eth0
[Network]
Address=172.31.6.120/24
Gateway=172.31.6.1
DNS=172.31.6.1
[Route]
Destination=10.244.0.0/16
Gateway=172.31.6.2
"""


def test_the_machine_has_the_containers_place_in_the_network(tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    add_program(programs, "ip", IP)
    add_program(programs, "getent", "echo '172.17.0.1 host.docker.internal'")
    add_program(programs, "qemu-img", "true")
    add_program(programs, "qemu-system-x86_64", 'printf "%s\\n" "$@"')
    given = {"MACHINE": "virtual", "KEY": "ssh-ed25519 AAAA someone", "ROUTES": "10.244.0.0/16 via 172.31.6.2"}
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", **given}
    arguments = subprocess.run(["sh", RUN], env=environment, check=True, capture_output=True, text=True).stdout
    credentials = {
        name: base64.b64decode(value).decode() for name, value in re.findall(r"systemd\.set_credential_binary=([^:]*):(\S*)", arguments)
    }
    assert credentials == {
        "network.network.50-lab": NETWORK,
        "network.hosts": "127.0.0.1 localhost\n127.0.1.1 virtual\n172.17.0.1 host.docker.internal\n",
        "ssh.authorized_keys.root": "ssh-ed25519 AAAA someone\n",
    }
    assert "systemd.hostname=virtual" in arguments
    assert "mac=02:42:ac:1f:06:78" in arguments
