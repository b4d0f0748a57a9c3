"""Runs a program that may put questions on its standard output, and answers them.

A line `istio-vm-mesh: ask WORDS` is a question. Its answer is one line of standard input. An answer
that takes long waits by the pause that it is given, which ends as soon as the program does.
"""

from __future__ import annotations

import contextlib
import queue
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import IO

from . import scripting

ASK = "istio-vm-mesh: ask "

Pause = Callable[[float], None]
"""Passes seconds. Raises Ended as soon as the program that waits for the answer has ended."""
Answer = Callable[[str, Pause], str]
"""Returns the answer to a question, one line, from the question's words."""


class Ended(Exception):
    """The program ended before it had its answer."""


@dataclass
class _Streams:
    """The standard streams of a program. Each has a thread, so none of them fills up.

    lines: of standard output, None at its end. ended: whether that end has come.
    errors: standard error. workers: the threads, the one that writes first.
    """

    lines: queue.Queue[bytes | None] = field(default_factory=queue.Queue)
    ended: threading.Event = field(default_factory=threading.Event)
    errors: bytes = b""
    workers: list[threading.Thread] = field(default_factory=list)

    def start(self, process: subprocess.Popen[bytes], content: bytes, is_last: bool) -> None:
        """Write `content` to standard input, which ends there if it is the last; read the others."""
        stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
        assert stdin and stdout and stderr
        write = partial(self._write, stdin, content, is_last)
        for work in (write, partial(self._read, stdout), partial(self._read_errors, stderr)):
            self.workers.append(threading.Thread(target=work, daemon=True))
            self.workers[-1].start()

    def read(self, process: subprocess.Popen[bytes], timeout_s: float) -> Iterator[bytes]:
        """Yield the lines of standard output until the program has ended.

        timeout_s: seconds that it may take; the time between a line and the request for the next
            one does not count.

        Raises queue.Empty or subprocess.TimeoutExpired after that time.
        """
        left_s = timeout_s
        while True:
            before = monotonic()
            line = self.lines.get(timeout=max(left_s, 0))
            left_s -= monotonic() - before
            if line is None:
                break
            yield line
        self.lines.put(None)  # for what reads the rest
        process.wait(max(left_s, 1))

    def reply(self, process: subprocess.Popen[bytes], answer: str) -> None:
        """Write an answer to standard input, as one line."""
        self.workers[0].join()
        assert process.stdin
        self._write(process.stdin, f"{' '.join(answer.split())}\n".encode(), is_last=False)

    def pause(self, seconds: float) -> None:
        """Pass seconds; see `Pause`."""
        if self.ended.wait(seconds):
            raise Ended

    def close(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for the threads of a program that has ended, and close its streams."""
        for worker in self.workers:
            if worker.ident:  # it was started: the interruption may have come before
                worker.join()
        for pipe in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(OSError):
                if pipe:
                    pipe.close()

    def _write(self, stdin: IO[bytes], content: bytes, is_last: bool) -> None:
        with contextlib.suppress(OSError):  # a program that has ended reads nothing
            stdin.write(content)
            stdin.flush()
            if is_last:
                stdin.close()

    def _read(self, stdout: IO[bytes]) -> None:
        for line in stdout:
            self.lines.put(line)
        self.ended.set()
        self.lines.put(None)

    def _read_errors(self, stderr: IO[bytes]) -> None:
        self.errors = stderr.read()


def converse(
    words: Sequence[str],
    text: str | Callable[[], str],
    timeout_s: float,
    answer: Answer | None = None,
) -> scripting.Done:
    """Run a program to its end; return how it ended, with the questions left out of its output.

    text: what it reads first. A function returns it while the program starts.
    timeout_s: seconds in which it must end; the time that `text` and `answer` take does not count.
    answer: answers a question. Without it standard input ends after `text`, and a question is
        output.

    Raises what `text` raises, after the program was ended. Raises what `answer` raises, except Ended,
    also after that. Raises scripting.Failed where the program is not on PATH.
    """
    streams = _Streams()
    output: list[bytes] = []
    # An interruption raises wherever a function is called: none is between the start and `try`.
    process = scripting.start(words)
    try:
        content = text if isinstance(text, str) else text()
        streams.start(process, content.encode(), is_last=answer is None)
        for line in streams.read(process, timeout_s):
            question = line.decode(errors="replace").rstrip("\r\n")
            if answer is None or not question.startswith(ASK):
                output.append(line)
                continue
            with contextlib.suppress(Ended):
                streams.reply(process, answer(question[len(ASK) :], streams.pause))
        status = process.returncode
    except (queue.Empty, subprocess.TimeoutExpired):
        scripting.end(process)
        process.wait()
        status = scripting.TIMED_OUT
        output += iter(streams.lines.get, None)
    except BaseException:
        scripting.end(process)
        process.wait()
        raise
    finally:
        streams.close(process)
    return scripting.Done(status, b"".join(output), streams.errors)
