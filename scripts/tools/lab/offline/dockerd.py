"""The lab's own container engine: Debian's dockerd, started by the lab and for the lab where no
other engine answers.

It stores its images in the cache directory and everything else under /run/istio-vm-mesh. It is no
child of the command that started it, so it runs from one `lab up` to the next. `stop` ends it, and
removes what dockerd leaves on a machine.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tools import steps
from tools.steps import Step, StepError, quiet

from .. import engine, paths
from ..engine import HOST, RUN, SOCKET, Engine
from . import cache, debian, host_cleanup, runc_wrapper

CONFIGURATION = RUN / "daemon.json"
BEFORE = RUN / "before.json"
"""What `stop` restores."""
CGROUP = "istio-vm-mesh"
"""Every container of the lab's own engine lives in this control group, so nothing can hide from
`stop`.
"""
CPU_SHARES = 4096
"""The weight of CGROUP. A control group weighs as much as one process outside of it, 1024, if
nothing else is said. It holds all computers of all labs.
"""
START_TIMEOUT = 60.0
STOP_TIMEOUT = 60.0


def ensure(step: Step) -> Engine:
    """Return a Docker engine that answers; the lab's own is started if there is no other. Running
    it again changes nothing.

    Raises StepError where there is none and none can be started.
    """
    with cache.locked(cache.Key("the container engine", "", ""), step.note):
        answering = engine.find() or _start(step)
    version = answering.docker("version", "--format", "{{.Server.Version}}")
    owner = "the lab's own" if answering.host else "the machine's"
    paths.RUN.mkdir(parents=True, exist_ok=True)
    if answering.host:
        paths.DOCKER_HOST.write_text(f"{answering.host}\n")
    else:
        paths.DOCKER_HOST.unlink(missing_ok=True)
    step.summary = f"Docker {version}, {owner}"
    return answering


def _start(step: Step) -> Engine:
    if why := engine.unmet_requirement():
        raise StepError(why, show_log=False)
    debian.ensure(step, ["docker.io", "iptables"])
    log = paths.cache() / cache.ENGINE_LOG
    with step.part("starting Debian's dockerd"):
        _end_daemon()  # one that does not answer, or was killed
        host_cleanup.delete_state(RUN, keep=BEFORE)
        RUN.mkdir(mode=0o711, exist_ok=True)
        log.parent.mkdir(parents=True, exist_ok=True)
        host_cleanup.snapshot(BEFORE)
        _set_weight()
        CONFIGURATION.write_text(json.dumps(_configuration(_runtime()), indent=2))
        with log.open("wb") as output:
            # Containers inherit dockerd's limit of open files.
            command = ["sh", "-c", 'ulimit -Sn "$(ulimit -Hn)"; exec dockerd "$@"', "dockerd", "--config-file", str(CONFIGURATION)]
            daemon = subprocess.Popen(command, cwd="/", stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
        until = time.monotonic() + START_TIMEOUT
        while (why := engine.refusal(HOST)) is not None:
            if daemon.poll() is not None or time.monotonic() > until:
                step.write(log.read_text(errors="replace"))
                state = "ended" if daemon.poll() is not None else f"does not answer after {START_TIMEOUT:.0f} s ({why})"
                raise StepError(f"Debian's dockerd {state}", f"see {log}")
            time.sleep(0.2)
    return Engine(HOST)


def _set_weight() -> None:
    """Give containers processors also while other processes want them. Beside eight busy processes
    on two processors, the longest of 2,000 calls through gateways took 0.22 s without it, and
    0.04 s with it.

    Version 1 of control groups alone. With version 2, processes are usually in groups themselves.
    Where control groups cannot be written to, no container runs, and dockerd's log has the reason.
    """
    group = host_cleanup.CONTROL_GROUPS / "cpu" / CGROUP
    if group.parent.is_dir():
        with suppress(OSError):
            group.mkdir(exist_ok=True)
            (group / "cpu.shares").write_text(str(CPU_SHARES))


def _runtime() -> Path | None:
    """The wrapper around runc that this machine needs, or None where every capability is there."""
    if not (missing := runc_wrapper.missing()):
        return None
    wrapper = paths.cache() / cache.RUNC_WRAPPER  # not in /run, from which Debian lets nothing be executed
    wrapper.write_text(runc_wrapper.wrapper(missing, shutil.which("runc") or "/usr/sbin/runc"))
    wrapper.chmod(0o755)
    return wrapper


def _configuration(wrapper: Path | None) -> dict[str, object]:
    """dockerd's whole configuration; /etc/docker/daemon.json is the machine's and not read."""
    configuration: dict[str, object] = {
        "hosts": [HOST],
        "data-root": str(paths.cache() / cache.ENGINE_DATA),
        "exec-root": str(RUN / "docker"),
        "pidfile": str(RUN / "docker.pid"),
        "containerd-namespace": "istio-vm-mesh",
        "containerd-plugins-namespace": "istio-vm-mesh-plugins",
        # The driver that the machine itself uses does not matter to containers, and systemd's would
        # not take CGROUP.
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "cgroup-parent": f"/{CGROUP}",
        "log-opts": {"max-size": "10m", "max-file": "2"},
    }
    if wrapper:
        configuration["runtimes"] = {"without-missing-capabilities": {"path": str(wrapper)}}
        configuration["default-runtime"] = "without-missing-capabilities"
    return configuration


def stop(step: Step | None = None) -> bool:
    """End the lab's own engine and what it left on the machine; images stay in the cache. Does
    nothing to any other engine.

    Returns False, and leaves it, while containers run in it: another checkout's lab may use it.
    """
    step = step or quiet("container engine", steps.LOGS / "engine.log")
    if SOCKET.exists() and engine.refusal(HOST) is None and (running := Engine(HOST).docker("ps", "--format", "{{.Names}}").split()):
        step.line(f"the lab's own Docker engine stays, because these containers run in it: {', '.join(running)}")
        return False
    if RUN.exists():
        _end_daemon()
        host_cleanup.restore(BEFORE, CGROUP)
        host_cleanup.delete_state(RUN)
    paths.DOCKER_HOST.unlink(missing_ok=True)
    return True


def _end_daemon() -> None:
    """End the lab's dockerd, if there is one: politely, then for good. Then what a killed
    dockerd leaves running.
    """
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
