"""Scripts: a body from `scripts/`, with its variables in front. All of it travels on standard input, so nothing shows in a process list."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Mapping
from functools import cache
from pathlib import Path

LOCAL = "bash -s"
LOCAL_ON_CREATE = "bash -s first"
REMOTE_AS_ROOT = "timeout -k 10 600 bash -s"
# sudo outside of timeout: on expiry everything below dies, root's children too. It says what is wrong, and not what to do.
NO_SUDO = "install sudo and let $(id -un) run it without a password, or connect as root"
REMOTE = f'sudo -n true </dev/null || {{ echo "{NO_SUDO}" >&2; exit 1; }}; sudo -n {REMOTE_AS_ROOT}'


@cache
def read_script(name: str) -> str:
    """Return the text of `<package>/scripts/<script>.sh`; `name` is `<package>/<script>`, such as `machines/join`."""
    package, _, script = name.rpartition("/")
    return (Path(__file__).parent / package / "scripts" / f"{script}.sh").read_text()


def assignments(variables: Mapping[str, str | int]) -> str:
    """Shell assignments; any text survives."""
    return "".join(f"{key}={shlex.quote(str(value))}\n" for key, value in variables.items())


def b64encode(text: str) -> str:
    """Base64 on one line, for what a variable cannot hold as it is."""
    return base64.b64encode(text.encode()).decode()


def b64decode(text: str) -> str:
    """The reverse of `b64encode`."""
    return base64.b64decode(text).decode()


def local_script(name: str, variables: Mapping[str, str | int]) -> str:
    """A script for the machine that runs Pulumi."""
    return assignments(variables) + read_script(name)


def with_kubeconfig(name: str, kubeconfig: str, variables: Mapping[str, str | int]) -> str:
    """A script for the machine that runs Pulumi, which calls kubectl."""
    return assignments({"KUBECONFIG_BASE64": b64encode(kubeconfig), **variables}) + read_script("istio/kubeconfig") + read_script(name)


def create_or_delete_script(first: str, otherwise: str) -> str:
    """A script that does `first` when it is run by `LOCAL_ON_CREATE`, else something else: a command has one input for creation and removal."""
    return f'if [ "${{1:-}}" = first ]; then (\n{first}\n); exit; fi\n{otherwise}'


def parse_results(stdout: str) -> dict[str, str]:
    """The `key=value` lines that a script printed."""
    return dict(line.split("=", 1) for line in stdout.splitlines() if "=" in line)
