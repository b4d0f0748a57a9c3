"""How `failClosed` of a workload reaches its machines, what of the redirection a machine has, and what its guard does."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from components.machines import bootstrap, files
from components.machines.bootstrap import JoinInputs
from components.machines.bundle import PROGRAMS, STATE, UNITS, Owner, role_files
from tests.support.machine import BUNDLE, FakeMachine, bundle
from tests.support.samples import FACTS, MESH, PRODUCT
from tests.support.scripts import COMPONENTS, Sourced, add_program
from tools import ROOT

SCRIPTS = COMPONENTS / "machines" / "scripts"
OWNER = Owner("mesh", "prod", "product-1", "r-1", "shop", "product")
GUARD = {f"{PROGRAMS}/scripts/redirect_guard.sh", f"{UNITS}/istio-vm-mesh-redirect.service"}


@pytest.mark.parametrize("fail_closed", [True, False])
def test_the_guard_reads_the_setting_in_the_agents_environment(fail_closed: bool) -> None:
    workload = PRODUCT.model_copy(update={"fail_closed": fail_closed})
    inputs = JoinInputs(
        owner=OWNER, network="pods", address="10.0.0.1", gateway="10.0.0.2", root_certificate="", workload=workload, mesh=MESH, facts=FACTS
    )
    assert ("FAIL_CLOSED='1'\n" in files.overrides_env(bootstrap.bundle(inputs))) is fail_closed


def test_a_sidecar_has_the_guard_and_a_gateway_does_not_run_it() -> None:
    paths = {role: {file.path for file in role_files(role)} for role in ("sidecar", "router")}
    assert paths["sidecar"] >= GUARD
    assert f"{UNITS}/istio-vm-mesh-redirect.service" not in paths["router"]


def test_the_scripts_agree_on_where_things_are(tmp_path: Path) -> None:
    """The scripts of the units stand alone on the machine; the join reads and removes what they leave."""
    sourced = Sourced(scripts=[SCRIPTS / "installation.sh", SCRIPTS / "redirect.sh"], programs=tmp_path)
    assert sourced.run("echo $STATE $RULES $LOCK $AGENT").stdout.split() == [
        STATE,
        "/run/istio-vm-mesh-redirect",
        "/run/istio-vm-mesh-redirect.lock",
        f"{PROGRAMS}/current/usr/local/bin/pilot-agent",
    ]
    withdraw = Sourced(scripts=[SCRIPTS / "redirect.sh", SCRIPTS / "withdraw.sh"], programs=tmp_path)
    assert withdraw.run("echo $WITHDRAWN").stdout == sourced.run("echo $WITHDRAWN").stdout == "/run/istio-vm-mesh-withdrawn\n"
    join = Sourced(scripts=[SCRIPTS / "installation.sh", SCRIPTS / "join.sh"], programs=tmp_path)
    assert join.run("echo $ROOT $PROGRAMS $STATE $RUN $UNITS").stdout.split() == [PROGRAMS, STATE, "/run", UNITS]
    assert '"$RUN/istio-vm-mesh-withdrawn"' in (SCRIPTS / "join.sh").read_text()
    assert '"$RUN/istio-vm-mesh-redirect/bypassed"' in (SCRIPTS / "join.sh").read_text()
    texts = [path.read_text() for path in SCRIPTS.parent.rglob("*") if path.suffix in {".sh", ".conf", ".service"}]
    named = set(re.findall(r"(?:/run|\$RUN)/istio-vm-mesh-([a-z.]+)", "\n".join(texts)))
    removed = re.search(r'rm -rf .*"\$RUN/\$UNIT"-\{(.*)\} \\\n *"\$RUN/\$UNIT"-(looks\.)\*', (SCRIPTS / "installation.sh").read_text())
    assert removed and named == {*removed[1].split(","), removed[2]}


def test_what_the_status_reads_is_where_a_join_puts_it(tmp_path: Path) -> None:
    probe = Sourced(scripts=[ROOT / "scripts/tools/mesh_status/probe.sh"], programs=tmp_path)
    join = Sourced(scripts=[SCRIPTS / "installation.sh", SCRIPTS / "join.sh"], programs=tmp_path)
    assert probe.run("echo $STATE $PACKAGE $TOKEN_FILE $CERTIFICATE").stdout == (
        join.run("echo $STATE $PROGRAMS/current $TOKEN_FILE $CERTS/cert-chain.pem").stdout
    )
    assert set(probe.run("echo $GUARD $GUARD_UNIT").stdout.split()) == GUARD


def test_no_script_or_unit_has_another_directory_of_this_program() -> None:
    texts = [path.read_text() for path in SCRIPTS.parent.rglob("*") if path.suffix in {".sh", ".conf", ".service"}]
    texts.append((ROOT / "scripts/tools/mesh_status/probe.sh").read_text())
    assert set(re.findall(r"(?<![\w/])(?:/[\w.]+)+/istio-vm-mesh(?![\w.-])", "\n".join(texts))) == {PROGRAMS, STATE}


def test_machines_whose_name_servers_change_at_once_do_not_all_start_again_at_once(tmp_path: Path) -> None:
    """Between one minute and five, in rounds of five seconds: each machine at a time of its own that stays the same."""
    sourced = Sourced(scripts=[SCRIPTS / "redirect_guard.sh"], programs=tmp_path)
    text = 'for name in billing-{1..4} billing-1 ""; do POD_NAME=$name; renewal_round; done'
    *four, again, unnamed = map(int, sourced.run(text).stdout.split())
    assert len(set(four)) == 4 and again == four[0]
    assert all(12 <= each < 60 for each in [*four, unnamed])


def test_the_guard_looks_once_a_minute_which_iptables_the_host_has(tmp_path: Path) -> None:
    """To look takes a quarter of the processes of a round in which nothing has changed."""
    sourced = Sourced(scripts=[SCRIPTS / name for name in ("redirect.sh", "redirect_guard.sh")], programs=tmp_path)
    text = (
        'programs() { [ -n "$PROGRAMS_HERE" ] || echo look >>"$LOOKS"; echo "${PROGRAMS_HERE:-none}"; }; count_changes() { :; }; locked() { :; }; '
        'for round in {0..13}; do compare_rules $round; [ $round != 11 ] || echo >>"$LOOKS"; done; cat "$LOOKS"'
    )
    looks = sourced.run(text, {"LOOKS": str(tmp_path / "looks"), "RULES": str(tmp_path)}).stdout
    assert looks.split("\n\n") == ["look", "look\n"]


def systemd_calls(machine: FakeMachine) -> list[str]:
    return (machine.directory / "run/calls").read_text().splitlines()


@pytest.mark.slow
def test_the_guard_is_restarted_only_where_traffic_is_redirected_again(tmp_path: Path) -> None:
    """While it restarts, its table is missing: that must not be while the agent is stopped."""
    machine = FakeMachine(tmp_path / "machine").create()
    assert machine.join().returncode == 0
    assert machine.join(bundle({"new.env": "new"})).returncode == 0
    calls = systemd_calls(machine)
    assert calls.count("try-restart istio-vm-mesh-redirect") == 1
    assert calls.index("restart istio-vm-mesh") < calls.index("try-restart istio-vm-mesh-redirect")


@pytest.mark.slow
def test_the_next_join_starts_a_guard_that_was_stopped_by_hand(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path / "machine").create()
    assert machine.join().returncode == 0
    assert "start istio-vm-mesh-redirect" not in systemd_calls(machine)
    systemctl = machine.directory / "bin/systemctl"
    stopped = '[ "$*" != "is-active --quiet istio-vm-mesh-redirect" ] || exit 3\n'
    systemctl.write_text(systemctl.read_text().replace("\n", f"\n{stopped}", 1))
    assert (machine.join(BUNDLE).returncode, machine.calls) == (0, [])
    assert systemd_calls(machine)[-1] == "start istio-vm-mesh-redirect"


def test_a_host_that_cannot_fail_closed_is_refused_before_the_join(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path / "machine").create()
    before = machine.tree()
    answers = """bash() { [ "$*" = "-s possible" ] && cat >/dev/null && echo "'nft' is missing" && return 1; }"""
    done = machine.join(replace(BUNDLE, fail_closed=True), answers)
    assert done.returncode == 1 and "failClosed is not possible on this machine: 'nft' is missing" in done.stderr
    assert machine.tree() == before


def test_the_guard_starts_before_the_network_and_the_redirection() -> None:
    units = COMPONENTS / "machines" / "units"
    guard = (units / "istio-vm-mesh-redirect.service").read_text()
    assert "DefaultDependencies=no\n" in guard and "Before=network-pre.target " in guard and "Restart=always\n" in guard
    agent = (units / "istio-vm-mesh.service.d/sidecar.conf").read_text()
    assert "Wants=istio-vm-mesh-redirect.service istio-vm-mesh-undo.service\nAfter=istio-vm-mesh-redirect.service\n" in agent


def test_a_port_of_ssh_is_seen_in_each_place(tmp_path: Path) -> None:
    add_program(tmp_path / "bin", "ss", "cat <<'END'\n" + SOCKETS + "END")
    add_program(tmp_path / "bin", "systemctl", "printf 'Listen=[::]:2203 (Stream)\\nListen=/run/x (Stream)\\nListen=2204 (Datagram)\\n'")
    (tmp_path / "sshd_config.d").mkdir()
    (tmp_path / "sshd_config").write_text("#Port 1\n  Port 2201\nPermitRootLogin no\nSomePort 3\n")
    (tmp_path / "sshd_config.d/more.conf").write_text(f"port = 2202 # ours\n{LISTENS}")
    (tmp_path / "ssh-port").write_text("2200\n")
    sourced = Sourced(scripts=[SCRIPTS / "redirect.sh"], programs=tmp_path / "bin", environment={"ISTIO_LOCAL_EXCLUDE_PORTS": "22,15090"})
    done = sourced.run('open_ports "$(rules_of_ports)"', {"STATE": str(tmp_path), "SSH_CONFIGURATION": str(tmp_path)})
    assert done.stdout == "22,2200,2201,2202,2203,2205,2206,2207,2208,2209,15090\n"


SOCKETS = """\
LISTEN 0      128          0.0.0.0:2205      0.0.0.0:*    users:(("sshd",pid=611,fd=3))
LISTEN 0      128             [::]:2206         [::]:*    users:(("sshd",pid=611,fd=4))
LISTEN 0      128        127.0.0.1:6010      0.0.0.0:*    users:(("sshd",pid=812,fd=9))
LISTEN 0      128            [::1]:8080         [::]:*    users:(("sshd",pid=812,fd=10))
LISTEN 0      511          0.0.0.0:80        0.0.0.0:*    users:(("nginx",pid=700,fd=6))
"""
LISTENS = """ListenAddress 10.0.0.5:2207
  listenaddress "[fd00::5]:2208" rdomain blue
