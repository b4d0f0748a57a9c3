"""`./scripts/status` looks at machines over a real sshd: pinned host key, bastions, and commands that fail. This computer stands for the machine."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from components.local import openssh
from tests.support.sshd import Sshd
from tests.support.waiting import wait_until
from tools.mesh_status.read_machines import probe
from tools.mesh_status.read_state import Machine


def _hop(sshd: Sshd, **changes: Any) -> openssh.Hop:
    return sshd.hop(**changes)


def _machine(name: str, hop: openssh.Hop, bastion: openssh.Hop | None = None) -> Machine:
    return Machine(name, "product", target=openssh.Target(name, hop, (bastion,) if bastion else ()))


def test_status_examines_machines_and_closes_its_connections(sshd: Sshd, swallowing_sshd: Sshd, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    other, stranger = (tmp_path / "other.pub").read_text(), str(tmp_path / "other")
    swallowing_sshd.log.with_name("startup").write_text("echo 'sudo: a password is required' >&2; exit 1\n")
    reports = probe(
        [
            _machine("direct", _hop(sshd)),
            _machine("behind", _hop(sshd), _hop(sshd)),
            _machine("other-key", _hop(sshd, host_key=other)),
            _machine("other-bastion", _hop(sshd, host="10.9.9.9"), _hop(sshd, host_key=other)),
            _machine("closed-behind", _hop(sshd, port=1), _hop(sshd)),
            _machine("stranger", _hop(sshd, identity_file=stranger)),
            _machine("no-root", _hop(swallowing_sshd)),
        ],
        gateway="",
    )
    assert [reports[name].problem for name in ("direct", "behind")] == ["", ""]
    assert abs(reports["direct"].offset) < 10 and reports["direct"].up
    assert "host key mismatch" in reports["other-key"].problem
    assert "jump host 127.0.0.1: REMOTE HOST IDENTIFICATION HAS CHANGED" in reports["other-bastion"].problem
    assert "from jump host 127.0.0.1: Connection refused" in reports["closed-behind"].problem
    assert "refused the login: Permission denied" in reports["stranger"].problem
    assert "did not run the script" in reports["no-root"].problem and "sudo: a password is required" in reports["no-root"].problem
    wait_until(lambda: sshd.connections() == 0)
