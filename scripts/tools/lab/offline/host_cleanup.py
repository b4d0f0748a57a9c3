"""What dockerd leaves on a machine: processes after a crash, mounts, bridges, packet filter rules,
forwarding. Found and taken back here.

dockerd itself removes none of its bridges, chains and settings when it ends, because it expects to
be started again.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
CONTROL_GROUPS = Path("/sys/fs/cgroup")
BRIDGE = "docker0|br-[0-9a-f]{12}"
"""How Docker names its bridges."""
END_S = 10.0
"""Seconds in which killed processes end."""


def snapshot(file: Path) -> None:
    """Write down what `restore` has to restore, before dockerd starts; a state remembered before
    a crash is kept.
    """
    if not file.exists():
        rules = _saved_rules()
        policy = re.search(r"^:FORWARD (\w+)", rules.partition("*filter")[2], re.MULTILINE)
        before = {
            "forwarding": FORWARDING.read_text().strip(),
            "policy": policy[1] if policy else "ACCEPT",
            "bridges": _bridges(),
            "docker": ":DOCKER" in rules,
        }
        file.write_text(json.dumps(before))


def restore(file: Path, group: str) -> None:
    """Take back what the ended dockerd left: its control group, bridges and rules. `file` is what
    `snapshot` wrote.

    Where there were rules of another Docker engine before, or another one runs now, rules, bridges
    and forwarding stay.
    """
    for directory in _group_directories(group):
        _remove_group(directory)
    try:
        before = json.loads(file.read_text())
    except (OSError, ValueError):
        return
    if before["docker"] or processes("dockerd", ""):
        return
    for bridge in set(_bridges()) - set(before["bridges"]):
        subprocess.run(["ip", "link", "delete", bridge], check=False, capture_output=True)
    script = removal_of_rules(_saved_rules(), before["policy"])
    subprocess.run(["iptables-restore", "--noflush"], input=script, text=True, check=False, capture_output=True)
    FORWARDING.write_text(before["forwarding"])


def delete_state(run: Path, keep: Path | None = None) -> None:
    """Remove the directory of an ended dockerd, with what is mounted in it. State of a killed
    one would mislead the next.
    """
    for mount in reversed(_mounts(run)):
        subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)
    for entry in list(run.iterdir()) if run.is_dir() else []:
        if entry == keep:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
    if not keep and run.is_dir():
        run.rmdir()


def removal_of_rules(saved: str, policy: str) -> str:
    """Return the input of `iptables-restore --noflush` that removes Docker's chains and rules,
    given the output of `iptables-save`.

    What names one of Docker's chains or bridges goes, and what masks an address to itself, as
    Docker does for published ports. `policy` is what the chain FORWARD had before.
    """
    script: list[str] = []
    chains: list[str] = []
    for line in saved.splitlines():
        if line.startswith("*"):
            script, chains = [*script, line], []
            if line == "*filter":
                script.append(f":FORWARD {policy} [0:0]")
        elif declared := re.match(r":(DOCKER\S*) ", line):
            chains.append(declared[1])
        elif line.startswith("-A "):
            words = shlex.split(line)
            named = any(re.fullmatch(rf"DOCKER\S*|{BRIDGE}", word) for word in words[2:])
            itself = "MASQUERADE" in words and {"-s", "-d"} <= set(words) and words[words.index("-s") + 1] == words[words.index("-d") + 1]
            if (named or itself) and words[1] not in chains:
                script.append(f"-D {line.removeprefix('-A ')}")
        elif line == "COMMIT":
            script += [*(f"-F {chain}" for chain in chains), *(f"-X {chain}" for chain in chains), line]
    return "".join(f"{line}\n" for line in script)


def _bridges() -> list[str]:
    return [name for _, name in socket.if_nameindex() if re.fullmatch(BRIDGE, name)]


def _saved_rules() -> str:
    try:
        return subprocess.run(["iptables-save"], capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return ""


def processes(program: str, argument: str) -> list[int]:
    """Return the processes that execute `program` and have `argument` in one of their arguments."""
    pids: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                same = Path(os.readlink(entry / "exe").removesuffix(" (deleted)")).name == program
                if same and argument in (entry / "cmdline").read_bytes().decode(errors="replace"):
                    pids.append(int(entry.name))
            except OSError:
                continue  # ended meanwhile, or the kernel's
    return pids


def kill(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def alive(pid: int) -> bool:
    """Return whether a process runs; one that ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def kill_group(group: str) -> None:
    """Kill every process in a control group and below, in whatever hierarchy, and wait for their
    end.
    """
    until = time.monotonic() + END_S
    while (pids := _members(group)) and time.monotonic() < until:
        for pid in pids:
            kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _members(group: str) -> set[int]:
    pids: set[int] = set()
    for directory in _group_directories(group):
        for file in directory.rglob("cgroup.procs"):
            try:
                pids.update(int(pid) for pid in file.read_text().split())
            except OSError:
                continue  # the group is gone, or holds threads
    return pids


def _group_directories(group: str) -> Iterator[Path]:
    """The directories of a control group: one per controller in version 1, one in version 2."""
    return (directory / group for directory in (CONTROL_GROUPS, *CONTROL_GROUPS.glob("*/")) if (directory / group).is_dir())


def _remove_group(directory: Path) -> None:
    for below in sorted((path for path in directory.rglob("*/")), reverse=True):
        _rmdir(below)
    _rmdir(directory)


def _rmdir(directory: Path) -> None:
    try:
        directory.rmdir()
    except OSError:
        return  # a process still ends in it; an empty group is harmless


def _mounts(directory: Path) -> list[str]:
    """Mount points below a directory, in the order in which they were mounted."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [point for point in (line.split()[4] for line in lines) if point.startswith(f"{directory}/")]
