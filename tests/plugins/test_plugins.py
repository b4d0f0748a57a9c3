"""The installed plugins as processes of the real CLI: `pulumi up` on the command line with the
language host.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from importlib import metadata
from pathlib import Path
from unittest import mock

import pytest
from pulumi.runtime.proto import language_pb2

from tests.support.cli_stack import OFFICIAL, STACK, Stack
from tests.support.processes import processes
from tests.support.waiting import wait_until
from tools.standins import install
from tools.standins.language_host import LanguageHost
from tools.standins.properties import to_struct

PROGRAM = """
import pulumi
from pulumi.dynamic import CreateResult, Resource, ResourceProvider
from pulumi_command import local

class Doubles(ResourceProvider):
    def create(self, props):
        return CreateResult("it", {**props, "double": props["number"] * 2})

class Double(Resource):
    double: pulumi.Output[int]
    def __init__(self, name, number):
        super().__init__(Doubles(), name, {"number": number, "double": None})

double = Double("double", 21)
say = local.Command("say", create=double.double.apply(lambda n: f"echo {n:.0f} ${{PYTHONPATH-clean}}"))
pulumi.export("said", say.stdout)
pulumi.export("token", pulumi.Config().require_secret("token"))
print("printed by the program")
"""


@pytest.fixture
def installed(stack: Stack, cli: Path, sdk: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """A stack with a CLI, a language host and plugins of its own, and the virtual environment of
    these tests.
    """
    binaries = stack.root / "bin"
    binaries.mkdir()
    if OFFICIAL:
        (binaries / "pulumi").symlink_to(cli)
    else:
        monkeypatch.delenv("PULUMI_HOME", raising=False)
        monkeypatch.setenv("HOME", str(stack.root))  # official plugins of whoever runs the tests are not wanted
        try:
            os.link(cli.resolve(), binaries / "pulumi")
        except OSError:
            shutil.copy(cli, binaries / "pulumi")
    in_use = install.install(binaries, stack.root / "home", lambda: sdk)
    assert {what.split()[0] for what in in_use.values()} == {"official" if OFFICIAL else "stand-in"}
    environment = Path(sys.prefix)
    path = f"{binaries}:{environment / 'bin'}:{os.environ['PATH']}"
    project = Stack(binaries / "pulumi", stack.root, {**stack.environment, "PATH": path, "PULUMI_ERROR_OUTPUT_STRING": "1"})
    write(project, PROGRAM, f"{{virtualenv: '{environment}'}}")
    return project


def write(stack: Stack, program: str, options: str, main: str = ".") -> None:
    (stack.project / "Pulumi.yaml").write_text(f"name: test\nruntime: {{name: python, options: {options}}}\nmain: {main}\n")
    (stack.project / main).mkdir(exist_ok=True)
    (stack.project / main / "__main__.py").write_text(program)


def test_up_on_the_command_line(installed: Stack) -> None:
    installed.call("config", "set", "--secret", "token", "canary-91c0a", "--stack", STACK)
    result = installed.call("up", "--stack", STACK, "--yes")
    assert 'said : "42 clean"' in result.output
    assert "printed by the program" in result.output
    assert result.changes() == {"created": 3}
    assert "warning" not in result.output
    assert "canary-91c0a" not in result.output
    assert installed.files_with("canary-91c0a") == []
    # The program may be in another directory than the project.
    write(installed, "import os, pulumi\npulumi.export('in', os.getcwd())", f"{{virtualenv: '{sys.prefix}'}}", main="elsewhere")
    assert f': "{installed.project}/elsewhere"' in installed.call("preview", "--stack", STACK).output
    assert f"executable='{sys.prefix}/bin/python'" in installed.call("about").output


def test_errors_of_the_program(installed: Stack) -> None:
    write(installed, "import pulumi\nraise pulumi.RunError('told by the program')", f"{{virtualenv: '{sys.prefix}'}}")
    assert "error: told by the program" in installed.call("preview", "--stack", STACK, fails=True).output
    write(installed, "1/0", f"{{virtualenv: '{sys.prefix}'}}")
    failed = installed.call("preview", "--stack", STACK, fails=True).output
    assert failed.count("ZeroDivisionError") == 1
    assert "non-zero exit code" not in failed, "the executor has told it already (exit status 32)"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"virtualenv": "nowhere"}, "the virtual environment /project/nowhere of Pulumi.yaml does not exist"),
        ({"toolchain": "uv"}, "does not implement the runtime option `toolchain: uv`"),
        ({"typechecker": "mypy", "virtualenv": sys.prefix}, "does not implement the runtime option `typechecker`"),
    ],
)
def test_wrong_options_in_the_project(options: dict[str, str], message: str) -> None:
    info = language_pb2.ProgramInfo(root_directory="/project", options=to_struct(options))
    assert message in LanguageHost("executor", "").Run(language_pb2.RunRequest(info=info), mock.Mock()).error


@pytest.mark.standin  # plugins of the real CLI outlive it for minutes; the lab ends them
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_nothing_outlives_the_cli(installed: Stack, number: signal.Signals) -> None:
    started = installed.root / "started"
    program = f"from pulumi_command import local\nlocal.Command('slow', create='touch {started}; sleep 600')"
    write(installed, program, f"{{virtualenv: '{sys.prefix}'}}")
    process = installed.start("up", "--stack", STACK, "--yes", "--skip-preview")
    try:
        wait_until(started.exists)
        expected = ("run.py language_host", "pulumi-language-python-exec --monitor", "run.py command", "sleep 600")
        wait_until(lambda: all(any(part in command for command in processes(str(installed.root), environment=True)) for part in expected))
        process.send_signal(number)
        process.wait()
        wait_until(lambda: processes(str(installed.root), environment=True) == [])
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_official_plugins_are_used_where_they_are(tmp_path: Path, sdk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, lab, official = tmp_path / "home", tmp_path / "lab", tmp_path / "official"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("PULUMI_HOME", raising=False)
    for directory in (official, lab / "bin", home / ".pulumi" / "plugins" / "resource-command-v1.2.1"):
        directory.mkdir(parents=True)
    plugin = home / ".pulumi" / "plugins" / "resource-command-v1.2.1" / "pulumi-resource-command"
    for file in (official / "pulumi", official / "pulumi-language-python", plugin):
        file.write_bytes(b"\x7fELF")
        file.chmod(0o755)

    (lab / "bin" / "pulumi").symlink_to(official / "pulumi")
    in_use = install.install(lab / "bin", lab / "home", lambda: sdk)
    assert in_use["command"] == "official 1.2.1"
    assert in_use["kubernetes"] == "stand-in"
    assert in_use["language host"] == f"official {metadata.version('pulumi')}"
    assert [file.name for file in (lab / "bin").iterdir()] == ["pulumi"]
    linked = lab / "home" / "plugins" / "resource-command-v1.2.1"
    assert not linked.is_symlink(), "the CLI passes over links"
    assert (linked / "pulumi-resource-command").resolve() == plugin

    # So is one that `pulumi plugin install` put there since.
    installed = lab / "home" / "plugins" / "resource-kubernetes-v4.32.0" / "pulumi-resource-kubernetes"
    installed.write_bytes(b"\x7fELF")
    assert install.install(lab / "bin", lab / "home", lambda: sdk) == {**in_use, "kubernetes": "official 4.32.0"}
    assert installed.read_bytes() == b"\x7fELF"

    # What is half installed or gone is not used.
    shutil.rmtree(lab / "home")
    plugin.parent.with_name("resource-command-v1.2.1.partial").touch()
    (lab / "bin" / "pulumi").unlink()
    assert install.in_use(lab / "bin", lab / "home")["language host"] == "missing"
    (lab / "bin" / "pulumi").write_bytes(b"\x7fELF")
    assert install.install(lab / "bin", lab / "home", lambda: sdk) == dict.fromkeys(in_use, "stand-in")
    assert plugin.read_bytes() == b"\x7fELF", "the official plugin is not written to"


def test_a_wrong_sdk_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="has no pulumi-language-python-exec"):
        install.install(tmp_path / "bin", tmp_path / "home", lambda: tmp_path)
