"""A virtual machine with a kernel of its own, in the network of a lab's pods: Debian 13 with Docker, in which its application runs.

qemu runs in a container, and hands its address over to the machine (`images/virtual-machine` of the lab). So to the lab's network the
container is the machine: to kill it is a power cut. Everything else reaches the machine by SSH.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.existing_lab import NAMESPACE, ExistingMachines
from tests.support.lab import Lab, make_image
from tests.support.waiting import wait_until
from tools.lab.offline import images, packages

HOST = 120
"""The last byte of the machine's address: no other machine of a lab has it."""
BOOT_S = 400
"""Seconds in which a machine boots on a computer that has no KVM and is busy."""
APPLICATION = "application"
"""The container on the machine. Its answers have the machine's name."""


@dataclass
class VirtualMachines(ExistingMachines):
    """Such machines, by name."""

    @property
    def stack(self) -> str:
        return f"virtual-{self.lab.stack}"

    def make(self, *names: str) -> None:
        """Start machines; `wait` ends when they have booted."""
        for name in names:
            self.create(name, make_image(images.VIRTUAL_MACHINE), (HOST, HOST))
            self._ssh_file(name).write_text(f"{self.addresses[name]} {self.host_keys[name]}\n")

    def wait(self, name: str) -> None:
        """Wait until a machine has booted for the first time. Its application runs before sshd does."""
        wait_until(lambda: self.boot_of(name), BOOT_S, f"{name} runs sshd", interval=1)

    def root(self, name: str, command: str, check: bool = True) -> str:
        """Run a command on a machine as root, by SSH."""
        options = {
            "BatchMode": "yes", "ConnectTimeout": "10", "IdentitiesOnly": "yes", "UserKnownHostsFile": str(self._ssh_file(name)), "LogLevel": "ERROR",
        }  # fmt: skip
        words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        destination = f"root@{self.addresses[name]}"
        return self.lab.run("ssh", "-i", str(self.key), *words, destination, "bash -s", stdin=command, check=check, timeout=180).stdout

    def boot_of(self, name: str) -> str:
        """Which boot a machine is in; "" while it cannot be asked."""
        return self.root(name, "cat /proc/sys/kernel/random/boot_id", check=False).strip()

    @contextmanager
    def booting(self, name: str) -> Iterator[None]:
        """Wait until a machine has booted again after the block."""
        before = self.boot_of(name)
        yield
        wait_until(lambda: self.boot_of(name) not in ("", before), BOOT_S, f"{name} boots", interval=1)

    def cut_power(self, name: str) -> None:
        """End a machine at once."""
        self.lab.docker("kill", self.container(name))

    def switch_on(self, name: str) -> None:
        """Start a machine whose power was cut."""
        self.lab.docker("start", self.container(name))

    def set_clock(self, name: str, ahead_s: int) -> None:
        """Set a machine's clock by so many seconds ahead of this computer's, or behind it."""
        self.root(name, f"date --set @{int(time.time()) + ahead_s}")

    def call_from_container(self, name: str) -> str:
        """Call the server of the lab's package from the application's container, past the mesh. Returns what it printed."""
        url = f"http://$(awk '$2 == \"host.docker.internal\" {{ print $1 }}' /etc/hosts):{packages.PORT}{packages.PATH}.sha256"
        return self.root(name, f"docker exec {APPLICATION} /echo-client {url}", check=False)

    def _ssh_file(self, name: str) -> Path:
        return self.lab.private_directory / f"known-hosts-{name}"


@contextmanager
def virtual_machine(lab: Lab, name: str) -> Iterator[VirtualMachines]:
    """One such machine in the network of the lab's pods, and the namespace for its workload, during the block."""
    lab.ensure_any()
    machines = VirtualMachines(lab)
    machines.remove()
    lab.run("kubectl", "create", "namespace", NAMESPACE)
    lab.run("kubectl", "label", "namespace", NAMESPACE, "istio-injection=enabled")
    try:
        machines.make(name)
        machines.wait(name)
        yield machines
    finally:
        machines.remove()
        lab.run("kubectl", "delete", "namespace", NAMESPACE, check=False)
