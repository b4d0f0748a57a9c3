"""Tests with the real Pulumi CLI and, for SSH, a real sshd; nothing is skipped where one is missing.

With `PLUGINS=official` in the environment, what is expected of plugins is asked of the official ones, as users install them: the first `pulumi`
on PATH with the language host beside it, the plugins in `$PULUMI_HOME` or `~/.pulumi`. Tests of the stand-ins' own are left out then: those
marked `standin`, and those that use no plugin.

Otherwise the CLI is `PULUMI_CLI`, or the lab's (`.lab/bin/pulumi`, or in the cache after `./scripts/lab tools`). sshd comes with Debian's package
openssh-server (`apt-get install openssh-server`) and runs on the loopback interface, on a free port, as the current user.
"""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import pytest
from cli_stack import OFFICIAL, PROJECT, STACK, Stack
from machine import Sshd, can_connect, reserved_port, wait_until

from tools.lab import paths
from tools.standins import install
from tools.standins.command import Command
from tools.standins.provider import Provider, hosting


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With the official plugins, leave out what is not asked of them."""
    if OFFICIAL:
        asked = [
            item
            for item in items
            if not item.get_closest_marker("standin") and {"commands", "objects", "installed"} & set(getattr(item, "fixturenames", ()))
        ]
        config.hook.pytest_deselected(items=[item for item in items if item not in asked])
        items[:] = asked


@pytest.fixture(scope="session")
def cli() -> Path:
    """The real CLI."""
    if OFFICIAL:
        found = shutil.which("pulumi")
        assert found, "no pulumi on PATH"
        return Path(found)
    built = paths.cache().glob(f"pulumi/v{metadata.version('pulumi')}-*/pulumi")
    own = os.environ.get("PULUMI_CLI")
    for candidate in [Path(own)] if own else [paths.BIN / "pulumi", *built]:
        if os.access(candidate, os.X_OK):
            return candidate.absolute()
    pytest.fail("no Pulumi CLI: run `./scripts/lab tools`, or set PULUMI_CLI to one of the pinned version")


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
def template(cli: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with an empty stack, to be copied: making one takes two calls of the CLI."""
    stack = Stack(cli, tmp_path_factory.mktemp("template"))
    for directory in (stack.project, stack.root / "state", stack.root / "home"):
        directory.mkdir()
    (stack.project / "Pulumi.yaml").write_text(f"name: {PROJECT}\nruntime: python\n")
    stack.call("stack", "init", STACK)
    return stack.root


@pytest.fixture
def stack(cli: Path, template: Path, tmp_path: Path) -> Stack:
    """An empty stack without providers."""
    root = tmp_path / "stack"
    shutil.copytree(template, root)
    return Stack(cli, root)


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
    """Let `stack` have a provider: the official plugin in the place of its stand-in where that is asked for."""

    def official(provider: Provider) -> None:
        assert install.link(stack.root / "home", provider.name), f"the official plugin {provider.name} {provider.version} is not installed"

    return official if OFFICIAL else host


@pytest.fixture
def commands(stack: Stack, provide: Callable[[Provider], None]) -> Stack:
    """An empty stack with the `command` provider."""
    provide(Command())
    return stack


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A real sshd that accepts one key, and the variables LAB_*."""
    with running_sshd(tmp_path_factory.mktemp("sshd"), "AcceptEnv LAB_*") as server:
        yield server


@contextmanager
def running_sshd(directory: Path, *options: str) -> Iterator[Sshd]:
    """Run an sshd that accepts one key. `directory` gets its files, `options` are further lines of its configuration."""
    binary = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if not binary:
        pytest.fail("no sshd: install Debian's package openssh-server")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd insists on it as root; Debian makes it when the service starts
    for name in ("host", "client"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", directory / name], check=True)
    log = directory / "log"
    with reserved_port() as port:
        lines = [
            f"ListenAddress 127.0.0.1:{port}",
            f"HostKey {directory}/host",
            f"AuthorizedKeysFile {directory}/client.pub",
            "PidFile none",
            "StrictModes no",
            "UsePAM no",
            "PasswordAuthentication no",
            "MaxStartups 100",
            *options,
        ]
        (directory / "config").write_text("\n".join(lines) + "\n")
        server = subprocess.Popen([binary, "-D", "-f", directory / "config", "-E", log], stdin=subprocess.DEVNULL)
        try:
            wait_until(lambda: can_connect(port) or server.poll() is not None)
            assert server.poll() is None, log.read_text()
            keys = (directory / "client").read_text(), (directory / "host.pub").read_text().strip()
            yield Sshd(port, getpass.getuser(), *keys, log)
        finally:
            server.terminate()
            server.wait()


@pytest.fixture
def swallowing_sshd(tmp_path: Path) -> Iterator[Sshd]:
    """A real sshd whose shells first read the file `startup` beside its log, as a user's start-up files are read."""
    directory = tmp_path / "sshd"
    directory.mkdir()
    with running_sshd(directory, f"SetEnv BASH_ENV={directory}/startup") as server:
        yield server
