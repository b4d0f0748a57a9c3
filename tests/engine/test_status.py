"""`./scripts/status` looks at machines over a real sshd: pinned host key, bastions, and commands that fail. This computer stands for the machine."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.support.sshd import Sshd
from tests.support.waiting import wait_until
from tools.mesh_status.read_machines import probe
from tools.mesh_status.read_state import Machine
from tools.mesh_status.ssh import Login


def _login(sshd: Sshd) -> Login:
    return Login("127.0.0.1", sshd.port, sshd.user, sshd.host_key, sshd.private_key)


def _machine(sshd: Sshd, name: str, **changes: Any) -> Machine:
    return Machine(name, "product", login=replace(_login(sshd), **changes))


def test_status_examines_machines_and_closes_its_connections(sshd: Sshd, swallowing_sshd: Sshd, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    other = (tmp_path / "other.pub").read_text()
    swallowing_sshd.log.with_name("startup").write_text("echo 'sudo: a password is required' >&2; exit 1\n")
    reports = probe(
        [
            _machine(sshd, "direct"),
            _machine(sshd, "behind", proxy=_login(sshd)),
            _machine(sshd, "other-key", host_key=other),
            _machine(swallowing_sshd, "no-root"),
        ],
        gateway="",
    )
    assert [reports[name].problem for name in ("direct", "behind")] == ["", ""]
    assert abs(reports["direct"].offset) < 10 and reports["direct"].up
    assert "host key mismatch" in reports["other-key"].problem
    assert "failed on it: sudo: a password is required" in reports["no-root"].problem
    wait_until(lambda: sshd.connections() == 0)
