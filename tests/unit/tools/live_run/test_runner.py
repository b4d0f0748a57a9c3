"""Runs of rows: stopped at the first surprise, taken down whatever happens, and reported."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.waiting import wait_until
from tools.live_run import commands, report, runner
from tools.live_run.__main__ import main
from tools.live_run.rows import LiveRun, Row
from tools.live_run.runner import Run, State

DOWN = (Row(shows="one", look="", run="echo one >>down"), Row(shows="two", look="", run="echo two >>down"))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Make a run of some rows in an empty directory. Its stack file is there."""
    monkeypatch.setattr(commands, "ROOT", tmp_path)
    monkeypatch.setattr(commands, "GRACE_S", 20.0)
    file = tmp_path / "stack.yaml"
    file.write_text("protection: true\n")

    def make(*rows: Row, down: tuple[Row, ...] = DOWN, leftovers: tuple[str, ...] = ()) -> Run:
        live_run = LiveRun((), (), rows, down, leftovers)
        lines: list[str] = []
        return Run(live_run, {"PATH": "/usr/bin:/bin", "STACK": "mine"}, lines.append, lambda: None, file)

    return make


def test_a_stack_without_a_file_is_refused_by_name(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert main(["single-netwrok"]) == 2
    assert "Pulumi.single-netwrok.yaml (did you mean 'single-network'?)" in capsys.readouterr().err


def command(text: str, **more: object) -> Row:
    return Row(shows=text, look="", run=text, **more)  # type: ignore[arg-type]


def states(run: Run) -> list[str]:
    return [str(each.state) for each in run.results]


def test_rows_run_in_their_order_with_the_stacks_variables(run: Callable[..., Run], tmp_path: Path) -> None:
    it = run(command('echo "$STACK" >up'), command("cat up", expect=["^mine$"]))
    it.up()
    assert states(it) == ["seen", "seen"] and it.surprise is None


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        (command("exit 3"), "the command ended with 3"),
        (command("false; true"), "the command ended with 1"),
        (command("false | true"), "the command ended with 1"),
        (command("echo no", expect=["yes"]), "the output has no match for yes"),
        (command("echo UNHEALTHY", refuse=["UNHEALTHY"]), "the output has 'UNHEALTHY'"),
        (command("true", fails=True), "the command ended with 0, and should fail"),
        (command("echo other; exit 1", fails=True, expect=["protect"]), "the output has no match for protect"),
    ],
)
def test_the_first_surprise_ends_the_run(run: Callable[..., Run], row: Row, cause: str, tmp_path: Path) -> None:
    it = run(command("true"), row, command("touch too-far"))
    it.up()
    assert states(it) == ["seen", "surprise", "not run"]
    assert it.surprise and it.surprise.text.startswith(cause)
    assert not (tmp_path / "too-far").exists()


def test_a_command_that_must_fail_and_does_is_no_surprise(run: Callable[..., Run]) -> None:
    it = run(command("echo it is protected; exit 1", fails=True, expect=["protect"]))
    it.up()
    assert states(it) == ["seen"]


def test_a_row_of_another_one_is_shown_with_it_and_a_persons_is_left(run: Callable[..., Run]) -> None:
    by, hand = Row(shows="too", look="", by="up"), Row(shows="look", look="", hand="look at it")
    it = run(command("true", name="up"), by, hand, Row(shows="not", look="", by="absent"))
    it.up()
    assert states(it) == ["seen", "seen", "by hand", "not run"]


def test_every_step_down_runs_whatever_became_of_the_others(run: Callable[..., Run], tmp_path: Path) -> None:
    it = run(command("false"), down=(command("false"), *DOWN))
    it.up()
    assert not it.down()
    assert (tmp_path / "down").read_text() == "one\ntwo\n"


def test_down_leaves_the_stacks_file_as_it_was(run: Callable[..., Run], tmp_path: Path) -> None:
    """Others that read it at the same time find all of it: it is replaced, and only where it changed."""
    file = tmp_path / "stack.yaml"
    file.chmod(0o640)
    before = file.stat()
    assert run(down=(command("true"),)).down()
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    with file.open() as reader:
        assert run(down=(command("echo 'protection: false' >stack.yaml"),)).down()
        assert reader.read() == "protection: false\n"
    assert (file.read_text(), file.stat().st_mode) == ("protection: true\n", before.st_mode)
    assert list(tmp_path.iterdir()) == [file]


