"""Creates a container as a machine: systemd, sshd, a fixed address, a pinned host key.

A container of the same identity (`Payload.identity`) that has run is kept: its disk is a machine's.
It is started where it is stopped, and takes the login key that is declared now. Any other container
of that name, which a killed run left behind, is recreated.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import zlib
from dataclasses import dataclass
from ipaddress import IPv4Address
from time import time

from ....local import scripting
from ..names import IDENTITY_LABEL
from .owner import require_owner

UNITS = "etc/systemd/system"
HOST_KEY = "etc/ssh/ssh_host_ed25519_key"
CPU_SHARES = "256"
"""A quarter of the node's, so that machines which join at once leave the cluster able to answer."""
_IN_USE = "ddress already in use"


@dataclass(frozen=True)
class Payload:
    """A container.

    name: its name in Docker.
    hostname: the machine's name in the stack.
    image: its image.
    network: the Docker network that its address is from.
    second_network: a further network to attach it to, or None.
    first, last: the addresses to choose from.
    label: `key=value`, for what belongs to a stack.
    public_key: the key that may log in, in a line of authorized_keys.
    routes: `CIDR via ADDRESS`, as `ip route replace` takes them.
    user: the login name.
    """

    name: str
    hostname: str
    image: str
    network: str
    second_network: str | None
    first: str
    last: str
    label: str
    public_key: str
    routes: tuple[str, ...]
    user: str

    @property
    def identity(self) -> str:
        """A digest of what Docker fixes at creation; the command's triggers hold the same fields."""
        fixed = [self.image, self.network, self.second_network or "", *self.routes]
        return hashlib.sha256("\n".join(fixed).encode()).hexdigest()


@dataclass(frozen=True)
class Result:
    """The machine.

    id: the container's ID.
    address: its address in `network`.
    host_key: type and key of its SSH server, in base64.
    """

    id: str
    address: str
    host_key: str


def run(payload: Payload) -> Result:
    """Create the container.

    Raises scripting.Failed where Docker cannot, where no address is free, and where a container of
    its name is not of this stack.
    """
    present = _present(payload)
    if present:
        require_owner(f"container {payload.name}", payload.label, present.stack)
    if present and present.has_run and present.identity == payload.identity:
        _copy(payload, _archive(*_login_files(payload)))
        if present.state == "exited":
            scripting.check(["docker", "start", payload.name], f"machine {payload.hostname}: Docker cannot start its container")
        return _describe(payload)
    if present:
        _remove(payload.name)
    return _start(payload)


_INCOMPLETE = ("created", "dead", "removing")
"""States of a container that lacks something. It is complete before its first start."""


@dataclass(frozen=True)
class _Present:
    """A container that has the machine's name.

    state: Docker's. identity, stack: those of its labels; "" without one.
    """

    state: str
    identity: str
    stack: str

    @property
    def has_run(self) -> bool:
        """Whether it has been a machine."""
        return self.state not in _INCOMPLETE


def _present(payload: Payload) -> _Present | None:
    labels = (IDENTITY_LABEL, payload.label.partition("=")[0])
    template = "\n".join(["{{.State.Status}}", *(f'{{{{index .Config.Labels "{label}"}}}}' for label in labels)])
    inspected = scripting.call(["docker", "container", "inspect", "--format", template, payload.name])
    if inspected.status:
        return None
    state, identity, stack = (*inspected.text.split("\n"), "", "")[:3]
    return _Present(state, identity, stack)


def _remove(name: str) -> None:
    scripting.call(["docker", "rm", "--force", "--volumes", name])


def _describe(payload: Payload) -> Result:
    network = f'(index .NetworkSettings.Networks "{payload.network}")'
    template = f"{{{{.Id}}}} {{{{{network}.IPAddress}}}}"
    inspect = ["docker", "container", "inspect", "--format", template, payload.name]
    identity = scripting.check(inspect, f"the container {payload.name} does not run").text
    container_id, _, address = identity.partition(" ")
    return Result(container_id, address, _key(_read_file(payload.name, f"/{HOST_KEY}.pub")))


def _key(public: str) -> str:
    """Return the type and the key of a public key's file, without its comment."""
    return " ".join(public.split()[:2])


