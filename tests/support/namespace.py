"""Programs in a network of their own, where port 22 is free and any user may listen there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
_AS_ROOT = 'ip link set lo up && exec "$@"'
_AS_USER = (
    "ip link set lo up && sysctl -qw net.ipv4.ip_unprivileged_port_start=0 && "
    f'exec unshare --user --map-user={os.getuid()} --map-group={os.getgid()} "$@"'
)


def run_python(program: str, *arguments: str | Path) -> str:
    """Run a Python program with loopback alone, and return what it printed.

    It needs `ip` (iproute2), and outside of root's account namespaces of users.
    """
    root = os.geteuid() == 0
    namespace = ["unshare", "--net"] if root else ["unshare", "--map-root-user", "--net"]
    shell = ["sh", "-c", _AS_ROOT if root else _AS_USER, "sh"]
    words = [*namespace, *shell, sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
