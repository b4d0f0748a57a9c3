"""What a machine is joined with, as a record, and the scripts that join it and take it out.

Both the program and the scripts beside Pulumi import this module. A record holds what the stack
decides: it is a plain input of the join, without a secret. The scripts, the units and their text
are read from this package when a script is put together, so they are in no input.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..manifest import Manifest
from ..names import DISCONNECT_GRACE, MAX_DISCONNECT_GRACE, XDS_PORT
from ..shell import assignments, read_script, remote_script
from .proxy_metadata import DRAIN_S, MAX_DRAIN_S, complete, drain_s, shortened

PROGRAMS = "/opt/istio-vm-mesh"
"""The directory of Istio's programs and of the scripts that the units run."""
STATE = "/var/lib/istio-vm-mesh"
"""The agent's working directory: configuration, certificates, token, and what the join remembers."""
CERTIFICATES = f"{STATE}/etc/certs"
ROOT_CERTIFICATE = f"{CERTIFICATES}/root-cert.pem"
UNITS = "/etc/systemd/system"
UNIT = "istio-vm-mesh.service"

DEADLINE_S = 540
"""Seconds that a join may take on the machine, its roll-back included, without its questions."""
SLOWER_STOP_S = MAX_DISCONNECT_GRACE - DISCONNECT_GRACE + MAX_DRAIN_S - DRAIN_S
"""Seconds by which the stop of an agent takes longer at most, in meshes where agents stop slowly."""
CONFIRMED = "confirmed"
"""The last line of `confirm_script`."""
CONFIRM_S = 60
"""Seconds in which a second SSH connection must confirm a join, by default."""
WAIT_LIMIT_S = 4 * 3600
"""Seconds that a machine waits for the answer to a question: a join's wait for a slot."""

_PACKAGE = Path(__file__).parent
_ON_EVERY_MACHINE = (f"{UNIT}.d/sidecar.conf", "istio-vm-mesh-redirect*", "istio-vm-mesh-undo*")


@dataclass(frozen=True)
class MachineFile:
    """A file on a machine.

    path: absolute.
    text: the complete content.
    mode: permission bits.
    owner: the user and the group, "root" or "istio-proxy".
    """

    path: str
    text: str
    mode: int = 0o644
    owner: str = "root"


@dataclass(frozen=True)
class Owner:
    """Who joined a machine: the content of its stamp.

    project, stack: Pulumi's.
    machine: the machine's name in the stack.
    registration: the identifier of its registration; "" in an instance group.
    namespace, workload: the workload that it runs.
    """

    project: str
    stack: str
    machine: str
    registration: str
    namespace: str
    workload: str


@dataclass(frozen=True)
class Exclusions:
    """What the settings have bypass the proxy of a machine: its workload's and its own.

    inbound_ports: TCP ports on which connections from outside are not redirected.
    outbound_ports, outbound_cidrs: where the machine's own connections are not redirected to.
    interfaces: network interfaces whose connections are not redirected.
    """

    inbound_ports: tuple[int, ...] = ()
    outbound_ports: tuple[int, ...] = ()
    outbound_cidrs: tuple[str, ...] = ()
    interfaces: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bundle:
    """All that a machine's join depends on, but its token.

    owner: who joins it.
    proxy: the machine's ProxyConfig.
    address: the address by which pods reach the machine.
    gateway, gateway_port: the east-west gateway's address or DNS name, and its port for machines.
    package_url: where the machine gets Istio's package; `{package}` is open until it joins.
    registered: what istiod copies at registration, and never again.
    files: the files that the settings decide; scripts and units come with the role. A join's
        payload leaves them out, because they follow from the rest (`files.configuration_files`).
    role: "sidecar" or "router".
    package_sha256: the package's SHA-256; "" reads it from `<package_url>.sha256`.
    exclusions: what bypasses the proxy of a sidecar; None: the default alone.
    fail_closed: whether captured ports are closed while nothing redirects them.
    firewall: "manage" where firewalls of the machine are opened, else "report".
    grace_s: seconds from the agent's last connection until istiod removes the WorkloadEntry.
    locality: where the machine is, as `region/zone`; "" where none is stated.
    confirm_s: seconds in which a second SSH connection must confirm that SSH still reaches the machine;
        0: it is not confirmed. Nothing on the machine depends on it.
    """

    owner: Owner = field(metadata={"record": Owner})
    proxy: Manifest = field(metadata={"pack": shortened, "unpack": complete})
    address: str
    gateway: str
    package_url: str
    registered: str
    files: tuple[MachineFile, ...] = field(default=(), metadata={"record": MachineFile})
    role: str = "sidecar"
    package_sha256: str = ""
    fail_closed: bool = False
    exclusions: Exclusions | None = field(default=None, metadata={"record": Exclusions})
    firewall: str = "report"
    grace_s: int = DISCONNECT_GRACE
    gateway_port: int = XDS_PORT
    locality: str = ""
    confirm_s: int = CONFIRM_S


