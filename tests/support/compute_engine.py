"""Machines that are shaped like Compute Engine's: containers with Google's own guest agent, in the network of a lab's pods.

Debian's packages of the agent, of its script runner with the units, and of OS Login run as they are. What is Google's host on Compute
Engine stands in: a unit gives the machine a network namespace behind a link of its own, where the metadata server (metadata_server.py)
answers at 169.254.169.254. It starts before the agent at each boot, and ends last.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from components.platforms.docker import names
from tests.support import metadata_server
from tests.support.lab import Lab, make_image
from tests.support.waiting import wait_until
from tools.lab import engine
from tools.lab.offline import images

HOST = "/opt/google-host"
"""The directory on a machine with what stands in for Google's host."""
STOPPED = "/var/log/stopped-units"
"""The file on a machine in which units note that they have stopped, one a line, in this order."""
NOTING = ("istio-vm-mesh-drain", "istio-vm-mesh", "echo", "google-guest-agent", "google-shutdown-scripts", "google-startup-scripts")
"""The units that do so."""

ATTACH = """\
# Stand-in for Google's host: the interface's MAC address, the link to the metadata server, and the
# VPC's route to pods.
set -eu
ip link set eth0 address {mac}
ip netns add google-host
ip link add metadata type veth peer name metadata netns google-host
ip -n google-host address add 169.254.169.254/32 dev metadata
ip -n google-host link set metadata up
ip -n google-host route add default dev metadata
ip link set metadata up
ip route add 169.254.169.254 dev metadata
ip route replace {pod_cidr} via {gateway}
"""

# Before the network is online, as on Compute Engine. A shutdown does not stop it.
UNIT = f"""\
[Unit]
Description=Stand-in for Google's host
DefaultDependencies=no
After=local-fs.target systemd-tmpfiles-setup.service
Before=network-online.target google-guest-agent.service
[Service]
ExecStartPre=/bin/bash {HOST}/attach.sh
ExecStart=/bin/ip netns exec google-host /usr/bin/python3 {HOST}/metadata_server.py {HOST} 169.254.169.254 80
ExecStartPost=/bin/sh -c 'until curl --silent --output /dev/null http://169.254.169.254/; do sleep 0.1; done'
[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True)
class Instance:
    """A machine.

    name: Google's for it, and its host name. address: in the network of the lab's pods. pod_cidr: of those.
    """

    lab: Lab
    name: str
    address: str
    pod_cidr: str

    @property
    def container(self) -> str:
        return names.docker_name(self.lab.stack, self.name)

    def run(self, command: str, check: bool = True) -> str:
        """Run a command on the machine as root, past SSH."""
        return self.lab.exec_in_container(self.name, command, check)

    def create(self, metadata: Mapping[str, Any], files: Mapping[str, str]) -> None:
        """Create the machine, which does not run yet.

        metadata: as of a metadata server. The machine's own network interface is added.
        files: by path, more than there are in the image.
        """
        lab = self.lab
        self.remove()
        lab.docker(
            "create", "--name", self.container, "--hostname", self.name, "--label", names.stack_label(lab.stack), "--privileged",
            "--network", names.docker_name(lab.stack, "pods"), "--ip", self.address,
            "--add-host", "host.docker.internal:host-gateway", "--add-host", "metadata.google.internal:169.254.169.254",
            # The agent sets the scheduler of all disks that it sees. A container sees those of this computer.
            "--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp:exec", "--tmpfs", "/sys/block:ro",
            make_image(images.COMPUTE_ENGINE),
        )  # fmt: skip
        unit = "etc/systemd/system"
        noting = f"[Service]\nExecStopPost=+/bin/sh -c 'echo %p >>{STOPPED}'\n"
        self._copy(
            {
                f"{HOST}/attach.sh": ATTACH.format(mac=self.mac, pod_cidr=self.pod_cidr, gateway=lab.outputs()["gateway"]),
                f"{HOST}/metadata_server.py": Path(metadata_server.__file__).read_text(),
                f"{HOST}/{metadata_server.METADATA}": json.dumps(self.with_interface(metadata)),
                f"{unit}/google-host.service": UNIT,
                **{f"{unit}/{name}.service.d/noting.conf": noting for name in NOTING},
                **files,
            },
            links={f"{unit}/multi-user.target.wants/google-host.service": "/etc/systemd/system/google-host.service"},
        )

    def start(self) -> None:
        """Switch the machine on."""
        self.lab.docker("start", self.container)

    def cut_power(self) -> None:
        """End the machine at once, as where its host fails."""
        self.lab.docker("kill", self.container)

    def shut_down(self) -> list[str]:
        """Shut the machine down, as Google does before it is deleted. Google gives it 90 seconds.

        Return the units that noted that they have stopped, in this order.
        """
        self.run(f"rm -f {STOPPED}")
        self.lab.docker("stop", "--time", "90", self.container)
        return self.lab.run("sh", "-c", f"docker cp {self.container}:{STOPPED} - | tar --extract --to-stdout").stdout.split()

    def remove(self) -> None:
        self.lab.docker("rm", "--force", "--volumes", self.container, check=False)

    def set_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Change what the metadata server answers."""
        path = f"{HOST}/{metadata_server.METADATA}"
        self.lab.docker("exec", "--interactive", self.container, "tee", f"{path}.new", stdin=json.dumps(self.with_interface(metadata)))
        self.run(f"mv {path}.new {path}")

    def guest_attributes(self) -> dict[str, str]:
        """What the machine has written to the metadata server, by path."""
        attributes: dict[str, str] = json.loads(self.run(f"cat {HOST}/{metadata_server.GUEST_ATTRIBUTES} || echo '{{}}'"))
        return attributes

    def wait_for_boot(self) -> None:
        """Wait until systemd has started all units, those that run once too."""
        running = "systemctl is-system-running"
        wait_until(
            lambda: self.run(running, check=False).strip() in ("running", "degraded"), description=f"{self.name} has booted", interval=0.5
        )

    @property
    def mac(self) -> str:
        """Google's MAC addresses hold the IP address, too."""
        return ":".join(["42", "01", *(f"{byte:02x}" for byte in IPv4Address(self.address).packed)])

    def with_interface(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Return the metadata with the interface in the VPC, and what else the agent reads at the start of a machine."""
        instance = metadata["instance"]
        interface = {"forwarded-ips": [], "mac": self.mac, **instance["network-interfaces"][0], "ip": self.address}
        # Not of the family e2, for which the agent changes a setting of the kernel: this computer's.
        machine = {"id": int(IPv4Address(self.address)), "machine-type": "projects/7/machineTypes/n2-standard-2"}
        more = {"network-interfaces": [interface], "virtual-clock": {"drift-token": 0}}
        project = {"attributes": {}, "numeric-project-id": 7, **metadata["project"]}
        return {"instance": {"attributes": {}, **machine, **instance, **more}, "project": project}

    def _copy(self, files: Mapping[str, str], links: Mapping[str, str]) -> None:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for path, text in files.items():
                entry = tarfile.TarInfo(path.lstrip("/"))
                entry.size = len(text.encode())
                archive.addfile(entry, io.BytesIO(text.encode()))
            for path, target in links.items():
                entry = tarfile.TarInfo(path)
                entry.type, entry.linkname = tarfile.SYMTYPE, target
                archive.addfile(entry)
        answering = engine.find()
        assert answering, "the lab's engine does not answer"
        answering.docker("cp", "-", f"{self.container}:/", stdin=buffer.getvalue())
