"""A real firewalld in the network of a `Host`, with a message bus of its own.

It is unpacked and not installed: an installed one would start with the next boot of this computer.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.host import Host, enter, running
from tests.support.scripts import add_program
from tests.support.waiting import wait_until
from tools.lab import paths

# Mounts of its own: the packages' files over this computer's, a /run for the bus, and an /etc to write to.
_RUN = """
mount -t tmpfs none /mnt && mkdir /mnt/upper /mnt/work
mount -t overlay none -o "lowerdir=$0/usr:/usr" /usr
mount -t overlay none -o "lowerdir=$0/etc:/etc,upperdir=/mnt/upper,workdir=/mnt/work" /etc
mount -t tmpfs none /run && mkdir /run/dbus
dbus-daemon --session --address=unix:path=/run/dbus/system_bus_socket --nopidfile --fork
exec firewalld --nofork --nopid --log-target console
"""


def unpacked() -> Path:
    """Return a directory with firewalld's files, and those of what it needs that this computer has not. It is made once."""
    directory = paths.cache() / f"firewalld-{platform.freedesktop_os_release()['VERSION_ID']}"
    if directory.exists():
        return directory
    wanted = ("install", "--simulate", "--no-install-recommends", "firewalld", "dbus-daemon")
    try:
        text = _apt(*wanted)
    except AssertionError:  # a fresh image has no lists
        _apt("update")
        text = _apt(*wanted)
    missing = re.findall(r"^Inst (\S+)(?: \[\S+\])? \((\S+)", text, re.MULTILINE)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".firewalld-") as name:
        archives, files = Path(name) / "archives", Path(name) / "files"
        for place in (archives, files / "usr", files / "etc"):
            place.mkdir(parents=True)
        _apt("download", *(f"{package}={version}" for package, version in missing), directory=archives)
        for archive in archives.iterdir():
            subprocess.run(["dpkg-deb", "--extract", str(archive), str(files)], check=True)
        try:
            files.rename(directory)
        except OSError:
            assert directory.exists(), "another test has made it"
    return directory


def _apt(*words: str, directory: Path | None = None) -> str:
    done = subprocess.run(["apt-get", *words], cwd=directory, env={**os.environ, "LC_ALL": "C"}, capture_output=True, text=True)
    assert done.returncode == 0, f"apt-get {' '.join(words)}: {done.stderr}"
    return done.stdout


@contextmanager
def firewalld(host: Host) -> Iterator[None]:
    """Run firewalld on a host during the block. The host's `firewall-cmd` is its own."""
    command = [*enter(host.namespace), "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", _RUN, str(unpacked())]
    with running(command) as process:
        program = host.root / "bin" / "firewall-cmd"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        wait_until(lambda: children.read_text().split(), description="firewalld's processes are there")
        inner = children.read_text().split()[0]
        add_program(program.parent, program.name, f'exec nsenter --net --mount --target {inner} -- /usr/bin/firewall-cmd "$@"')
        wait_until(lambda: subprocess.run([program, "--state"], capture_output=True).returncode == 0 or process.poll() is not None)
        assert process.poll() is None, process.stdout and process.stdout.read()
        yield
