"""Helpers of all scripts that run beside Pulumi: payload and result, programs, private files."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

T = TypeVar("T")
TIMED_OUT = 1000
"""Status of a program that was ended because its time was over; no program exits with it."""
STATED, PACK, UNPACK = "stated", "pack", "unpack"
"""Keys in a field's metadata. `STATED`: `encode` states the field also where it has its default.
`PACK`: what `encode` makes of the value first, `UNPACK`: what `decode` makes of that again.
"""


class Failed(Exception):
    """The operation failed. The message is one sentence with the cause and the fix."""


@dataclasses.dataclass(frozen=True)
class Done:
    """How a program ended.

    status: its exit status; `TIMED_OUT` where its time was over.
    stdout, stderr: what it printed.
    """

    status: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output as text, without white space around it."""
        return self.stdout.decode(errors="replace").strip()

    @property
    def error(self) -> str:
        """Standard error as text, without white space around it."""
        return self.stderr.decode(errors="replace").strip()


def main(script: types.ModuleType, operation: str, payloads: str | None = None) -> None:
    """Run a script with its payload, and print its result as JSON.

    payloads: the payloads by operation, JSON; None: they are on standard input.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    accept_hangups()
    try:
        result = script.run(decode(script.Payload, json.loads(payloads or sys.stdin.read())[operation]))
    except Failed as error:
        sys.exit(str(error))
    if result is not None:
        print(encode(result))


def accept_hangups(handler: Callable[[int, object], object] | None = None) -> None:
    """Have programs end on SIGHUP also where this process ignores it, as under `nohup`.

    handler: what ends this process where it does not ignore SIGHUP; without it, an exception.

    ssh ends the commands that connect it to a server (ProxyCommand) by SIGHUP. One that inherits
    that the signal is ignored goes on, and holds ssh's output open.
    """
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    signal.signal(signal.SIGHUP, (lambda *_: None) if ignored else handler or _interrupt)


class _Start:
    """Whether the main thread is starting a program, and the signal that arrived meanwhile.

    Python handles signals in the main thread alone, so other threads must not defer them.
    """

    running = False
    signal: int | None = None


class _Running:
    """The programs that `start` started, and whether `end_all` ended them.

    There is no lock: a signal's handler would wait for the thread that it interrupts. A copy of a
    set is made in one step.
    """

    programs: ClassVar[set[subprocess.Popen[bytes]]] = set()
    ended = False


def _interrupt(number: int, _frame: object) -> None:
    """End by an exception, so that programs are ended and private files removed on the way.

    While a program is being started, wait until `call` can end it.
    """
    signal.signal(number, signal.SIG_IGN)
    if _Start.running:
        _Start.signal = number
        return
    raise SystemExit(128 + number)


def encode(value: Any) -> str:
    """Return a record, or records by name, as JSON, without the fields that have their defaults.

    A state holds each payload twice, and each result once.
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if not dataclasses.is_dataclass(value):
        return value
    items = {each.name: (each, getattr(value, each.name)) for each in dataclasses.fields(value)}
    stated = {name: (each, item) for name, (each, item) in items.items() if STATED in each.metadata or item != _default(each)}
    return {name: _plain(each.metadata.get(PACK, _same)(item)) for name, (each, item) in stated.items()}


def _same(value: Any) -> Any:
    return value


def _default(each: dataclasses.Field[Any]) -> Any:
    return each.default if each.default_factory is dataclasses.MISSING else each.default_factory()


def decode(record: type[T], values: Mapping[str, Any]) -> T:
    """Return a record of the dataclass `record` from JSON.

    A field with `metadata={"record": Class}` holds another dataclass, or a list of it.
    Raises TypeError for unknown and for missing keys.
    """
    metadata: dict[str, Mapping[Any, Any]] = {each.name: each.metadata for each in dataclasses.fields(record)}  # type: ignore[arg-type]
    decoded = {key: _decoded(metadata.get(key, {}).get("record"), value) for key, value in values.items()}
    return record(**{key: metadata.get(key, {}).get(UNPACK, _same)(value) for key, value in decoded.items()})


def _decoded(record: type | None, value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_decoded(record, item) for item in value)
    return decode(record, value) if record is not None and value is not None else value


def call(
    words: Sequence[str],
    *,
    stdin: bytes = b"",
    timeout_s: float | None = None,
    environment: Mapping[str, str] | None = None,
) -> Done:
    """Run a program to its end, in a session of its own, and return how it ended.

    Raises Failed for a program that is not on PATH. An exception (an interruption) ends the
    program with all its children.
    """
    process = start(words, environment)
    try:
        stdout, stderr = process.communicate(stdin, timeout_s)
    except subprocess.TimeoutExpired:
        end(process)
        stdout, stderr = process.communicate()
        return Done(TIMED_OUT, stdout, stderr)
    except BaseException:
        end(process)
        process.wait()
        raise
    return Done(process.returncode, stdout, stderr)


def start(words: Sequence[str], environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, with pipes; `end` ends it with all its children.

    Raises Failed for a program that is not on PATH.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread:
        _Start.running = True
    try:
        if _Running.ended:
            raise Failed(f"{words[0]} was not started: this process is being ended")
        process = subprocess.Popen(
            list(words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    except FileNotFoundError:
        fix = "install it on the computer that runs Pulumi"
        raise Failed(f"{words[0]} is not on PATH: {fix}") from None
    finally:
        if in_main_thread:
            _Start.running = False
    if in_main_thread and _Start.signal is not None:
        end(process)
        process.wait()
        raise SystemExit(128 + _Start.signal)
    _Running.programs.difference_update([each for each in list(_Running.programs) if each.returncode is not None])
    _Running.programs.add(process)
    if _Running.ended:  # since it was looked at above
        end(process)
    return process


def end_all() -> None:
    """End every program that a thread of this process runs, and let none start from now on.

    For a signal's handler in a process that has threads: an exception ends the main thread alone.
    """
    _Running.ended = True
    for process in list(_Running.programs):
        if process.poll() is None:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a program that `start` started, with all its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def check(words: Sequence[str], purpose: str, **options: Any) -> Done:
    """Run a program that must succeed (`call`). Raises Failed with `purpose` and its last words."""
    done = call(words, **options)
    if done.status:
        reason = done.error or done.text or f"exit status {done.status}"
        raise Failed(f"{purpose}: {last_words(reason)}")
    return done


def last_words(text: str) -> str:
    """Return the last non-empty line of a text, at most 500 characters of it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:500] if lines else ""


_REMOVE = 'read -r _; exec rm -rf -- "$1"'
"""Waits until standard input ends, and removes a directory. Python would take ten times as long."""


@contextlib.contextmanager
def private_directory() -> Iterator[Path]:
    """Give a directory that only this user can read, and remove it afterwards.

    A process beside this one removes it: Pulumi's plugin kills a command that is interrupted, and a
    process that is killed removes nothing.
    """
    path = tempfile.mkdtemp(prefix="istio-vm-mesh-")
    remover = subprocess.Popen(
        ["/bin/sh", "-c", _REMOVE, "sh", path],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"PATH": os.pathsep.join([*os.get_exec_path(), os.defpath])},
        start_new_session=True,
    )
    try:
        yield Path(path)
    finally:
        remover.communicate()


def write_private(path: Path, text: str) -> None:
    """Write a file that only this user can read and write."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
