"""What a machine sends to itself or to the mesh takes no proxy of the environment, and no settings of a user."""

from __future__ import annotations

import http.server
import re
import threading
from pathlib import Path

import pytest

from tests.support.scripts import COMPONENTS, Sourced

ROOT = COMPONENTS.parent
DIRECT = r"curl --disable --noproxy '\*'"
PACKAGE = r"runuser -u istio-proxy -- timeout \"\$2\" curl --disable --config - "
"""The download of the package is the one request for which a machine may have a proxy."""


def scripts() -> list[str]:
    directories = [ROOT / "components", ROOT / "scripts/tools/mesh_status"]
    return sorted(str(path.relative_to(ROOT)) for directory in directories for path in directory.rglob("*.sh"))


@pytest.mark.parametrize("name", scripts())
def test_every_request_is_direct(name: str) -> None:
    lines = [line.strip() for line in (ROOT / name).read_text().splitlines() if not line.strip().startswith("#")]
    requests = [line for line in lines if re.search(r"(?<![\w/.-])(curl|wget) -", re.sub(DIRECT, "", line))]
    assert [line for line in requests if not re.match(PACKAGE, line)] == []


def test_a_request_to_the_machine_ignores_proxies(tmp_path: Path) -> None:
    (tmp_path / ".curlrc").write_text('proxy = "http://127.0.0.1:9"\nfail\n')
    environment = dict.fromkeys(("http_proxy", "all_proxy", "ALL_PROXY"), "http://127.0.0.1:9")
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        sourced = Sourced(scripts=[], programs=tmp_path, environment=environment)
        url = f"http://127.0.0.1:{server.server_port}/"
        assert sourced.run(f"direct_curl --output /dev/null --write-out '%{{http_code}}' {url}").stdout == "200"
        assert sourced.run(f"curl --silent {url}").returncode != 0
        server.shutdown()
