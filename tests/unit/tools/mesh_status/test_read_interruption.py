"""An interruption of status ends it at once, though it waits for machines and for the API server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.waiting import wait_until
from tools import PYTHONPATH
from tools.mesh_status import cli
from tools.mesh_status.read_machines import PARALLEL

STATUS = f"""
import sys
from concurrent.futures import ThreadPoolExecutor
from components.local import openssh, scripting
from tools.mesh_status import __main__, read, read_machines, read_state

def facts(*_):
    target = openssh.Target("m", openssh.Hop("127.0.0.2", accept_any_host_key=True))
    machines = [read_state.Machine(f"m-{{number}}", "product", target=target) for number in range({2 * PARALLEL})]
    with ThreadPoolExecutor() as pool:
        inside = pool.submit(scripting.call, ["kubectl", "bash -s"])
        read_machines.probe(machines, "")
        inside.result()

read.facts = facts
sys.exit(__main__.main())
"""
HANGS = """#!/bin/sh
case "$*" in *'bash -s'*) ;; *) exit ;; esac
echo "$$" >>"$NOTES"
exec sleep 600
"""


def begun(notes: Path) -> list[int]:
    """Return the processes of the programs that hang."""
    return [int(line) for line in notes.read_text().split()] if notes.exists() else []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_ends_what_it_waits_for_and_starts_nothing_more(number: signal.Signals, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    for name in ("ssh", "kubectl"):
        (tmp_path / name).write_text(HANGS)
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "NOTES": str(notes), "PYTHONPATH": PYTHONPATH}
    with subprocess.Popen([sys.executable, "-c", STATUS], env=environment, stderr=subprocess.PIPE, text=True) as status:
        wait_until(lambda: len(begun(notes)) == PARALLEL + 1, description="all that may hang at once does")
        status.send_signal(number)
        _, messages = status.communicate()
    assert (status.returncode, messages) == (cli.INTERRUPTED, "\nInterrupted.\n")
    assert len(begun(notes)) == PARALLEL + 1
    for process in begun(notes):
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