ListenAddress=host.example.com:2209
ListenAddress 10.0.0.5
ListenAddress ::
ListenAddress 2001:99::5
#ListenAddress 10.0.0.5:98
"""


@pytest.mark.parametrize("is_first", [True, False])
def test_a_child_that_was_just_started_hides_no_server_of_ssh(tmp_path: Path, is_first: bool) -> None:
    """Until it is a session, it has the server's socket. `ss` has the highest number first, and numbers begin again.

    A session alone has the socket of a port that its client forwards.
    """
    fork = "printf sshd >/proc/$$/comm; exec 3<&0; read -r -u 3 & echo $!; read -r"
    with subprocess.Popen(["bash", "-c", fork], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        session = int(server.stdout.readline())
        users = [f'("sshd",pid={pid},fd=3)' for pid in ((server.pid, session) if is_first else (session, server.pid))]
        sockets = {22: ",".join(users), 9001: users[is_first]}
        lines = [f"LISTEN 0 128 0.0.0.0:{port} 0.0.0.0:* users:({each})" for port, each in sockets.items()]
        add_program(tmp_path / "bin", "ss", "\n".join(["cat <<'END'", *lines, "END"]))
        done = Sourced(scripts=[SCRIPTS / "redirect.sh"], programs=tmp_path / "bin").run("ssh_listeners")
    assert (done.stdout, done.stderr) == ("22\n", "")