def stored(bundle: Bundle) -> Bundle:
    """Return what a join's payload holds of a bundle: no files, and a digest of what is only compared.

    A state holds every input twice.
    """
    return replace(bundle, files=(), registered=_short_digest(bundle.registered))


def with_root_certificate(bundle: Bundle, text: str) -> Bundle:
    """Return a bundle with one more file, the mesh's trust anchor.

    text: in PEM.
    """
    root = MachineFile(ROOT_CERTIFICATE, text, owner="istio-proxy")
    return replace(bundle, files=(*bundle.files, root))


def unit(name: str) -> MachineFile:
    """Return one of this package's systemd files.

    name: its path below `units/`, the same as below /etc/systemd/system.
    """
    return MachineFile(f"{UNITS}/{name}", (_PACKAGE / "units" / name).read_text())


def role_files(role: str) -> list[MachineFile]:
    """Return the units of a role and the scripts that they run.

    role: "sidecar" or "router". A router redirects no traffic, so no join of it needs to be
    confirmed. It does not withdraw, because its endpoints are not those of its entry.
    """
    names, undo = [UNIT], []
    if role == "sidecar":
        units = _PACKAGE / "units"
        files = [path for pattern in _ON_EVERY_MACHINE for path in sorted(units.glob(pattern))]
        names += [path.relative_to(units).as_posix() for path in files]
        text = remote_script("machines/installation", {}) + read_script("machines/undo")
        undo = [MachineFile(f"{PROGRAMS}/scripts/undo.sh", text)]
    scripts = sorted(path.stem for path in (_PACKAGE / "scripts").glob("redirect*.sh"))
    return [
        *(MachineFile(f"{PROGRAMS}/scripts/{name}.sh", read_script(f"machines/{name}")) for name in [*scripts, "withdraw"]),
        *undo,
        *(unit(name) for name in names),
    ]


def archive(files: Sequence[MachineFile]) -> bytes:
    """Return files as a tar.

    The bytes depend on the files alone: no times, no order, no compression, which differs between
    versions of zlib. Owners are names, which the machine resolves.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for file in sorted(files, key=lambda file: file.path):
            content = file.text.encode()
            entry = tarfile.TarInfo(file.path.removeprefix("/"))
            entry.size, entry.mode = len(content), file.mode
            entry.uname = entry.gname = file.owner
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def join_variables(bundle: Bundle, more_files: Sequence[MachineFile] = ()) -> dict[str, str]:
    """Return the variables of `join.sh` but MACHINE and TOKEN.

    more_files: files that the machine gets beside its own.

    DIGEST is what a machine is compared by: all that its agent must be restarted for. The token is
    not in it, since the agent reads a new token when it needs one.
    """
    files = archive([*bundle.files, *role_files(bundle.role), *more_files])
    described = json.dumps([bundle.registered, bundle.owner.registration, bundle.locality])
    package = [bundle.package_url, bundle.package_sha256]
    compared = json.dumps([hashlib.sha256(files).hexdigest(), *package, described])
    return {
        "PROJECT": bundle.owner.project,
        "STACK": bundle.owner.stack,
        "REGISTRATION": bundle.owner.registration,
        "NAMESPACE": bundle.owner.namespace,
        "WORKLOAD": bundle.owner.workload,
        "JOINED_ADDRESS": bundle.address,
        "GATEWAY": bundle.gateway,
        "GATEWAY_PORT": str(bundle.gateway_port),
        "ROLE": bundle.role,
        "FILES": base64.b64encode(files).decode(),
        "PACKAGE_URL": bundle.package_url,
        "PACKAGE_SHA256": bundle.package_sha256,
        "PACKAGE_CREDENTIALS": "",
        "FAIL_CLOSED": "1" if bundle.fail_closed else "",
        "GRACE_S": str(bundle.grace_s),
        "DEADLINE_S": str(DEADLINE_S),
        "REGISTERED": _short_digest(described),
        "DIGEST": _short_digest(compared),
        "KEPT_OUT": "",
        "NO_ENTRY": "",
        "OTHER_ENTRY": "",
        "ASK": "",
        "CONFIRM_S": "",
    }


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def slower_s(bundle: Bundle) -> int:
    """Return the seconds that a join needs beside `DEADLINE_S`: in some meshes agents stop more slowly.

    It may stop two agents, the new one too, and wait until istiod has removed the entry. The agent
    that is there may have earlier settings, which only the machine has. So its stop counts as the slowest.
    """
    more_grace_s = bundle.grace_s - DISCONNECT_GRACE
    return SLOWER_STOP_S + max(0, 2 * more_grace_s + drain_s(bundle.proxy) - DRAIN_S)


def digest(bundle: Bundle) -> str:
    """Return the last line of a successful join's output; an output that ends otherwise failed."""
    return join_variables(bundle)["DIGEST"]


