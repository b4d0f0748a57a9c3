"""The id of the update that runs this process, equal in all processes of one `pulumi up`.

It is no input of a command: an input that changes with each run would repeat every command. So it
comes from the processes above this one. Pulumi's command-line program starts the plugin, and the
plugin starts this process, perhaps by a shell. That program lives as long as the update.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from . import scripting

PULUMI = "pulumi"
SHELLS = frozenset({"ash", "bash", "busybox", "dash", "ksh", "sh", "zsh"})


@dataclass(frozen=True)
class Process:
    """A process.

    pid, parent: its id, and its parent's.
    name: the base name of its program.
    started: when it was started, in a form that never changes while it runs.
    """

    pid: int
    parent: int
    name: str
    started: str


def update_id() -> str:
    """Return the id of the update that runs this process: 16 hexadecimal digits."""
    process = chosen(ancestors())
    where = (os.uname().nodename, _boot())
    text = "/".join([*where, *([str(process.pid), process.started] if process else ["", ""])])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def of_pulumi() -> str:
    """Return the id of the update that runs this process; "" where Pulumi's program is not above it."""
    process = chosen(ancestors())
    return update_id() if process and process.name == PULUMI else ""


def chosen(above: list[Process]) -> Process | None:
    """Return the process whose life is the update's; None where there is none above this one.

    above: the processes above this one, the parent first.

    That is Pulumi's command-line program, else the nearest that is no shell.
    """
    programs = [process for process in above if process.name.lstrip("-") not in SHELLS]
    cli = [process for process in programs if process.name == PULUMI]
    return next(iter([*cli, *programs, *above]), None)


def ancestors() -> list[Process]:
    """Return the processes above this one, the parent first."""
    above: list[Process] = []
    pid = os.getppid()
    while pid > 0 and len(above) < 50:
        process = _process(pid)
        if process is None:
            break
        above.append(process)
        pid = process.parent
    return above


def is_running(process: Process) -> bool:
    """Return whether a process of this computer still runs: its id may be another's by now."""
    now = _process(process.pid)
    return now is not None and now.started == process.started


def _process(pid: int) -> Process | None:
    return _from_proc(pid) if Path("/proc/self/stat").exists() else _from_ps(pid)


def _from_proc(pid: int) -> Process | None:
    """Read Linux' own record: `ps` computes the start from the clock, which may be set."""
    try:
        text = Path("/proc", str(pid), "stat").read_text(errors="replace")
    except OSError:
        return None
    # The name is in parentheses and may hold any character (man 5 proc_pid_stat).
    head, _, rest = text.rpartition(")")
    fields = rest.split()
    if fields[0] == "Z":  # it has ended, and its parent has not asked how
        return None
    return Process(pid, int(fields[1]), head.partition("(")[2], fields[19])


def _from_ps(pid: int) -> Process | None:
    words = ["ps", "-o", "ppid=,lstart=,comm=", "-p", str(pid)]
    done = scripting.call(words, timeout_s=10, environment={"LC_ALL": "C", "TZ": "UTC"})
    # "  812 Thu Nov 26 01:02:03 2026 /usr/local/bin/pulumi"
    fields = done.text.split(None, 6)
    if done.status or len(fields) < 7:
        return None
    return Process(pid, int(fields[0]), os.path.basename(fields[6]), " ".join(fields[1:6]))


def _boot() -> str:
    """Return what distinguishes one boot of this computer: process ids and starts repeat."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
