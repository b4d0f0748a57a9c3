"""A script that is interrupted ends, whatever its threads do."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from components.local import openssh, scripting
from tests.support.fake_programs import Programs
from tests.support.waiting import wait_until

ROOT = Path(scripting.__file__).parents[2]
BUSY = """
import dataclasses, threading, time, types
from components.local import scripting

def start_programs():
    while True:
        scripting.call(["true"])

def run(payload):
    threading.Thread(target=start_programs, daemon=True).start()
    print("begun", flush=True)
    while True:
        time.sleep(0.05)

@dataclasses.dataclass
class Payload:
    pass

scripting.main(types.SimpleNamespace(Payload=Payload, run=run), "create")
"""


@pytest.mark.parametrize("attempt", range(5))
def test_an_interruption_is_not_lost_while_a_thread_starts_a_program(attempt: int) -> None:
    words = [sys.executable, "-c", BUSY]
    with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        process.stdin.write('{"create": {}}')
        process.stdin.close()
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait() == 128 + signal.SIGTERM
        finally:
            process.kill()


HANGUP = """
import dataclasses, types
from components.local import scripting

def run(payload):
    print(scripting.call(["sh", "-c", "kill -HUP $$; echo still there"]).status, flush=True)

@dataclasses.dataclass
class Payload:
    pass

scripting.main(types.SimpleNamespace(Payload=Payload, run=run), "create")
"""


@pytest.mark.parametrize("nohup", [[], ["nohup"]], ids=str)
def test_programs_end_on_a_hangup_also_under_nohup(nohup: list[str]) -> None:
    """ssh ends what connects it to a server by SIGHUP, and what is left would hold its output open."""
    words = [*nohup, sys.executable, "-c", HANGUP]
    done = subprocess.run(words, cwd=ROOT, input='{"create": {}}', capture_output=True, text=True)
    assert done.stdout.strip() == str(-signal.SIGHUP), done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_private_files_go_with_the_process_that_wrote_them(number: int) -> None:
    holder = """
from components.local import scripting
with scripting.private_directory() as directory:
    scripting.write_private(directory / "key", "private")
    (directory / "another").mkdir()
    print(directory, oct(directory.stat().st_mode), flush=True)
    input()
"""
    words = [sys.executable, "-c", holder]
    with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        directory, mode = process.stdout.readline().split()
        assert mode == "0o40700" and Path(directory, "key").exists()
        process.send_signal(number)
        process.wait()
        wait_until(lambda: not Path(directory).exists())


def test_private_files_are_removed_at_the_end_of_their_use() -> None:
    with scripting.private_directory() as directory:
        scripting.write_private(directory / "key", "private")
    assert not directory.exists()


@pytest.mark.parametrize("lines", [0, 10_000], ids=["short", "longer than a pipe holds"])
def test_the_result_of_a_script_is_printed_to_its_end(programs: Programs, lines: int) -> None:
    output = "a line of evidence\n" * lines + "done"
    programs.add("ssh", ("bash -s", 0, f"{openssh.MARK}\n{output}", ""))
    target = {"machine": "billing-1", "hop": {"host": "192.0.2.7", "accept_any_host_key": True}}
    done = programs.run("local/over_ssh.py", {"target": target, "script": "true\n"})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"stdout": output}
