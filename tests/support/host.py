"""A host for tests: a network namespace with real rules of iptables and nftables, and a neighbour on its network."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from components.names import AGENT_PORT, INBOUND_PORT, METRICS_PORT, STATUS_PORT
from tests.support.control_plane import program
from tests.support.scripts import COMPONENTS, add_program
from tests.support.waiting import wait_until

SCRIPTS = COMPONENTS / "machines" / "scripts"
AGENT_UID = 1337  # Istio's default, where there is no user istio-proxy
ADDRESS, NEIGHBOUR = {4: "10.9.0.1", 6: "fd00:9::1"}, {4: "10.9.0.2", 6: "fd00:9::2"}
BRIDGE, CONTAINER = "172.17.0.1", "172.17.0.2"
PORTS = {8080: "application", INBOUND_PORT: "agent", STATUS_PORT: "health", 22: "ssh", 2222: "ssh on another port"}
ENVIRONMENT = {
    "ISTIO_SERVICE_CIDR": "*",
    "ISTIO_INBOUND_PORTS": "*",
    "ISTIO_LOCAL_EXCLUDE_PORTS": f"22,{METRICS_PORT},{STATUS_PORT},{AGENT_PORT}",
    "ISTIO_META_DNS_CAPTURE": "true",
}
# Each connection gets the name of its port, and every line that it sends. Port 8080 returns datagrams.
SERVER = f"""
import socket, sys, threading
ports = dict(word.split("=") for word in sys.argv[1:]) or {PORTS!r}
def serve(listener, name):
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=(connection, name), daemon=True).start()
def answer(connection, name):
    connection.sendall(name.encode() + b"\\n")
    while data := connection.recv(100):
        connection.sendall(data)
for port, name in ports.items():
    listener = socket.create_server(("::", int(port)), family=socket.AF_INET6, dualstack_ipv6=True)
    threading.Thread(target=serve, args=(listener, name)).start()
datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
datagrams.bind(("::", 8080))
print("ready", flush=True)
while True:
    datagrams.sendto(*datagrams.recvfrom(100))
"""

# Connects as a user, from an address, and prints the first line of the answer.
CLIENT = """
import os, socket, sys
address, port, source, user = sys.argv[1:]
family, kind, _, _, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
os.setuid(int(user))
with socket.socket(family, kind) as connection:
    connection.settimeout(20)
    if source:
        connection.bind((source, 0))
    connection.connect(place)
    print(connection.recv(100).decode().splitlines()[0])
"""
# docker-proxy: it runs as root, and connects to the container from the host.
PROXY = """
import socket, sys, threading
def pass_on(connection):
    with connection, socket.create_connection((sys.argv[2], 80), 5) as container:
        while data := container.recv(100):
            connection.sendall(data)
listener = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
while True:
    threading.Thread(target=pass_on, args=(listener.accept()[0],), daemon=True).start()
