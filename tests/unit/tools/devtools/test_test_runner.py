"""`./scripts/test`: what is counted, what is said at the end, and what a failure or an interruption leads to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tools import FAILED, INTERRUPTED, OK, PYTHONPATH, ROOT
from tools.devtools import test_runner
from tools.devtools.test_runner import Part

TESTS = "import pytest\ndef test_good(): pass\ndef test_bad(): assert {good}\n@pytest.mark.skip\ndef test_skipped(): pass\n"


def pytest_part(directory: Path, good: bool) -> Part:
    (directory / "test_it.py").write_text(TESTS.format(good=good))
    return Part("tests", "pytest", ["-c", os.devnull, "--rootdir", directory, directory], {"CI": ""})


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Part]], int]:
    def start(parts: list[Part]) -> int:
        monkeypatch.setattr("sys.argv", ["test", "--quick"])
        monkeypatch.setattr(test_runner, "_prepare", lambda with_lab: {})
        monkeypatch.setattr(test_runner, "_parts", lambda environment, with_lab: parts)
        monkeypatch.setattr(test_runner.signal, "signal", lambda *arguments: None)
        return test_runner.main()

    return start


def test_what_passed_is_counted(run: Callable[[list[Part]], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([Part("platform", "platform", []), pytest_part(tmp_path, good=True)]) == OK
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-3:-1]] == ["platform", "tests"]
    assert " 2 passed, 1 skipped in " in lines[-1]


def test_every_part_runs_and_one_that_failed_fails_all(
    run: Callable[[list[Part]], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([Part("no module", "no_such_module", []), pytest_part(tmp_path, good=False)]) == FAILED
    assert " 2 failed, 1 passed, 1 skipped in " in capsys.readouterr().out.splitlines()[-1]


def test_no_tests_are_a_failure(tmp_path: Path) -> None:
    part = Part("tests", "pytest", ["-c", os.devnull, "--rootdir", tmp_path, tmp_path])
    part.run()
    assert (part.code, part.outcome()) == (5, Counter(failed=1))


def test_an_interruption_lets_the_tests_put_things_in_order(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pathlib, pytest, time\n"
        "here = pathlib.Path(__file__).parent\n"
        "@pytest.fixture\ndef lab():\n    (here / 'up').touch()\n    yield\n    time.sleep(0.5)\n    (here / 'down').touch()\n"
        "def test_it(lab): time.sleep(60)\n"
    )
    program = f"""
import sys
from tools.devtools import test_runner
test_runner._prepare = lambda with_lab: {{}}
test_runner._parts = lambda *_: [test_runner.Part("tests", "pytest", ["-c", "/dev/null", "--rootdir", {str(tmp_path)!r}, {str(tmp_path)!r}])]
sys.argv = ["test", "--quick"]
sys.exit(test_runner.main())
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not (tmp_path / "up").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == INTERRUPTED, output
    assert (tmp_path / "down").exists(), output


def test_help_needs_no_environment() -> None:
    done = subprocess.run([sys.executable, "-S", ROOT / "scripts" / "test", "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "usage: ./scripts/test" in done.stdout
