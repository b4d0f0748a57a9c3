"""What a join says of the host's traffic before it changes it, and which applications it refuses."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from components import names
from tests.support.machine import FakeMachine
from tests.support.scripts import COMPONENTS, Sourced, add_program
from tests.support.tiers import first_quick

SCRIPTS = COMPONENTS / "machines" / "scripts"
ADDRESSES = """
1: lo    inet 127.0.0.1/8 scope host lo
2: eth0    inet 10.0.0.5/24 scope global eth0
3: eth1    inet 192.168.1.5/24 scope global eth1
5: wg0    inet 10.7.0.5 peer 10.7.0.1/32 scope global wg0
"""
IP = f"""
case "$*" in
*"link show dev"*) [ -z "$VRF" ] || echo "$VRF" ;;
*"rule show") [[ $* == -6* ]] || printf %b "$RULES_OF_ROUTING" ;;
*"link show type bridge") echo '4: docker0: <UP>' ;;
*"link show up") printf '1: lo: <UP>\\n2: eth0: <UP>\\n3: eth1@if7: <UP>\\n4: docker0: <UP>\\n9: veth1@if8: <UP>\\n' ;;
*"route show default") echo 'default via 10.0.0.1 dev eth0 proto static' ;;
"-6"*"address show"*) [ -z "$IPV6" ] || echo '2: eth0    inet6 fd00::5/64 scope global' ;;
*"address show"*) echo '{ADDRESSES}' ;;
esac
"""
DOCKER = "*nat\n:DOCKER - [0:0]\n-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80\nCOMMIT\n"
NODE_PORT = (
    '*nat\n-A KUBE-NODEPORTS -p tcp -m comment --comment "shop/web:http" -m tcp --dport 8080 -j KUBE-EXT-ABC2\n'
    "-A KUBE-SERVICES -d 10.96.0.9/32 -p tcp -m tcp --dport 8080 -j KUBE-SVC-ABC2\nCOMMIT\n"
)
UNTRACKED = "*raw\n-A PREROUTING -p tcp -m tcp --dport 8080 -j CT --notrack\nCOMMIT\n"
ENVIRONMENT = {
    "INSTANCE_IP": "10.0.0.5",
    "ISTIO_META_POD_PORTS": json.dumps([{"name": "http", "containerPort": 8080, "protocol": "TCP"}], separators=(",", ":")),
    "ISTIO_LOCAL_EXCLUDE_PORTS": "22,15090,15021,15020",
    "ISTIO_SERVICE_EXCLUDE_CIDR": "169.254.0.0/16,fe80::/10",
}


def socket(place: str, program: str, more: str = "") -> str:
    users = f'users:(("{program}",pid=7,fd=3)) ' if program else ""
    return f"LISTEN 0      128   {place}    0.0.0.0:*    {users}uid:1 ino:2 sk:3 {more}<->\n"


def run(tmp_path: Path, what: str, sockets: str = "", rules: str = "", ruleset: str = "", **environment: str) -> list[str]:
    """Return the lines of redirect_host.sh on a host with these sockets, rules of iptables, and ruleset of nftables."""
    for name, text in {"ss": sockets, "iptables-nft-save": rules, "nft": ruleset}.items():
        (tmp_path / f"{name}.txt").write_text(text)
        add_program(tmp_path / "bin", name, f"cat {tmp_path}/{name}.txt")
    add_program(tmp_path / "bin", "ss", f'case "$*" in *--udp*) sed "s/^/tcp /" {tmp_path}/ss.txt ;; *) cat {tmp_path}/ss.txt ;; esac')
    (tmp_path / "legacy.txt").touch()
    add_program(tmp_path / "bin", "iptables-legacy-save", f"cat {tmp_path}/legacy.txt")
    for name in ("iptables-restore", "iptables-nft-restore"):
        add_program(tmp_path / "bin", name, "")
    for name in ("iptables-nft", "ip6tables-legacy-save", "ip6tables-nft-save", "ip6tables-legacy", "ip6tables-nft"):
        add_program(tmp_path / "bin", name, '[ -z "$NO_IPV6_NAT" ]')
    for name, text in {"ip": IP, "iptables": "echo nf_tables", "ip6tables": "echo nf_tables", "systemctl": ""}.items():
        add_program(tmp_path / "bin", name, text)
    sourced = Sourced(
        scripts=[SCRIPTS / f"{name}.sh" for name in ("redirect", "redirect_firewall", "redirect_host")],
        programs=tmp_path / "bin",
        environment={**ENVIRONMENT, **environment},
    )
    done = sourced.run(
        f"look; {what}", {"STATE": str(tmp_path), "SSH_CONFIGURATION": str(tmp_path), "SYSCTLS": str(tmp_path), "IPVS": f"{tmp_path}/ip_vs"}
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_file_systems_of_servers_are_listed_but_those_that_are_excluded(tmp_path: Path) -> None:
    """Servers of NFS refuse what comes from a port above 1023 (`secure`), so a mount would hang when it connects again."""
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/sda1 / ext4 rw 0 0\n"
        "filer:/home /home nfs4 rw,vers=4.2,clientaddr=10.0.0.5,addr=10.2.0.9 0 0\n"
        "old:/data /data nfs rw,addr=10.3.0.9,mountaddr=10.4.0.9 0 0\n"
        "//win/share /mnt cifs rw,addr=10.4.0.7,uid=0 0 0\n"
        "127.0.0.1:/ /efs nfs4 rw,port=20127,addr=127.0.0.1 0 0\n"
    )

    def listed(**environment: str) -> list[str]:
        return [line for line in run(tmp_path, f"MOUNTS={mounts}; changes", **environment) if line.startswith("file systems")]

    (line,) = listed()
    places = ["//win/share (10.4.0.7 port 445)", "filer:/home (10.2.0.9 port 2049)", "old:/data (10.3.0.9 port 2049)"]
    assert sorted(line.rpartition("): ")[2].split(", ")) == places
    assert listed(ISTIO_SERVICE_EXCLUDE_CIDR="169.254.0.0/16,fe80::/10,10.2.0.0/15")[0].endswith(": //win/share (10.4.0.7 port 445)")
    assert listed(ISTIO_SERVICE_EXCLUDE_CIDR="10.2.0.9,10.3.0.9")[0].endswith(": //win/share (10.4.0.7 port 445)")
    assert listed(ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE="2049,445") == []
    mounts.write_text("filer:/home /home nfs4 rw,port=2050,addr=10.2.0.9 0 0\n")
    assert listed(ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE="2049")[0].endswith(": filer:/home (10.2.0.9 port 2050)")
    mounts.write_text("/dev/sda1 / ext4 rw 0 0\n")
    assert listed() == []


@pytest.mark.slow
@first_quick(
    ("sockets", "rules", "environment"),
    [
        ("", "", {}),
        (socket("0.0.0.0:8080", "nginx"), "", {}),
        (socket("[::]:8080", "nginx", "v6only:1 "), "", {"INSTANCE_IP": "fd00::5"}),
        (socket("*:8080", "nginx"), "", {}),
        (socket("[::]:8080", "nginx"), "", {}),
        (socket("10.0.0.5:8080", "nginx") + socket("127.0.0.1:8080", "nginx"), "", {}),
        (socket("0.0.0.0:8080", "nginx"), "", {"INSTANCE_IP": "203.0.113.7"}),
        (socket("0.0.0.0:8080", "docker-proxy") + socket("[::]:8080", "docker-proxy"), DOCKER, {}),
        (socket("0.0.0.0:8080", "nginx"), DOCKER.replace("8080", "9090"), {}),
        (socket("0.0.0.0:8080", "nginx"), DOCKER.replace("tcp", "udp"), {}),
        (socket("127.0.0.1:9090", "postgres"), "", {}),
        (socket("[::ffff:10.0.0.5]:8080", "java"), "", {}),
        (socket("10.7.0.5:8080", "nginx"), "", {"INSTANCE_IP": "10.7.0.5"}),
        (socket("0.0.0.0:8080", "nginx"), "*raw\n-A PREROUTING -i lo -j CT --notrack\nCOMMIT\n", {}),
        (socket("0.0.0.0:8080", "nginx"), NODE_PORT.replace("8080", "30080"), {}),
    ],
)
def test_an_application_that_envoy_reaches_is_taken(tmp_path: Path, sockets: str, rules: str, environment: dict[str, str]) -> None:
    assert run(tmp_path, "refusals", sockets, rules, **environment) == []


@first_quick(
    ("sockets", "rules", "ruleset", "says"),
    [
        (socket("127.0.0.1:8080", "nginx"), "", "", "nginx listens on 127.0.0.1 alone"),
        (socket("[::1]:8080", "nginx") + socket("127.0.0.1:8080", "nginx"), "", "", "nginx listens on 127.0.0.1 ::1 alone"),
        (socket("127.0.0.53%lo:8080", ""), "", "", "listens on 127.0.0.53 alone"),
        (socket("127.0.0.1:8080", "docker-proxy"), DOCKER, "", "docker-proxy listens on 127.0.0.1 alone"),
        (socket("192.168.1.5:8080", "nginx"), "", "", "listens on 192.168.1.5 alone, and pods reach the machine at 10.0.0.5"),
        (socket("[::]:8080", "nginx", "v6only:1 "), "", "", "listens on :: alone"),
        (socket("[::ffff:127.0.0.1]:8080", "java"), "", "", "java listens on 127.0.0.1 alone"),
        (socket("0.0.0.0%eth0:8080", "haproxy"), "", "", "haproxy takes connections of the interface eth0 alone"),
        ("", NODE_PORT, "", "published to kube-proxy by rules alone"),
        (socket("0.0.0.0:8080", "nginx"), UNTRACKED, "", "is not tracked, by a rule of this host (notrack)"),
        (socket("0.0.0.0:8080", "nginx"), "", "\t\ttcp dport { 80, 8080 } notrack", "is not tracked, by a rule of this host (notrack)"),
        ("", DOCKER, "", "published to 172.17.0.2:80 by rules alone"),
        (socket("0.0.0.0:8080", "conmon"), DOCKER, "", "published to 172.17.0.2:80 by rules alone"),
        ("", DOCKER.replace("--dport 8080", "-m multiport --dports 80,8000:8100"), "", "by rules alone"),
        (
            "",
            "*nat\n-A PREROUTING -p tcp -m tcp --dport 8080 -j REDIRECT --to-ports 80\nCOMMIT\n",
            "",
            "published to 80 by rules alone",
        ),
        (socket("0.0.0.0:8080", "docker-proxy"), "", "\t\ttcp dport 8080 dnat to 172.17.0.2:80", "nftables (table ip/docker-bridges)"),
        (
            socket("0.0.0.0:8080", "x"),
            "",
            "\t\ttcp dport { 443, 8000-8100 } dnat ip to 172.17.0.2:80",
            "nftables (table ip/docker-bridges)",
        ),
    ],
)
def test_an_application_that_envoy_would_not_reach_is_refused_by_name(
    tmp_path: Path, sockets: str, rules: str, ruleset: str, says: str
) -> None:
    table = f"table ip docker-bridges {{\n\tchain prerouting {{\n{ruleset}\n\t}}\n}}\n" if ruleset else ""
    (line,) = run(tmp_path, "refusals", sockets, rules, table)
    assert line.startswith("port 8080 of the workload") and says in line and ": " in line


@pytest.mark.slow
def test_rules_that_may_come_before_those_of_the_mesh_are_refused(tmp_path: Path) -> None:
    """Those of another backend than this host's iptables, and those of chains that iptables does not show."""
    sockets = socket("0.0.0.0:8080", "docker-proxy")
    (tmp_path / "legacy.txt").write_text(DOCKER)
    (line,) = run(tmp_path, "refusals", sockets)
    assert "is published by iptables-legacy, whose rules may come before those of the mesh" in line
    (tmp_path / "legacy.txt").write_text("")
    native = "\t\ttcp dport 8080 dnat to 172.17.0.2:80\n"
    shown = f"table ip nat {{\n\tchain DOCKER {{\n{native}\t}}\n}}\n"
    assert run(tmp_path, "refusals", sockets, DOCKER, shown) == []
    (line,) = run(tmp_path, "refusals", sockets, DOCKER, shown.replace("DOCKER", "prerouting"))
    assert "is published by nftables (table ip/nat)" in line


