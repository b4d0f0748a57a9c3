"""Firewalls of a host in a real network: what they drop of redirected connections, and how they are opened and closed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.control_plane import program
from tests.support.host import ADDRESS, SCRIPTS, Host, started_host
from tests.support.waiting import wait_until

PORTS = json.dumps([{"name": "http", "containerPort": 8080, "protocol": "TCP"}], separators=(",", ":"))
INPUT = "type filter hook input priority filter; policy drop;"
NFT = f"""
table inet office {{
    set open {{ type inet_service; flags interval; elements = {{ 22, 8080, 15021, 60000-60010 }}; }}
    chain input {{
        {INPUT}
        ct state vmap {{ established : accept, related : accept, invalid : drop }}
        iifname "lo" accept
        meta l4proto {{ icmp, ipv6-icmp }} accept
        ip saddr 10.9.0.77 accept
        tcp dport @open ct state new counter accept
        tcp dport vmap {{ 3306 : jump databases, 5432 : accept }}
        limit rate 5/minute log prefix "dropped by input: " level info
    }}
    chain databases {{ ip saddr 10.0.0.0/8 accept; }}
}}
"""
"""What an administrator wrote: SSH, the application and a database are open."""
IPTABLES = """
$program-restore --noflush <<'END'
*filter
:INPUT DROP [0:0]
:SERVICES - [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p tcp -m conntrack --ctstate NEW -m comment --comment "the services" -j SERVICES
-A INPUT -m limit --limit 3/min -j LOG --log-prefix "[DROP] "
-A SERVICES -p tcp -m multiport --dports 22,8000:8080 -j ACCEPT
-A SERVICES -s 10.9.0.77/32 -j ACCEPT
COMMIT
END
"""
PLAIN, CLOSED, OPENED = ("application", "ssh", ""), ("", "ssh", ""), ("agent", "ssh", "")
"""What a neighbour reaches, without the agent, and with it behind a firewall that is closed or opened."""
RAW = "table ip early { chain first { type filter hook prerouting priority raw; tcp dport 22 accept; tcp flags syn / fin,syn,rst,ack drop; }; }"


@pytest.fixture(scope="module", params=["nft", "legacy"])
def _started(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, str]]:
    with started_host(tmp_path_factory.mktemp("host"), request.param, families=(4, 6)) as host:
        yield host, request.param


@pytest.fixture
def backend(_started: tuple[Host, str]) -> str:
    return _started[1]


@pytest.fixture
def host(_started: tuple[Host, str]) -> Iterator[Host]:
    """A host without rules, whose workload has the port 8080."""
    host = replace(_started[0], environment={**_started[0].environment, "INSTANCE_IP": ADDRESS[4], "ISTIO_META_POD_PORTS": PORTS})
    yield host
    host.run(
        "locked turn_off; nft flush ruleset; for p in iptables ip6tables; do $p-legacy -P INPUT ACCEPT; $p-legacy -F; $p-legacy -X; done"
    )


@pytest.fixture
def bare_host(tmp_path: Path) -> Iterator[Host]:
    with started_host(tmp_path, "nft") as host:
        yield replace(host, environment={**host.environment, "INSTANCE_IP": ADDRESS[4], "ISTIO_META_POD_PORTS": PORTS})


def load(host: Host, text: str) -> None:
    host.run(f"nft -f - <<'END'\n{text}\nEND")


def dropped(host: Host) -> list[str]:
    return host.run('filters | dropped "$(needed)"').splitlines()


def of_office(ruleset: str) -> str:
    """Return the administrator's table alone."""
    return ruleset[ruleset.index("table inet office") :].split("\n}\n")[0]


def manage(host: Host) -> None:
    host.environment["FIREWALL"] = "manage"


def answers(host: Host, *expected: str) -> tuple[str, ...]:
    """Return what a neighbour reaches at the application's port, at SSH's, and at one that the firewall closes."""
    seconds = [10 if answer else 1 for answer in expected]
    return tuple(host.answer(port, seconds=patience) for port, patience in zip((8080, 22, 2222), seconds, strict=True))


def test_what_nftables_drops_is_named_and_opened_for_the_workload_alone(host: Host) -> None:
    load(host, NFT)
    assert answers(host, *PLAIN) == PLAIN
    host.run("locked turn_on; locked turn_dns_on")
    assert answers(host, *CLOSED) == CLOSED, "the firewall sees the agent's port"
    assert dropped(host) == ["nftables nft inet/office input 15006 8080"]
    manage(host)
    assert host.run("locked repair") == "opened the firewall (nftables) for port 15006, at which redirected connections to 8080 arrive\n"
    assert answers(host, *OPENED) == OPENED, "other redirected ports stay closed"
    assert (dropped(host), host.run("locked repair; check")) == ([], "")


def test_what_opens_comes_back_after_a_reload_and_goes_with_the_redirection(host: Host) -> None:
    manage(host)
    load(host, NFT)
    before = host.run("nft --stateless list ruleset")
    host.run("locked turn_on; locked turn_dns_on")
    assert host.answer() == "agent"
    with host.guard():
        load(host, f"flush ruleset\n{NFT}")
        wait_until(lambda: host.answer(seconds=1) == "agent")
    host.run("locked turn_off")
    after = host.run("nft --stateless list ruleset")
    assert "istio-vm-mesh" not in after
    assert of_office(after) == of_office(before)
    assert answers(host, *PLAIN) == PLAIN


def test_what_iptables_drops_is_opened_in_its_own_tables(host: Host, backend: str) -> None:
    program = f"iptables-{backend}"
    manage(host)
    host.run(f"program={program}\n{IPTABLES}")
    before = host.run(f"{program} -S")
    host.run("locked turn_on; locked turn_dns_on")
    assert answers(host, *OPENED) == OPENED
    (rule,) = [line for line in host.run(f"{program} -S INPUT").splitlines() if "istio-vm-mesh" in line]
    assert rule == "-A INPUT -p tcp -m tcp --dport 15006 -m conntrack --ctorigdstport 8080 -m comment --comment istio-vm-mesh -j ACCEPT"
    host.run(f"{program} -F INPUT")
    assert host.run("locked repair").startswith("opened the firewall (iptables)")
    host.run("locked turn_off")
    assert [line for line in before.splitlines() if not line.startswith("-A INPUT")] == host.run(f"{program} -S").splitlines()


def test_rules_before_the_translation_see_the_workloads_port(host: Host) -> None:
    manage(host)
    load(host, RAW)
    assert dropped(host) == ["nftables nft ip/early first 8080 8080"]
    host.run("locked turn_on; locked turn_dns_on")
    assert answers(host, *OPENED) == OPENED
    assert 'tcp dport 8080 accept comment "istio-vm-mesh"' in host.run("nft list table ip early")


def test_ipv6_is_opened_where_pods_come_by_it(host: Host) -> None:
    manage(host)
    host.environment["INSTANCE_IP"] = ADDRESS[6]
    load(
        host,
        NFT.replace("inet office", "ip6 office")
        .replace("ip saddr 10.9.0.77", "ip6 saddr fd00:9::77")
        .replace("10.0.0.0/8", "fd00::/8")
        .replace("ip saddr fd", "ip6 saddr fd"),
    )
    host.run("locked turn_on; locked turn_dns_on")
    assert (host.answer(family=6), host.answer(2222, family=6, seconds=1)) == ("agent", "")


def test_a_health_check_is_let_in_where_a_load_balancer_asks(host: Host) -> None:
    load(host, NFT.replace("15021, ", ""))
    assert not [line for line in dropped(host) if "15021" in line]
    host.environment["HEALTH_CHECKED"] = "1"
    manage(host)
    host.run("locked turn_on")
    assert host.answer(15021) == "health"


LET_IN = (
    "tcp dport 15006 accept",
    "ip saddr 10.244.0.0/16 tcp dport { 15006, 15021 } accept",
    'iifname "eth0" accept',
    "ct status dnat accept",
    "tcp dport != 22 accept",
    "fib daddr type local tcp flags & (fin | syn | rst | ack) == syn accept",
    "ip daddr 10.9.0.1 accept",
    "meta l4proto tcp ct state new,untracked jump more",
    "tcp dport vmap { 22 : accept, 15000-15100 : jump more }",
    "meta mark set 0x1 accept",
    'log prefix "accept drop" counter accept comment "a drop"',
)
KEEP_OUT = (
    'iifname { "docker0", "eth1" } accept',
    "ip saddr 10.9.0.77 accept",
    "tcp dport { 8080, 443 } accept",
    "ct state established,related accept",
    "udp dport 15006 accept",
    "meta mark 0x1 accept",
    "ip protocol icmp accept",
    "tcp dport 1-1023 accept; tcp dport 15006 ip saddr 1.2.3.4 drop; reject with icmpx admin-prohibited; accept",
    "fib daddr type { broadcast, multicast } accept",
    "goto less; accept",
    "jump less; drop; accept",
    "tcp dport 15006 drop; accept",
)
CHAINS = "chain more { meta l4proto tcp ct original proto-dst 8080 accept; }; chain less { tcp dport 22 accept; };"


def test_a_firewall_that_lets_them_in_stays_as_it_is_and_others_do_not(bare_host: Host) -> None:
    for rules in (*LET_IN, *KEEP_OUT):
        load(bare_host, f"flush ruleset\ntable inet f {{ {CHAINS} chain i {{ {INPUT} {rules}; }}; }}")
        assert dropped(bare_host) == ([] if rules in LET_IN else ["nftables nft inet/f i 15006 8080"]), rules


OUTPUT = "type filter hook output priority filter; policy drop;"
LETS_OUT = (
    "meta skuid 1337 accept",
    "meta skuid { 0, 1337 } accept",
    'oifname "eth0" accept',
    "meta l4proto { tcp, udp } accept",
    "ip daddr { 10.0.0.0/8, 192.168.0.0/16 } accept",
    "tcp dport { 8080, 15012, 15443 } accept; udp dport 53 accept",
    "ct state new tcp dport 1024-65535 accept; udp dport vmap { 53 : accept }",
    "ip daddr 192.0.2.1 drop; ip saddr 192.0.2.1 drop; accept",
)
KEEPS_IN = {
    "tcp dport 15012 accept": ["53", "15443", "8080"],
    "tcp dport { 8080, 15012, 15443 } accept": ["53"],
    "meta skuid 0 accept; udp dport 53 accept": ["15443", "8080"],
    "ip daddr 192.0.2.1 accept; tcp dport 8080 accept": ["53", "15443"],
    'oifname "lo" accept': ["53", "15443", "8080"],
    "ct state established,related accept; meta skuid != 0 drop; accept": ["53", "15443", "8080"],
    "udp dport 1-1024 accept; tcp dport 15443 accept; ip daddr 10.0.0.0/8 reject; meta skuid 1337 drop; accept": ["8080"],
}
OUTGOING = 'id() { echo 1337; }; outgoing_changes "$(filters)"'


def outgoing(host: Host) -> str:
    return host.run(f"source {SCRIPTS}/redirect_host.sh; {OUTGOING}").strip()


def test_a_firewall_that_lets_the_proxy_out_is_not_named_and_others_are(bare_host: Host) -> None:
    bare_host.run("ip route add default dev eth0")
    assert outgoing(bare_host) == ""
    for rules in (*LETS_OUT, *KEEPS_IN):
        load(bare_host, f"flush ruleset\ntable inet f {{ chain o {{ {OUTPUT} {rules}; }}; }}")
        line = outgoing(bare_host)
        ports = re.findall(r"\b(\d+)(?:/udp)? \(", line)
        assert sorted(ports) == sorted(KEEPS_IN.get(rules, [])), (rules, line)
    assert line.endswith("let its user out by 'nft insert rule inet f o meta skuid istio-proxy accept'")


@pytest.mark.parametrize("backend", ["nft", "legacy"])
def test_what_iptables_drops_of_the_proxy_is_named_with_the_way_out(bare_host: Host, backend: str) -> None:
    program = f"iptables-{backend}"
    bare_host.run("ip route add default dev eth0")
    rules = ("-P OUTPUT DROP", "-A OUTPUT -o lo -j ACCEPT", "-A OUTPUT -p tcp -m multiport --dports 22,15012 -j ACCEPT")
    bare_host.run("; ".join(f"{program} {rule}" for rule in rules))
    line = outgoing(bare_host)
    assert "drops what the proxy sends out to 53/udp (name servers), 8080 (pods), 15443 (gateways of other networks):" in line
    assert line.endswith(f"'{program} -t filter -I OUTPUT -m owner --uid-owner istio-proxy -j ACCEPT'")
    bare_host.run(f"{program} -t filter -I OUTPUT -m owner --uid-owner 1337 -j ACCEPT")
    assert outgoing(bare_host) == ""
    bare_host.run(f"{program} -D OUTPUT 1; {program} -A OUTPUT -d 10.0.0.0/8 -j ACCEPT")
    assert outgoing(bare_host) == "", "pods may be there"


def test_an_opening_is_there_once_although_another_program_puts_its_rules_first(bare_host: Host) -> None:
    """Calico does, at each of its rounds."""
    manage(bare_host)
    bare_host.run("iptables -N cali-INPUT; iptables -A cali-INPUT -j DROP; iptables -I INPUT -j cali-INPUT; locked turn_on")
    for _ in range(3):
        bare_host.run("iptables -D INPUT -j cali-INPUT; iptables -I INPUT -j cali-INPUT; locked repair")
    assert bare_host.run("iptables -S INPUT").count("istio-vm-mesh") == 1


def test_without_a_firewall_nothing_is_dropped(bare_host: Host) -> None:
    manage(bare_host)
    assert (dropped(bare_host), bare_host.run("open_firewall; close_firewall; check_firewall")) == ([], "")


def test_the_agent_probes_localhost_only_where_its_address_is_translated(bare_host: Host) -> None:
    """`REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION` is Istio's own variable: the agent has its name."""
    file, agent = bare_host.root / "probe", Path(program("pilot-agent"))
    for address, written in {"203.0.113.7": True, ADDRESS[4]: False}.items():
        bare_host.environment["INSTANCE_IP"] = address
        bare_host.run("locked turn_on")
        assert file.exists() is written
        if written:
            name, _, value = file.read_text().strip().partition("=")
            assert (value, name.encode() in agent.read_bytes()) == ("true", True)
            assert bare_host.answer() == "agent"
        bare_host.run("locked turn_off")
