"""The units of machines: systemd accepts them, and their numbers are those of the program."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from components import names
from components.machines import bundle, files, proxy_metadata
from tests.support.scripts import COMPONENTS, Sourced, add_program

UNITS = COMPONENTS / "machines" / "units"
SCRIPTS = COMPONENTS / "machines" / "scripts"
AGENT_DRAIN_S = proxy_metadata.DRAIN_S
TARGETS = ("basic", "multi-user", "network-online", "shutdown", "sysinit")
PROGRAMS = ("bin/bash", "bin/sh", "bin/true", "opt/istio-vm-mesh/current/usr/local/bin/pilot-agent")
FILES = sorted(path.relative_to(UNITS).as_posix() for path in UNITS.rglob("*") if path.is_file())


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
    done = subprocess.run([*command, "istio-vm-mesh.service", "istio-vm-mesh-drain.service"], capture_output=True, text=True)
    return done.stderr or ("" if done.returncode == 0 else f"exit code {done.returncode}")


def test_systemd_accepts_the_units(root: Path) -> None:
    assert verify(root) == ""


@pytest.mark.parametrize("name", FILES)
def test_a_mistake_in_any_file_is_seen(root: Path, name: str) -> None:
    file = root / "etc/systemd/system" / name
    file.write_text(f"{file.read_text()}\n[Unit]\nRestrat=always\n")
    assert "Restrat" in verify(root)


def test_only_a_sidecar_redirects_and_withdraws() -> None:
    def paths(role: str) -> set[str]:
        return {file.path for file in bundle.role_files(role)}

    units = {"istio-vm-mesh-redirect.service", "istio-vm-mesh-undo.service", "istio-vm-mesh.service.d/sidecar.conf"}
    undo = f"{bundle.PROGRAMS}/scripts/undo.sh"
    assert paths("sidecar") - paths("router") == {undo, *(f"/etc/systemd/system/{name}" for name in units)}
    unit = (UNITS / "istio-vm-mesh.service").read_text()
    assert re.findall(r"(?:redirect|withdraw)\.sh.*", unit) == ["redirect.sh off"] * 2


def test_units_run_what_is_written() -> None:
    """Every file of ours that a unit names is one that the machine has, but those that are not of units."""
    texts = "\n".join((UNITS / name).read_text() for name in FILES)
    named = set(re.findall(r"/(?:var/lib|opt)/istio-vm-mesh/\S+", texts)) - {"/opt/istio-vm-mesh/current/usr/local/bin/pilot-agent"}
    named -= {"/var/lib/istio-vm-mesh/before/armed"}  # of a join, until it is complete
    written = {file.path for file in bundle.role_files("sidecar")}
    # A join runs the first one, and the other scripts read the second one.
    written -= {f"{bundle.PROGRAMS}/scripts/{name}.sh" for name in ("redirect_host", "redirect_firewall")}
    assert named == {files.CLUSTER_ENV, files.OVERRIDES_ENV, *(path for path in written if path.endswith(".sh"))}
    assert f"WorkingDirectory={bundle.STATE}\n" in texts


def test_the_agent_reads_where_its_probe_goes() -> None:
    """`redirect.sh on` runs before it, and knows the machine's addresses."""
    (path,) = re.findall(r"^PROBE=(\S+)", (SCRIPTS / "redirect.sh").read_text(), re.MULTILINE)
    assert f"EnvironmentFile=-{path}\n" in (UNITS / "istio-vm-mesh.service.d/sidecar.conf").read_text()
    assert path.startswith("/run/istio-vm-mesh-"), "what a leave removes"


def test_the_agent_goes_to_the_gateway_without_a_proxy_of_the_host() -> None:
    removed = re.findall(r"^UnsetEnvironment=(.*)", (UNITS / "istio-vm-mesh.service").read_text(), re.MULTILINE)
    assert {"http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "BASH_ENV"} <= set(" ".join(removed).split())


def test_envoy_may_have_as_many_connections_as_in_a_pod() -> None:
    """It raises the soft limit to the hard one at most, which systemd 239 and older have at 4096."""
    assert "\nLimitNOFILE=1048576\n" in (UNITS / "istio-vm-mesh.service").read_text()


def test_times_follow_from_istiods_grace_period(tmp_path: Path) -> None:
    sourced = Sourced(scripts=[SCRIPTS / "withdraw.sh"], programs=tmp_path)
    assert sourced.run("echo $GRACE_S").stdout == f"{names.DISCONNECT_GRACE}\n"
    assert sourced.run("echo $DRAIN_S").stdout == f"{AGENT_DRAIN_S}\n"
    drain = (UNITS / "istio-vm-mesh-drain.service").read_text()
    seconds = AGENT_DRAIN_S + names.DISCONNECT_GRACE + 2
    assert f"TimeoutStopSec={seconds + 10}\n" in drain
    assert seconds + 10 < 30, "a spot machine has half a minute"
    assert seconds + 10 > names.DISCONNECT_GRACE + 2 + proxy_metadata.MAX_GROUP_DRAIN_S, "the application stops last"
    gateway = (UNITS / "istio-vm-mesh.service").read_text()
    assert int(re.findall(r"TimeoutStopSec=(\d+)", gateway)[0]) > proxy_metadata.MAX_DRAIN_S
    sidecar = (UNITS / "istio-vm-mesh.service.d/sidecar.conf").read_text()
    stop = int(re.findall(r"TimeoutStopSec=(\d+)", sidecar)[0])
    assert stop > names.MAX_DISCONNECT_GRACE + 1 + AGENT_DRAIN_S
    slower = Sourced(scripts=[SCRIPTS / "withdraw.sh"], programs=tmp_path, environment={"DISCONNECT_GRACE_S": "90"})
    assert slower.run("echo $GRACE_S").stdout == "90\n"
    assert stop > proxy_metadata.MAX_DRAIN_S
    longer = Sourced(scripts=[SCRIPTS / "withdraw.sh"], programs=tmp_path, environment={"DRAIN_S": "45"})
    assert longer.run("echo $DRAIN_S").stdout == "45\n"