def test_what_was_not_there_before_is_left(run: Callable[..., Run], tmp_path: Path) -> None:
    listing = "touch things; cat things; : gcloud compute disks list --project p"
    (tmp_path / "things").write_text("theirs\n")
    it = run(command("echo ours >>things"), leftovers=(listing,))
    it.remember()
    it.up()
    assert not it.down()
    assert len(it.left) == 1 and it.left[0].endswith("ours") and "theirs" not in it.left[0]
    (tmp_path / "things").write_text("theirs\n")
    assert it.down() and it.left == []


@pytest.mark.parametrize("failed_before", [True, False])
def test_a_list_that_fails_does_not_say_that_nothing_is_left(run: Callable[..., Run], tmp_path: Path, failed_before: bool) -> None:
    """The same error before and after is no sign of that either."""
    listing = "[ ! -e no-login ] || { echo ERROR no login; exit 1; }; touch things; cat things; : gcloud compute disks list --project p"
    it = run(command("echo ours >>things"), leftovers=(listing,))
    if failed_before:
        (tmp_path / "no-login").touch()
    it.remember()
    it.up()
    (tmp_path / "no-login").touch()
    assert not it.down()
    assert len(it.left) == 1 and "unknown, because the list failed" in it.left[0]
    (tmp_path / "no-login").unlink()
    assert not it.down() and it.left[0].endswith("ours")


def interrupt_once(file: Path) -> threading.Thread:
    """Interrupt this process as soon as a file is there, and then create the file `sent` beside it."""

    def send() -> None:
        wait_until(file.exists)
        os.kill(os.getpid(), signal.SIGINT)  # it reaches the main thread, which waits for a command
        file.with_name("sent").touch()

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def test_an_interrupted_command_ends_in_order(run: Callable[..., Run], tmp_path: Path) -> None:
    """Pulumi saves its state then. A signal of the terminal would reach it twice, and end it at once."""
    it = run(command("trap 'echo in order >ended; exit 1' INT; touch began; while :; do sleep 0.1; done"))
    thread = interrupt_once(tmp_path / "began")
    with pytest.raises(KeyboardInterrupt):
        it.up()
    thread.join()
    assert (tmp_path / "ended").read_text() == "in order\n"
    assert it.down()


def test_one_interruption_does_not_end_the_way_down(run: Callable[..., Run], tmp_path: Path) -> None:
    waits = command("touch began; until [ -e sent ]; do sleep 0.1; done; echo down >>down")
    it = run(down=(waits, *DOWN))
    thread = interrupt_once(tmp_path / "began")
    assert it.down()
    thread.join()
    assert (tmp_path / "down").read_text() == "down\none\ntwo\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_report_strikes_out_what_was_seen_and_shows_the_surprise(run: Callable[..., Run]) -> None:
    it = run(command("true"), Row(shows="look", look="", hand="look at it"), command("echo why; false"), command("never"))
    it.up()
    summary = report.Summary(
        stack="mine",
        project="p",
        began="2026-11-26 12:00",
        cost="1.23 US dollars, at list prices and without n4-standard-2",
        left=["disks: a"],
    )
    text = report.text(summary, it.results)
    assert "| ~~true~~ | ~~`true`~~ | ~~~~ | seen |" in text
    assert "| look | by hand: look at it |  | by hand |" in text
    assert "| never | `never` |  | not run |" in text
    assert "**surprise**" in text and "```\nthe command ended with 1\n\nwhy\n```" in text
    assert "So far it cost about 1.23 US dollars, at list prices and without n4-standard-2." in text and "- disks: a" in text


def test_a_surprise_has_the_last_lines_of_its_output(run: Callable[..., Run]) -> None:
    it = run(command("seq 1 100; false"))
    it.up()
    assert it.surprise and it.surprise.text.splitlines()[2:] == [str(number) for number in range(81, 101)]
    assert runner.State.SURPRISE is State.SURPRISE
