"""The units of machines: systemd accepts them, and their numbers are those of the program."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from components import names
from components.machines import files
from tests.support.scripts import COMPONENTS, Sourced, add_program

UNITS = COMPONENTS / "machines" / "units"
SCRIPTS = COMPONENTS / "machines" / "scripts"
AGENT_DRAIN_S = 5  # Istio's terminationDrainDuration, by default
TARGETS = ("basic", "multi-user", "network-online", "shutdown", "sysinit")
PROGRAMS = ("bin/bash", "bin/sh", "bin/true", "usr/bin/install", "usr/bin/ln", "usr/local/bin/pilot-agent")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree in which the units are, with stand-ins for all that they name."""
    shutil.copytree(UNITS, tmp_path / "etc/systemd/system")
    for target in TARGETS:
        file = tmp_path / f"usr/lib/systemd/system/{target}.target"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("[Unit]\nDescription=stand-in\n")
    for program in PROGRAMS:
        (tmp_path / program).parent.mkdir(parents=True, exist_ok=True)
        add_program((tmp_path / program).parent, Path(program).name, "")
    return tmp_path


def verify(root: Path) -> str:
    """What systemd says of the units; "" if nothing."""
    command = ["systemd-analyze", "verify", "--man=no", "--generators=no", f"--root={root}"]
    done = subprocess.run([*command, "istio.service", "istio-drain.service"], capture_output=True, text=True)
    return done.stderr or ("" if done.returncode == 0 else f"exit code {done.returncode}")


def test_systemd_accepts_the_units(root: Path) -> None:
    assert verify(root) == ""


@pytest.mark.parametrize("name", ["istio.service", "istio.service.d/sidecar.conf", "istio.service.d/drain.conf", "istio-drain.service"])
def test_a_mistake_in_any_file_is_seen(root: Path, name: str) -> None:
    file = root / "etc/systemd/system" / name
    file.write_text(f"{file.read_text()}\n[Unit]\nRestrat=always\n")
    assert "Restrat" in verify(root)


def test_only_a_sidecar_redirects_and_withdraws() -> None:
    def paths(role: str) -> set[str]:
        return {file.path for file in files.agent_files(role)}

    assert paths("sidecar") - paths("router") == {"/etc/systemd/system/istio.service.d/sidecar.conf"}
    unit = (UNITS / "istio.service").read_text()
    assert re.findall(r"(?:redirect|withdraw)\.sh.*", unit) == ["redirect.sh off"] * 2


def test_units_run_what_is_written() -> None:
    """Every file of ours that a unit names is one that the machine has."""
    texts = "\n".join(path.read_text() for path in UNITS.rglob("*") if path.is_file())
    named = set(re.findall(r"/var/lib/istio/\S+", texts))
    assert named == {files.CLUSTER_ENV, files.OVERRIDES_ENV, files.REDIRECT, files.WITHDRAW, "/var/lib/istio/envoy/istio-token"}
    assert "TOKEN_FILE=/var/lib/istio/envoy/istio-token\n" in (SCRIPTS / "join.sh").read_text()


def test_times_follow_from_istiods_grace_period(tmp_path: Path) -> None:
    sourced = Sourced(scripts=[SCRIPTS / "withdraw.sh"], programs=tmp_path)
    assert sourced.run("echo $GRACE_S").stdout == f"{names.DISCONNECT_GRACE}\n"
    drain = (UNITS / "istio-drain.service").read_text()
    seconds = AGENT_DRAIN_S + names.DISCONNECT_GRACE + 2
    assert f"&& sleep {seconds}'" in drain and f"TimeoutStopSec={seconds + 10}\n" in drain
    assert seconds < 30, "a spot machine has half a minute"
    stop = int(re.findall(r"TimeoutStopSec=(\d+)", (UNITS / "istio.service").read_text())[0])
    assert stop > names.DISCONNECT_GRACE + 1 + AGENT_DRAIN_S
