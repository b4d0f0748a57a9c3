"""Steps say what they do and how far they are; a failure says which step, why, and what to do; nothing outlives an interruption."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.waiting import wait_until
from tools import PYTHONPATH, process
from tools.steps import Display, StepError, StepFailedError, Steps, seconds

Make = Callable[..., tuple[Steps, io.StringIO]]
TIME = r"\d+(\.\d)? s"


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def steps(command: str = "up", heartbeat: float = 15.0) -> tuple[Steps, io.StringIO]:
        stream = io.StringIO()
        return Steps(command, 12, Display(stream, heartbeat), tmp_path / "logs", retry_command=f"./scripts/lab {command}"), stream

    return steps


def test_a_step_is_one_line_with_its_time(make: Make) -> None:
    steps, stream = make()
    with steps.step("istio binaries") as step:
        step.run(["echo", "compiling"])
        step.summary = "from the cache"
    assert re.fullmatch(rf"\[ 1/12\] istio binaries … {TIME} \(from the cache\)\n", stream.getvalue())
    assert step.log.name == "01-istio-binaries.log"
    assert step.log.read_text() == "$ echo compiling\ncompiling\n"


def test_a_long_step_shows_that_it_lives(make: Make, tmp_path: Path) -> None:
    steps, stream = make(heartbeat=0.02)
    enough, started = tmp_path / "enough", time.monotonic()

    def watch() -> None:
        wait_until(lambda: stream.getvalue().count(" (2/2 packages)\n") > 1)
        enough.touch()

    with ThreadPoolExecutor(1) as threads, steps.step("images") as step:
        threads.submit(watch)
        script = f"echo 1; echo 2; until [ -e {enough} ]; do sleep 0.01; done"
        step.run(["sh", "-c", script], progress=lambda line: f"{line}/2 packages")
    beats = stream.getvalue().splitlines()[:-1]
    assert len(beats) <= (time.monotonic() - started) / 0.02
    assert all(re.fullmatch(rf"\[ 1/12\] images … {TIME}( \([12]/2 packages\))?", beat) for beat in beats), beats


def test_parts_and_lines_stay(make: Make) -> None:
    steps, stream = make()
    with steps.step("images") as step, step.part("node image"):
        step.line("one resource")
    assert re.search(rf"^        one resource\n        node image: {TIME}$", stream.getvalue(), re.MULTILINE)
    assert "one resource" in step.log.read_text()


def test_a_failure_names_step_cause_log_and_cure(make: Make) -> None:
    steps, _ = make()
    with pytest.raises(StepFailedError) as failed, steps.step("container engine") as step:
        step.run(["sh", "-c", "seq 50; exit 3"], hint="free some disk")
    message = str(failed.value).splitlines()
    assert re.fullmatch(rf"\[ 1/12\] container engine failed after {TIME}: `sh -c seq 50; exit 3` ended with code 3", message[0])
    assert message[2:-2] == [f"    {number}" for number in range(21, 51)]
    assert message[-2] == f"The whole log: {step.log}"
    assert message[-1] == "What to do: free some disk; then run ./scripts/lab up again; what is done is kept."


def test_a_failure_without_a_use_for_the_log_does_not_show_it(make: Make) -> None:
    steps, _ = make("down")
    with pytest.raises(StepFailedError) as failed, steps.step("x") as step:
        step.write("noise")
        raise StepError("root is needed", "run it with sudo", show_log=False)
    assert "noise" not in str(failed.value)
    assert "run ./scripts/lab down again" in str(failed.value)


def test_a_missing_program_is_an_error_of_one_sentence(make: Make) -> None:
    steps, _ = make()
    with pytest.raises(StepFailedError, match="no-such-program cannot be started: No such file or directory"), steps.step("x") as step:
        step.run(["no-such-program"])


def test_captured_output_is_a_result_and_not_logged(make: Make) -> None:
    steps, _ = make()
    with steps.step("x") as step:
        done = step.run(process.Command(["sh", "-c", "echo result; echo trouble >&2; cat"], capture=True, stdin=b"input"))
    assert done.output == "result\ninput"
    assert "trouble" in step.log.read_text()
    assert "result" not in step.log.read_text().replace("echo result", "")


def test_logs_of_the_last_run_of_the_same_command_are_replaced(make: Make, tmp_path: Path) -> None:
    for command in ("up", "down", "up"):
        with make(command)[0].step("one"):
            pass
    with make()[0].step("two"):
        pass
    assert sorted(file.name for file in (tmp_path / "logs").iterdir()) == ["01-two.log", "down-01-one.log"]


PROGRAM = """
import signal, sys
from pathlib import Path
from tools.process import Command
from tools.steps import Display, Steps
def stop(number, frame): raise KeyboardInterrupt
signal.signal(signal.SIGTERM, stop)
steps = Steps("up", 1, Display(), Path(sys.argv[1]), retry_command="the same command")
try:
    with steps.step("long") as step:
        step.run(Command(["sh", "-c", "trap '' TERM; sleep 7777 & echo started $$; wait; sleep 7777"], grace=0.3), progress=lambda line: print(line, flush=True))
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_an_interruption_ends_the_whole_process_group(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": PYTHONPATH}, stdout=subprocess.PIPE, text=True) as lab:
        assert lab.stdout
        group = int(lab.stdout.readline().split()[1])
        lab.send_signal(signal.SIGTERM)
        assert lab.stdout.readline() == "interrupted\n"
        wait_until(lambda: not process._runs(group))


@pytest.mark.parametrize(
    ("value", "text"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (41.2, "41 s"), (372, "6 min 12 s"), (60, "1 min 00 s")]
)
def test_durations_are_for_people(value: float, text: str) -> None:
    assert seconds(value) == text
