"""The container engine: the machine's Docker engine where one answers, else Debian's dockerd, started by the lab and for the lab.

The lab's own engine keeps its images in the cache directory and everything else under /run/istio-vm-mesh. It is no child of the
command that started it, so it stays from one `lab up` to the next; `stop` ends it and takes back what dockerd leaves on a machine.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from . import paths, process
from .offline import cache, debian, host_cleanup, runc_wrapper
from .steps import Step, StepError, quiet

RUN = Path("/run/istio-vm-mesh")
"""What the lab's own engine needs while it runs. One per machine: two checkouts share the engine as they share the cache."""
SOCKET = RUN / "docker.sock"
HOST = f"unix://{SOCKET}"
CONFIGURATION = RUN / "daemon.json"
BEFORE = RUN / "before.json"
"""What `stop` restores."""
CGROUP = "istio-vm-mesh"
"""Every container of the lab's own engine lives in this control group, so nothing can hide from `stop`."""
START_TIMEOUT = 60.0
STOP_TIMEOUT = 60.0


@dataclass(frozen=True)
class Engine:
    """A Docker engine that answers. `host` is the DOCKER_HOST of the lab's own engine, None where the machine's is used."""

    host: str | None

    @property
    def environment(self) -> dict[str, str]:
        """The environment for commands that talk to this engine (docker, kind)."""
        return {**os.environ, **({"DOCKER_HOST": self.host} if self.host else {})}

    def docker(self, *arguments: str | Path, stdin: bytes | None = None) -> str:
        """Run a short docker command; returns its standard output without the last newline. Raises StepError with what docker said."""
        done = self.attempt(*arguments, stdin=stdin)
        if done.returncode:
            raise StepError(f"`docker {' '.join(map(str, arguments[:2]))}` failed: {_said(done.stderr) or f'code {done.returncode}'}")
        return done.stdout.decode(errors="replace").rstrip("\n")

    def attempt(self, *arguments: str | Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """The same for commands that may fail: returns the exit code and both outputs."""
        return subprocess.run(["docker", *map(str, arguments)], input=stdin or b"", capture_output=True, env=self.environment, check=False)

    def run(self, step: Step, *arguments: str | Path, progress: process.Progress | None = None) -> None:
        """Run a long docker command with its output in the step's log."""
        step.run(["docker", *arguments], env=self.environment, progress=progress)


@contextmanager
def in_use() -> Iterator[None]:
    """While this lasts no other checkout stops the engine, or what all labs of this machine share in it."""
    with _users() as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        yield


@contextmanager
def to_ourselves() -> Iterator[bool]:
    """Whether no `in_use` lasts anywhere on this machine; then none starts before this ends."""
    with _users() as users:
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _users() -> TextIO:
    file = paths.cache() / ".locks" / "engine"  # not in RUN, which goes with the engine
    file.parent.mkdir(parents=True, exist_ok=True)
    return file.open("w")


def ensure(step: Step) -> Engine:
    """A Docker engine that answers; the lab's own is started if there is no other. Running it again changes nothing.

    Raises StepError where there is none and none can be started.
    """
    with cache.locked(cache.Key("the container engine", "", ""), step.note):
        engine = find() or _start(step)
    version = engine.docker("version", "--format", "{{.Server.Version}}")
    whose = "the lab's own" if engine.host else "the machine's"
    paths.RUN.mkdir(parents=True, exist_ok=True)
    if engine.host:
        paths.DOCKER_HOST.write_text(f"{engine.host}\n")
    else:
        paths.DOCKER_HOST.unlink(missing_ok=True)
    step.summary = f"Docker {version}, {whose}"
    return engine


def find() -> Engine | None:
    """The engine that answers now: the one that DOCKER_HOST names, else the lab's own, else the machine's."""
    chosen = os.environ.get("DOCKER_HOST")
    if chosen and chosen != HOST:
        if (why := _refusal(None)) is None:
            return Engine(None)
        cause = f"the Docker engine that DOCKER_HOST names ({chosen}) does not answer: {why}"
        raise StepError(cause, "start it or unset DOCKER_HOST", show_log=False)
    if SOCKET.exists() and _refusal(HOST) is None:
        return Engine(HOST)
    return Engine(None) if not chosen and _refusal(None) is None else None


def obstacle() -> str | None:
    """Why this machine can have no engine (with what to do), or None. Quick, for the check at the start of `up`."""
    if os.geteuid() == 0 or find():
        return None
    why = _refusal(None) or "no answer"
    return f"no Docker engine answers ({why}) and only root can start one: start Docker, join the group `docker`, or run as root"


def _refusal(host: str | None) -> str | None:
    """None if the engine answers, else the last line of what docker says."""
    try:
        done = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"], capture_output=True, timeout=15, check=False,
            env={**os.environ, **({"DOCKER_HOST": host} if host else {})},
        )  # fmt: skip
    except FileNotFoundError:
        return "there is no docker command"
    except subprocess.TimeoutExpired:
        return "no answer within 15 s"
    return None if done.returncode == 0 else _said(done.stderr) or "no reason given"


