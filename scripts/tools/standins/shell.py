"""Runs a command on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import IO

from .output import Output, Stream
from .provider import Cancelled, ProviderError, Request

_GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL for a command that is to end."""


def run(
    request: Request, arguments: list[str], output: Output, *, stdin: str = "", environment: Mapping[str, str], directory: str | None = None
) -> None:
    """Run `arguments` until it ends, with `environment` on top of this process's own.

    Interrupting ends the whole process group. Raises `ProviderError` with the exit status in the
    words of the official provider.
    """
    try:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=directory,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    except OSError as error:
        raise ProviderError(f"{error.strerror}: {error.filename}") from error
    except ValueError as error:  # a NUL byte
        raise ProviderError(str(error)) from error
    assert process.stdout and process.stderr
    workers = [
        threading.Thread(target=_read, args=(process.stdout, output, "stdout"), daemon=True),
        threading.Thread(target=_read, args=(process.stderr, output, "stderr"), daemon=True),
    ]
    if process.stdin:
        workers.append(threading.Thread(target=_write, args=(process.stdin, stdin.encode()), daemon=True))
    with request.on_cancel(lambda: _end(process)):
        for worker in workers:
            worker.start()
        process.wait()
        for worker in workers:
            # A child in the background may hold the streams open; like the official provider this
            # waits for it, unless interrupted.
            while worker.is_alive() and not request.cancelled:
                worker.join(0.1)
    if request.cancelled:
        raise Cancelled("interrupted")
    if process.returncode < 0:
        raise ProviderError(f"signal: {signal.Signals(-process.returncode).name}")
    if process.returncode:
        raise ProviderError(f"exit status {process.returncode}")


def _read(stream: IO[bytes], output: Output, name: Stream) -> None:
    with stream:
        while data := os.read(stream.fileno(), 65536):
            output.feed(name, data)


def _write(stream: IO[bytes], data: bytes) -> None:
    # The command need not read its input.
    with suppress(OSError):
        stream.write(data)
    with suppress(OSError):
        stream.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
