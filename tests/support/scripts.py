"""Run functions of the shell scripts, which tests source as they are, with stand-ins for programs."""

from __future__ import annotations

import base64
import io
import os
import re
import shlex
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import components

COMPONENTS = Path(components.__file__).parent
LIBRARY = COMPONENTS / "machines" / "scripts" / "lib.sh"


def machine_files(script: str) -> dict[str, str]:
    """Return the texts of the files that a join's or a startup script's text carries, by path."""
    (encoded,) = re.findall(r"^FILES=(\S+)$", script, re.MULTILINE)
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(encoded))) as tar:
        return {f"/{entry.name}": _text(tar, entry) for entry in tar}


def _text(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> str:
    content = tar.extractfile(entry)
    assert content is not None
    return content.read().decode()


def add_program(directory: Path, name: str, text: str) -> None:
    """Put a program into a directory: bash runs `text`."""
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(f"#!/bin/bash\n{text}\n")
    (directory / name).chmod(0o755)


@dataclass(frozen=True, kw_only=True)
class Sourced:
    """A script whose functions a test calls.

    scripts: files, sourced in this order after lib.sh.
    programs: a directory that is first on PATH.
    alone: PATH is that directory alone.
    environment: further variables of bash.
    """

    scripts: Sequence[Path]
    programs: Path
    alone: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, text: str, variables: Mapping[str, str | int] | None = None) -> subprocess.CompletedProcess[str]:
        """Source the scripts, assign the variables, and run `text`; `sleep` returns at once."""
        lines = [f"source {shlex.quote(str(path))}" for path in (LIBRARY, *self.scripts)]
        lines.append("sleep() { echo slept; }")
        lines += [f"{name}={shlex.quote(str(value))}" for name, value in (variables or {}).items()]
        path = str(self.programs) if self.alone else f"{self.programs}:{os.environ['PATH']}"
        return subprocess.run(
            ["/bin/bash", "-s"],
            input="\n".join([*lines, text, ""]),
            env={"PATH": path, "HOME": str(self.programs), **self.environment},
            capture_output=True,
            text=True,
        )
