"""How the container of a virtual machine starts qemu."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import tarfile
from pathlib import Path

from components.platforms.docker.scripts import create_machine
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
ROUTES = "[Service]\nExecStart=/sbin/ip route replace 10.244.0.0/16 via 172.31.6.2\nExecStart=/bin/true\n"
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
    add_program(programs, "hostname", "echo virtual")
    add_program(programs, "qemu-img", "true")
    add_program(programs, "qemu-system-x86_64", 'printf "%s\\n" "$@"')
    root = tmp_path / "root"
    files = {
        create_machine.HOST_KEY: "private",
        f"{create_machine.HOST_KEY}.pub": "public",
        f"{create_machine.UNITS}/routes.service": ROUTES,
        "home/admin/.ssh/authorized_keys": "ssh-ed25519 AAAA someone\n",
    }
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    (root / "tmp").mkdir()
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "ROOT": str(root)}
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
    with tarfile.open(root / "tmp" / "keys.tar") as archive:
        assert archive.getnames() == [create_machine.HOST_KEY, f"{create_machine.HOST_KEY}.pub"]
    assert "file=tmp/keys.tar" in arguments
    assert "own.qcow2,if=virtio,format=qcow2,cache=unsafe" in arguments, "no flush of the machine's waits for this computer's disk"
