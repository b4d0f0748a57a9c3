"""Scripts: a body from `scripts/`, with its variables in front. All of it travels on standard input, so nothing shows in a process list."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from components.plan import machine as machine_plan
from components.plan import mesh as mesh_plan
from components.plan.machine import File
from components.settings import Package

LOCAL = "bash -s"
LOCAL_FIRST = "bash -s first"
REMOTE_AS_ROOT = "timeout -k 10 600 bash -s"
# sudo outside of timeout: on expiry everything below dies, root's children too. It says what is wrong, and not what to do.
NO_SUDO = "install sudo and let $(id -un) run it without a password, or connect as root"
REMOTE = f'sudo -n true </dev/null || {{ echo "{NO_SUDO}" >&2; exit 1; }}; sudo -n {REMOTE_AS_ROOT}'


@cache
def body(name: str) -> str:
    """The text of `scripts/<name>.sh`."""
    return (Path(__file__).parent / "scripts" / f"{name}.sh").read_text()


def assignments(variables: Mapping[str, str | int]) -> str:
    """Shell assignments; any text survives."""
    return "".join(f"{key}={shlex.quote(str(value))}\n" for key, value in variables.items())


def encoded(text: str) -> str:
    """Base64 on one line, for what a variable cannot hold as it is."""
    return base64.b64encode(text.encode()).decode()


def decoded(text: str) -> str:
    """The reverse of `encoded`."""
    return base64.b64decode(text).decode()


def local(name: str, variables: Mapping[str, str | int]) -> str:
    """A script for the machine that runs Pulumi."""
    return assignments(variables) + body(name)


def with_cluster(name: str, kubeconfig: str, variables: Mapping[str, str | int]) -> str:
    """A script for the machine that runs Pulumi, which calls kubectl."""
    return assignments({"KUBECONFIG_BASE64": encoded(kubeconfig), **variables}) + body("kubeconfig") + body(name)


def either(first: str, otherwise: str) -> str:
    """A script that does `first` when it is run by `LOCAL_FIRST`, else something else: a command has one input for creation and removal."""
    return f'if [ "${{1:-}}" = first ]; then (\n{first}\n); exit; fi\n{otherwise}'


def digest(files: Sequence[File], *more: str) -> str:
    """What a machine is compared by: a digest of all that its agent must be restarted for."""
    return hashlib.sha256(json.dumps([[*file] for file in files] + list(more)).encode()).hexdigest()[:16]


def join(machine: str, files: Sequence[File], *, token: str | None, gateway: str, package: Package, version: str, registration: str) -> str:
    """The join of one machine (decisions in docs/machines.md). Holds the token: a secret as a whole.

    Without a token this is for a machine that mints its own and fills in what only it knows: `boot.sh` comes before, with `filled` and `token`.
    """
    url = package.url.replace("{version}", version)
    owners = {True: "istio-proxy:istio-proxy", False: "root:root"}
    text = '"$(filled {})"' if token is None else "{}"
    writes = "".join(f"  put {file.path} {file.mode} {owners[file.proxy_owned]} {text.format(encoded(file.text))}\n" for file in files)
    functions = f"files() {{\n{writes}  chown istio-proxy:istio-proxy /etc/certs /var/lib/istio/envoy /var/lib/istio/config /var/lib/istio/proxy\n}}\n"
    if token is not None:
        functions += f"token() {{\n  put {machine_plan.TOKEN} 0600 {owners[True]} {encoded(token)}\n}}\n"
    variables: dict[str, str | int] = {
        "MACHINE": machine,
        "GATEWAY": gateway,
        "TOKEN": machine_plan.TOKEN,
        "PACKAGE_URL": url,
        "PACKAGE_SHA256": package.sha256 or "",
        "GRACE": mesh_plan.DISCONNECT_GRACE,
        "DIGEST": digest(files, url, package.sha256 or "", registration),
        "REGISTRATION": hashlib.sha256(registration.encode()).hexdigest()[:16],
    }
    return assignments(variables) + functions + body("join")


def results(stdout: str) -> dict[str, str]:
    """The `key=value` lines that a script printed."""
    return dict(line.split("=", 1) for line in stdout.splitlines() if "=" in line)
