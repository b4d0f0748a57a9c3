"""Local ports lead to machines on Google Cloud while a command runs; a stand-in for gcloud answers instead of Google's proxy."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import PYTHONPATH

PORT = 27805  # of product-1, from its name


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """Ports follow from the machines' names: two of these tests at once, in whatever checkout, would take them from each other."""
    with (Path(tempfile.gettempdir()) / f"istio-vm-mesh-{os.getuid()}-test-tunnels").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture
def gcloud(tmp_path: Path) -> Path:
    """A gcloud that writes down how it was called and echoes the connection; without `tmp_path`/up it fails as for a machine that is not there."""
    file = tmp_path / "bin" / "gcloud"
    file.parent.mkdir()
    file.write_text(
        f'#!/bin/bash\necho "$@" >>{tmp_path}/calls\n[ -e {tmp_path}/up ] || {{ echo "ERROR: not found" >&2; exit 1; }}\nexec cat\n'
    )
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return file


def tunnels(gcloud: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{gcloud.parent}:{os.environ['PATH']}", "PYTHONPATH": PYTHONPATH}
    return subprocess.run(
        [sys.executable, "-m", "tools.iap_tunnels", *arguments], env=environment, capture_output=True, text=True, timeout=60
    )


SAY = (
    "import socket, sys\n"
    f"with socket.create_connection(('127.0.0.1', {PORT})) as s:\n"
    "    s.sendall(b'hello'); s.shutdown(socket.SHUT_WR)\n"
    "    sys.stdout.write(s.makefile().read())\n"
    "sys.exit(7)"
)


def test_a_connection_goes_to_its_machine_and_the_commands_exit_code_is_ours(gcloud: Path, tmp_path: Path) -> None:
    (tmp_path / "up").touch()
    done = tunnels(gcloud, "single-network", sys.executable, "-c", SAY)
    assert (done.returncode, done.stdout, done.stderr) == (7, "hello", "")
    call = (tmp_path / "calls").read_text()
    assert call.startswith(
        "compute start-iap-tunnel single-network-product-1 22 --listen-on-stdin --project=my-project --zone=europe-west1-b"
    )


def test_a_machine_that_is_not_there_yet_hangs_up_and_says_why(gcloud: Path) -> None:
    done = tunnels(gcloud, "single-network", sys.executable, "-c", SAY)
    assert (done.returncode, done.stdout) == (7, "")
    assert "tunnel to single-network-product-1: ERROR: not found" in done.stderr


def test_nothing_listens_before_and_after(gcloud: Path) -> None:
    assert tunnels(gcloud, "single-network", "true").returncode == 0
    with socket.socket() as other:
        assert other.connect_ex(("127.0.0.1", PORT)) != 0


def test_a_taken_port_is_named(gcloud: Path) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", PORT))
        taken.listen()
        done = tunnels(gcloud, "single-network", "true")
    assert done.returncode == 1
    assert f"port {PORT} for single-network-product-1 is not free" in done.stderr


def test_the_ports_are_printed_without_a_command(gcloud: Path) -> None:
    done = tunnels(gcloud, "multi-network")
    assert [line.split("\t")[1] for line in done.stdout.splitlines()] == [
        "multi-network-far-gateway-1",
        "multi-network-far-gateway-2",
        "multi-network-product-1",
    ]


@pytest.mark.parametrize(("stack", "says"), [("nowhere", "nowhere: there is no stack file"), ("../x", "../x: there is no stack file")])
def test_a_stack_that_is_not_there_is_named(gcloud: Path, stack: str, says: str) -> None:
    done = tunnels(gcloud, stack, "true")
    assert done.returncode == 1 and says in done.stderr
