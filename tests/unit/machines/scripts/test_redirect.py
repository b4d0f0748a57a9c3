"""When DNS is redirected, and how a machine withdraws, with stand-ins. tests/engine/test_redirection.py has the rules."""

from __future__ import annotations

import http.server
import socket
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

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


def withdraw(
    tmp_path: Path, step: str, environment: Mapping[str, str] = MappingProxyType({}), **programs: str
) -> subprocess.CompletedProcess[str]:
    everything = {"pgrep": "", "iptables": 'echo "iptables $2"', "ss": "", "date": "echo 1800000000", **programs}
    for name, text in everything.items():
        add_program(tmp_path / "bin", name, text)
    sourced = Sourced(scripts=[SCRIPTS / "withdraw.sh"], programs=tmp_path / "bin", environment=environment)
    files = {"WITHDRAWN": f"{tmp_path}/withdrawn", "REJECTED": f"{tmp_path}/rejected"}
    return sourced.run(f'sleep() {{ echo "sleep $1"; }}\n{step}', files)


def test_a_machine_is_deregistered_before_its_agent_stops(tmp_path: Path) -> None:
    done = withdraw(tmp_path, "withdraw")
    assert (done.stdout.splitlines(), done.stderr) == (["iptables --insert", "sleep 11"], "")
    assert (tmp_path / "withdrawn").read_text() == "1800000000\n"


def test_nothing_waits_where_envoy_is_gone(tmp_path: Path) -> None:
    assert withdraw(tmp_path, "withdraw", pgrep="exit 1").stdout == ""


def test_a_kernel_that_does_not_end_connections_is_named(tmp_path: Path) -> None:
    done = withdraw(tmp_path, "withdraw", ss='[ "$1" = --kill ] || echo ESTAB')
    assert "cannot end the connection to istiod before the agent stops" in done.stderr
    assert not (tmp_path / "withdrawn").exists() and "sleep 11" not in done.stdout


def shut_down(tmp_path: Path, **programs: str) -> list[str]:
    done = withdraw(tmp_path, 'kill() { echo "kill $*"; }\nshut_down', {}, **{"systemctl": "echo 4711", **programs})
    assert done.returncode == 0
    return done.stdout.splitlines()


def test_a_machine_that_shuts_down_is_deregistered_while_its_agent_answers(tmp_path: Path) -> None:
    assert shut_down(tmp_path) == ["iptables --insert", "sleep 11", "kill -TERM 4711", "sleep 6"]


def test_a_machine_that_stays_registered_refuses_callers_until_it_is_not(tmp_path: Path) -> None:
    lines = shut_down(tmp_path, ss='[ "$1" = --kill ] || echo ESTAB')
    assert lines[-2:] == ["kill -TERM 4711", "sleep 17"] and "sleep 11" not in lines


def test_a_machine_without_an_agent_shuts_down_at_once(tmp_path: Path) -> None:
    assert shut_down(tmp_path, pgrep="exit 1", systemctl="echo 0") == []


def test_at_another_port_connections_of_others_stay(tmp_path: Path) -> None:
    """The port may be 443: the rule and the end of connections are for addresses of the gateway alone."""
    connections = """0 0 10.0.0.5:40000 203.0.113.9:443 users:(("pilot-agent",pid=7,fd=9))
0 0 10.0.0.5:40001 198.51.100.4:443 users:(("envoy",pid=8,fd=9))
0 0 10.0.0.5:40002 10.0.0.5:443 users:(("pilot-agent",pid=7,fd=10))
"""
    (tmp_path / "connections").write_text(connections)
    ss = f"""case "$*" in
*--processes*) cat {tmp_path}/connections ;;
*) echo "ss $*" >>{tmp_path}/calls ;;
esac"""
    iptables = f'echo "iptables $*" >>{tmp_path}/calls; [ "$2" = --insert ]'
    getent = '[ "$*" = "ahostsv4 mesh.example.com" ] && printf "203.0.113.%s STREAM x\\n203.0.113.%s DGRAM\\n" 9 9 10 10'
    environment = {"GATEWAY_HOST": "mesh.example.com", "GATEWAY_PORT": "443"}
    done = withdraw(tmp_path, "withdraw; undo", environment, ss=ss, iptables=iptables, getent=getent)
    assert (done.returncode, done.stderr) == (0, "")
    rule = (
        "OUTPUT --protocol tcp --syn --dport 443 --match owner --uid-owner istio-proxy "
        "--destination 203.0.113.10,203.0.113.9 --jump REJECT --reject-with tcp-reset"
    )
    of_gateway = "dport = 443 and ( dst 203.0.113.10 or dst 203.0.113.9 )"
    assert list(dict.fromkeys((tmp_path / "calls").read_text().splitlines())) == [
        f"iptables --wait --insert {rule}",
        f"ss --kill --tcp {of_gateway}",
        f"ss --no-header --tcp --numeric state established {of_gateway}",
        f"iptables --wait --delete {rule}",
    ]
    assert not (tmp_path / "rejected").exists()


def test_undo_removes_the_rule_however_often_it_is_there(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    done = withdraw(tmp_path, "undo", iptables=f"echo x >>{calls}; [ $(wc -l <{calls}) -lt 3 ]")
    assert (done.returncode, calls.read_text()) == (0, "x\nx\nx\n")


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
