"""The container engine: the machine's Docker engine where one answers, else the lab's own
(`offline.dockerd`).
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tools import process
from tools.steps import Step, StepError

RUN = Path("/run/istio-vm-mesh")
"""What the lab's own engine needs while it runs. One per machine: two checkouts share the engine
as they share the cache.
"""
SOCKET = RUN / "docker.sock"
HOST = f"unix://{SOCKET}"


@dataclass(frozen=True)
class Engine:
    """A Docker engine that answers. `host` is the DOCKER_HOST of the lab's own engine, None
    where the machine's is used.
    """

    host: str | None

    @property
    def environment(self) -> dict[str, str]:
        """The environment for commands that talk to this engine (docker, kind)."""
        return {**os.environ, **({"DOCKER_HOST": self.host} if self.host else {})}

    def docker(self, *arguments: str | Path, stdin: bytes | None = None) -> str:
        """Run a short docker command; returns its standard output without the last newline.
        Raises StepError with docker's message.
        """
        done = self.attempt(*arguments, stdin=stdin)
        if done.returncode:
            raise StepError(f"`docker {' '.join(map(str, arguments[:2]))}` failed: {last_line(done.stderr) or f'code {done.returncode}'}")
        return done.stdout.decode(errors="replace").rstrip("\n")

    def attempt(self, *arguments: str | Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run a docker command that may fail; return its exit code and both outputs."""
        return subprocess.run(["docker", *map(str, arguments)], input=stdin or b"", capture_output=True, env=self.environment, check=False)

    def run(self, step: Step, *arguments: str | Path, progress: process.Progress | None = None) -> None:
        """Run a long docker command with its output in the step's log."""
        step.run(process.Command(["docker", *arguments], env=self.environment), progress=progress)


def find() -> Engine | None:
    """Return the engine that answers now: the one that DOCKER_HOST names, else the lab's own, else
    the machine's.
    """
    chosen = os.environ.get("DOCKER_HOST")
    if chosen and chosen != HOST:
        if (why := refusal(None)) is None:
            return Engine(None)
        cause = f"the Docker engine that DOCKER_HOST names ({chosen}) does not answer: {why}"
        raise StepError(cause, "start it or unset DOCKER_HOST", show_log=False)
    if SOCKET.exists() and refusal(HOST) is None:
        return Engine(HOST)
    return Engine(None) if not chosen and refusal(None) is None else None


def unmet_requirement() -> str | None:
    """Why this machine can have no engine (with what to do), or None. Quick, for the check at
    the start of `up`.
    """
    if os.geteuid() == 0 or find():
        return None
    why = refusal(None) or "no answer"
    return f"no Docker engine answers ({why}) and only root can start one: start Docker, join the group `docker`, or run as root"


def refusal(host: str | None) -> str | None:
    """None if the engine answers, else the last line of docker's error."""
    try:
        done = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"], capture_output=True, timeout=15, check=False,
            env={**os.environ, **({"DOCKER_HOST": host} if host else {})},
        )  # fmt: skip
    except FileNotFoundError:
        return "there is no docker command"
    except subprocess.TimeoutExpired:
        return "no answer within 15 s"
    return None if done.returncode == 0 else last_line(done.stderr) or "no reason given"


def last_line(error: bytes) -> str:
    """Return the last line of docker's standard error that is no usage hint."""
    lines = [line for line in error.decode(errors="replace").splitlines() if line.strip() and not re.match(r"(Run|See) '", line)]
    return lines[-1].strip() if lines else ""
