"""`./scripts/status` looks at machines over a real sshd: pinned host key, bastions, and commands that fail. This computer stands for the machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.sshd import Sshd
from tests.support.waiting import wait_until
from tools.mesh_status.read_machines import probe
from tools.mesh_status.read_state import Machine
from tools.mesh_status.ssh import Login


def _machine(sshd: Sshd, name: str, as_root: str = "bash -s", **changes: object) -> Machine:
    inputs = {"host": "127.0.0.1", "port": sshd.port, "user": sshd.user, "privateKey": sshd.private_key, "hostKey": sshd.host_key}
    return Machine(name, "product", login=Login.from_inputs({**inputs, **changes}), as_root=as_root)


def test_status_examines_machines_and_closes_its_connections(sshd: Sshd, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    other = (tmp_path / "other.pub").read_text()
    bastion = {"host": "127.0.0.1", "port": sshd.port, "user": sshd.user, "privateKey": sshd.private_key}
    reports = probe(
        [
            _machine(sshd, "direct"),
            _machine(sshd, "behind", proxy=bastion),
            _machine(sshd, "other-key", hostKey=other),
            _machine(sshd, "no-root", as_root="echo 'sudo: a password is required' >&2; exit 1"),
        ],
        gateway="",
    )
    assert [reports[name].problem for name in ("direct", "behind")] == ["", ""]
    assert abs(reports["direct"].offset) < 10 and reports["direct"].up
    assert "host key mismatch" in reports["other-key"].problem
    assert reports["no-root"].problem.endswith("failed on it: sudo: a password is required")
    wait_until(lambda: sshd.connections() == 0)
