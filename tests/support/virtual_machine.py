"""A virtual machine with a kernel of its own, in the network of a lab's pods: Debian 13 with Docker, in which its application runs.

qemu runs in a container, and hands its address over to the machine (`images/virtual-machine` of the lab). So to the lab's network the
container is the machine: to kill it is a power cut. Everything else reaches the machine by SSH.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from components.names import INJECTION_LABEL
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
    """Such machines, by name.

    Each login costs a second or two where instructions are translated. So tests keep a connection to each machine, and run their
    commands through it. Where there is none, a command has a connection of its own.
    """

    sockets: Path = Path()
    """The directory of the connections' sockets. Paths of sockets must be short."""
    connections: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

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
        self.connect(name)

    def connect(self, name: str) -> None:
        """Open a connection to a machine that is kept until it boots or is removed."""
        command = ["ssh", *self._options(name), "-o", "ServerAliveInterval=15", "-M", "-N", self._destination(name)]
        nowhere = subprocess.DEVNULL
        process = subprocess.Popen(command, env=self.lab.environment, stdin=nowhere, stdout=nowhere, stderr=nowhere)
        self.connections[name] = process
        wait_until(lambda: self._socket(name).exists() or process.poll() is not None, description=f"a connection to {name}")
        assert process.poll() is None, f"ssh to {name} ended with code {process.returncode}"

    def disconnect(self, name: str) -> None:
        """End the connection that is kept, if there is one."""
        if process := self.connections.pop(name, None):
            process.terminate()
            process.wait()
            self._socket(name).unlink(missing_ok=True)

    def root(self, name: str, command: str, check: bool = True) -> str:
        """Run a command on a machine as root, by SSH."""
        words = ["ssh", *self._options(name), self._destination(name), "bash -s"]
        return self.lab.run(*words, stdin=command, check=check).stdout

    def boot_of(self, name: str) -> str:
        """Which boot a machine is in; "" while it cannot be asked."""
        return self.root(name, "cat /proc/sys/kernel/random/boot_id", check=False).strip()

    @contextmanager
    def booting(self, name: str) -> Iterator[None]:
        """Wait until a machine has booted again after the block."""
        before = self.boot_of(name)
        self.disconnect(name)
        yield
        wait_until(lambda: self.boot_of(name) not in ("", before), BOOT_S, f"{name} boots", interval=1)
        self.connect(name)

    def cut_power(self, name: str) -> None:
        """End a machine at once."""
        self.lab.docker("kill", self.container(name))

    def switch_on(self, name: str) -> None:
        """Start a machine whose power was cut."""
        self.lab.docker("start", self.container(name))

    def set_clock(self, name: str, ahead_s: int) -> None:
        """Set a machine's clock by so many seconds ahead of this computer's, or behind it."""
        self.root(name, f"date --set @{int(time.time()) + ahead_s}")

    def calls(self, name: str, url: str) -> str:
        """Call a URL from the machine by the mesh, then the server of the lab's package from the application's container, past the mesh.

        Returns what both printed.
        """
        host = "$(awk '$2 == \"host.docker.internal\" { print $1 }' /etc/hosts)"
        from_container = f"docker exec {APPLICATION} /echo-client http://{host}:{packages.PORT}{packages.PATH}.sha256"
        return self.root(name, f"curl --silent --max-time 10 {url}; {from_container}", check=False)

    def remove(self) -> None:
        for name in [*self.connections]:
            self.disconnect(name)
        super().remove()

    def _options(self, name: str) -> list[str]:
        options = {
            "BatchMode": "yes", "ConnectTimeout": "10", "IdentitiesOnly": "yes", "UserKnownHostsFile": str(self._ssh_file(name)), "LogLevel": "ERROR",
        }  # fmt: skip
        words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        return ["-i", str(self.key), "-S", str(self._socket(name)), *words]

    def _destination(self, name: str) -> str:
        return f"root@{self.addresses[name]}"

    def _socket(self, name: str) -> Path:
        return self.sockets / name

    def _ssh_file(self, name: str) -> Path:
        return self.lab.private_directory / f"known-hosts-{name}"


@contextmanager
def virtual_machine(lab: Lab, name: str) -> Iterator[VirtualMachines]:
    """One such machine in the network of the lab's pods, and the namespace for its workload, during the block."""
    lab.ensure_any()
    with tempfile.TemporaryDirectory(prefix="virtual-") as sockets:
        machines = VirtualMachines(lab, sockets=Path(sockets))
        machines.remove()
        try:
            machines.make(name)  # it boots meanwhile
            lab.run("kubectl", "create", "namespace", NAMESPACE)
            lab.run("kubectl", "label", "namespace", NAMESPACE, f"{INJECTION_LABEL}=enabled")
            machines.wait(name)
            yield machines
        finally:
            machines.remove()
            lab.run("kubectl", "delete", "namespace", NAMESPACE, check=False)
