"""Programs that put questions on their output, and read the answers."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import pytest

from components.local import conversation, scripting
from tests.support.processes import processes
from tests.support.waiting import wait_until

ASKS = 'cat <<END\none\nistio-vm-mesh: ask stop  now\nEND\nread -r reply\necho "got $reply"\necho error >&2\nexit 3\n'
WRAPPED = f"{{\n{ASKS}}}\n"


def private_sleep(directory: Path) -> Path:
    """Return the program sleep by a path that no other process has on its command line."""
    path = directory / "sleep"
    path.symlink_to("/bin/sleep")
    return path


def test_questions_are_answered_and_left_out_of_the_output() -> None:
    asked: list[str] = []

    def answer(words: str, pause: conversation.Pause) -> str:
        asked.append(words)
        return "no because\nof this"

    done = conversation.converse(["bash", "-s"], WRAPPED, 60, answer)
    assert (done.status, done.text, done.error) == (3, "one\ngot no because of this", "error")
    assert asked == ["stop  now"]


def test_the_time_of_an_answer_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(conversation, "monotonic", lambda: clock[0])

    def answer(words: str, pause: conversation.Pause) -> str:
        clock[0] += 1000
        return "yes"

    assert conversation.converse(["bash", "-s"], WRAPPED, 60, answer).status == 3


def test_an_answer_that_waits_ends_with_the_program(tmp_path: Path) -> None:
    """As where the SSH connection is lost, or the machine has waited for too long."""
    ended: list[BaseException] = []

    def answer(words: str, pause: conversation.Pause) -> str:
        pause(0)
        (tmp_path / "asked").touch()
        try:
            pause(3600)
        except conversation.Ended as error:
            ended.append(error)
            raise
        return "yes"

    text = f"{{\necho istio-vm-mesh: ask stop\nuntil [ -e {tmp_path}/asked ]; do sleep 0.1; done\necho no answer\nexit 5\n}}\n"
    done = conversation.converse(["bash", "-s"], text, 60, answer)
    assert (done.status, done.text) == (5, "no answer")
    assert ended


def test_without_answers_input_ends_and_a_question_is_output() -> None:
    done = conversation.converse(["bash", "-s"], WRAPPED, 60)
    assert (done.status, done.text) == (3, "one\nistio-vm-mesh: ask stop  now\ngot")


@pytest.mark.parametrize("program", ["exit 4", "exec <&-; exit 4", "head -c 10 >/dev/null; exit 4"])
def test_a_program_that_does_not_read_its_input_ends_all_the_same(program: str) -> None:
    done = conversation.converse(["bash", "-c", program], "x" * 1_000_000, 60, lambda words, pause: "yes")
    assert done.status == 4


def test_much_output_of_both_kinds_is_read() -> None:
    text = "yes out | head -n 100000; yes err | head -n 100000 >&2; exit\n"
    done = conversation.converse(["bash", "-s"], text, 60, lambda words, pause: "yes")
    assert (len(done.stdout), len(done.stderr)) == (400_000, 400_000)


@pytest.mark.slow
def test_a_program_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    child, began = private_sleep(tmp_path), tmp_path / "began"

    def text() -> str:
        wait_until(began.exists)
        return ""

    done = conversation.converse(["bash", "-c", f"echo begun; {child} 600 & touch {began}; wait"], text, 1)
    assert (done.status, done.text) == (scripting.TIMED_OUT, "begun")
    assert processes(str(child)) == []


@pytest.mark.slow
def test_a_program_that_closes_its_output_and_stays_is_ended(tmp_path: Path) -> None:
    child = private_sleep(tmp_path)
    done = conversation.converse(["bash", "-c", f"echo begun; exec >&- 2>&-; {child} 600"], "", 1)
    assert (done.status, done.text) == (scripting.TIMED_OUT, "begun")
    assert processes(str(child)) == []


@pytest.mark.parametrize("error", [scripting.Failed("no answer"), OSError("no answer")])
def test_what_an_answer_raises_ends_the_program(error: Exception) -> None:
    def answer(words: str, pause: conversation.Pause) -> str:
        raise error

    with pytest.raises(type(error), match="no answer"):
        conversation.converse(["bash", "-s"], WRAPPED, 60, answer)


def test_a_program_starts_before_its_text_is_there(tmp_path: Path) -> None:
    """ssh connects meanwhile, and the time for the program is not that of its text."""

    def text() -> str:
        wait_until((tmp_path / "began").exists)
        return "exit 7\n"

    done = conversation.converse(["bash", "-c", f"touch {tmp_path}/began; exec bash -s"], text, 60)
    assert done.status == 7


def test_a_text_that_fails_ends_the_program(tmp_path: Path) -> None:
    child = private_sleep(tmp_path)

    def text() -> str:
        raise scripting.Failed("no token")

    with pytest.raises(scripting.Failed, match="no token"):
        conversation.converse([str(child), "600"], text, 60)
    assert not processes(str(child))


@pytest.mark.parametrize("started", [0, 1, 2])
def test_an_interruption_ends_the_program_whenever_it_comes(started: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also while the threads that read and write are being started."""
    child = private_sleep(tmp_path)
    start, count = threading.Thread.start, itertools.count()

    def interrupted(thread: threading.Thread) -> None:
        if next(count) == started:
            raise SystemExit(143)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(SystemExit, match="143"):
        conversation.converse([str(child), "600"], "", 60)
    assert not processes(str(child))
