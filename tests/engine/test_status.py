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


def test_machines_are_looked_at_and_left(sshd: Sshd, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    other = (tmp_path / "other.pub").read_text()
    bastion = {"host": "127.0.0.1", "port": sshd.port, "user": sshd.user, "privateKey": sshd.private_key}
    found = probe(
        [
            _machine(sshd, "direct"),
            _machine(sshd, "behind", proxy=bastion),
            _machine(sshd, "other-key", hostKey=other),
            _machine(sshd, "no-root", as_root="echo 'sudo: a password is required' >&2; exit 1"),
        ],
        gateway="",
    )
    assert [found[name].problem for name in ("direct", "behind")] == ["", ""]
    assert abs(found["direct"].offset) < 10 and found["direct"].up
    assert "host key mismatch" in found["other-key"].problem
    assert found["no-root"].problem.endswith("failed on it: sudo: a password is required")
    wait_until(lambda: sshd.connections() == 0)
