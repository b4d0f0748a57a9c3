"""A join by the program's own SSH to a real sshd, whose scripts run on a machine in a directory."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from components.local import cluster_access, openssh, ssh_log
from components.local.cluster_access import ClusterAccess
from components.machines.bundle import Bundle, digest, join_variables, with_root_certificate
from components.machines.files import configuration_files
from components.machines.scripts import join_machine, slots
from tests.support.fake_cluster import ROOT_TEXT, FakeCluster
from tests.support.machine import CONFIRM, CONFIRMATION, JOIN, OWNER, PROXY, FakeMachine, token
from tests.support.sshd import Sshd
from tests.support.waiting import wait_until

ENTRY = "product-192.0.2.7-pods"
CONFIRM_S = 60
HOOKS = """
status=$?
if [ "$*" = "restart istio-vm-mesh" ] && [ -e "$RUN/hooks" ]; then
  . "$RUN/hooks"
  start
  mv "$RUN/hooks" "$RUN/hooked"
elif [[ $* =~ (stop|disable).*istio-vm-mesh$ ]] && [ -e "$RUN/hooked" ]; then
  . "$RUN/hooked"
  stop
  rm "$RUN/hooked"
fi
exit $status
"""


@dataclass
class Joined:
    """A machine and its sshd.

    payload: what it is joined with.
    digest: the last line of its join.
    """

    machine: FakeMachine
    sshd: Sshd
    payload: join_machine.Payload

    @property
    def digest(self) -> str:
        return digest(complete(self.payload.bundle))

    @property
    def authorised(self) -> Path:
        return self.sshd.log.with_name("client.pub")

    def run(self) -> join_machine.Result:
        return join_machine.run(self.payload)

    def change(self) -> None:
        """Have the next join restart the agent."""
        self.payload = replace(self.payload, bundle=replace(self.payload.bundle, gateway="192.0.2.251"))

    def within(self, seconds: int) -> None:
        """Have the next joins wait for so long to be confirmed."""
        self.payload = replace(self.payload, bundle=replace(self.payload.bundle, confirm_s=seconds))

    def when_the_agent_starts(self, start: str, stop: str) -> None:
        """Run commands once, with the next start of the agent and with its stop after that."""
        (self.machine.directory / "run/hooks").write_text(f"start() {{ {start}; }}\nstop() {{ {stop}; }}\n")

    def logins(self) -> int:
        return self.sshd.log.read_text().count("Accepted publickey")

    def can_log_in(self) -> bool:
        return openssh.run_script(self.payload.target, "echo here\n", 30).reach is ssh_log.Reach.DONE

    def end_clients(self) -> str:
        """Kill the ssh of this process."""
        children = subprocess.run(["pgrep", "--parent", str(os.getpid()), "--exact", "ssh"], capture_output=True, text=True).stdout
        for pid in children.split():
            os.kill(int(pid), signal.SIGKILL)
        return "yes"

    def left_running(self) -> str:
        """Return the command lines of processes of the machine."""
        done = subprocess.run(["pgrep", "--full", "--list-full", str(self.machine.directory / "run/undo")], capture_output=True, text=True)
        return done.stdout

    def wait_until_idle(self) -> None:
        """Wait until no join, and nothing that takes one back, holds the machine."""
        lock = self.machine.directory / "run/istio-vm-mesh.lock"
        wait_until(lambda: subprocess.run(["flock", "--nonblock", lock, "true"]).returncode == 0)
        wait_until(lambda: not self.left_running())


def complete(bundle: Bundle) -> Bundle:
    return with_root_certificate(replace(bundle, files=configuration_files(bundle)), ROOT_TEXT)


@contextmanager
def prepared(sshd: Sshd, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Joined]:
    """Yield a machine that has not joined yet, with a cluster in which its entry is Healthy."""
    machine = FakeMachine(directory / "machine").create()
    program = machine.directory / "bin/systemctl"
    program.write_text(f"{program.read_text().rstrip()}\n{HOOKS}")
    machine.with_systemd()
    cluster = FakeCluster()
    cluster.add(ENTRY, OWNER.registration)
    monkeypatch.setattr(cluster_access, "unchecked_kubectl", cluster.kubectl)
    for name in ("slot", "joined", "halt"):
        monkeypatch.setattr(slots, name, getattr(_Slots, name))
    monkeypatch.setattr(join_machine.shell, "run_as_root", lambda text, *_: f"{{\n{text}\nexit\n}}\n")
    monkeypatch.setattr(join_machine, "join_script", lambda bundle, *_: _join_text(machine, bundle))
    monkeypatch.setattr(
        join_machine,
        "confirm_script",
        lambda name, nonce: f"{machine.script(CONFIRM, MACHINE=name, NONCE=nonce)}main </dev/null\n",
    )
    url = "https://example.com/good-1.deb"
    joined = Bundle(OWNER, PROXY, "192.0.2.7", "192.0.2.250", url, "{}", confirm_s=CONFIRM_S)
    root_sha256 = hashlib.sha256(ROOT_TEXT.encode()).hexdigest()
    target = openssh.Target("product-1", sshd.hop())
    payload = join_machine.Payload(ClusterAccess(), target, joined, root_sha256, 0)
    yield Joined(machine, sshd, payload)


def _join_text(machine: FakeMachine, bundle: Bundle) -> str:
    variables = {**join_variables(bundle), "MACHINE": OWNER.machine, "TOKEN": token(), "ASK": "60", "NEEDED_MIB": "1"}
    variables["CONFIRM_S"] = str(bundle.confirm_s)
    return f"{machine.script(CONFIRMATION, JOIN, **variables)}main 3<&0 </dev/null\n"


class _Slots:
    """Slots that are free."""

    @staticmethod
    @contextmanager
    def slot(*_: object) -> Iterator[bool]:
        yield False

    @staticmethod
    def joined(*_: object) -> None:
        pass

    @staticmethod
    def halt(*_: object) -> None:
        pass
