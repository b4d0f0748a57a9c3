"""Runs a program that may put questions on its standard output, and answers them.

A line `istio-vm-mesh: ask WORDS` is a question. Its answer is one line of standard input. An answer
that takes long waits by the pause that it is given, which ends as soon as the program does.
"""

from __future__ import annotations

import contextlib
import queue
import subprocess
import threading
from collections.abc import Callable, Sequence
from time import monotonic

from . import scripting

ASK = "istio-vm-mesh: ask "

Pause = Callable[[float], None]
"""Passes seconds. Raises Ended as soon as the program that waits for the answer has ended."""
Text = str | Callable[[], str]
Answer = Callable[[str, Pause], str]
"""Returns the answer to a question, one line, from the question's words."""


class Ended(Exception):
    """The program ended before it had its answer."""


def converse(
    words: Sequence[str],
    text: Text,
    timeout_s: float,
    answer: Answer | None = None,
) -> scripting.Done:
    """Run a program to its end; return how it ended, with the questions left out of its output.

    text: what it reads first. A function returns it while the program starts.
    timeout_s: seconds in which it must end; the time that `text` and `answer` take does not count.
    answer: answers a question. Without it standard input ends after `text`, and a question is
        output.

    Raises what `text` raises, and what `answer` raises but Ended, after the program was ended, and scripting.Failed where
    the program is not on PATH.
    """
    lines: queue.Queue[bytes | None] = queue.Queue()
    errors: list[bytes] = []
    output: list[bytes] = []
    workers: list[threading.Thread] = []
    ended = threading.Event()

    def pause(seconds: float) -> None:
        if ended.wait(seconds):
            raise Ended

    left_s = timeout_s
    # An interruption raises wherever a function is called: none is between the start and `try`.
    process = scripting.start(words)
    try:
        stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
        assert stdin and stdout and stderr

        content = (text if isinstance(text, str) else text()).encode()

        def write() -> None:
            with contextlib.suppress(OSError):  # a program that has ended reads nothing
                stdin.write(content)
                stdin.flush()
                if not answer:
                    stdin.close()

        def read() -> None:
            for line in stdout:
                lines.put(line)
            ended.set()
            lines.put(None)

        def read_errors() -> None:
            errors.append(stderr.read())

        for target in (write, read, read_errors):
            workers.append(threading.Thread(target=target, daemon=True))
            workers[-1].start()
        while True:
            before = monotonic()
            line = lines.get(timeout=max(left_s, 0))
            left_s -= monotonic() - before
            if line is None:
                break
            question = line.decode(errors="replace").rstrip("\r\n")
            if answer and question.startswith(ASK):
                try:
                    reply = " ".join(answer(question[len(ASK) :], pause).split())
                except Ended:
                    continue
                workers[0].join()
                with contextlib.suppress(OSError):
                    stdin.write(f"{reply}\n".encode())
                    stdin.flush()
            else:
                output.append(line)
        status = process.wait(max(left_s, 1))
    except (queue.Empty, subprocess.TimeoutExpired):
        scripting.end(process)
        process.wait()
        status = scripting.TIMED_OUT
        output += iter(lines.get, None)
    except BaseException:
        scripting.end(process)
        process.wait()
        raise
    finally:
        for worker in workers:
            if worker.ident:  # it was started: the interruption may have come before
                worker.join()
        for pipe in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(OSError):
                if pipe:
                    pipe.close()
    return scripting.Done(status, b"".join(output), b"".join(errors))
