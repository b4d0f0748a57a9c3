"""A stack on the real Pulumi CLI, all of it in one temporary directory, for programs that are functions of a test."""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import subprocess
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from pulumi.automation._server import LanguageServer
from pulumi.runtime._grpc_settings import _GRPC_CHANNEL_OPTIONS
from pulumi.runtime.proto import language_pb2_grpc

from tests.support import vault
from tools.lab import paths

# Programs run in this process, and each CLI has ports of its own. A program that outlives its CLI
# leaves a connection that fails. gRPC shares the state of connections between all channels to one
# address. So a later CLI with the same port would be refused at once.
_GRPC_CHANNEL_OPTIONS.append(("grpc.use_local_subchannel_pool", 1))

Program = Callable[[], object]
PROJECT, STACK = "test", "lab"
OFFICIAL = os.environ.get("PLUGINS") == "official"
"""Whether the official plugins are asked, see conftest.py."""


@dataclass(frozen=True)
class Result:
    """The exit status of a call of the CLI, and its output on both streams."""

    status: int
    output: str

    def changes(self) -> dict[str, int]:
        """Return the last summary of a preview or an update: {"created": 2, "unchanged": 1}."""
        summary = self.output.rpartition("\nResources:\n")[2].partition("\n\n")[0]
        return {what: int(count) for count, what in re.findall(r"(\d+) (?:to )?(\w+)", summary)}


@dataclass
class Stack:
    """Call the CLI. `root` holds the project, the state and PULUMI_HOME."""

    cli: Path
    root: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def project(self) -> Path:
        return self.root / "project"

    def env(self) -> dict[str, str]:
        settings = {
            "PULUMI_HOME": str(self.root / "home"),
            "PULUMI_BACKEND_URL": paths.backend(self.root / "state"),
            "PULUMI_SKIP_UPDATE_CHECK": "1",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            "PULUMI_DIY_BACKEND_DISABLE_CHECKPOINT_BACKUPS": "1",
            "GOGC": "off",  # these runs are too short to be worth collecting garbage
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PULUMI_")}
        return {**inherited, **settings, **self.environment}

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start the CLI in a session of its own and return at once."""
        return subprocess.Popen(
            [str(self.cli), *words, "--non-interactive", "--color", "never"],
            cwd=self.project,
            env=self.env(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def call(self, *words: str, program: Program | None = None, fails: bool = False) -> Result:
        """Call the CLI and check that it succeeds, or fails where `fails` is set."""
        if program:
            with hosted(program) as address:
                return self.call(*words, f"--client={address}", "--exec-kind=auto.inline", fails=fails)
        process = self.start(*words)
        try:
            output, _ = process.communicate(timeout=600)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        assert (process.returncode != 0) == fails, f"pulumi {' '.join(words)} ended with {process.returncode}:\n{output}"
        return Result(process.returncode, output)

    def init(self, name: str = STACK) -> None:
        """Create a stack of the project, empty."""
        self.call("stack", "init", name, f"--secrets-provider={vault.PROVIDER}")

    def preview(self, program: Program, *options: str, fails: bool = False) -> Result:
        return self.call("preview", "--stack", STACK, *options, program=program, fails=fails)

    def up(self, program: Program, *options: str, fails: bool = False) -> Result:
        return self.call("up", "--stack", STACK, "--yes", "--skip-preview", *options, program=program, fails=fails)

    @contextmanager
    def updating(self, program: Program) -> Iterator[subprocess.Popen[str]]:
        """Start `up` and yield its process."""
        words = ("up", "--stack", STACK, "--yes", "--skip-preview")
        with hosted(program) as address, self.start(*words, f"--client={address}", "--exec-kind=auto.inline") as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)

    def destroy(self) -> Result:
        return self.call("destroy", "--stack", STACK, "--yes", "--skip-preview")

    def refresh(self) -> Result:
        return self.call("refresh", "--stack", STACK, "--yes", "--skip-preview")

    def resources(self) -> dict[str, dict[str, Any]]:
        """Return the saved resources by name, without the stack and the providers."""
        file = self.root / "state" / ".pulumi" / "stacks" / PROJECT / f"{STACK}.json"
        deployment = json.loads(file.read_text())["checkpoint"]["latest"]
        return {
            resource["urn"].rpartition("::")[2]: resource
            for resource in deployment.get("resources", [])
            if not resource["type"].startswith("pulumi:")
        }

    def files_with(self, text: str) -> list[Path]:
        """Return the files of the state, the project and PULUMI_HOME that hold `text`."""
        return [file for file in self.root.rglob("*") if file.is_file() and text.encode() in file.read_bytes()]


@contextmanager
def hosted(program: Program) -> Iterator[str]:
    """Serve a program that is a function, as the Automation API does without its further calls of the CLI; yield the address."""

    def run() -> None:
        program()

    gc.freeze()  # the collection below is for what comes now, not for every SDK that is loaded
    workers = ThreadPoolExecutor(max_workers=4)
    server = grpc.server(workers)
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(LanguageServer(run), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()
        workers.shutdown()  # a program that the engine gave up still runs, and what it is connected to is one for the whole process
        with warnings.catch_warnings():
            # That server does not close the event loop of a program that failed; Python says so when it collects the loop.
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
