"""How a machine withdraws before its agent stops, with stand-ins for its programs."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from tests.support.scripts import COMPONENTS, Sourced, add_program

SCRIPT = COMPONENTS / "machines" / "scripts" / "withdraw.sh"


def withdraw(
    tmp_path: Path, step: str, environment: Mapping[str, str] = MappingProxyType({}), **programs: str
) -> subprocess.CompletedProcess[str]:
    everything = {"pgrep": "", "iptables": 'echo "iptables $2"', "ss": "", "date": "echo 1800000000", **programs}
    for name, text in everything.items():
        add_program(tmp_path / "bin", name, text)
    sourced = Sourced(scripts=[SCRIPT], programs=tmp_path / "bin", environment=environment)
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
