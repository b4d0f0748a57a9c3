"""Programs that answer by rules and write down what they were given: on PATH, or in this process."""

from __future__ import annotations

import json
import marshal
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.local import scripting

ROOT = Path(__file__).parents[2]
PYTHON = os.path.realpath(sys.executable)

_PROGRAM = """#!{python} -IS
# Of the modules that are part of the interpreter: json and re would double the time of a call.
import marshal, posix, sys
directory, _, name = sys.argv[0].rpartition("/")
words = sys.argv[1:]
stdin = sys.stdin.buffer.read()
read = []
for word in words:
    try:
        status = posix.stat(word)
    except OSError:
        continue
    if status.st_mode & 0o170000 == 0o100000 and status.st_size < 65536:
        with open(word, encoding="latin-1") as file:
            read.append(file.read())
call = marshal.dumps(([name, *words], stdin.decode("latin-1"), read))
with open(directory + "/calls", "ab", buffering=0) as log:
    log.write(call)
with open(directory + "/" + name + ".rules", "rb") as file:
    rules = marshal.load(file)


def matches(pattern, line):
    if pattern.startswith("^"):
        pattern, line = "\\0" + pattern[1:], "\\0" + line
    place = 0
    for part in pattern.split(".*"):
        place = line.find(part, place)
        if place < 0:
            return False
        place += len(part)
    return True


for pattern, status, stdout, stderr in rules:
    if matches(pattern, " ".join(words)):
        sys.stdout.buffer.write(stdout.encode("latin-1"))
        if status == 255 and "-E" in words:  # ssh's own messages
            with open(words[words.index("-E") + 1], "a") as log:
                log.write(stderr)
        else:
            sys.stderr.write(stderr)
        sys.exit(status)
"""


@dataclass(frozen=True)
class Call:
    """One call of a program.

    words: its name and its arguments.
    stdin: its standard input.
    files: the texts of the files that its arguments name.
    """

    words: tuple[str, ...]
    stdin: str
    files: tuple[str, ...]

    @property
    def line(self) -> str:
        """The command line."""
        return " ".join(self.words)


class Programs:
    """A directory that is all of PATH: python3, and programs that a test adds."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        (directory / "python3").symlink_to(PYTHON)

    def add(self, name: str, *rules: tuple[str, int, str, str]) -> None:
        """Add a program, or change its rules: pattern of the arguments, status, stdout, stderr.

        The first rule that matches answers. Without one the program succeeds in silence. In a pattern, `^` at the start and `.*`
        have their usual meaning, and all else is literal.
        """
        program = self.directory / name
        program.write_text(_PROGRAM.format(python=PYTHON))
        program.chmod(0o755)
        (self.directory / f"{name}.rules").write_bytes(marshal.dumps(rules))

    def add_script(self, name: str, text: str) -> None:
        """Add a program in Python."""
        program = self.directory / name
        program.write_text(f"#!{PYTHON} -IS\n{text}")
        program.chmod(0o755)

    def calls(self, name: str = "") -> list[Call]:
        """Return the calls until now, in order: of one program, or of all."""
        calls: list[Call] = []
        log = self.directory / "calls"
        if log.exists():
            with log.open("rb") as file:
                while file.peek():
                    words, stdin, read = marshal.load(file)
                    calls.append(Call(tuple(words), stdin, tuple(read)))
        return [call for call in calls if not name or call.words[0] == name]

    def lines(self, name: str = "") -> list[str]:
        """Return the command lines until now."""
        return [call.line for call in self.calls(name)]

    def start(self, script: str, operation: str = "create") -> subprocess.Popen[str]:
        """Start a script of the project as Pulumi's plugin does."""
        return subprocess.Popen(
            ["python3", "-I", "components/local/run.py", script, operation],
            cwd=ROOT,
            env={"PATH": str(self.directory), "TMPDIR": str(self.directory.parent)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, script: str, payload: dict[str, Any], operation: str = "create") -> subprocess.CompletedProcess[str]:
        """Run a script of the project as Pulumi's plugin does."""
        process = self.start(script, operation)
        stdout, stderr = process.communicate(json.dumps({operation: payload}))
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


_MOST_CALLS = 500


class ProgramsInMemory:
    """Programs as of `Programs`, for code that runs them by `scripting.call`: no process is started."""

    def __init__(self) -> None:
        self._rules: dict[str, tuple[tuple[str, int, str, str], ...]] = {}
        self._calls: list[Call] = []

    def add(self, name: str, *rules: tuple[str, int, str, str]) -> None:
        """Add a program, or change its rules (`Programs.add`)."""
        self._rules[name] = rules

    def rules(self, name: str) -> tuple[tuple[str, int, str, str], ...]:
        """Return the rules of a program."""
        return self._rules[name]

    def call(
        self,
        words: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_s: float | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> scripting.Done:
        """Stand in for `scripting.call`."""
        assert len(self._calls) < _MOST_CALLS, "a loop without an end"
        name, *arguments = words
        line = " ".join(arguments)
        self._calls.append(Call(tuple(words), stdin.decode(), ()))
        for pattern, status, stdout, stderr in self._rules[name]:
            if re.search(_expression(pattern), line, re.DOTALL):
                return scripting.Done(status, stdout.encode(), stderr.encode())
        return scripting.Done(0, b"", b"")

    def calls(self, name: str) -> list[Call]:
        """Return the calls of a program until now, in order."""
        return [call for call in self._calls if call.words[0] == name]

    def lines(self, name: str) -> list[str]:
        """Return the command lines of a program until now."""
        return [call.line for call in self.calls(name)]


def _expression(pattern: str) -> str:
    start, rest = ("^", pattern[1:]) if pattern.startswith("^") else ("", pattern)
    return start + ".*".join(map(re.escape, rest.split(".*")))
