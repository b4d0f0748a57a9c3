"""What of a host's traffic is captured: containers, published ports, several interfaces, IPv6."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from components.machines.files import LINK_LOCAL
from tests.support.host import ADDRESS, AGENT_UID, BRIDGE, CONTAINER, NEIGHBOUR, SCRIPTS, Host, answer_of, started_host
from tests.support.waiting import wait_until

PUBLISH = f"""
$program-restore --noflush <<'END'
*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER ! -i docker0 -p tcp --dport 8081 -j DNAT --to-destination {CONTAINER}:80
COMMIT
END
"""
"""What Docker does for a container with a published port."""
RESTART = "for c in PREROUTING OUTPUT POSTROUTING DOCKER; do $program -t nat -F $c; done; $program -t nat -X DOCKER"
"""What is left while Docker restarts, where a firewall was loaded again too."""


@pytest.fixture
def backend() -> str:
    return "nft"


@pytest.fixture
def host(tmp_path: Path, backend: str) -> Iterator[Host]:
    """A host of both families, without rules."""
    with started_host(tmp_path, backend, families=(4, 6)) as host:
        yield replace(host, environment=dict(host.environment))


def with_program(host: Host, backend: str, text: str) -> str:
    return host.run(f"program=iptables-{backend}\n{text}")


@pytest.mark.parametrize("backend", ["nft", "legacy"])
def test_a_published_port_is_served_by_the_agent_whoever_started_first(host: Host, backend: str) -> None:
    with host.container(), host.published(8081):
        orders = {
            "Docker before the agent": f"{PUBLISH} locked turn_on",
            "the agent before Docker": f"locked turn_on {PUBLISH}",
            "a restart of Docker": f"{RESTART} {PUBLISH} locked repair",
        }
        for name, text in orders.items():
            if name != "a restart of Docker":
                with_program(host, backend, f"locked turn_off; {RESTART} 2>/dev/null || true")
            with_program(host, backend, text)
            assert host.answer(8081) == "agent", name
            # Envoy's connection to the application, and the agent's probe.
            assert host.connect(8081, source="127.0.0.6", user=AGENT_UID) == "container", name
            assert host.connect(8081, address="127.0.0.1") == "container", name


REFUSALS = f"source {SCRIPTS}/redirect_host.sh; PROXY_PORTS=; INSTANCE_IP={ADDRESS[4]} ISTIO_META_POD_PORTS='\"containerPort\":8080'; look; refusals"


@pytest.mark.parametrize(
    ("rule", "reaches", "says"),
    [
        (
            f"iptables-legacy -t nat -A PREROUTING -p tcp --dport 8080 -j DNAT --to-destination {CONTAINER}:80",
            "container",
            "is published by iptables-legacy, whose rules may come before",
        ),
        ("iptables-nft -t raw -A PREROUTING -p tcp --dport 8080 -j CT --notrack", "application", "is not tracked"),
    ],
)
def test_a_host_whose_connections_do_not_reach_the_agent_is_refused(host: Host, rule: str, reaches: str, says: str) -> None:
    with host.container():
        assert host.run(REFUSALS) == "", "also the rules of the redirection are taken"
        host.run(f"locked turn_on; locked turn_dns_on; {rule}")
        assert host.answer() == reaches
        assert says in host.run(REFUSALS)


def test_an_address_that_is_not_its_interfaces_is_captured(host: Host) -> None:
    """Hosts that announce an address of loopback by a routing protocol."""
    host.run(f"ip address flush dev eth0; ip address add {ADDRESS[4]}/32 dev lo; ip route add default dev eth0 src {ADDRESS[4]}")
    host.run("locked turn_on; locked turn_dns_on")
    assert host.answer() == "agent"


def test_answers_take_the_way_of_the_address_that_was_called(host: Host) -> None:
    """A host of two networks, with strict reverse paths, routes by its own addresses."""
    second, client = "10.8.0.5", "10.7.7.7"
    host.run(
        f"ip link add eth1 type veth peer name eth1 netns {host.neighbour}; ip link set eth1 up;"
        f"ip address add 10.8.0.1/24 dev eth1; ip address add {second}/24 dev eth1;"
        f"ip route add {client} via 10.8.0.2 table 100; ip rule add from {second} lookup 100;"
        "for each in all eth0 eth1; do echo 1 >/proc/sys/net/ipv4/conf/$each/rp_filter; done"
    )
    for command in ("address add 10.8.0.2/24 dev eth1", "link set eth1 up", f"address add {client}/32 dev lo"):
        host.enter_neighbour(f"ip {command}")
    host.enter_neighbour(f"ip route add {second}/32 via {second} dev eth1 src {client} onlink")
    assert answer_of(host.neighbour, second, 8080, 10) == "application"
    host.run("locked turn_on; locked turn_dns_on")
    assert answer_of(host.neighbour, second, 8080, 10) == "agent"


def test_what_is_forwarded_for_a_container_is_not_captured(host: Host) -> None:
    with host.container() as container:
        host.run("locked turn_on")
        host.run(f"iptables -t nat -A POSTROUTING -s {CONTAINER} -o eth0 -j MASQUERADE")
        assert container.answer(NEIGHBOUR[4], 8080) == "neighbour"
        assert container.answer(BRIDGE, 8080) == "agent", "that is addressed to the host"
        host.enter_neighbour(f"ip route add {CONTAINER} via {ADDRESS[4]}")
        assert answer_of(host.neighbour, CONTAINER, 80, 10) == "container"


def test_a_network_of_containers_that_comes_later_is_left_out(host: Host) -> None:
    host.run("locked turn_on; locked turn_dns_on")
    with host.container("br-1a2b3c"):
        assert host.connect(80, CONTAINER) == "", "redirected to Envoy, which does not listen here"
        output = host.run("locked repair")
        assert "connections to br-1a2b3c are not redirected" in output
        assert host.connect(80, CONTAINER) == "container"
        assert (host.run("locked repair"), host.run("check")) == ("", "")
    assert host.run("locked repair; check") == ""


def test_a_bridge_that_is_the_way_out_is_captured(host: Host) -> None:
    with host.container("br0"):
        assert host.run("inner_bridges") == "br0\n"
        host.run(f"ip route add default via {CONTAINER}")
        assert host.run("inner_bridges") == ""
        host.run("ip route delete default; ip link add nic type ifb; ip link set nic master br0")
        assert host.run("inner_bridges") == "", "a device that is neither a container's nor a VM's"
        host.run("ip link delete nic; ip tuntap add vm mode tap; ip link set vm master br0")
        assert host.run("inner_bridges") == "br0\n"
        host.run("ip link delete vm")


def test_an_excluded_interface_is_captured_in_no_direction_but_its_dns_is(host: Host) -> None:
    second, other = "10.8.0.1", "10.8.0.2"
    host.run(f"ip link add eth1 type veth peer name eth1 netns {host.neighbour}; ip address add {second}/24 dev eth1; ip link set eth1 up")
    host.enter_neighbour(f"ip address add {other}/24 dev eth1")
    host.enter_neighbour("ip link set eth1 up")
    host.environment["ISTIO_EXCLUDE_INTERFACES"] = "eth0,not-there"
    host.run("locked turn_on; locked turn_dns_on")
    assert (answer_of(host.neighbour, second, 8080, 10), host.connect(9090, other)) == ("agent", "")
    assert (host.answer(), host.answer(family=6)) == ("application", "application")
    assert host.connect(8080, NEIGHBOUR[4]) == "neighbour"
    rules = host.run("for each in $(programs); do read_rules $each; done")
    assert "PREROUTING -i" not in rules and "OUTPUT -o eth0" not in rules, "others' rules apply there"


@pytest.mark.parametrize("backend", ["nft", "legacy"])
def test_a_second_interface_with_ipv6_alone_is_captured(tmp_path: Path, backend: str) -> None:
    """The first has IPv4 alone, as that of a cloud has, beside a network of storage or of management."""
    second, other = "fd00:8::1", "fd00:8::2"
    with started_host(tmp_path, backend) as host:
        host.run(f"ip link add eth1 type veth peer name eth1 netns {host.neighbour}; ip link set eth1 up")
        host.enter_neighbour("ip link set eth1 up")
        host.run(f"ip address add {second}/64 dev eth1 nodad")
        host.enter_neighbour(f"ip address add {other}/64 dev eth1 nodad")

        def reaches() -> tuple[str, str, str]:
            return host.answer(), answer_of(host.neighbour, second, 8080, 10), host.connect(9090, other)

        assert reaches() == ("application", "application", "another port of the neighbour")
        host.run("locked turn_on; locked turn_dns_on")
        assert reaches() == ("agent", "agent", "")
        local = host.run("ip -o -6 address show dev eth1 scope link").split()[3].split("/")[0]
        assert answer_of(host.neighbour, f"{local}%eth1", 8080, 10) == "agent", "by its link-local address too"
        host.run("locked turn_off")
        assert reaches() == ("application", "application", "another port of the neighbour")


def test_what_the_settings_exclude_is_left_out_of_both_families(host: Host) -> None:
    host.environment["ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE"] = "8080"
    host.environment["ISTIO_SERVICE_EXCLUDE_CIDR"] = ",".join(LINK_LOCAL)
    host.environment["ISTIO_LOCAL_EXCLUDE_PORTS"] += ",8080"
    host.run("locked turn_on")
    for family in (4, 6):
        assert host.answer(family=family) == "application"
        assert host.connect(8080, NEIGHBOUR[family]) == "neighbour"
        assert host.connect(9090, NEIGHBOUR[family]) == "", "redirected"
    host.run("ip address add 169.254.0.1/16 dev eth0")
    host.enter_neighbour("ip address add 169.254.169.254/16 dev eth0")
    assert host.connect(9090, "169.254.169.254") == "another port of the neighbour"
    local = host.enter_neighbour("ip -o -6 address show dev eth0 scope link").split()[3].split("/")[0]
    assert host.connect(9090, f"{local}%eth0") == "another port of the neighbour"


@pytest.mark.parametrize("backend", ["nft", "legacy"])
def test_ipv6_is_captured_or_refused_and_never_open(host: Host, backend: str) -> None:
    host.run("locked turn_on; locked turn_dns_on")
    assert (host.answer(family=6), host.answer(22, family=6), host.answer(2222, family=6)) == ("agent", "ssh", "agent")
    host.run("locked turn_off")
    assert (host.answer(family=6), "::6" in host.run("ip -6 address show dev lo")) == ("application", False)


def test_an_address_of_ipv6_that_comes_later_opens_nothing(tmp_path: Path, backend: str) -> None:
    with started_host(tmp_path, backend) as host:
        host.run("locked turn_on; locked turn_dns_on")
        assert not [rule for rule in host.rules() if rule.startswith("ip6") and "ISTIO" in rule]
        with host.guard():
            host.run(f"ip address add {ADDRESS[6]}/64 dev eth0 nodad")
            host.enter_neighbour(f"ip address add {NEIGHBOUR[6]}/64 dev eth0 nodad")
            wait_until(lambda: host.answer(family=6) == "agent")
            assert host.answer() == "agent"
        host.run("locked repair || true")  # the guard may have ended before it was done
        assert host.run("check") == ""


def test_a_redirection_is_made_again_where_that_was_interrupted(host: Host) -> None:
    """A guard or a start that ends in the middle has not recorded all that could be compared."""
    host.run("locked turn_on; locked turn_dns_on")
    for interrupted, reason in {
        "narrow() { exit 1; }; locked make_again 'a reason'": "a reason",
        "narrow() { exit 1; }; locked turn_off; locked turn_on": "its start was interrupted",
    }.items():
        host.run(f"{interrupted} || true")
        assert host.run("locked repair || true") == f"made the redirection again: {reason}\n"
        assert (host.answer(), host.run("locked repair; check")) == ("agent", "")


def test_a_program_that_has_a_port_of_the_agent_is_named(host: Host) -> None:
    """Before a join stops anything. The agent's own processes are not in the way."""
    ports = f"source {SCRIPTS}/redirect_host.sh; look; agent_port_refusals"
    assert re.findall(r"^python3? listens on port (\d+), which the agent needs", host.run(ports), re.MULTILINE) == ["15006", "15021"]
    assert host.run(f'grep() {{ [ "$2" = "/istio-vm-mesh\\.service" ]; }}; {ports}') == ""


@pytest.mark.parametrize("backend", ["nft", "legacy"])
def test_a_host_that_takes_no_rules_is_named_and_gets_none(host: Host, backend: str) -> None:
    """A kernel without a module, or one whose modules an upgrade has replaced, refuses them as well."""
    host.environment["FORCE_IPTABLES_BINARY"] = backend
    refusals = f"source {SCRIPTS}/redirect_host.sh; kernel_refusals"
    forbidden = 'unshare() { setpriv --bounding-set=-net_admin --inh-caps=-net_admin unshare "$@"; };'
    before = host.rules()
    assert host.run(refusals) == ""
    assert host.run(forbidden + refusals).startswith("this host does not take the rules of the redirection (iptables-")
    assert host.rules() == before
