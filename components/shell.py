"""Scripts for machines and pods: a body from `scripts/`, with its variables in front. All of it
travels on standard input, so nothing shows in a process list.
"""

from __future__ import annotations

import base64
import shlex
from collections.abc import Mapping
from functools import cache
from pathlib import Path

REMOTE_TIME_LIMIT_S = 600
"""Seconds that a script on a machine may run."""


@cache
def read_script(name: str) -> str:
    """Return the text of `<package>/scripts/<script>.sh`; `name` is `<package>/<script>`, such
    as `machines/join`.
    """
    package, _, script = name.rpartition("/")
    return (Path(__file__).parent / package / "scripts" / f"{script}.sh").read_text()


def assignments(variables: Mapping[str, str | float]) -> str:
    """Shell assignments; any text survives."""
    return "".join(f"{key}={shlex.quote(str(value))}\n" for key, value in variables.items())


def b64encode(text: str) -> str:
    """Return Base64 on one line, for what a variable cannot hold as it is."""
    return base64.b64encode(text.encode()).decode()


def remote_script(name: str, variables: Mapping[str, str | float]) -> str:
    """Assemble a script for a machine or a pod: the variables, the shared functions, the script.

    The script runs its `main` unless it is sourced, so tests source the files as they are.
    """
    return assignments(variables) + read_script("machines/lib") + read_script(name)


def run_as_root(text: str, time_limit_s: float = REMOTE_TIME_LIMIT_S) -> str:
    """Have a script run as root, for any SSH user with sudo, and end after a time limit.

    text: a script for bash's standard input.
    time_limit_s: seconds; when they are over, every process below the script is killed.

    Returns a text for `bash -s`. It fails with the fix where the user has no sudo.
    """
    block = f"{{\n{text}\nexit\n}}\n"
    limits = assignments({"TIME_LIMIT_S": time_limit_s, "LENGTH": len(block.encode())})
    return f"{limits}{read_script('machines/as-root')}{block}"