@pytest.mark.slow
def test_an_interface_in_a_vrf_is_refused_unless_connections_of_vrfs_are_taken(tmp_path: Path) -> None:
    vrf = "4: eth0: <UP> master red state UP \\\\    link/ether 02:00 \\\\    vrf_slave table 10"
    (line,) = run(tmp_path, "refusals", VRF=vrf)
    assert line.startswith("eth0, by which connections come, is in a VRF") and "net.ipv4.tcp_l3mdev_accept=1" in line
    assert run(tmp_path, "refusals", VRF=vrf.replace("vrf_slave", "bond_slave")) == []
    assert run(tmp_path, "cat() { echo 1; }; interface_refusals", VRF=vrf) == []


IPVS = """IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A000009:01BB rr
  -> 0A000006:01BB      Route   1      0          0
UDP  0A000009:0035 rr
TCP  [fd00:0000:0000:0000:0000:0000:0000:0009]:1F90 wlc persistent 300
"""


@pytest.mark.slow
def test_ports_that_the_host_balances_are_named_and_refused_as_the_workloads(tmp_path: Path) -> None:
    (tmp_path / "ip_vs").write_text(IPVS)
    assert "ports that IPVS balances here are captured first (exclude them by capture.excludeInboundPorts): 443, 8080" in run(
        tmp_path, "changes"
    )
    (line,) = run(tmp_path, "refusals")
    assert line.startswith("port 8080 of the workload is balanced by IPVS here")
    (tmp_path / "ip_vs").write_text(IPVS.replace("1F90", "1F91"))
    assert run(tmp_path, "refusals") == []


