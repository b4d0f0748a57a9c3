"""A machine that stays leaves the mesh over a real sshd; one that cannot be reached does not stand in the way of its removal."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from components import shell
from components.config.existing import SshMachine
from components.machines import ssh_leave
from tests.support.sshd import Sshd, reserved_port


def machine_of(sshd: Sshd) -> SshMachine:
    return SshMachine(
        platform="ssh",
        name="m-1",
        workload="w",
        network="n",
        host="127.0.0.1",
        port=sshd.port,
        user=sshd.user,
        sudo=False,
        host_key=" ".join(sshd.host_key.split()[:2]),
    )


def leave(machine: SshMachine, sshd: Sshd, text: str) -> subprocess.CompletedProcess[str]:
    """Run the script with `text` as what the machine does."""
    script = ssh_leave.leave_over_ssh_script("m-1", machine, sshd.private_key)
    ours = shell.assignments({"LEAVE_BASE64": shell.b64encode(text)})
    lines = [line for line in script.splitlines() if not line.startswith("LEAVE_BASE64=")]
    return subprocess.run(["bash", "-s"], input=ours + "\n".join(lines), capture_output=True, text=True, timeout=60)


def test_the_machine_runs_what_makes_it_leave(sshd: Sshd) -> None:
    done = leave(machine_of(sshd), sshd, "echo left")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "left", "")


def test_a_machine_on_port_22_runs_it_too(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSH looks up the pinned key of port 22 by another name than that of any other port.

    The client is the real one. It takes the server's standard input and output for the connection, because a port below 1024 needs root.
    """
    ssh, server = shutil.which("ssh"), shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    client = tmp_path / "ssh"
    client.write_text(f"#!/bin/sh\nexec {ssh} -o 'ProxyCommand={server} -i -f {sshd.log.parent}/config' \"$@\"\n")
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    done = leave(machine_of(sshd).model_copy(update={"port": 22}), sshd, "echo left")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "left", "")


def test_a_failure_on_the_machine_is_a_failure(sshd: Sshd) -> None:
    done = leave(machine_of(sshd), sshd, "echo why >&2; exit 3")
    assert done.returncode == 1
    assert "machine m-1 did not leave the mesh (status 3)" in done.stderr


def test_a_dead_machine_and_another_one_in_its_place_are_let_go(sshd: Sshd) -> None:
    other_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ4PAGoNG2Yn3kXVSPFcGAGiqcXZNkHdHnzAlVnoUhS1"
    with reserved_port() as closed:
        for change in ({"port": closed}, {"host_key": other_key}):
            done = leave(machine_of(sshd).model_copy(update=change), sshd, "echo left")
            assert (done.returncode, done.stdout) == (0, "")
            assert "was not reached" in done.stderr


def test_the_key_is_on_no_command_line(sshd: Sshd) -> None:
    done = leave(machine_of(sshd), sshd, "cat /proc/$PPID/cmdline /proc/self/cmdline | tr '\\0' ' '")
    assert "PRIVATE KEY" not in done.stdout
