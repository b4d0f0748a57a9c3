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

from tools import FAILED, INTERRUPTED, OK, PYTHONPATH
from tools.devtools import test_runner
from tools.devtools.test_runner import Report, Stage, python

ALONE = {"CI": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
"""Environment of a pytest that needs no plugins, whose import takes longer than its tests."""
TESTS = "import pytest\ndef test_good(): pass\ndef test_bad(): assert {good}\n@pytest.mark.skip\ndef test_skipped(): pass\n"


def pytest_stage(directory: Path, good: bool) -> Stage:
    (directory / "test_it.py").write_text(TESTS.format(good=good))
    return Stage("tests", python("pytest", "-c", os.devnull, "--rootdir", directory, directory), ALONE)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Stage]], int]:
    def start(stages: list[Stage]) -> int:
        monkeypatch.setattr("sys.argv", ["test", "--quick"])
        monkeypatch.setattr(test_runner, "prepare", lambda with_lab: {})
        monkeypatch.setattr(test_runner, "_stages", lambda environment, with_lab: stages)
        monkeypatch.setattr(test_runner.signal, "signal", lambda *arguments: None)
        return test_runner.main()

    return start


@pytest.mark.slow
def test_what_passed_is_counted(run: Callable[[list[Stage]], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([Stage("platform", python("platform")), pytest_stage(tmp_path, good=True)]) == OK
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-3:-1]] == ["platform", "tests"]
    assert " 2 passed, 1 skipped in " in lines[-1]


def test_every_stage_runs_and_one_that_failed_fails_all(
    run: Callable[[list[Stage]], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([Stage("no module", python("no_such_module")), pytest_stage(tmp_path, good=False)]) == FAILED
    assert " 2 failed, 1 passed, 1 skipped in " in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.slow
def test_no_tests_are_a_failure(tmp_path: Path) -> None:
    stage = Stage("tests", python("pytest", "-c", os.devnull, "--rootdir", tmp_path, tmp_path), ALONE)
    stage.run()
    assert (stage.code, stage.outcome()) == (5, Counter(failed=1))


def test_the_summary_has_the_seconds_of_each_scenario(
    run: Callable[[list[Stage]], int], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(test_runner, "LAB_TESTS", "test_it")
    assert run([pytest_stage(tmp_path, good=True)]) == OK
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-3:-1]] == ["tests", "test_it"]
    assert lines[-2].endswith(" s")


@pytest.mark.slow
def test_quick_tests_over_their_budget_are_listed_and_pass(
    run: Callable[[list[Stage]], int], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(test_runner, "QUICK_BUDGET_S", 0.01)
    assert run([pytest_stage(tmp_path, good=True)]) == OK
    assert "--quick may use 0.01 s" in capsys.readouterr().out
    monkeypatch.setattr(test_runner, "QUICK_BUDGET_S", 1000)
    assert run([pytest_stage(tmp_path, good=True)]) == OK
    printed = capsys.readouterr().out
    assert "--quick may use" not in printed and "\n  test_it " in printed


def test_quick_tests_start_no_engine() -> None:
    quick, everything = (test_runner._stages({}, with_lab)[4].command for with_lab in (False, True))
    assert "not slow" in quick and "not slow" not in everything
    assert {*everything} - {*quick} >= {"tests/engine", "tests/plugins", "tests/library"}


def test_times_are_summed_by_test_file(tmp_path: Path) -> None:
    cases = "".join(
        f'<testcase classname="{name}" time="{spent}"/>' for name, spent in (("tests.conftest.TestIt", 1.5), ("tests.conftest", 2))
    )
    (tmp_path / "report.xml").write_text(f'<testsuites><testsuite tests="2" failures="1">{cases}</testsuite></testsuites>')
    report = Report.read(tmp_path / "report.xml")
    assert report.seconds == {"tests/conftest.py": 3.5}
    assert report.tests == Counter(failed=1, passed=1)


@pytest.mark.slow
def test_an_interruption_lets_the_tests_put_things_in_order(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pathlib, pytest, time\n"
        "here = pathlib.Path(__file__).parent\n"
        "@pytest.fixture\ndef lab():\n    yield\n    time.sleep(0.5)\n    (here / 'down').touch()\n"
        "def test_it(lab):\n    (here / 'up').touch()\n    time.sleep(600)\n"
    )
    program = f"""
import sys
from tools.devtools import test_runner
test_runner.prepare = lambda with_lab: {{}}
test_runner._stages = lambda *_: [test_runner.Stage("tests", test_runner.python("pytest", "-c", "/dev/null", "--rootdir", {str(tmp_path)!r}, {str(tmp_path)!r}))]
sys.argv = ["test", "--quick"]
sys.exit(test_runner.main())
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, **ALONE, "PYTHONPATH": PYTHONPATH},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not (tmp_path / "up").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate()
    assert process.returncode == INTERRUPTED, output
    assert (tmp_path / "down").exists(), output
