"""When DNS is redirected, with stand-ins. tests/engine/test_redirection.py has the rules."""

from __future__ import annotations

import http.server
import socket
import threading
from pathlib import Path

from tests.support.scripts import COMPONENTS, Sourced, add_program

SCRIPTS = COMPONENTS / "machines" / "scripts"


class Agent(http.server.BaseHTTPRequestHandler):
    """The agent's HTTP server, which has the name table at the fourth request."""

    protocol_version = "HTTP/1.1"
    requests: list[str]

    def do_GET(self) -> None:
        self.requests.append(f"{self.path} {self.headers['Host']}")
        self.send_response(200 if len(self.requests) > 3 else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Print nothing."""


def test_dns_is_redirected_once_the_agent_has_the_name_table(tmp_path: Path) -> None:
    Agent.requests = []
    (tmp_path / "bypassed").touch()
    with http.server.HTTPServer(("127.0.0.1", 0), Agent) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        sourced = Sourced(scripts=[SCRIPTS / "redirect.sh"], programs=tmp_path / "bin", environment={"http_proxy": "http://192.0.2.1:3128"})
        variables: dict[str, str | int] = {"RULES": str(tmp_path), "LOCK": str(tmp_path / "lock"), "AGENT_PORT": server.server_port}
        done = sourced.run(f"end_bypass() {{ echo x >{tmp_path}/ended; }}\nredirect_dns", variables)
        server.shutdown()
    assert (done.returncode, done.stdout, done.stderr) == (0, "slept\n" * 3, "")
    assert (tmp_path / "ended").exists() and not (tmp_path / "bypassed").exists()
    assert Agent.requests == ["/debug/ndsz localhost"] * 4, "no proxy"


def test_dns_is_not_redirected_while_no_agent_listens(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    sourced = Sourced(scripts=[SCRIPTS / "redirect.sh"], programs=tmp_path / "bin")
    done = sourced.run("has_names || echo no", {"AGENT_PORT": port})
    assert (done.stdout, done.stderr) == ("no\n", "")


RULES = """*nat
:PREROUTING ACCEPT [0:0]
:ISTIO_INBOUND - [0:0]
-A PREROUTING -p tcp -j ISTIO_INBOUND
-A INPUT -p tcp -m comment --comment istio-vm-mesh -j ACCEPT
COMMIT
"""


def test_iptables_and_nft_read_pipes(tmp_path: Path) -> None:
    """SELinux keeps them from files, and they change nothing then. A here-string of this bash is one, as before bash 5.1."""
    table = 'table inet filter { # handle 1\n\tchain input { # handle 1\n\t\taccept comment "istio-vm-mesh" # handle 7\n\t}\n}\n'
    (tmp_path / "rules").write_text(RULES)
    (tmp_path / "table").write_text(table)
    reads = f'[ ! -f /proc/self/fd/0 ] || echo "$0 reads a file"; cat >>{tmp_path}/read'
    for name, text in {
        "iptables-nft-save": f"cat {tmp_path}/rules",
        "iptables-nft-restore": reads,
        "nft": f"case $* in *list*) cat {tmp_path}/table ;; *) {reads} ;; esac",
    }.items():
        add_program(tmp_path / "bin", name, text)
    scripts = [SCRIPTS / "redirect.sh", SCRIPTS / "redirect_firewall.sh"]
    sourced = Sourced(scripts=scripts, programs=tmp_path / "bin", environment={"BASH_COMPAT": "5.0"})
    variables = {"PROGRAMS_HERE": "iptables-nft", "RULES": str(tmp_path / "recorded"), "OPENED": str(tmp_path / "opened")}
    repair = "repair_program iptables-nft $'*nat\\n-A OUTPUT -j ISTIO_OUTPUT\\nCOMMIT'"
    done = sourced.run(f"remove iptables-nft; close_firewall; {repair}", variables)
    assert (done.returncode, done.stdout, done.stderr) == (0, "put 1 missing rules of the redirection back (iptables-nft: nat)\n", "")
    changes = (tmp_path / "read").read_text()
    for change in (
        "-D PREROUTING -p tcp -j ISTIO_INBOUND",
        "-D INPUT -p tcp",
        "delete rule inet filter input handle 7",
        "-A OUTPUT -j ISTIO_OUTPUT",
    ):
        assert change in changes