@pytest.mark.slow
def test_rules_of_routing_that_the_proxy_does_not_meet_are_named(tmp_path: Path) -> None:
    everywhere = "0:\tfrom all lookup local\n32765:\tfrom 10.7.0.5 lookup 100\n32766:\tfrom all lookup main\n"
    assert not [line for line in run(tmp_path, "changes", RULES_OF_ROUTING=everywhere) if "routing" in line]
    some = f"{everywhere}100:\tfrom all fwmark 0x1 lookup vpn\n101:\tfrom all uidrange 1000-1000 lookup vpn\n"
    (line,) = [line for line in run(tmp_path, "changes", RULES_OF_ROUTING=some) if "routing" in line]
    assert "(from all fwmark 0x1 lookup vpn, from all uidrange 1000-1000 lookup vpn)" in line
    assert "exclude them by capture.excludeOutboundCidrs" in line


@pytest.mark.slow
def test_a_long_list_of_ports_is_abridged(tmp_path: Path) -> None:
    rules = "".join(DOCKER.splitlines(keepends=True)[2].replace("8080", str(20000 + number)) for number in range(3000))
    (line,) = [line for line in run(tmp_path, "changes", rules=f"*nat\n:DOCKER - [0:0]\n{rules}COMMIT\n") if "rules alone" in line]
    assert line.endswith("and 2970 more") and len(line) < 2000


