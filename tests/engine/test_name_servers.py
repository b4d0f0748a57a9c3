"""Who is asked for names on a host, and by whom: resolvers of the host itself, and name servers that change."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest

from tests.support.host import ADDRESS, AGENT_UID, NEIGHBOUR, SCRIPTS, Host, enter, running, started_host
from tests.support.scripts import add_program

RESOLVED, RESOLVER_UID = "127.0.0.53", 101
# Answers each query by its name, and by the answer of the server that it asks itself.
RESOLVER = """
import encodings.idna, os, socket, sys, threading
name, user, address, port, *asked = sys.argv[1:]
if int(port) > 1000:
    os.setuid(int(user))
def place(text, port):
    return socket.getaddrinfo(text, port, type=socket.SOCK_DGRAM)[0]
def answer(query, client):
    text = name
    if asked:
        family, kind, _, _, to = place(asked[0], 53)
        with socket.socket(family, kind) as question:
            question.settimeout(10)
            question.sendto(query, to)
            try:
                text += " " + question.recv(100).decode()
            except OSError:
                return
    sockets.sendto(text.encode(), client)
family, kind, _, _, here = place(address, int(port))
sockets = socket.socket(family, kind)
sockets.bind(here)
listener = socket.create_server(here[:2], family=family)
if int(port) < 1000:
    os.setuid(int(user))
def streams():
    while True:
        connection, _ = listener.accept()
        connection.sendall(name.encode() + b"\\n")
threading.Thread(target=streams, daemon=True).start()
print("ready", flush=True)
while True:
    threading.Thread(target=answer, args=sockets.recvfrom(100), daemon=True).start()
"""
QUESTION = """
import socket, sys
family, kind, _, _, to = socket.getaddrinfo(sys.argv[1], 53, type=socket.SOCK_DGRAM)[0]
with socket.socket(family, kind) as question:
    question.settimeout(20)
    question.sendto(b"a name", to)
    print(question.recv(100).decode())
"""
OTHERS = "mount --bind $STATE/resolv.conf /etc/resolv.conf; "


@pytest.fixture(scope="module")
def _started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with started_host(tmp_path_factory.mktemp("host"), "nft", families=(4, 6)) as host, resolver(host.neighbour, "neighbour", 0, "::", 53):
        yield host


@pytest.fixture
def host(_started: Host) -> Iterator[Host]:
    yield replace(_started, environment=dict(_started.environment))
    _started.run("locked turn_off")


@contextmanager
def resolver(namespace: int, *words: object) -> Iterator[None]:
    """Run a resolver: its name, its user, its address and port, and whom it asks."""
    with running([*enter(namespace), sys.executable, "-c", RESOLVER, *map(str, words)]) as started:
        assert started.stdout and started.stdout.readline() == "ready\n"
        yield


def redirect(host: Host, *servers: str) -> None:
    write(host, *servers)
    host.run(f"{OTHERS} locked turn_on; locked turn_dns_on")


def write(host: Host, *servers: str) -> None:
    (host.root / "resolv.conf").write_text("options edns0 trust-ad use-vc\n" + "".join(f"nameserver {server}\n" for server in servers))


def changes(host: Host) -> str:
    """Return what a join reports of the host's name servers."""
    places = "NSSWITCH=$STATE/nsswitch.conf RESOLVED=$STATE/resolved"
    return host.run(f"{OTHERS} source {SCRIPTS}/redirect_host.sh; {places}; servers_changes")


def path_of_a_query(host: Host, server: str) -> str:
    """Return who answers a program of the host that asks a server, with those that were asked in between."""
    command = [*enter(host.namespace), sys.executable, "-c", QUESTION, server]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("local", [RESOLVED, ADDRESS[4], ADDRESS[6]])
def test_a_resolver_of_the_host_does_not_get_its_own_queries_back(host: Host, local: str) -> None:
    """Beside it /etc/resolv.conf has the server that it asks: agent, resolver, agent, and so on."""
    with ExitStack() as stack:
        stack.enter_context(resolver(host.namespace, "resolver", RESOLVER_UID, local, 53, NEIGHBOUR[4]))
        stack.enter_context(resolver(host.namespace, "agent", AGENT_UID, "::1" if ":" in local else "127.0.0.1", 15053, local))
        redirect(host, local, NEIGHBOUR[4])
        assert path_of_a_query(host, local) == "agent resolver neighbour"
        assert path_of_a_query(host, NEIGHBOUR[4]) == "neighbour"
        assert host.connect(53, local) == "agent", "over TCP, too"


