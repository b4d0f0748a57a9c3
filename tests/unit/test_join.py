"""The join on machines of several families, with stand-ins for their package managers; the lab's tests have the whole of it."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from components import shell

MAIN = "\nmain </dev/null\n"


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    directory = tmp_path / "bin"
    directory.mkdir()
    return directory


def program(programs: Path, name: str, text: str) -> None:
    file = programs / name
    file.write_text(f"#!/bin/bash\n{text}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def run(programs: Path, text: str, only: bool = False) -> subprocess.CompletedProcess[str]:
    """Run `text` with the functions of the join, and with `programs` first on PATH, or alone but for a few."""
    before, main, _ = shell.read_script("machines/join").partition(MAIN)
    assert main
    path = str(programs) if only else f"{programs}:{os.environ['PATH']}"
    start = f"MACHINE=m\nsleep() {{ echo slept; }}\n{before}\n"
    return subprocess.run(["/bin/bash", "-s"], input=start + text, capture_output=True, text=True, timeout=30, env={"PATH": path})


def test_a_package_waits_for_whoever_else_installs(programs: Path, tmp_path: Path) -> None:
    lock = "dpkg: error: dpkg frontend lock was locked by another process with pid 7"
    program(programs, "dpkg", f'echo x >>{tmp_path}/calls; [ $(wc -l <{tmp_path}/calls) -gt 2 ] || {{ echo "{lock}" >&2; exit 2; }}')
    done = run(programs, "install_deb p.deb")
    assert done.returncode == 0
    assert done.stdout.count("slept") == 2


def test_a_package_that_cannot_be_installed_fails_at_once_with_its_words(programs: Path) -> None:
    program(programs, "dpkg", 'echo "dpkg: dependency problems: istio-sidecar depends on iptables" >&2; exit 1')
    done = run(programs, "install_deb p.deb")
    assert done.returncode == 1
    assert "depends on iptables" in done.stdout and "slept" not in done.stdout


@pytest.mark.parametrize(
    ("manager", "machine", "package"),
    [
        ("dpkg", "x86_64", "deb/istio-sidecar.deb"),
        ("dpkg", "aarch64", "deb/istio-sidecar-arm64.deb"),
        ("rpm", "x86_64", "rpm/istio-sidecar.rpm"),
        ("rpm", "aarch64", "rpm/istio-sidecar-arm64.rpm"),
    ],
)
def test_the_package_fits_the_machine(programs: Path, manager: str, machine: str, package: str) -> None:
    for name, text in {
        **dict.fromkeys(("systemctl", "iptables", "curl", "sha256sum", manager), ""),
        "uname": f"echo {machine}",
        "df": "echo Avail; echo 9999999",
        "pgrep": "exit 1",
        "tail": "echo 9999999",
        "id": "echo 0",
    }.items():
        program(programs, name, text)
    done = run(programs, 'PACKAGE_URL="https://example.com/1.31.0/{package}"\npreflight\necho "$PACKAGE_URL"', only=True)
    assert done.stdout == f"https://example.com/1.31.0/{package}\n", done.stderr


def test_a_machine_of_another_family_is_refused(programs: Path) -> None:
    for name in ("systemctl", "iptables", "curl", "sha256sum", "pgrep"):
        program(programs, name, "")
    program(programs, "id", "echo 0")
    done = run(programs, "PACKAGE_URL=x\npreflight", only=True)
    assert done.returncode == 1
    assert "there is neither dpkg nor rpm" in done.stderr


def test_the_join_waits_for_the_stacks_setup_but_not_for_itself(programs: Path, tmp_path: Path) -> None:
    program(programs, "systemctl", f"echo x >>{tmp_path}/calls; [ $(wc -l <{tmp_path}/calls) -gt 3 ] && echo inactive || echo activating")
    assert run(programs, "wait_for_setup").stdout.count("slept") == 3
    (tmp_path / "calls").unlink()
    assert run(programs, "API_SERVER=https://x\nwait_for_setup").stdout == ""


@pytest.mark.parametrize(
    ("off", "cause"),
    [
        (-7200, "the clock is at least 120 minutes behind the cluster's"),
        (-60, ""),
        (0, ""),
        (3600 + 1800, "the clock is at least 30 minutes ahead of the cluster's, or this update began more than an hour ago"),
    ],
)
def test_a_clock_that_is_wrong_is_named(programs: Path, tmp_path: Path, off: int, cause: str) -> None:
    """By what the machine reports, before its agent is touched."""
    issued = 1_800_000_000
    claims = base64.urlsafe_b64encode(
        json.dumps({"aud": ["istio-ca"], "iat": issued, "exp": issued + 3600}, separators=(",", ":")).encode()
    )
    (tmp_path / "token").write_text(f"head.{claims.decode().rstrip('=')}.signature")
    program(programs, "date", f'[ "$*" = +%s ] && echo {issued + off} || echo "some day"')
    done = run(programs, f"TOKEN={tmp_path}/token\ncheck_clock")
    assert (done.returncode, cause in done.stderr) == (1 if cause else 0, True), done.stderr
    assert bool(done.stderr) == bool(cause)