@pytest.mark.slow
def test_whether_many_rules_drop_anything_costs_little(tmp_path: Path) -> None:
    rules = "rules=$(printf 'set\\tnft\\tinet/t\\tname\\t%s\\n' {1..50000})"
    show = 'if may_drop "$each"; then echo yes; else echo no; fi'
    lists = '"$rules" "$rules"$\'\\nrule\\tnft\' $\'chain\\tnft\\tdrop\\n\'"$rules"'
    assert run(tmp_path, f"{rules}; ulimit -t 10; for each in {lists}; do {show}; done") == ["no", "yes", "yes"]


@pytest.mark.slow
def test_rules_of_more_chains_than_a_command_takes_are_read(tmp_path: Path) -> None:
    """kube-proxy has some for each Service."""
    chains = "".join(f":KUBE-SVC-{number:016d} - [0:0]\n" for number in range(6000))
    ruleset = "table ip other {\n\tchain prerouting {\n\t\ttcp dport 8080 dnat to 172.17.0.2:80\n\t}\n}\n"
    (line,) = run(tmp_path, "refusals", rules=f"*nat\n{chains}COMMIT\n", ruleset=ruleset)
    assert "published by nftables (table ip/other)" in line


def test_what_the_agent_cannot_pass_on_is_listed(tmp_path: Path) -> None:
    rules = DOCKER.replace("8080", "9000") + UNTRACKED.replace("8080", "9200") + NODE_PORT.replace("8080", "30080")
    lines = run(tmp_path, "changes", socket("0.0.0.0:9000", "conmon"), rules)
    assert (
        "these ports, which rules alone publish, are not reached from outside any more (exclude them by "
        "capture.excludeInboundPorts): 30080 to kube-proxy, 9000 to 172.17.0.2:80"
    ) in lines
    assert "these ports are not tracked, by rules of this host, so they are not captured: 9200" in lines
    excluded = run(tmp_path, "changes", "", rules, ISTIO_LOCAL_EXCLUDE_PORTS="22,9000,30080")
    assert not [line for line in excluded if "rules alone" in line]


