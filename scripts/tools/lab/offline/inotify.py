"""Limits of this machine's kernel that the lab would run into."""

from __future__ import annotations

from pathlib import Path

from tools.steps import Step

# systemd in every machine and node watches directories. Linux allows a user 128 instances, and a
# few machines use all of them (kind's known issues: "Pod errors due to too many open files").
INOTIFY_INSTANCES = 1024
_LIMIT = Path("/proc/sys/fs/inotify/max_user_instances")


def ensure(step: Step, limit: Path = _LIMIT) -> None:
    """Raise the limit on inotify instances where it is too low, until the next boot. Prints
    that; without the right to do it, prints the command.
    """
    if int(limit.read_text()) >= INOTIFY_INSTANCES:
        return
    try:
        limit.write_text(f"{INOTIFY_INSTANCES}\n")
        step.line(f"raised fs.inotify.max_user_instances to {INOTIFY_INSTANCES} until the next boot")
    except OSError:
        step.line(f"with more than a few machines run: sudo sysctl -w fs.inotify.max_user_instances={INOTIFY_INSTANCES}")
