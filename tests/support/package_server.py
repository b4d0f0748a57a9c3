"""A package of the sidecar that passes every check of a join and whose agent never gets ready, and its server."""

from __future__ import annotations

import functools
import hashlib
import http.server
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NEVER_READY = """#!/bin/sh
# The agent, but for its proxy, which does nothing for ever.
if [ "$1" = proxy ]; then exec sleep infinity; fi
exec "$0.real" "$@"
"""


@contextmanager
def broken_package(url: str, address: str, directory: Path) -> Iterator[dict[str, str]]:
    """Serve the broken package during the block; gives the settings of `mesh.package`.

    url: where this computer gets the package that works.
    address: this computer's address on Docker's bridge, which machines call host.docker.internal.
    directory: an empty directory.
    """
    package, unpacked = directory / "istio-sidecar.deb", directory / "unpacked"
    subprocess.run(["curl", "--disable", "--fail", "--silent", "--noproxy", "*", "--output", package, url], check=True, timeout=60)
    subprocess.run(["dpkg-deb", "--raw-extract", package, unpacked], check=True, timeout=60)
    agent = unpacked / "usr/local/bin/pilot-agent"
    agent.rename(agent.with_name("pilot-agent.real"))
    agent.write_text(NEVER_READY)
    agent.chmod(0o755)
    subprocess.run(["dpkg-deb", "-Zgzip", "-z1", "--build", unpacked, package], check=True, timeout=120, stdout=subprocess.DEVNULL)
    handler = functools.partial(_Quiet, directory=str(directory))
    with http.server.ThreadingHTTPServer((address, 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            sha256 = hashlib.sha256(package.read_bytes()).hexdigest()
            yield {"url": f"http://host.docker.internal:{server.server_port}/istio-sidecar.deb", "sha256": sha256}
        finally:
            server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""