@pytest.mark.slow
def test_behind_a_translated_address_the_probe_needs_every_address(tmp_path: Path) -> None:
    """The agent calls localhost then, so an address of an interface alone is not enough."""
    (line,) = run(tmp_path, "refusals", socket("192.168.1.5:8080", "nginx"), INSTANCE_IP="203.0.113.7")
    assert "203.0.113.7 is on none of its interfaces" in line and "let it listen on 0.0.0.0" in line
    lines = run(tmp_path, "changes", INSTANCE_IP="203.0.113.7")
    assert "pods reach this machine at 203.0.113.7, which is on none of its interfaces: the agent calls the probe at localhost" in lines


@pytest.mark.slow
def test_a_port_of_ssh_is_none_of_the_workload(tmp_path: Path) -> None:
    (tmp_path / "sshd_config").write_text("Port 8080\n")
    (line,) = run(tmp_path, "refusals", socket("0.0.0.0:8080", "sshd"))
    assert "is one of SSH here, which is never redirected" in line


@first_quick(
    ("sockets", "says"),
    [
        (socket("127.0.0.1:15000", "python3"), "python3 listens on port 15000, which the agent needs: let it listen on another port"),
        (socket("10.0.0.5:15001", "envoy"), "envoy listens on port 15001"),
        (socket("*:15090", ""), "- listens on port 15090"),
        (socket("[::1]:15053", "unbound"), "unbound listens on port 15053"),
        (socket("10.0.0.5:15000", "nginx") + socket("0.0.0.0:15002", "nginx") + socket("10.0.0.5:15053", "dnsmasq"), ""),
    ],
)
def test_a_port_of_the_agent_that_another_program_has_is_refused(tmp_path: Path, sockets: str, says: str) -> None:
    """Otherwise the agent would not get ready, and the join would be taken back without that cause."""
    lines = run(tmp_path, "agent_port_refusals", sockets)
    assert (len(lines), says in "".join(lines)) == (1 if says else 0, True)


@pytest.mark.slow
def test_a_proxy_that_shares_its_group_is_refused(tmp_path: Path) -> None:
    """Connections of that group would go past the mesh."""
    users = "root:x:0:0::/:/bin/sh\nistio-proxy:x:998:100::/:/bin/false\n{}:x:1000:100::/:/bin/sh\n"
    add_program(
        tmp_path / "bin",
        "id",
        'case "$*" in "-g istio-proxy") echo 100 ;; "-gn istio-proxy") echo users ;; *) exec /usr/bin/id "$@" ;; esac',
    )
    for other, refused in {"alice": True, "istio-proxy": False}.items():
        add_program(tmp_path / "bin", "getent", f"printf '{users.format(other)}'")
        lines = run(tmp_path, "group_refusals")
        assert [line.startswith("the user istio-proxy has the group users, and so has alice: ") for line in lines] == [True] * refused


