"""Parts of a step run two at a time. The first failure, or an interruption, ends all of them."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support.waiting import wait_until
from tools import PYTHONPATH, process
from tools.lab import together
from tools.lab.offline import cache
from tools.steps import Display, Step, StepError, StepFailedError, Steps


@pytest.fixture
def steps(tmp_path: Path) -> Steps:
    return Steps("up", 1, Display(io.StringIO()), tmp_path / "logs", retry_command="the same command")


def test_two_parts_run_at_the_same_time_and_others_after_them(steps: Steps) -> None:
    both, started = threading.Barrier(2), list[str]()

    def meet(part: Step) -> None:
        started.append(part.title)
        both.wait()

    with steps.step("programs") as step:
        together.run(step, {"a": meet, "b": meet, "c": lambda part: started.append(part.title)})
    assert sorted(started[:2]) == ["a", "b"] and started[2:] == ["c"]


def test_the_note_has_all_parts_that_run_and_each_part_has_a_log(steps: Steps) -> None:
    noted = threading.Barrier(2)
    seen = list[str]()

    def build(part: Step) -> None:
        part.note(f"{part.title}: 1/2 packages")
        noted.wait()
        seen.append(step.detail)
        noted.wait()
        part.run(["echo", f"output of {part.title}"])
        part.line(f"{part.title} built")

    with steps.step("programs") as step:
        together.run(step, {"a": build, "root file": build})
    assert {frozenset(each.split("; ")) for each in seen} == {frozenset({"a: 1/2 packages", "root file: 1/2 packages"})}
    assert step.log.with_name("01-programs-a.log").read_text() == "$ echo output of a\noutput of a\na built\n"
    assert "output of root file" in step.log.with_name("01-programs-root-file.log").read_text()
    assert isinstance(steps.show.stream, io.StringIO)
    assert "        root file built\n" in steps.show.stream.getvalue()


def test_a_failure_names_its_part_shows_its_log_and_ends_the_others(steps: Steps) -> None:
    running, never = threading.Event(), list[str]()

    def long(part: Step) -> None:
        part.run(["sh", "-c", "echo $$; sleep 7777"], progress=lambda line: running.set())

    def fail(part: Step) -> None:
        running.wait()
        part.run(["sh", "-c", "echo no space left; exit 1"], hint="free some disk")

    parts = {"a": long, "b": fail, "c": lambda part: never.append(part.title)}
    with pytest.raises(StepFailedError) as failed, steps.step("programs") as step:
        together.run(step, parts)
    message = str(failed.value)
    assert "b: `sh -c echo no space left; exit 1` ended with code 1" in message
    assert "    no space left\n" in message
    assert "What to do: free some disk; then run" in message
    assert not never
    [group] = [line for line in step.log.with_name("01-programs-a.log").read_text().splitlines() if line.isdigit()]
    wait_until(lambda: not process._runs(int(group)))


def test_a_part_that_waits_for_another_run_is_ended_too(steps: Steps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISTIO_VM_MESH_CACHE", str(tmp_path / "cache"))
    key, waiting = cache.Key("thing", "v1", "x"), threading.Event()

    def wait(part: Step) -> None:
        def note(text: str) -> None:
            part.note(text)
            waiting.set()

        with cache.locked(key, note):
            pytest.fail("the lock is held")

    def fail(part: Step) -> None:
        waiting.wait()
        raise StepError("broken", show_log=False)

    with cache.locked(key), pytest.raises(StepFailedError, match="b: broken"), steps.step("programs") as step:
        together.run(step, {"a": wait, "b": fail})


PROGRAM = """
import signal, sys
from pathlib import Path
from tools.lab import together
from tools.process import Command
from tools.steps import Display, Steps
def stop(number, frame): raise KeyboardInterrupt
signal.signal(signal.SIGINT, stop)
steps = Steps("up", 1, Display(), Path(sys.argv[1]), retry_command="the same command")
def part(step):
    script = "trap '' TERM; sleep 7777 & echo started $$; wait; sleep 7777"
    step.run(Command(["sh", "-c", script], grace=0.3), progress=lambda line: sys.stdout.write(line + chr(10)) and sys.stdout.flush())
try:
    with steps.step("long") as step:
        together.run(step, {"a": part, "b": part, "c": part})
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_an_interruption_ends_the_process_groups_of_all_parts(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": PYTHONPATH}, stdout=subprocess.PIPE, text=True) as lab:
        assert lab.stdout
        groups = [int(lab.stdout.readline().split()[1]) for _ in range(2)]
        lab.send_signal(signal.SIGINT)
        assert lab.stdout.read() == "interrupted\n", "the third part does not start"
        wait_until(lambda: not any(process._runs(group) for group in groups))
