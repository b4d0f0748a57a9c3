"""Fixtures with the real Pulumi CLI, a real sshd and a real API server; where one is missing, tests fail.

With `PLUGINS=official` in the environment, `tests/plugins` runs against the official plugins, as
users install them: the first `pulumi` on PATH with the language host beside it, the plugins in
`$PULUMI_HOME` or `~/.pulumi`.

Otherwise the CLI is `PULUMI_CLI`, or the lab's (`.lab/bin/pulumi`, or in the cache after
`./scripts/lab tools pulumi`). sshd comes with Debian's package openssh-server.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest

from tests.support import control_plane, sshd, vault
from tests.support.cli_stack import OFFICIAL, PROJECT, Stack
from tools.lab import paths
from tools.standins import install
from tools.standins.command import Command
from tools.standins.provider import Provider, hosting

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def cli() -> Path:
    """The real CLI."""
    if OFFICIAL:
        installed = shutil.which("pulumi")
        assert installed, "no pulumi on PATH"
        return Path(installed)
    built = paths.cache().glob(f"pulumi/v{metadata.version('pulumi')}-*/pulumi")
    chosen = os.environ.get("PULUMI_CLI")
    for candidate in [Path(chosen)] if chosen else [paths.BIN / "pulumi", *built]:
        if os.access(candidate, os.X_OK):
            return candidate.absolute()
    pytest.fail("no Pulumi CLI: run `./scripts/lab tools pulumi`, or set PULUMI_CLI to one of the pinned version")


@pytest.fixture(scope="session")
def sdk() -> Path:
    """The two files of Pulumi's Python SDK that the lab installs beside the CLI."""
    version = metadata.version("pulumi")
    for directory in paths.cache().glob(f"pulumi-python/v{version}-*"):
        return directory
    module = ["go", "mod", "download", "-json", f"github.com/pulumi/pulumi/sdk/v3@v{version}"]
    subprocess.run(module, check=True, capture_output=True, cwd="/")
    modules = subprocess.run(["go", "env", "GOMODCACHE"], check=True, capture_output=True, text=True).stdout.strip()
    return Path(modules, "github.com/pulumi/pulumi/sdk", f"v3@v{version}")


@pytest.fixture(scope="session")
def secrets_provider() -> Iterator[dict[str, str]]:
    """The variables by which Pulumi finds what encrypts the secrets of stacks."""
    with vault.serving() as variables:
        yield variables


@pytest.fixture(scope="session")
def template(cli: Path, secrets_provider: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with an empty stack, which tests copy: its creation takes a call of the CLI."""
    stack = Stack(cli, tmp_path_factory.mktemp("template"), secrets_provider)
    for directory in (stack.project, stack.root / "state", stack.root / "home"):
        directory.mkdir()
    (stack.project / "Pulumi.yaml").write_text(f"name: {PROJECT}\nruntime: python\n")
    stack.init()
    return stack.root


@pytest.fixture
def stack(cli: Path, template: Path, secrets_provider: dict[str, str], tmp_path: Path) -> Stack:
    """An empty stack without providers."""
    root = tmp_path / "stack"
    shutil.copytree(template, root)
    return Stack(cli, root, dict(secrets_provider))


@pytest.fixture
def host(stack: Stack) -> Iterator[Callable[[Provider], None]]:
    """Serve a provider in this process to `stack`."""
    servers = []

    def start(provider: Provider) -> None:
        server = hosting(provider)
        servers.append(server)
        earlier = stack.environment.get("PULUMI_DEBUG_PROVIDERS")
        address = f"{provider.name}:{server.__enter__()}"
        stack.environment["PULUMI_DEBUG_PROVIDERS"] = f"{earlier},{address}" if earlier else address

    yield start
    for server in servers:
        server.__exit__(None, None, None)


@pytest.fixture
def provide(stack: Stack, host: Callable[[Provider], None]) -> Callable[[Provider], None]:
    """Give `stack` a provider: with PLUGINS=official the official plugin in the place of its stand-in."""

    def official(provider: Provider) -> None:
        missing = f"the official plugin {provider.name} {provider.version} is not installed"
        assert install.link(stack.root / "home", provider.name), missing

    return official if OFFICIAL else host


@pytest.fixture
def commands(stack: Stack, provide: Callable[[Provider], None]) -> Stack:
    """An empty stack with the `command` provider."""
    provide(Command())
    return stack


@pytest.fixture(name="sshd", scope="session")
def _sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sshd.Sshd]:
    """A real sshd that accepts one key."""
    with sshd.running(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def swallowing_sshd(tmp_path: Path) -> Iterator[sshd.Sshd]:
    """A real sshd whose shells first read the file `startup` beside its log.

    So they read a user's start-up files.
    """
    directory = tmp_path / "sshd"
    directory.mkdir()
    with sshd.running(directory, f"SetEnv BASH_ENV={directory}/startup") as server:
        yield server


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[control_plane.ControlPlane]:
    """A real control plane of Kubernetes without nodes."""
    with control_plane.running(tmp_path_factory.mktemp("control-plane")) as running:
        yield running


@pytest.fixture
def namespace(plane: control_plane.ControlPlane) -> str:
    """A new namespace."""
    name = f"test-{os.getpid()}-{next(_numbers)}"
    plane.cluster.call("POST", "/api/v1/namespaces", body={"metadata": {"name": name}})
    return name