def _read_file(container: str, path: str) -> str:
    copy = ["docker", "cp", f"{container}:{path}", "-"]
    done = scripting.check(copy, f"Docker cannot read {path} of {container}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        contents = [archive.extractfile(entry) for entry in archive]
        return "".join(content.read().decode() for content in contents if content)


_Member = tuple[tarfile.TarInfo, bytes]


def _host_files(payload: Payload) -> tuple[_Member, ...]:
    """Return the machine's host key, the public one first, and its unit for routes."""
    with scripting.private_directory() as directory:
        key = directory / "key"
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", payload.name]
        scripting.check([*words, "-f", str(key)], "ssh-keygen could not create a host key")
        private, public = key.read_text(), key.with_suffix(".pub").read_text()
    return (
        _file(f"{HOST_KEY}.pub", public, 0o644),
        _file(HOST_KEY, private, 0o600),
        _file(f"{UNITS}/routes.service", _routes_unit(payload.routes), 0o644),
        _directory(f"{UNITS}/multi-user.target.wants", 0o755),
        _link(f"{UNITS}/multi-user.target.wants/routes.service", f"/{UNITS}/routes.service"),
    )


def _routes_unit(routes: tuple[str, ...]) -> str:
    """Return the unit that sets the routes, as a cloud's router would: pods are behind the node."""
    commands = [f"ExecStart=/sbin/ip route replace {route}" for route in routes if route]
    return "\n".join(
        [
            "[Unit]",
            "Description=Routes of the network",
            "Before=network-online.target ssh.service",
            "Wants=network-online.target",
            "[Service]",
            "Type=oneshot",
            "RemainAfterExit=yes",
            *commands,
            "ExecStart=/bin/true",
            "[Install]",
            "WantedBy=multi-user.target",
            "",
        ]
    )


def _file(path: str, text: str, mode: int, owner: int = 0) -> _Member:
    entry, content = tarfile.TarInfo(path), text.encode()
    entry.size, entry.mode, entry.uid, entry.gid = len(content), mode, owner, owner
    return entry, content


def _link(path: str, target: str) -> _Member:
    entry = tarfile.TarInfo(path)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    return entry, b""


def _directory(path: str, mode: int, owner: int = 0) -> _Member:
    entry = tarfile.TarInfo(path)
    entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, mode, owner, owner
    return entry, b""


def _archive(*members: _Member) -> bytes:
    """Return a tar for the machine's root."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for entry, content in members:
            entry.mtime = int(time())
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def _start(payload: Payload) -> Result:
    """Create and start the container at a free address.

    Several machines may be created in parallel. Each begins with an address that follows from its
    name, and skips addresses that are in use.
    """
    host_files = _host_files(payload)
    first, last = int(IPv4Address(payload.first)), int(IPv4Address(payload.last))
    count = last - first + 1
    offset = zlib.crc32(payload.name.encode()) % count
    for attempt in range(count):
        address = str(IPv4Address(first + (offset + attempt) % count))
        if address in _addresses_in_use(payload.network):
            continue
        container_id = _create(payload, address, host_files)
        started = scripting.call(["docker", "start", payload.name])
        if started.status == 0:
            return Result(container_id, address, _key(host_files[0][1].decode()))
        _remove(payload.name)
        if _IN_USE not in started.error:
            problem = f"Docker cannot start it: {started.error}"
            raise scripting.Failed(f"machine {payload.hostname}: {problem}")
    place = f"{payload.first} to {payload.last} in the Docker network {payload.network}"
    raise scripting.Failed(f"machine {payload.hostname}: no address is free from {place}")


def _addresses_in_use(network: str) -> set[str]:
    template = "{{range .Containers}}{{.IPv4Address}} {{end}}"
    inspect = ["docker", "network", "inspect", "--format", template, network]
    done = scripting.check(inspect, f"Docker has no network {network}")
    return {cidr.partition("/")[0] for cidr in done.text.split()}


def _create(payload: Payload, address: str, host_files: tuple[_Member, ...]) -> str:
    """Create the container, and return its ID."""
    name, failure = payload.name, _failure(payload)
    create = ["docker", "create", "--name", name, "--hostname", payload.hostname]
    create += ["--label", payload.label, "--label", f"{IDENTITY_LABEL}={payload.identity}", "--privileged"]
    create += ["--cpu-shares", CPU_SHARES]
    create += ["--network", payload.network, "--ip", address]
    create += ["--add-host", "host.docker.internal:host-gateway", "--stop-signal", "SIGRTMIN+3"]
    create += ["--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp"]
    container_id = scripting.check([*create, payload.image, "/sbin/init"], failure).text
    if payload.second_network:
        scripting.check(["docker", "network", "connect", payload.second_network, name], failure)
    _copy(payload, _archive(*host_files, *_login_files(payload)))
    return container_id


def _copy(payload: Payload, files: bytes) -> None:
    """Unpack a tar at the root of the machine."""
    scripting.check(["docker", "cp", "-", f"{payload.name}:/"], _failure(payload), stdin=files)


def _failure(payload: Payload) -> str:
    return f"machine {payload.hostname}: Docker cannot create it"


def _login_files(payload: Payload) -> tuple[_Member, ...]:
    """Return the authorized key in the user's home."""
    accounts = [line.split(":") for line in _read_file(payload.name, "/etc/passwd").splitlines()]
    owner = next((int(fields[2]) for fields in accounts if fields[0] == payload.user), None)
    if owner is None:
        problem = f"its image {payload.image} has no user {payload.user}"
        raise scripting.Failed(f"machine {payload.hostname}: {problem}")
    home = f"home/{payload.user}/.ssh"
    return (
        _directory(home, 0o700, owner),
        _file(f"{home}/authorized_keys", f"{payload.public_key}\n", 0o600, owner),
    )
