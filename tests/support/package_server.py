"""Packages of the sidecar that differ from the lab's, and their server."""

from __future__ import annotations

import functools
import hashlib
import http.server
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.lab import Lab
from tools.lab.offline import packages

NEVER_READY = """#!/bin/sh
# The agent, but for its proxy, which does nothing for ever.
if [ "$1" = proxy ]; then exec sleep infinity; fi
exec "$0.real" "$@"
"""


def never_ready(package: Path) -> None:
    """Make the agent one that passes every check of a join and never gets ready."""
    agent = package / "usr/local/bin/pilot-agent"
    agent.rename(agent.with_name("pilot-agent.real"))
    agent.write_text(NEVER_READY)
    agent.chmod(0o755)


def another_version(package: Path) -> None:
    """Give the same build another version stamp."""
    control = package / "DEBIAN/control"
    control.write_text(control.read_text().replace("Version: ", "Version: 9."))
    (package / "usr/local/share/version").parent.mkdir(parents=True)
    (package / "usr/local/share/version").write_text("another\n")


@contextmanager
def served_package(lab: Lab, change: Callable[[Path], None], directory: Path) -> Iterator[dict[str, str]]:
    """Serve the lab's package with a change during the block; gives the settings of `mesh.package`.

    change: takes the directory of the unpacked package.
    directory: an empty directory.
    """
    # This computer's address on Docker's bridge, which machines call host.docker.internal.
    address = lab.docker("network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", "bridge").strip()
    url = f"http://{address}:{packages.PORT}{packages.PATH}"
    package, unpacked = directory / "istio-sidecar.deb", directory / "unpacked"
    subprocess.run(["curl", "--disable", "--fail", "--silent", "--noproxy", "*", "--output", package, url], check=True)
    subprocess.run(["dpkg-deb", "--raw-extract", package, unpacked], check=True)
    change(unpacked)
    subprocess.run(["dpkg-deb", "-Zgzip", "-z1", "--build", unpacked, package], check=True, stdout=subprocess.DEVNULL)
    handler = functools.partial(_Quiet, directory=str(directory))
    with http.server.ThreadingHTTPServer((address, 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            sha256 = hashlib.sha256(package.read_bytes()).hexdigest()
            yield {"url": f"http://host.docker.internal:{server.server_port}/istio-sidecar.deb", "sha256": sha256}
        finally:
            server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""
