"""What a join says of a host's firewall, and what it does with it: rules as ufw 0.36 and firewalld 1.3 make them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from components.config.capture import Firewall
from components.machines import bootstrap, files
from components.machines.bootstrap import JoinInputs
from components.machines.bundle import Owner
from components.names import INBOUND_PORT, STATUS_PORT
from tests.support.samples import FACTS, MESH, PRODUCT
from tests.support.scripts import COMPONENTS, Sourced, add_program

SCRIPTS = [COMPONENTS / "machines" / "scripts" / f"{name}.sh" for name in ("redirect", "redirect_firewall", "redirect_host")]
RECORDED = Path(__file__).parent / "recorded"
UFW, FIREWALLD = (RECORDED / "ufw.rules").read_text(), (RECORDED / "firewalld.nft").read_text()
OLD_FIREWALLD = """*filter
:INPUT ACCEPT [0:0]
:INPUT_ZONES - [0:0]
:IN_public - [0:0]
:IN_public_allow - [0:0]
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -j INPUT_ZONES
-A INPUT -m conntrack --ctstate INVALID -j DROP
-A INPUT -j REJECT --reject-with icmp-host-prohibited
-A INPUT_ZONES -g IN_public
-A IN_public -j IN_public_allow
-A IN_public -p icmp -j ACCEPT
-A IN_public_allow -p tcp -m tcp --dport 22 -m conntrack --ctstate NEW,UNTRACKED -j ACCEPT
COMMIT
"""
"""That of Red Hat Enterprise Linux 7, which does not let translated connections in."""
ARRIVE = f"port {INBOUND_PORT}, at which redirected connections to 8080 arrive"
SOCKETS = "".join(
    f'tcp LISTEN 0 128 0.0.0.0:{port} 0.0.0.0:* users:(("{name}",pid=7,fd=3))\n' for port, name in ((8080, "nginx"), (5432, "postgres9"))
)


@dataclass(frozen=True)
class FirewalledHost:
    """A host whose programs print recorded texts, and note how they are called."""

    directory: Path
    environment: dict[str, str]

    def run(self, what: str) -> list[str]:
        sourced = Sourced(scripts=SCRIPTS, programs=self.directory / "bin", environment=self.environment)
        place = {"RULES": str(self.directory), "OPENED": str(self.directory / "opened"), "SSH_CONFIGURATION": str(self.directory)}
        done = sourced.run(what, place)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    def changes(self) -> list[str]:
        return [line for line in self.run("look; changes") if "firewall" in line]

    @property
    def calls(self) -> list[str]:
        path = self.directory / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def show(self, rules: str = "", ruleset: str = "") -> None:
        """Have the programs print these rules from now on."""
        (self.directory / "rules").write_text(rules)
        (self.directory / "ruleset").write_text(ruleset)


def firewalled(directory: Path, rules: str = "", ruleset: str = "", **environment: str) -> FirewalledHost:
    ports = json.dumps([{"name": "http", "containerPort": 8080, "protocol": "TCP"}], separators=(",", ":"))
    programs = {
        "iptables-nft": "",
        "iptables-nft-save": f"cat {directory}/rules",
        "iptables-nft-restore": f'echo "restore $*" >>{directory}/calls; cat >>{directory}/calls',
        "nft": f"""case "$*" in
            "list ruleset") cat {directory}/ruleset ;;
            "list tables") sed -n "s/ {{$//p" {directory}/ruleset | grep ^table ;;
            "list table "*) sed -n "/^table $3 $4 {{/,/^}}/p" {directory}/ruleset ;;
            -*) ;;
            *) echo "nft $*" >>{directory}/calls ;;
        esac""",
        "firewall-cmd": f'case $1 in --get-zone*) echo internal ;; *) echo "$*" >>{directory}/calls ;; esac',
        "ss": f"cat <<'END'\n{SOCKETS}END",
        "ip": '[[ $* != *"-4 address"* ]] || echo "2: eth0    inet 10.0.0.5/24 scope global eth0"',
        "iptables": "echo nf_tables",
        "ip6tables": "echo nf_tables",
        "systemctl": "",
        **{f"{name}-save": "exit 1" for name in ("iptables-legacy", "ip6tables-legacy", "ip6tables-nft")},
    }
    for name, text in programs.items():
        add_program(directory / "bin", name, text)
    host = FirewalledHost(directory, {"INSTANCE_IP": "10.0.0.5", "ISTIO_META_POD_PORTS": ports, **environment})
    host.show(rules, ruleset)
    return host


@pytest.mark.slow
def test_ufw_is_named_with_its_own_command(tmp_path: Path) -> None:
    (line,) = firewalled(tmp_path, UFW).changes()
    assert line == f"the firewall (ufw) drops {ARRIVE}: open it by 'ufw allow 15006/tcp', or set firewall: manage"


def test_the_rules_of_the_redirection_are_no_firewall(tmp_path: Path) -> None:
    """Those of a machine that joins again. To follow them takes longer than all else that a join looks at."""
    rules = ["*raw", ":PREROUTING ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]", ":ISTIO_INBOUND - [0:0]", ":ISTIO_OUTPUT_DNS - [0:0]"]
    rules += ["-A PREROUTING -j ISTIO_INBOUND", "-A OUTPUT -j ISTIO_OUTPUT_DNS", "-A ISTIO_INBOUND -p udp -m udp --sport 53 -j CT --zone 1"]
    host = firewalled(tmp_path, "\n".join([*rules, "-A ISTIO_OUTPUT_DNS -p udp -m udp --dport 53 -j CT --zone 2", "COMMIT", ""]))
    assert host.run('may_drop "$(filters)" || echo none') == ["none"]
    host.show("\n".join([*rules, "-A OUTPUT -p tcp -j theirs", "COMMIT", ""]))
    assert host.run('may_drop "$(filters)" && echo theirs') == ["theirs"]


@pytest.mark.slow
def test_a_health_check_that_ufw_drops_is_named_too(tmp_path: Path) -> None:
    lines = firewalled(tmp_path, UFW, HEALTH_CHECKED="1").changes()
    assert [line.partition(":")[0] for line in lines] == [
        f"the firewall (ufw) drops {ARRIVE}",
        f"the firewall (ufw) drops port {STATUS_PORT}",
    ]


def test_firewalld_lets_redirected_connections_in_also_those_to_ports_that_it_closes(tmp_path: Path) -> None:
    """It accepts what was translated, so a database that it protects until now is reached through the agent."""
    (line,) = firewalled(tmp_path, ruleset=FIREWALLD).changes()
    assert line.endswith("lets them in once they are redirected (exclude them by capture.excludeInboundPorts): 5432")


@pytest.mark.slow
def test_an_older_firewalld_is_named_with_its_own_command(tmp_path: Path) -> None:
    (line,) = firewalled(tmp_path, OLD_FIREWALLD).changes()
    command = "firewall-cmd --permanent --zone=internal --add-port=15006/tcp && firewall-cmd --reload"
    assert line == f"the firewall (firewalld) drops {ARRIVE}: open it by '{command}', or set firewall: manage"


@pytest.mark.slow
def test_a_host_without_a_firewall_is_not_mentioned(tmp_path: Path) -> None:
    assert firewalled(tmp_path).changes() == []


@pytest.mark.slow
def test_a_firewall_that_is_open_for_every_redirected_port_is_named(tmp_path: Path) -> None:
    (line,) = firewalled(tmp_path, OLD_FIREWALLD.replace("--dport 22", "--dport 15006")).changes()
    assert line.startswith("the firewall drops these ports until now, and lets them in once they are redirected")


def test_ufw_is_opened_before_its_own_rules_for_the_workload_alone(tmp_path: Path) -> None:
    host = firewalled(tmp_path, UFW, FIREWALL="manage")
    assert host.changes() == [f"the firewall (ufw) is opened for {ARRIVE}, while they are redirected"]
    rule = "INPUT -p tcp -m tcp --dport 15006 -m conntrack --ctorigdstport 8080 -m comment --comment istio-vm-mesh -j ACCEPT"
    host.run("open_firewall >/dev/null 2>&1")
    assert host.calls == ["restore --noflush --wait=5", "*filter", f"-I {rule}", "COMMIT"]
    opened = UFW.replace("-A INPUT", f"-A {rule}\n-A INPUT", 1)
    host.show(opened)
    (tmp_path / "calls").unlink()
    assert (host.run("open_firewall; check_firewall"), host.calls) == ([], [])
    host.run("close_firewall")
    assert host.calls == ["restore --noflush --wait=5", "*filter", f"-D {rule}", "COMMIT"]


@pytest.mark.slow
def test_firewalld_is_opened_at_run_time_and_closed_where_it_was_opened(tmp_path: Path) -> None:
    host = firewalled(tmp_path, OLD_FIREWALLD, FIREWALL="manage")
    host.run("open_firewall >/dev/null 2>&1")
    assert host.calls == ["--quiet --zone=internal --add-port=15006/tcp"]
    host.run("close_firewall; close_firewall")
    assert host.calls[1:] == ["--quiet --zone=internal --remove-port=15006/tcp"]


def test_a_rule_of_another_is_not_deleted_whatever_its_comment_says(tmp_path: Path) -> None:
    rules = "".join(
        f"-A INPUT -p tcp --dport 1 -m comment --comment {text} -j ACCEPT\n" for text in ('"not istio-vm-mesh"', "istio-vm-mesh-2")
    )
    host = firewalled(tmp_path, f"*filter\n:INPUT ACCEPT [0:0]\n{rules}COMMIT\n")
    host.run("close_firewall")
    assert [call for call in host.calls if "-D" in call] == []


@pytest.mark.slow
def test_a_firewall_that_stays_closed_is_said_once(tmp_path: Path) -> None:
    host = firewalled(tmp_path, UFW, FIREWALL="manage")
    first = host.run("open_firewall 2>&1")
    assert f"the firewall (ufw iptables-nft ip/filter INPUT) drops {ARRIVE}" in first
    assert not [line for line in host.run("open_firewall 2>&1") if "drops" in line]
    assert host.run("check_firewall") == [f"the firewall (ufw iptables-nft ip/filter INPUT) drops {ARRIVE}"]


def test_sets_of_addresses_are_not_read_and_sets_of_ports_are(tmp_path: Path) -> None:
    """Lists of banned clients have tens of thousands of elements."""
    ruleset = """table inet filter {
\tset banned {
\t\ttype ipv4_addr
\t\tflags interval
\t\telements = { 192.0.2.1, 192.0.2.2,
\t\t\t     192.0.2.3 }
\t}

\tset open {
\t\ttype inet_service
\t\telements = { 22, 15006 }
\t}

\tchain input {
\t\ttype filter hook input priority filter; policy drop;
\t\tip saddr @banned drop
\t\ttcp dport @open accept
\t}
}
"""
    host = firewalled(tmp_path, ruleset=ruleset)
    assert [line for line in host.run("filters") if line.startswith("set\t")] == ["set\tnft\tinet/filter\topen\t22,15006"]
    assert host.run("filters | dropped '15006:8080 15021:15021'") == ["nftables nft inet/filter input 15021 15021"]


@pytest.mark.parametrize(
    ("workload", "machine", "written"),
    [("report", None, False), ("manage", None, True), ("manage", "report", False), ("report", "manage", True)],
)
def test_a_machines_setting_overrides_its_workloads(workload: Firewall, machine: Firewall | None, written: bool) -> None:
    inputs = JoinInputs(
        owner=Owner("mesh", "prod", "product-1", "r-1", "shop", "product"),
        network="pods",
        address="10.0.0.1",
        gateway="10.0.0.2",
        root_certificate="",
        workload=PRODUCT.model_copy(update={"firewall": workload}),
        mesh=MESH,
        facts=FACTS,
        firewall=machine,
    )
    assert ("FIREWALL='manage'\n" in files.overrides_env(bootstrap.bundle(inputs))) is written