class Standing(enum.Enum):
    """What the cluster has under the name of a machine's entry; the variable of `join.sh` for it."""

    KEPT_OUT = "an entry of this program, which keeps the machine out of the mesh (`entries`)"
    NO_ENTRY = "nothing"
    OTHER_ENTRY = "an entry of no or another registration"
    REGISTERED = "the machine's entry"


def join_script(bundle: Bundle, token: str, credentials: str = "", standing: Standing = Standing.REGISTERED) -> str:
    """Return the script that joins a machine, as root on standard input; it holds the token.

    token: a token of the workload's service account.
    credentials: `USER:PASSWORD` for the package's server; "" for none.
    standing: with `KEPT_OUT`, the script requests `start` before the new agent starts, and the entry
        must be deleted then.

    A sidecar's requests `confirm` where only a second connection may confirm it (`confirm_script`).
    It needs answers on standard input after its text (`ask` in lib.sh), and it keeps
    to `DEADLINE_S`. The decisions are in docs/machines.md.
    """
    variables = {
        "MACHINE": bundle.owner.machine,
        "TOKEN": token,
        **join_variables(bundle),
        "PACKAGE_CREDENTIALS": credentials,
        **({} if standing is Standing.REGISTERED else {standing.name: "1"}),
        "ASK": str(WAIT_LIMIT_S),
        "CONFIRM_S": str(bundle.confirm_s or "") if bundle.role == "sidecar" else "",
    }
    return assignments(variables) + read_script("machines/lib") + join_text()


def join_text() -> str:
    """Return the text of a join, which follows its variables and lib.sh."""
    names = ("installation", "confirmation", "join")
    return "".join(read_script(f"machines/{name}") for name in names)


def confirm_script(machine: str, nonce: str) -> str:
    """Return the script by which a second connection confirms a join, as root on standard input.

    machine: its name. nonce: a word of the join's question.

    Its last line is `CONFIRMED`. It fails where no join waits for it, or not any more.
    """
    variables = {"MACHINE": machine, "NONCE": nonce}
    return remote_script("machines/installation", variables) + read_script("machines/confirm")


def leave_script(owner: Owner) -> str:
    """Return the script by which a machine leaves the mesh, as root on standard input.

    Its last line is `left`, `not-joined`, or `not-ours <project>/<stack> <machine>`. It changes
    nothing on a machine whose stamp is not that of `owner`, and requests `leave` before it changes
    anything.
    """
    variables = {
        "MACHINE": owner.machine,
        "PROJECT": owner.project,
        "STACK": owner.stack,
        "REGISTRATION": owner.registration,
        "ASK": str(WAIT_LIMIT_S),
    }
    return remote_script("machines/installation", variables) + read_script("machines/leave")