@first_quick(
    ("first", "reserved", "says"),
    [
        (1024, "", "net.ipv4.ip_local_reserved_ports=15000-15090"),
        (1024, "8080,15000-15053", "net.ipv4.ip_local_reserved_ports=8080,15000-15053,15000-15090"),
        (1024, "15000-15100", ""),
        (32768, "", ""),
    ],
)
def test_a_port_of_the_agent_that_a_connection_may_have_is_listed(tmp_path: Path, first: int, reserved: str, says: str) -> None:
    (tmp_path / "ipv4").mkdir()
    (tmp_path / "ipv4/ip_local_port_range").write_text(f"{first}\t60999\n")
    (tmp_path / "ipv4/ip_local_reserved_ports").write_text(f"{reserved}\n")
    lines = [line for line in run(tmp_path, "changes") if "ip_local_port_range" in line]
    assert [line.endswith(says) for line in lines] == [True] * bool(says)


@pytest.mark.slow
@pytest.mark.parametrize(("most", "entries", "sockets"), [(1000, 400, 10), (1000, 600, 10), (1000, 10, 600), (0, 600, 10)])
def test_a_kernel_that_may_have_too_few_entries_for_connections_is_listed(tmp_path: Path, most: int, entries: int, sockets: int) -> None:
    """Where nothing tracked them before, they are the sockets; 0 is no limit."""
    (tmp_path / "netfilter").mkdir()
    (tmp_path / "netfilter/nf_conntrack_max").write_text(f"{most}\n")
    (tmp_path / "netfilter/nf_conntrack_count").write_text(f"{entries}\n")
    (tmp_path / "sockstat").write_text(f"sockets: used 60\nTCP: inuse 1 orphan 0 tw 5 alloc {sockets - 5} mem 302\n")
    lines = [line for line in run(tmp_path, f"SOCKETS={tmp_path}/sockstat; changes") if "nf_conntrack_max" in line]
    assert ["has 600 connections" in line and "beyond 1000" in line for line in lines] == [True] * (most > 0 and entries + sockets > 500)


@pytest.mark.slow
def test_chains_of_an_agent_that_somebody_installed_are_listed(tmp_path: Path) -> None:
    stock = "*nat\n:ISTIO_OUTPUT - [0:0]\n-A OUTPUT -p tcp -j ISTIO_OUTPUT\nCOMMIT\n"
    listed = "chains of Istio that are here already (iptables-nft) are removed, and do not come back"
    assert listed in run(tmp_path, f"RULES={tmp_path}/none; changes", rules=stock)
    assert listed not in run(tmp_path, f"RULES={tmp_path}; changes", rules=stock), "those of this program"
    assert listed not in run(tmp_path, f"RULES={tmp_path}/none; changes", rules=stock.replace("ISTIO_OUTPUT", "ISTIO_POSTRT"))


def test_ipv6_that_cannot_be_redirected_is_refused(tmp_path: Path) -> None:
    assert run(tmp_path, "refusals", IPV6="1") == []
    (line,) = run(tmp_path, "refusals", IPV6="1", NO_IPV6_NAT="1")
    assert "load the module ip6table_nat, or disable IPv6" in line


def test_what_changes_is_in_one_list(tmp_path: Path) -> None:
    sockets = [
        socket("0.0.0.0:22", "sshd"),
        socket("0.0.0.0:2222", "sshd"),
        socket("*:9100", "node_exporter"),
        socket("0.0.0.0:8080", "docker-proxy"),
        socket("127.0.0.1:5432", "postgres"),
        socket("0.0.0.0:15006", "envoy"),
        socket("10.0.0.5:7000", ""),
    ]
    lines = run(tmp_path, "changes", "".join(sockets), DOCKER, IPV6="1", ISTIO_EXCLUDE_INTERFACES="eth1")
    assert lines == [
        "from outside, these ports ask for a certificate of the mesh where it is strict: 7000, 8080 (docker-proxy), 9100 (node_exporter)",
        "these ports stay open without the mesh: 22, 2222, 15020, 15021, 15090",
        "ports that containers publish, or rules redirect, are captured first: 8080 to 172.17.0.2:80",
        "containers and VMs at docker0: what is forwarded for them is not captured, their connections to this host are",
        "captured interfaces: eth0; left out: eth1",
        "connections of this machine go through Envoy, but those to 169.254.0.0/16,fe80::/10 and to the ports none. Where "
        "outboundTrafficPolicy is REGISTRY_ONLY, it refuses hosts that the mesh does not have (add a ServiceEntry, or "
        "capture.excludeOutboundCidrs)",
        "new connections by IPv6 are refused, but those of excluded ports and CIDRs: the mesh has no IPv6 (ISTIO_DUAL_STACK)",
    ]
    assert not [line for line in run(tmp_path, "changes", IPV6="1", ISTIO_DUAL_STACK="true") if "refused" in line]