def _said(error: bytes) -> str:
    """The last line of docker's standard error that says something."""
    lines = [line for line in error.decode(errors="replace").splitlines() if line.strip() and not re.match(r"(Run|See) '", line)]
    return lines[-1].strip() if lines else ""


def _start(step: Step) -> Engine:
    if why := obstacle():
        raise StepError(why, show_log=False)
    debian.ensure(step, ["docker.io", "iptables"])
    log = paths.cache() / "dockerd.log"
    with step.part("starting Debian's dockerd"):
        _end_daemon()  # one that does not answer, or was killed
        host_cleanup.clear(RUN, keep=BEFORE)
        RUN.mkdir(mode=0o711, exist_ok=True)
        log.parent.mkdir(parents=True, exist_ok=True)
        host_cleanup.remember(BEFORE)
        CONFIGURATION.write_text(json.dumps(_configuration(_runtime()), indent=2))
        with log.open("wb") as output:
            # Containers inherit dockerd's limit of open files.
            command = ["sh", "-c", 'ulimit -Sn "$(ulimit -Hn)"; exec dockerd "$@"', "dockerd", "--config-file", str(CONFIGURATION)]
            daemon = subprocess.Popen(command, cwd="/", stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
        until = time.monotonic() + START_TIMEOUT
        while (why := _refusal(HOST)) is not None:
            if daemon.poll() is not None or time.monotonic() > until:
                step.write(log.read_text(errors="replace"))
                state = "ended" if daemon.poll() is not None else f"does not answer after {START_TIMEOUT:.0f} s ({why})"
                raise StepError(f"Debian's dockerd {state}", f"see {log}")
            time.sleep(0.2)
    return Engine(HOST)


def _runtime() -> Path | None:
    """The wrapper around runc that this machine needs, or None where every capability is there."""
    if not (missing := runc_wrapper.missing()):
        return None
    wrapper = paths.cache() / "runc-without-missing-capabilities"  # not in /run, from which Debian lets nothing be executed
    wrapper.write_text(runc_wrapper.wrapper(missing, shutil.which("runc") or "/usr/sbin/runc"))
    wrapper.chmod(0o755)
    return wrapper


def _configuration(wrapper: Path | None) -> dict[str, object]:
    """dockerd's whole configuration; /etc/docker/daemon.json is the machine's and not read."""
    configuration: dict[str, object] = {
        "hosts": [HOST],
        "data-root": str(paths.cache() / "docker"),
        "exec-root": str(RUN / "docker"),
        "pidfile": str(RUN / "docker.pid"),
        "containerd-namespace": "istio-vm-mesh",
        "containerd-plugins-namespace": "istio-vm-mesh-plugins",
        # The driver that the machine itself uses does not matter to containers, and systemd's would not take CGROUP.
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "cgroup-parent": f"/{CGROUP}",
        "log-opts": {"max-size": "10m", "max-file": "2"},
    }
    if wrapper:
        configuration["runtimes"] = {"without-missing-capabilities": {"path": str(wrapper)}}
        configuration["default-runtime"] = "without-missing-capabilities"
    return configuration


def stop(step: Step | None = None) -> bool:
    """End the lab's own engine and what it left on the machine; images stay in the cache. Does nothing to any other engine.

    Returns False, and leaves it, while containers run in it: another checkout's lab may use it.
    """
    step = step or quiet("container engine", paths.LOGS / "engine.log")
    if SOCKET.exists() and _refusal(HOST) is None:
        own = Engine(HOST)
        if running := own.docker("ps", "--format", "{{.Names}}").split():
            step.line(f"the lab's own Docker engine stays, because these containers run in it: {', '.join(running)}")
            return False
    if RUN.exists():
        _end_daemon()
        host_cleanup.remove(BEFORE, CGROUP)
        host_cleanup.clear(RUN)
    paths.DOCKER_HOST.unlink(missing_ok=True)
    return True


def _end_daemon() -> None:
    """End the lab's dockerd, if there is one: politely, then for good. Then what a killed dockerd leaves running."""
    for program in ("dockerd", "containerd", "containerd-shim-runc-v2"):
        _end(host_cleanup.processes(program, f"{RUN}/"), polite=program != "containerd-shim-runc-v2")
    host_cleanup.kill_group(CGROUP)


def _end(pids: Sequence[int], polite: bool) -> None:
    for number, timeout in ((signal.SIGTERM, STOP_TIMEOUT), (signal.SIGKILL, 5.0))[0 if polite else 1 :]:
        for pid in pids:
            host_cleanup.kill(pid, number)
        until = time.monotonic() + timeout
        while any(host_cleanup.alive(pid) for pid in pids) and time.monotonic() < until:
            time.sleep(0.05)