"""


@dataclass(frozen=True, kw_only=True)
class Host:
    """A host with an application, an agent and SSH, each a program that answers with its name.

    namespace, neighbour: processes in the two network namespaces.
    root: its files.
    environment: the agent's.
    """

    namespace: int
    neighbour: int
    root: Path
    environment: dict[str, str] = field(default_factory=lambda: dict(ENVIRONMENT))

    def command(self, text: str) -> Sequence[str]:
        """Return the command that runs bash with the functions of both scripts, in the host's network and with mounts of its own."""
        lines = [f"source {shlex.quote(str(SCRIPTS / name))}" for name in ("redirect.sh", "redirect_firewall.sh", "redirect_guard.sh")]
        variables = {
            "SCRIPT": SCRIPTS / "redirect.sh",
            "AGENT": self.root / "bin" / "pilot-agent",
            "STATE": self.root,
            "RULES": self.root / "rules",
            "LOCK": self.root / "lock",
            "PROBE": self.root / "probe",
            "OPENED": self.root / "firewalld",
            "SSH_CONFIGURATION": self.root / "ssh",
            "INTERVAL_S": 0.2,
        }
        lines += [f"{name}={shlex.quote(str(value))}" for name, value in variables.items()]
        return [*enter(self.namespace), "unshare", "--mount", "bash", "-c", "\n".join([*lines, text])]

    def variables(self) -> Mapping[str, str]:
        return {"PATH": f"{self.root / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", **self.environment}

    def run(self, text: str) -> str:
        """Run functions of the scripts, or any program, and return what they print; they must succeed."""
        done = subprocess.run(self.command(text), env=dict(self.variables()), capture_output=True, text=True)
        assert done.returncode == 0, (text, done.stdout, done.stderr)
        return done.stdout

    def enter_neighbour(self, command: str) -> str:
        """Run a command in the neighbour's network, and return what it prints."""
        return subprocess.run([*enter(self.neighbour), *command.split()], check=True, capture_output=True, text=True).stdout

    def connect(self, port: int, address: str = ADDRESS[4], source: str = "", user: int = 0) -> str:
        """Return what a program of the host itself reaches at one of its addresses; "" if refused."""
        command = [*enter(self.namespace), sys.executable, "-c", CLIENT, address, str(port), source, str(user)]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    @contextmanager
    def container(self, bridge: str = "docker0") -> Iterator[Container]:
        """Yield a container behind a bridge of the host, which answers at port 80 with its name.

        The host forwards, as hosts of containers do. Everything is gone afterwards but its rules.
        """
        with ExitStack() as stack:
            process = stack.enter_context(running(["unshare", "--net", "sleep", "infinity"]))
            wait_until(lambda: _separate(process.pid))
            stack.callback(self.run, f"ip link delete {bridge}; ip link delete veth-{bridge} 2>/dev/null || true")
            self.run(
                f"sysctl -qw net.ipv4.ip_forward=1; ip link add {bridge} type bridge; ip address add {BRIDGE}/24 dev {bridge};"
                f"ip link add veth-{bridge} type veth peer name eth0 netns {process.pid};"
                f"ip link set veth-{bridge} master {bridge}; ip link set {bridge} up; ip link set veth-{bridge} up"
            )
            for command in (
                "link set lo up",
                "link set eth0 up",
                f"address add {CONTAINER}/24 dev eth0",
                f"route add default via {BRIDGE}",
            ):
                subprocess.run([*enter(process.pid), "ip", *command.split()], check=True)
            server = stack.enter_context(running([*enter(process.pid), sys.executable, "-c", SERVER, "80=container"]))
            assert server.stdout and server.stdout.readline() == "ready\n"
            yield Container(process.pid)

    @contextmanager
    def published(self, port: int) -> Iterator[None]:
        """Pass connections to a port of the host on to the container, as docker-proxy does."""
        with running([*enter(self.namespace), sys.executable, "-c", PROXY, str(port), CONTAINER]) as proxy:
            assert proxy.stdout and proxy.stdout.readline() == "ready\n"
            yield

    def rules(self, before: str = "") -> list[str]:
        """Return the rules of all programs, with their tables. `before` runs first; the guard acts before or after both."""
        read = 'for each in $(programs); do read_rules $each | sed "s/^/$each /"; done'
        return self.run(f"both() {{\n{before}\n{read}\n}}\nlocked both").splitlines()

    def answer(self, port: int = 8080, family: int = 4, seconds: float = 10) -> str:
        """Return what a neighbour's connection reaches; "" if it was refused, or dropped for so long."""
        return answer_of(self.neighbour, ADDRESS[family], port, seconds)

    def returned(self) -> str:
        """Return what port 8080 makes of a neighbour's datagram."""
        text = f"exec 3<>/dev/udp/{ADDRESS[4]}/8080; echo sent >&3; head -n 1 <&3"
        command = [*enter(self.neighbour), "timeout", "20", "bash", "-c", text]
        return subprocess.run(command, capture_output=True, text=True).stdout

    @contextmanager
    def connection(self, port: int = 8080) -> Iterator[subprocess.Popen[str]]:
        """Yield a neighbour's open connection: lines that are written come back after the first."""
        text = f"exec 3<>/dev/tcp/{ADDRESS[4]}/{port}; cat <&3 & cat >&3"
        with running([*enter(self.neighbour), "bash", "-c", text]) as process:
            yield process

    @contextmanager
    def guard(self) -> Iterator[subprocess.Popen[str]]:
        """Run the guard, as its unit does; it has no table before, and none afterwards."""
        try:
            with running(self.command("watch"), dict(self.variables())) as process:
                yield process
        finally:
            wait_until(
                lambda: not self.run("nft list tables | grep istio_vm_mesh || true"),
                description="the kernel removes the table of a guard that ended",
            )


@dataclass(frozen=True)
class Container:
    """A container on a host. namespace: a process in it."""

    namespace: int

    def answer(self, address: str, port: int, seconds: float = 10) -> str:
        """Return what a connection of the container reaches; "" if it was refused, or dropped for so long."""
        return answer_of(self.namespace, address, port, seconds)


def answer_of(namespace: int, address: str, port: int, seconds: float) -> str:
    """Return what a connection from a network namespace reaches."""
    text = f"exec 3<>/dev/tcp/{address}/{port}; head -n 1 <&3"
    command = [*enter(namespace), "timeout", str(seconds), "bash", "-c", text]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def enter(process: int) -> list[str]:
    return ["nsenter", f"--net=/proc/{process}/ns/net", "--"]


@contextmanager
def running(command: Sequence[str], environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, env=environment, text=True, start_new_session=True, **streams) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def started_host(root: Path, backend: str, families: Sequence[int] = (4,)) -> Iterator[Host]:
    """Yield a host without rules, whose agent makes them by one backend of iptables.

    root: a directory for its files.
    backend: "nft" or "legacy".
    families: of its addresses.
    """
    agent = program("pilot-agent")
    log = "--log_output_level=default:error >/dev/null"
    add_program(root / "bin", "pilot-agent", f'exec {agent} "$@" --force-iptables-binary {backend} {log}')
    with ExitStack() as stack:
        processes = [stack.enter_context(running(["unshare", "--net", "sleep", "infinity"])) for _ in range(2)]
        host, neighbour = (process.pid for process in processes)
        wait_until(lambda: _separate(host) and _separate(neighbour))
        _connect(host, neighbour, families)
        for process, words in ((host, []), (neighbour, ["8080=neighbour", "9090=another port of the neighbour"])):
            server = stack.enter_context(running([*enter(process), sys.executable, "-c", SERVER, *words]))
            assert server.stdout and server.stdout.readline() == "ready\n"
        yield Host(namespace=host, neighbour=neighbour, root=root)


def _separate(process: int) -> bool:
    return Path(f"/proc/{process}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()


def _connect(host: int, neighbour: int, families: Sequence[int]) -> None:
    link = ["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", str(neighbour)]
    subprocess.run([*enter(host), *link], check=True)
    for process, addresses in ((host, ADDRESS), (neighbour, NEIGHBOUR)):
        commands = ["link set lo up", "link set eth0 up"]
        commands += [f"address add {addresses[family]}/64 dev eth0 nodad" for family in families if family == 6]
        commands += [f"address add {addresses[family]}/24 dev eth0" for family in families if family == 4]
        for command in commands:
            subprocess.run([*enter(process), "ip", *command.split()], check=True)
