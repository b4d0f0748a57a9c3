"""What the unit redirects and when, and how a machine withdraws, with stand-ins for iptables and Envoy."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.scripts import COMPONENTS, Sourced, add_program

SCRIPTS = COMPONENTS / "machines" / "scripts"


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """iptables of both backends; those in `$BACKENDS` have rules of Istio. Calls are lines of a file."""
    directory = tmp_path / "bin"
    for family in ("iptables", "ip6tables"):
        for backend in ("legacy", "nft"):
            rules = f'case " $BACKENDS " in *" {family}-{backend} "*) echo "-N ISTIO_OUTPUT" ;; esac'
            add_program(directory, f"{family}-{backend}-save", rules)
            add_program(
                directory, f"{family}-{backend}-restore", f'echo "{family}-{backend} $(grep -c "^$WANTED ISTIO")" >>{tmp_path}/calls'
            )
    add_program(directory, "pilot-agent", f'echo "$*" >>{tmp_path}/calls')
    return directory


def redirect(programs: Path, step: str, backends: str, **variables: str) -> list[str]:
    """Run one step and return the calls of programs."""
    environment = {"BACKENDS": backends, "WANTED": variables.pop("wanted", "")}
    sourced = Sourced(scripts=[SCRIPTS / "redirect.sh"], programs=programs, environment=environment)
    bypassed = programs.parent / "bypassed"
    done = sourced.run(f"rm() {{ command rm -f {bypassed}; }}\n{step}", {"DNS_BYPASSED": str(bypassed)})
    assert (done.returncode, done.stderr) == (0, "")
    calls = programs.parent / "calls"
    return calls.read_text().splitlines() if calls.exists() else []


@pytest.mark.parametrize(
    ("backends", "cleaned"),
    [("", []), ("iptables-nft", ["nft"]), ("ip6tables-legacy", ["legacy"]), ("iptables-legacy iptables-nft", ["legacy", "nft"])],
)
def test_rules_are_removed_wherever_they_are(programs: Path, backends: str, cleaned: list[str]) -> None:
    calls = redirect(programs, "redirect_off", backends)
    assert calls == [f"istio-iptables --cleanup-only --force-iptables-binary {backend}" for backend in cleaned]


def test_dns_bypasses_the_agent_from_the_start(programs: Path) -> None:
    calls = redirect(programs, "redirect_on", "iptables-nft", wanted="-I")
    assert calls == ["istio-iptables", "iptables-nft 4", "ip6tables-nft 4"]
    assert (programs.parent / "bypassed").exists()


def test_dns_is_redirected_once_the_agent_has_the_name_table(programs: Path) -> None:
    asked = programs.parent / "asked"
    add_program(programs, "curl", f"echo x >>{asked}; [ $(wc -l <{asked}) -gt 3 ]")
    (programs.parent / "bypassed").touch()
    calls = redirect(programs, "redirect_dns >/dev/null", "iptables-nft", wanted="-D")
    assert calls == ["iptables-nft 4", "ip6tables-nft 4"]
    assert not (programs.parent / "bypassed").exists()


def withdraw(tmp_path: Path, step: str, **programs: str) -> subprocess.CompletedProcess[str]:
    everything = {"pgrep": "", "iptables": 'echo "iptables $2"', "ss": "", "date": "echo 1800000000", **programs}
    for name, text in everything.items():
        add_program(tmp_path / "bin", name, text)
    sourced = Sourced(scripts=[SCRIPTS / "withdraw.sh"], programs=tmp_path / "bin")
    return sourced.run(f'sleep() {{ echo "sleep $1"; }}\n{step}', {"WITHDRAWN": f"{tmp_path}/withdrawn"})


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


def test_undo_removes_the_rule_however_often_it_is_there(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    done = withdraw(tmp_path, "undo", iptables=f"echo x >>{calls}; [ $(wc -l <{calls}) -lt 3 ]")
    assert (done.returncode, calls.read_text()) == (0, "x\nx\nx\n")
