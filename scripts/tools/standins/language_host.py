"""Stand-in for `pulumi-language-python`: runs a Pulumi program for the CLI.

The program runs in Pulumi's own `pulumi-language-python-exec` (Go module
github.com/pulumi/pulumi/sdk/v3, directory python/cmd), whose path is the first argument. Of the
options in Pulumi.yaml, `virtualenv` is honoured, and `toolchain: pip`, which is the default; others
are refused.
It requests no plugins in advance: the engine finds those that the program uses when the program
uses them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

import grpc
from google.protobuf import empty_pb2  # type: ignore[import-untyped]

from . import plugin
from .properties import from_struct
from .protocol import language_pb2, language_pb2_grpc, plugin_pb2

_BAIL = 32
"""Exit status of a program that has already printed what is wrong."""
_GRACE_SECONDS = 2.0


class _Refused(Exception):
    """Something that this language host does not do; the message is for the user."""


@dataclass
class LanguageHost(language_pb2_grpc.LanguageRuntimeServicer):
    """The service. `executor` is the path of `pulumi-language-python-exec`, `engine` the address
    of the engine.
    """

    executor: str
    engine: str
    _programs: set[subprocess.Popen[bytes]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def register(self, server: grpc.Server) -> None:
        language_pb2_grpc.add_LanguageRuntimeServicer_to_server(self, server)

    def Handshake(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.engine = request.engine_address or self.engine
        return language_pb2.LanguageHandshakeResponse()

    def GetPluginInfo(self, request: Any, context: grpc.ServicerContext) -> Any:
        return plugin_pb2.PluginInfo(version=metadata.version("pulumi"))

    def GetRequiredPackages(self, request: Any, context: grpc.ServicerContext) -> Any:
        return language_pb2.GetRequiredPackagesResponse()

    def GetRequiredPlugins(self, request: Any, context: grpc.ServicerContext) -> Any:
        return language_pb2.GetRequiredPluginsResponse()

    def Run(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.queryMode or request.attach_debugger:
            _refuse(context, "queries and debuggers")
        try:
            python, environment = _interpreter(request.info)
        except _Refused as error:
            return language_pb2.RunResponse(error=str(error))
        arguments = {
            "monitor": request.monitor_address,
            "engine": self.engine,
            "project": request.project,
            "stack": request.stack,
            "organization": request.organization,
            "root_directory": request.info.root_directory,
            "pwd": request.pwd,
            "dry_run": str(request.dryRun).lower(),
            "parallel": str(request.parallel),
        }
        command = [python, "-u", self.executor]
        command += [word for name, value in arguments.items() if value for word in (f"--{name}", value)]
        command += [request.info.entry_point or request.program or ".", *request.args]
        # The executor reads the configuration, secrets included, from these two variables and no
        # other way.
        environment["PULUMI_CONFIG"] = json.dumps(dict(request.config))
        environment["PULUMI_CONFIG_SECRET_KEYS"] = json.dumps(list(request.configSecretKeys))
        try:
            program = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
        except OSError as error:
            return language_pb2.RunResponse(error=f"cannot run {python}: {error.strerror}")
        with self._lock:
            self._programs.add(program)
        if not context.add_callback(lambda: _end(program)):
            _end(program)
        status = program.wait()
        with self._lock:
            self._programs.discard(program)
        if status == _BAIL:
            return language_pb2.RunResponse(bail=True)
        if status < 0:
            return language_pb2.RunResponse(error=f"Program exited due to a signal: {signal.Signals(-status).name}")
        if status:
            return language_pb2.RunResponse(error=f"program exited with non-zero exit code: {status}")
        return language_pb2.RunResponse()

    def Cancel(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.cancel()
        return empty_pb2.Empty()

    def cancel(self) -> None:
        """End the programs that are running."""
        with self._lock:
            programs = list(self._programs)
        for program in programs:
            _end(program)

    def About(self, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            python, environment = _interpreter(request.info)
        except _Refused as error:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        version = _ask([python, "-c", "import platform; print(platform.python_version())"], environment).strip()
        return language_pb2.AboutResponse(executable=python, version=version)

    def GetProgramDependencies(self, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            python, environment = _interpreter(request.info)
        except _Refused as error:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        listing = [python, "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"]
        packages = json.loads(_ask(listing + ["--not-required"] * (not request.transitiveDependencies), environment) or "[]")
        return language_pb2.GetProgramDependenciesResponse(
            dependencies=[language_pb2.DependencyInfo(name=each["name"], version=each["version"]) for each in packages]
        )

    # Refused

    def InstallDependencies(self, request: Any, context: grpc.ServicerContext) -> NoReturn:
        _refuse(context, "`pulumi install`; `scripts/lab` makes the virtual environment")

    def RunPlugin(self, request: Any, context: grpc.ServicerContext) -> NoReturn:
        _refuse(context, "plugins that are Python source (PulumiPlugin.yaml)")

    def RuntimeOptionsPrompts(self, request: Any, context: grpc.ServicerContext) -> NoReturn:
        _refuse(context, "`pulumi new`")

    def Template(self, request: Any, context: grpc.ServicerContext) -> NoReturn:
        _refuse(context, "`pulumi new`")

    def GenerateProgram(self, request: Any, context: grpc.ServicerContext) -> NoReturn:
        _refuse(context, "generating programs")

    def GenerateProject(self, request: Any, context: grpc.ServicerContext) -> NoReturn:
        _refuse(context, "generating projects")

    def GeneratePackage(self, request: Any, context: grpc.ServicerContext) -> NoReturn:
        _refuse(context, "generating SDKs")

    def Pack(self, request: Any, context: grpc.ServicerContext) -> NoReturn:
        _refuse(context, "packing SDKs")

    def Link(self, request: Any, context: grpc.ServicerContext) -> NoReturn:
        _refuse(context, "linking SDKs")


def _refuse(context: grpc.ServicerContext, what: str) -> NoReturn:
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"the lab's stand-in for the Python language host does not do {what}")
    raise AssertionError("abort raises")


def _interpreter(info: Any) -> tuple[str, dict[str, str]]:
    """The Python that runs the program, and its environment, from the options in Pulumi.yaml.
    Raises `_Refused`.
    """
    options = from_struct(info.options)
    virtualenv, toolchain = options.pop("virtualenv", None), options.pop("toolchain", "pip")
    if toolchain != "pip" or options:
        wrong = f"toolchain: {toolchain}" if toolchain != "pip" else ", ".join(sorted(options))
        raise _Refused(f"the lab's stand-in for the Python language host does not implement the runtime option `{wrong}` in Pulumi.yaml")
    environment = dict(os.environ)
    if not virtualenv:
        return "python3", environment
    directory = Path(info.root_directory, virtualenv)
    python = directory / "bin" / "python"
    if not python.is_file():
        raise _Refused(
            f"the virtual environment {directory} of Pulumi.yaml does not exist or has no bin/python; make it with `./scripts/lab`"
        )
    environment.pop("PYTHONHOME", None)
    environment["VIRTUAL_ENV"] = str(directory)
    environment["PATH"] = f"{directory / 'bin'}{os.pathsep}{environment.get('PATH', os.defpath)}"
    return str(python), environment


def _ask(command: list[str], environment: dict[str, str]) -> str:
    return subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False).stdout


def _end(program: subprocess.Popen[bytes]) -> None:
    if program.poll() is not None:
        return
    with suppress(ProcessLookupError):
        os.killpg(program.pid, signal.SIGTERM)
    try:
        program.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)


if __name__ == "__main__":
    host = LanguageHost(sys.argv[1], plugin.engine_address())
    plugin.run(host.register, host.cancel)