NOT_LISTENING = {
    names.DEBUG_PORT,  # Istio reserves it: the agent of 1.31 does not listen there (istio/istio: pkg/istio-agent).
    names.TUNNEL_PORT,  # Envoy listens there where HBONE is enabled, which no proxy of this program has.
}
"""What no application of a workload may have, but another program of the machine may."""


def test_every_port_of_the_proxy_is_kept_from_other_programs(tmp_path: Path) -> None:
    sourced = Sourced(scripts=[SCRIPTS / "redirect_host.sh"], programs=tmp_path)
    ports = sourced.run("echo $PROXY_PORTS").stdout.split(",")
    assert sorted(map(int, ports)) == sorted(names.MACHINE_PORTS - NOT_LISTENING)


PROBE = """
case $1 in
*/redirect_host.sh) echo "$(basename "$1") $A $POD_NAME $INSTANCE_IP" >>"$RUN/facts"; echo "refusals end" ;;
*) exec /bin/bash "$@" ;;
esac
"""
FACTS = 'host_facts() { printf "${REFUSED}refusals end\\nchange first\\nchange second\\n"; }'


def test_a_host_whose_application_is_not_reached_stays_as_it_is(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path / "machine").create()
    before = machine.tree()
    done = machine.join(facts=FACTS, REFUSED="refusal one: this\\nrefusal two: that\\n")
    assert (done.returncode, done.stderr) == (1, "machine product-1: one: this;two: that\n")
    assert machine.tree() == before


def test_a_host_that_was_not_looked_at_to_the_end_is_not_joined(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path / "machine").create()
    done = machine.join(facts="host_facts() { echo 'change one'; }")
    assert (done.returncode, "the join ended at its step" in done.stderr, "(check_host)" in done.stderr) == (1, True, True)


@pytest.mark.slow
def test_the_changes_are_reported_before_the_join_acts_and_once(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path / "machine").create()
    done = machine.join(facts=FACTS, REFUSED="")
    (asked,) = [line for line in done.stdout.splitlines() if line.startswith("istio-vm-mesh: ask changes ")]
    assert base64.b64decode(asked.split()[-1]).decode() == "first\nsecond\n"
    assert (done.returncode, done.stderr) == (0, "")
    again = machine.join(facts=FACTS, REFUSED="")
    assert (again.returncode, "changes" in again.stdout) == (0, False), "nothing is changed, so nothing is reported"


@pytest.mark.slow
def test_a_member_of_a_group_writes_the_changes_to_its_log(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path / "machine").create()
    done = machine.join(facts=FACTS, REFUSED="", ASK="")
    assert (done.returncode, "this host, from now on: first; second\n" in done.stderr) == (0, True)


@pytest.mark.slow
def test_a_networks_gateway_looks_at_nothing(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path / "machine").create()
    add_program(machine.directory / "bin", "bash", PROBE)
    done = machine.join(facts="", ROLE="router")
    assert done.returncode == 0, done.stderr
    assert not (machine.directory / "run/facts").exists()


@pytest.mark.slow
def test_the_script_gets_the_environment_that_the_join_brings(tmp_path: Path) -> None:
    """Of the machine's own files nothing is read: at the first join there are none."""
    machine = FakeMachine(tmp_path / "machine").create()
    add_program(machine.directory / "bin", "bash", PROBE)
    done = machine.join(facts="")
    assert done.returncode == 0, done.stderr
    assert (machine.directory / "run/facts").read_text() == "redirect_host.sh 1 @MACHINE@ 192.0.2.7\n"