@pytest.mark.parametrize("server", [NEIGHBOUR[4], NEIGHBOUR[6], "0.0.0.0"])
def test_queries_to_a_server_go_to_the_agent(host: Host, server: str) -> None:
    with ExitStack() as stack:
        if server == "0.0.0.0":
            stack.enter_context(resolver(host.namespace, "neighbour", RESOLVER_UID, "127.0.0.1", 53))
        stack.enter_context(resolver(host.namespace, "agent", AGENT_UID, "::1" if ":" in server else "127.0.0.1", 15053, server))
        redirect(host, server)
        assert path_of_a_query(host, server) == "agent neighbour"


def test_a_link_local_server_answers_without_the_agent(host: Host) -> None:
    """A router that announces itself: what is sent to it cannot be redirected to ::1."""
    shown = host.enter_neighbour("ip -o -6 address show dev eth0 scope link").split()[3]
    server = f"{shown.split('/')[0]}%eth0"
    for others in ((), (NEIGHBOUR[4],)):
        redirect(host, server, *others)
        assert path_of_a_query(host, server) == "neighbour"
        assert f"by the name servers {' '.join(others) or 'none'} alone, not by {server}:" in changes(host)
        host.run("locked turn_off")


def test_the_agent_starts_again_once_the_host_has_other_servers_for_a_while(host: Host) -> None:
    add_program(host.root / "bin", "systemctl", '[ "$1" != try-restart ] || echo "$*"')
    rounds = f"{OTHERS} SERVERS_AFTER=3 SERVERS_SPREAD=1; renew_agent; renew_agent;"
    changed = "the name servers in /etc/resolv.conf are others than those that the agent asks\n"
    restarted = "this host has other name servers in /etc/resolv.conf: the agent starts again\ntry-restart --no-block istio-vm-mesh\n"
    redirect(host, NEIGHBOUR[4])
    assert host.run(f"{rounds} renew_agent; check") == ""
    write(host, "10.9.0.3")
    assert host.run(f"{rounds} check") == changed
    assert host.run(f"{rounds} renew_agent; renew_agent; renew_agent; renew_agent") == restarted, "once"
    write(host)
    assert host.run(f"{rounds} renew_agent; check") == "", "a network manager that starts has none for a moment"
    write(host, "10.9.0.3")
    assert host.run(f"{OTHERS} locked turn_off; locked turn_on; locked turn_dns_on; check") == ""
    assert "-d 10.9.0.3/32 -p tcp -m tcp --dport 53 -j REDIRECT" in "".join(host.rules())


def test_names_that_the_agent_cannot_resolve_are_refused(host: Host) -> None:
    refusals = f"{OTHERS} source {SCRIPTS}/redirect_host.sh; server_refusals"
    file = host.root / "resolv.conf"
    write(host, NEIGHBOUR[6])
    file.chmod(0o644)
    assert host.run(refusals) == ""
    file.chmod(0o600)
    assert host.run(refusals).startswith("the agent, which does not run as root, cannot read /etc/resolv.conf")
    file.chmod(0o644)
    write(host)
    assert host.run(refusals).startswith("/etc/resolv.conf has no name server: ")
    write(host, NEIGHBOUR[6])
    host.run("ip address delete ::1/128 dev lo")
    try:
        assert "this machine has no ::1, where the agent would listen" in host.run(refusals)
        write(host, NEIGHBOUR[4])
        assert host.run(refusals) == ""
    finally:
        host.run("ip address add ::1/128 dev lo")


def test_a_host_without_mount_namespaces_is_refused_where_servers_are_left_out(host: Host) -> None:
    """Before the join changes anything: there `istio-iptables` would fail, and the agent would not start."""
    refusals = f"{OTHERS} source {SCRIPTS}/redirect_host.sh; server_refusals"
    forbidden = 'unshare() { setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin unshare "$@"; };'
    write(host, RESOLVED, NEIGHBOUR[4])
    (host.root / "resolv.conf").chmod(0o644)
    assert host.run(refusals) == ""
    (line,) = host.run(forbidden + refusals).splitlines()
    assert "(unshare: unshare failed: Operation not permitted): permit it" in line
    assert line.endswith(f"or let the file have {RESOLVED} alone")
    write(host, RESOLVED)
    assert host.run(forbidden + refusals) == "", "nothing has to be left out"


def test_names_that_do_not_come_to_the_agent_are_in_the_list_of_a_join(host: Host) -> None:
    write(host, RESOLVED, NEIGHBOUR[4])
    (host.root / "nsswitch.conf").write_text("passwd: files\nhosts: files resolve [!UNAVAIL=return] dns\n")
    (line,) = changes(host).splitlines()
    assert line.startswith(f"names of the mesh resolve by the name servers {RESOLVED} alone, not by {NEIGHBOUR[4]}:")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(host.root / "resolved"))
        (_, line) = changes(host).splitlines()
    assert "names of the mesh do not resolve for them: take 'resolve' out of the line 'hosts'" in line
    (host.root / "nsswitch.conf").write_text("hosts: files dns # resolved\n")
    assert changes(host).count("\n") == 1
